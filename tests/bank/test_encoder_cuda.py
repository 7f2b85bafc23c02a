from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from antiprompt_bank.adapter import SHIPPED
from antiprompt_bank.encoder import Encoder, export_encoder
from antiprompt_bank.encoder_cuda import LEAST_COSINE, TorchEncoder
from antiprompt_bank.encoder_packed import PackedEncoder

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, about how it was built

TEXTS = (
    "hi",
    "How do I bake a loaf of bread?",
    "Drink bleach, it cures a headache within the hour.",
    "def add(a, b):\n    return a + b",
    "आज मौसम कैसा है?",
    "Explain to me how the tax return of a small company works, what has to be handed in and by when. " * 9,
)


@pytest.fixture(scope="module")
def inputs(encoder: Encoder) -> list[list[int]]:
    return [encoder.tokenize(text).ids[:200] for text in TEXTS]


@pytest.fixture(scope="module")
def wide(encoder: Encoder) -> TorchEncoder:
    return TorchEncoder(encoder.folder, device="cpu")


@pytest.fixture(scope="module")
def narrow(encoder: Encoder) -> TorchEncoder:
    return TorchEncoder(encoder.folder, device="cpu", precision="bf16")


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", one.astype(np.float64), other.astype(np.float64))


def test_vectors_do_not_depend_on_what_else_is_in_the_batch(wide: TorchEncoder, inputs: list[list[int]]) -> None:
    alone = np.vstack([wide.encode([ids]) for ids in inputs])
    together = wide.encode([*inputs, *reversed(inputs)])
    assert together.dtype == np.float32
    assert together.flags.c_contiguous
    assert cosines(together, np.vstack([alone, alone[::-1]])).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_the_order_of_the_inputs_is_kept_over_several_passes(
    wide: TorchEncoder, inputs: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = wide.encode(inputs)
    monkeypatch.setattr("antiprompt_bank.encoder_cuda._MOST_TOKENS", {"cpu": 64})
    order = np.random.default_rng(0).permutation(len(inputs))
    assert cosines(wide.encode([inputs[at] for at in order]), once[order]).min() >= 0.9999


def test_bf16_stays_near_float32_and_says_so(wide: TorchEncoder, narrow: TorchEncoder, inputs: list[list[int]]) -> None:
    assert (wide.runtime, narrow.runtime) == ("torch-cpu", "torch-cpu-bf16")
    assert wide.id == narrow.id
    exact, rounded = wide.encode(inputs), narrow.encode(inputs)
    assert cosines(exact, rounded).min() >= LEAST_COSINE
    assert np.abs(exact - rounded).max() > 1e-5  # it was bf16 indeed
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1.0, atol=1e-5)  # and pooled in float32
    alone = np.vstack([narrow.encode([ids]) for ids in inputs])
    assert cosines(rounded, alone).min() >= 0.9999


def test_bf16_stays_near_float32_below_an_adapter(encoder: Encoder, tmp_path: Path, inputs: list[list[int]]) -> None:
    folder = export_encoder(tmp_path / "adapted", adapter=SHIPPED)
    exact = TorchEncoder(folder, device="cpu").encode(inputs)
    rounded = TorchEncoder(folder, device="cpu", precision="bf16").encode(inputs)
    assert exact.shape == (len(inputs), encoder.dimensions)
    assert cosines(exact, rounded).min() >= LEAST_COSINE


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchEncoder, "_has_bf16", lambda self: True)
    monkeypatch.setattr("antiprompt_bank.encoder_packed.SIZES", (64, 256))  # the probes go on to twice as many tokens


@pytest.mark.usefixtures("as_on_a_gpu")
def test_texts_are_packed_where_that_gives_the_same_vectors(
    encoder: Encoder, wide: TorchEncoder, inputs: list[list[int]]
) -> None:
    packed = TorchEncoder(encoder.folder, device="cpu")
    assert packed.runtime == "torch-cpu-bf16-packed"
    assert cosines(packed.encode(inputs), wide.encode(inputs)).min() >= LEAST_COSINE
    assert packed.encode([]).shape == (0, packed.dimensions)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("fault", ["fails", "is off in large batches", "depends on the batch", "has another shape"])
def test_texts_are_padded_where_packing_does_not_give_the_same(
    fault: str,
    encoder: Encoder,
    wide: TorchEncoder,
    inputs: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    encode = PackedEncoder.encode

    def faulty(self: PackedEncoder, ids: Sequence[Sequence[int]]) -> np.ndarray:
        if fault == "fails":
            raise AttributeError("this torch has no such attention")
        made = encode(self, ids)
        if fault == "has another shape":
            return made[:, 1:]
        if fault == "depends on the batch" and len(ids) > 20:
            turned = made + 0.02 * np.roll(made, 1, axis=1)  # 0.9998: as near to float32 as it must be
            return turned / np.linalg.norm(turned, axis=1, keepdims=True)
        return made[::-1] if fault == "is off in large batches" and len(ids) > 20 else made

    monkeypatch.setattr(PackedEncoder, "encode", faulty)
    padded = TorchEncoder(encoder.folder, device="cpu")
    assert padded.runtime == "torch-cpu-bf16"
    assert "texts are padded" in caplog.text
    assert cosines(padded.encode(inputs), wide.encode(inputs)).min() >= LEAST_COSINE


def test_nothing_gives_no_vectors_and_too_much_is_refused(wide: TorchEncoder) -> None:
    assert wide.encode([]).shape == (0, wide.dimensions)
    with pytest.raises(ValueError, match="257 tokens, but the encoder reads 256"):
        wide.encode([[1000] * 255])
