"""The encoder on a CPU: OpenVINO over a graph that was exported once. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.adapter import leaning_of
from antiprompt_bank.errors import BankCorrupt, EncoderUnavailable
from antiprompt_bank.model_files import GRAPH, TOKENIZER, EncoderCard
from antiprompt_bank.tokens import Tokeniser
from antiprompt_bank.windows import TokenSpans

_GROUPS: Final = (8, 4, 2, 1)
"""Inputs in one inference. The runtime keeps memory for every shape it has seen, so only these sizes occur;
larger ones are no faster."""


class OpenVinoEncoder:
    """Unit vectors from an exported graph (see ``encoder_torch.export``).

    Inputs are grouped by equal length and never padded, so that a text's vector does not depend on what else is in
    the batch. bf16 where the CPU has it (similarities move by at most 0.003), float32 otherwise. ``threads`` is the
    number of inferences that run side by side, each on one thread: two threads on one inference lose more on a busy
    machine than they win on an idle one. Releases the interpreter lock; safe to call from several threads.

    Raises ``EncoderUnavailable`` when OpenVINO is not installed and ``BankCorrupt`` when the folder is not an export.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}, not 1 or more")
        card = EncoderCard.read(folder)
        self.id = card.id
        self.dimensions = card.dimensions
        self.max_tokens = card.max_tokens
        self.folder = folder
        self.leaning = leaning_of(folder, card.adapter_sha256)
        self._tokeniser = Tokeniser(folder / TOKENIZER, card.max_tokens)
        model, self.runtime = _compiled(folder / GRAPH, threads)
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(threads):
            self._requests.put(model.create_infer_request())
        self._pool = ThreadPoolExecutor(threads, "encode") if threads > 1 else None

    def tokenize(self, text: str) -> TokenSpans:
        """The whole text as token ids without special tokens, with character offsets."""
        return self._tokeniser.tokenize(text)

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """``(n, dimensions)`` unit vectors of token ids. Raises ``ValueError`` when one is longer than the model."""
        return self._encode([self._tokeniser.framed(text) for text in ids])

    def _encode(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        vectors = np.empty((len(inputs), self.dimensions), dtype=np.float32)
        groups = list(_equal_lengths(inputs))
        if self._pool is None or len(groups) < 2:
            for group in groups:
                vectors[group] = self._infer([inputs[at] for at in group])
            return vectors
        made = self._pool.map(lambda group: self._infer([inputs[at] for at in group]), groups)
        for group, part in zip(groups, made, strict=True):
            vectors[group] = part
        return vectors

    def _infer(self, group: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        feed = {"input_ids": np.array(group, dtype=np.int64)}
        with self._request() as request:
            # The output is the request's own memory, overwritten by the next caller: copy before giving it back.
            return np.array(request.infer(feed, share_outputs=True)[0], dtype=np.float32)

    @contextmanager
    def _request(self) -> Iterator[Any]:
        request = self._requests.get()
        try:
            yield request
        finally:
            self._requests.put(request)


def _equal_lengths(inputs: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    by_length: dict[int, list[int]] = {}
    for at, item in enumerate(inputs):
        by_length.setdefault(len(item), []).append(at)
    for places in by_length.values():
        start = 0
        while start < len(places):
            size = next(size for size in _GROUPS if size <= len(places) - start)
            yield places[start : start + size]
            start += size


def _compiled(graph: Path, threads: int) -> tuple[Any, str]:
    try:
        import openvino
    except ImportError as error:
        raise EncoderUnavailable(
            "the CPU encoder needs OpenVINO: pip install 'antiprompt-gateway[cpu]', or set device='cuda'"
        ) from error
    device = openvino.Core()
    precision = "bf16" if "BF16" in device.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    try:
        return device.compile_model(str(graph), "CPU", settings), f"openvino-{precision}"
    except RuntimeError as error:
        raise BankCorrupt(f"{graph} is not a graph that OpenVINO can read: {error}") from error
