"""The packed encoder on a CPU: everything but the kernels of a GPU. In float32, so that rounding hides no mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from antiprompt_bank.adapter import SHIPPED, Adapter
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.encoder_cuda import LEAST_COSINE, TorchEncoder
from antiprompt_bank.encoder_packed import LONGEST, PackedEncoder, Recorder, packed_encoder, texts_of
from antiprompt_bank.encoder_torch import encoder_head, features, import_torch, model_source, open_model
from antiprompt_bank.model_files import EncoderCard
from antiprompt_bank.padding import Frame

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, about how it was built

BERT = Frame((101,), (102,), 256)
SIZES = (64, 256)
SAME = 1 - 1e-6


class Repeated:
    """Work done again on a buffer of a fixed size, as a CUDA graph does it; remembers how much was in each."""

    def __init__(self, torch: Any, work: Callable[[Any, int, int], Any], tokens: int, stream: Any, pool: Any) -> None:
        assert stream is None
        self.pool = [] if pool is None else pool
        self.tokens = tokens
        self.texts = texts_of(tokens)
        self._held = torch.zeros(tokens + self.texts + 1, dtype=torch.int32)
        self._work = work

    def played(self, held: Any) -> Any:
        assert held.shape == self._held.shape
        self.pool.append(self.tokens)
        self._held.copy_(held)
        return self._work(self._held, self.tokens, LONGEST)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", one.astype(np.float64), other.astype(np.float64))


@pytest.fixture(scope="module")
def module(encoder: Encoder) -> Any:
    import_torch().set_num_threads(1)
    return open_model(model_source(EncoderCard.read(encoder.folder).model), "cpu")


@pytest.fixture(scope="module")
def opened(encoder: Encoder, module: Any) -> Callable[..., PackedEncoder]:
    def make(
        adapter: Any = None, *, of_features: bool = False, recorder: Recorder | None = None, kind: str = "float32"
    ) -> PackedEncoder:
        torch = import_torch()
        return PackedEncoder(
            torch,
            module[0].auto_model,
            adapter,
            BERT,
            features=of_features,
            device="cpu",
            recorder=recorder,
            sizes=SIZES,
            kind=getattr(torch, kind),
        )

    return make


@pytest.fixture(scope="module")
def inputs(encoder: Encoder) -> list[list[int]]:
    texts = (
        "hi",
        "",
        "How do I bake a loaf of bread?",
        "def add(a, b):\n    return a + b",
        "आज मौसम कैसा है?",
        "Explain to me how the tax return of a small company works, what has to be handed in and by when. " * 9,
    )
    return [encoder.tokenize(text).ids[:200] for text in texts]


@pytest.fixture(scope="module")
def exact(encoder: Encoder, inputs: list[list[int]]) -> np.ndarray:
    return TorchEncoder(encoder.folder, device="cpu").encode(inputs)


def test_packed_texts_have_the_vectors_of_padded_ones(
    opened: Callable[..., PackedEncoder], inputs: list[list[int]], exact: np.ndarray
) -> None:
    found = opened().encode(inputs)
    assert found.dtype == np.float32
    assert cosines(found, exact).min() >= SAME
    assert LEAST_COSINE <= cosines(opened(kind="bfloat16").encode(inputs), exact).min() < SAME
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_a_vector_does_not_depend_on_what_is_packed_with_it(
    opened: Callable[..., PackedEncoder], inputs: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = opened()
    alone = np.vstack([packed.encode([ids]) for ids in inputs])
    assert cosines(packed.encode([*inputs, *reversed(inputs)]), np.vstack([alone, alone[::-1]])).min() >= SAME
    monkeypatch.setattr("antiprompt_bank.encoder_packed.MOST_TOKENS", 64)
    assert cosines(packed.encode([*inputs, *inputs]), np.vstack([alone, alone])).min() >= SAME


def test_a_recorded_batch_is_filled_up_with_nothing(
    opened: Callable[..., PackedEncoder], inputs: list[list[int]]
) -> None:
    played: list[int] = []

    def recorder(torch: Any, work: Callable[[Any, int, int], Any], tokens: int, stream: Any, pool: Any) -> Repeated:
        return Repeated(torch, work, tokens, stream, played)

    packed, plain = opened(recorder=recorder), opened()
    assert packed.recorded == SIZES
    short = inputs[:5]
    for some, sizes in ((short[:1], [64]), (short[:4], [64]), (short[:4] * 3, [256]), (inputs, []), (short * 20, [])):
        # What came before leaves nothing behind that a batch of fewer texts could read.
        played.clear()
        assert cosines(packed.encode(some), plain.encode(some)).min() >= SAME
        assert played == sizes


def test_a_size_that_cannot_be_recorded_is_done_without(
    opened: Callable[..., PackedEncoder], inputs: list[list[int]], exact: np.ndarray
) -> None:
    def recorder(torch: Any, work: Callable[[Any, int, int], Any], tokens: int, stream: Any, pool: Any) -> Repeated:
        if tokens == min(SIZES):
            raise RuntimeError("out of memory")
        return Repeated(torch, work, tokens, stream, pool)

    packed = opened(recorder=recorder)
    assert packed.recorded == (max(SIZES),)
    assert cosines(packed.encode(inputs), exact).min() >= SAME


def test_what_an_adapter_reads_and_what_it_makes_of_it(
    opened: Callable[..., PackedEncoder], module: Any, inputs: list[list[int]], encoder: Encoder
) -> None:
    torch = import_torch()
    adapter = Adapter.read(SHIPPED)
    head = encoder_head(EncoderCard.read(encoder.folder), adapter, "cpu")
    read, adapted = opened(of_features=True).encode(inputs), opened(head.adapter).encode(inputs)
    for at, ids in enumerate(inputs):
        feed = {"input_ids": torch.tensor([[101, *ids, 102]])}
        feed["attention_mask"] = torch.ones_like(feed["input_ids"])
        with torch.inference_mode():
            wanted = features(module, feed).numpy()
        assert cosines(read[at : at + 1], wanted)[0] >= 5 * SAME  # five unit vectors in a row
        with torch.inference_mode():
            made = head.adapter["second"](torch.nn.functional.gelu(head.adapter["first"](torch.tensor(wanted))))
        unit = torch.nn.functional.normalize(made, dim=-1).numpy()
        assert cosines(adapted[at : at + 1], unit)[0] >= SAME


def test_too_long_an_input_is_refused(opened: Callable[..., PackedEncoder]) -> None:
    with pytest.raises(ValueError, match="257 tokens, but the encoder reads 256"):
        opened().encode([[1000] * 255])


@pytest.mark.parametrize(("name", "value"), [("hidden_act", "relu"), ("is_decoder", True)])
def test_a_model_with_other_layers_is_not_packed(
    name: str, value: object, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch, head = import_torch(), type("Head", (), {"adapter": None})()
    assert packed_encoder(torch, module, head, BERT, False, "cpu") is not None
    monkeypatch.setattr(module[0].auto_model.config, name, value)
    assert packed_encoder(torch, module, head, BERT, False, "cpu") is None
