"""An encoder's texts packed: for the models that ``bert`` knows, on a GPU, small batches as CUDA graphs.

A small batch is over before Python has queued its kernels one by one. So for some sizes they are recorded once, when
the encoder is opened, and played from then on; a batch is filled up with nothing to the next of these sizes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.adapter import LAYERS, MAXIMA
from antiprompt_bank.bert import (
    PackedBert,
    add_norm_in_torch,
    attention_in_torch,
    attention_on_gpu,
    packable,
    pooled,
)
from antiprompt_bank.encoder_torch import projected
from antiprompt_bank.packing import Pack, pack, packs
from antiprompt_bank.padding import Frame, lengths_of

MOST_TOKENS: Final = 147_456
"""Tokens in one pass: enough to fill a GPU, and under 2 GB of it."""

SIZES: Final = (
    *(128, 256, 512, 1024),
    *(512 * step for step in range(3, 8)),
    *(1024 * step for step in range(4, 8)),
    *(2048 * step for step in range(4, 9)),
)
"""Tokens of a batch that is recorded, up to 16,384: beyond, the kernels take longer than Python takes to queue them."""

_TOKENS_A_TEXT: Final = 16
"""A recorded batch has room for one text in so many tokens."""

LONGEST: Final = 128
"""Texts of more tokens are not in recorded batches: attention would be sized for them."""

_WARM_UPS: Final = 2


class PackedEncoder:
    """Unit vectors, or features, of token ids, from the layers of a sentence-transformers model.

    ``kind`` is the type that the layers run in, by default bf16 on a GPU (whose attention takes no other) and float32
    on a CPU; pooling and all that follows is float32. ``adapter`` and ``features`` say what comes behind the layers, as
    in ``encoder_head``. Safe to call from several threads: each batch is queued whole, on one stream of the GPU, and
    only its own caller waits.
    """

    def __init__(
        self,
        torch: Any,
        model: Any,
        adapter: Any,
        frame: Frame,
        *,
        features: bool,
        device: str,
        recorder: Recorder | None,
        sizes: Sequence[int] = SIZES,
        kind: Any = None,
    ) -> None:
        self._torch = torch
        self._device = device
        self._adapter = adapter
        self._features = features
        self._frame = frame
        attention = (attention_on_gpu(torch) if device == "cuda" else None) or attention_in_torch(torch)
        self._bert = PackedBert(
            torch,
            model,
            kind or (torch.bfloat16 if device == "cuda" else torch.float32),
            attention=attention,
            add_norm=add_norm_for(torch, device),
        )
        self._stream = torch.cuda.Stream() if device == "cuda" else None
        if self._stream is not None:
            torch.cuda.synchronize()  # the weights come from another stream
        self._lock = threading.Lock()
        self._recorded: list[Recorded] = []
        if recorder is not None:
            self._record(recorder, sizes)

    @property
    def recorded(self) -> tuple[int, ...]:
        """The sizes, in tokens, that have been recorded."""
        return tuple(each.tokens for each in self._recorded)

    @property
    def passes(self) -> tuple[int, ...]:
        """Numbers of tokens that between them go through all that has been recorded, and past it."""
        return (*self.recorded, 2 * max(self.recorded, default=SIZES[-1]))

    def encode(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """``(n, dimensions)`` of one input or more. Raises ``ValueError`` when one is longer than the model reads."""
        lengths = lengths_of(inputs, self._frame)
        parts = []
        for part in packs(lengths, most_tokens=MOST_TOKENS):
            some = slice(part.first, part.after)
            parts.append(self._queued(inputs[some], lengths[some], part))
        # The next is filled while the GPU works on the one before; only here is it waited for.
        made = [_arrived(*each) for each in parts]
        return made[0] if len(made) == 1 else np.concatenate(made)

    def _queued(self, inputs: Sequence[Sequence[int]], lengths: NDArray[np.int64], part: Pack) -> tuple[Any, Any]:
        torch = self._torch
        recorded = self._smallest(part)
        tokens, texts = (part.tokens, part.inputs) if recorded is None else (recorded.tokens, recorded.texts)
        held = torch.empty(tokens + texts + 1, dtype=torch.int32, pin_memory=self._stream is not None)
        filled = held.numpy()
        pack(filled[:tokens], filled[tokens:], inputs, lengths, self._frame)
        with torch.inference_mode(), self._queue(), self._lock:
            if recorded is None:
                made = self._made(held.to(self._device, non_blocking=True), tokens, part.longest)
            else:
                made = recorded.played(held)
            # Torch's allocator of pinned memory takes a buffer back when the copies from and to it are done.
            back = torch.empty(part.inputs, made.shape[1], pin_memory=self._stream is not None)
            back.copy_(made[: part.inputs], non_blocking=True)
            if self._stream is None:
                return back, None
            done = torch.cuda.Event()
            done.record()
        return back, done

    def _smallest(self, part: Pack) -> Recorded | None:
        if part.longest > LONGEST:
            return None
        fitting = (each for each in self._recorded if part.tokens <= each.tokens and part.inputs <= each.texts)
        return next(fitting, None)

    def _queue(self) -> AbstractContextManager[Any]:
        if self._stream is None:
            return nullcontext()
        queue: AbstractContextManager[Any] = self._torch.cuda.stream(self._stream)
        return queue

    def _made(self, held: Any, tokens: int, longest: int) -> Any:
        torch = self._torch
        bounds = held[tokens:]
        functional = torch.nn.functional
        if not self._features and self._adapter is None:
            (state,) = self._bert.states(held[:tokens], bounds, longest, count=1)
            return functional.normalize(pooled(torch, state, bounds, "mean"), dim=-1)
        states = self._bert.states(held[:tokens], bounds, longest, count=LAYERS)
        blocks = [pooled(torch, state, bounds, "mean") for state in states]
        blocks += [pooled(torch, states[at], bounds, "max") for at in MAXIMA]
        read = torch.cat([functional.normalize(block, dim=-1) for block in blocks], dim=-1)
        return read if self._features else projected(self._adapter, read)

    def _record(self, recorder: Recorder, sizes: Sequence[int]) -> None:
        pool = None
        # The largest first: the smaller ones then find room in its memory.
        for tokens in sorted(sizes, reverse=True):
            try:
                made = recorder(self._torch, self._made, tokens, self._stream, pool)
            except RuntimeError:
                return  # what is not recorded is queued kernel by kernel
            pool = made.pool
            self._recorded.insert(0, made)


class Recorded(Protocol):
    """The work on a batch of up to so many tokens and texts, ready to be done again at once."""

    tokens: int
    texts: int
    pool: Any

    def played(self, held: Any) -> Any:
        """What comes out for ``held``, ids and bounds, in memory that the next one to play writes to."""


Recorder = Callable[[Any, Callable[[Any, int, int], Any], int, Any, Any], Recorded]
"""Torch, the work on (ids and bounds, tokens, longest text), tokens, stream, and the memory of those before."""


class RecordedGraph:
    """A CUDA graph."""

    def __init__(self, torch: Any, work: Callable[[Any, int, int], Any], tokens: int, stream: Any, pool: Any) -> None:
        self.tokens = tokens
        self.texts = texts_of(tokens)
        self._held = torch.zeros(tokens + self.texts + 1, dtype=torch.int32, device="cuda")
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    work(self._held, tokens, LONGEST)
            stream.synchronize()
            # Other threads may use the GPU meanwhile: a bank is loaded while another one serves.
            with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                self._made = work(self._held, tokens, LONGEST)
        self.pool = self._graph.pool()

    def played(self, held: Any) -> Any:
        self._held.copy_(held, non_blocking=True)
        self._graph.replay()
        return self._made


def texts_of(tokens: int) -> int:
    """Texts that a recorded batch of so many tokens has room for."""
    return max(1, tokens // _TOKENS_A_TEXT)


def packed_encoder(
    torch: Any, module: Any, head: Any, frame: Frame, features: bool, device: str
) -> PackedEncoder | None:
    """A sentence-transformers model with its ``encoder_head``, packed; None where its layers are not those of ``bert``.

    Whether the model's pooling is a mean is left to a comparison of what comes out.
    """
    model = module[0].auto_model
    if not packable(model):
        return None
    recorder = RecordedGraph if device == "cuda" and attention_on_gpu(torch) is not None else None
    return PackedEncoder(torch, model, head.adapter, frame, features=features, device=device, recorder=recorder)


def add_norm_for(torch: Any, device: str) -> Any:
    """One kernel where Triton can make it, which needs a C compiler; torch's own two otherwise."""
    if device == "cuda":
        try:
            from antiprompt_bank.triton_norm import add_norm

            probe = torch.ones(2, 8, device=device, dtype=torch.bfloat16)
            add_norm(probe, probe, probe[0], probe[0], 1e-12)
        except Exception:  # noqa: BLE001  # whatever Triton lacks here, torch has it too
            return add_norm_in_torch(torch)
        return add_norm
    return add_norm_in_torch(torch)


def _arrived(made: Any, done: Any) -> NDArray[np.float32]:
    if done is None:
        vectors: NDArray[np.float32] = made.numpy()
        return vectors
    done.synchronize()
    return np.array(made.numpy())  # pinned memory is scarce: nobody may keep a vector of it
