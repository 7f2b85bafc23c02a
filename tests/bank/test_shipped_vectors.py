"""Vectors that ship: taken where they are the encoder's own, made anew where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from antiprompt_bank import Bank
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.errors import BankCorrupt
from antiprompt_bank.shipped_vectors import LEAST_COSINE, VECTORS, Recording, Shipped, key_of

COUNT = 600


class Counting(Recording):
    """Counts the windows that are really encoded, and can be made to give others."""

    def __init__(self, encoder: Encoder, *, turned: bool = False) -> None:
        super().__init__(encoder)
        self.count = 0
        self._turned = turned

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.count += len(ids)
        made = self._encoder.encode(ids)
        return np.roll(made, 1, axis=1) if self._turned else made


@pytest.fixture(scope="module")
def inputs() -> list[list[int]]:
    return [[2000 + at % 70, 3000 + at * 7 % 90, 1000 + at] for at in range(COUNT)]


@pytest.fixture(scope="module")
def file(encoder: Encoder, inputs: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    recording = Recording(encoder)
    recording.encode(inputs[: COUNT - 1])
    made = tmp_path_factory.mktemp("shipped") / "vectors.safetensors"
    assert recording.write(made) == COUNT - 1
    return made


def test_what_ships_is_not_encoded_again_but_for_a_sample(
    encoder: Encoder, inputs: list[list[int]], file: Path
) -> None:
    counting = Counting(encoder)
    shipped = Shipped(counting, file)
    made = shipped.encode(inputs)
    assert len(shipped) == COUNT - 1
    assert 2 <= counting.count < COUNT / 10  # the one that is new, and those that are tried
    exact = encoder.encode(inputs)
    assert (made * exact).sum(axis=1).min() >= LEAST_COSINE
    assert np.abs(made @ exact.T - exact @ exact.T).max() < 0.003
    np.testing.assert_array_equal(made[-1], exact[-1])
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)


def test_where_the_encoder_makes_others_all_are_made_anew(
    encoder: Encoder, inputs: list[list[int]], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Counting(encoder, turned=True)
    made = Shipped(other, file).encode(inputs)
    np.testing.assert_array_equal(made, np.roll(encoder.encode(inputs), 1, axis=1))
    assert "made anew" in caplog.text


def test_another_encoder_knows_none_of_it(encoder: Encoder, inputs: list[list[int]], file: Path) -> None:
    counting = Counting(encoder)
    counting.id = "another"
    shipped = Shipped(counting, file)
    assert len(shipped) == 0
    shipped.encode(inputs)
    assert counting.count == COUNT


def test_without_the_file_all_is_encoded(encoder: Encoder, inputs: list[list[int]], tmp_path: Path) -> None:
    counting = Counting(encoder)
    Shipped(counting, tmp_path / "none").encode(inputs)
    assert counting.count == COUNT


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"no safetensors at all"])
def test_a_file_that_is_damaged_is_told(encoder: Encoder, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "vectors.safetensors"
    file.write_bytes(content)
    if content.startswith(b"\x08"):  # whole, but of no encoder
        assert len(Shipped(encoder, file)) == 0
        return
    with pytest.raises(BankCorrupt, match=r"vectors\.safetensors"):
        Shipped(encoder, file)


def test_the_file_that_ships_belongs_to_the_seed_and_to_the_encoder_that_ship(seed_bank: Bank) -> None:
    shipped = Shipped(seed_bank.encoder)
    assert len(shipped) > 30_000, f"{VECTORS.name} is of another encoder: make seed-vectors"
    some = seed_bank.records[:: len(seed_bank.records) // 200]
    texts = [
        ids
        for record in some
        if 3 < len(ids := seed_bank.encoder.tokenize(record.text).ids) <= 64
        and not record.prompt
        and record.language == "en"
    ]
    counting = Counting(seed_bank.encoder)
    made = Shipped(counting).encode(texts)
    assert counting.count <= len(texts) / 10, "exemplars were changed: make seed-vectors"
    assert (made * seed_bank.encoder.encode(texts)).sum(axis=1).min() >= LEAST_COSINE
    assert key_of(texts[0]) != key_of(texts[1])
