"""The encoder in torch (sentence-transformers), on a GPU or a CPU, and its export for the CPU runtime.

``python -m antiprompt_bank.encoder_torch MODEL FOLDER`` exports. It is run as a process of its own, so that the one
that serves never loads torch: 300 MB and five seconds it does not need.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.errors import EncoderMismatch, EncoderUnavailable
from antiprompt_bank.model_files import GRAPH, TOKENIZER, EncoderCard, encoder_id, model_folder, weights_sha256
from antiprompt_bank.tokens import Tokeniser
from antiprompt_bank.windows import TokenSpans

_GROUP: Final = 256
"""Inputs in one forward pass; sorted by length first, so that little of it is padding."""


class TorchEncoder:
    """Unit vectors from a sentence-transformers model, in float32.

    ``folder`` is an exported folder; its card says which model to load, and the weights' hash must be the card's.
    ``device`` is ``cuda`` or ``cpu``. Padding is masked; in float32 it moves a vector by less than 1e-5. Safe to call
    from several threads (torch queues the work).

    Raises ``EncoderUnavailable`` when torch or the model is missing, ``EncoderMismatch`` for other weights.
    """

    def __init__(self, folder: Path, *, device: str, threads: int = 1) -> None:
        card = EncoderCard.read(folder)
        self.id = card.id
        self.dimensions = card.dimensions
        self.max_tokens = card.max_tokens
        self.folder = folder
        self.runtime = f"torch-{device}"
        self._tokeniser = Tokeniser(folder / TOKENIZER, card.max_tokens)
        self._device = device
        self._torch = _torch()
        if device == "cpu":
            self._torch.set_num_threads(threads)
        source = _source(card.model)
        found = weights_sha256(source, card.model)
        if found != card.weights_sha256:
            raise EncoderMismatch(f"{card.model} has weights {found[:12]}, but the bank was built with {card.id}")
        self._model = _model(source, device)

    def tokenize(self, text: str) -> TokenSpans:
        """The whole text as token ids without special tokens, with character offsets."""
        return self._tokeniser.tokenize(text)

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """``(n, dimensions)`` unit vectors of token ids. Raises ``ValueError`` when one is longer than the model."""
        return self._encode([self._tokeniser.framed(text) for text in ids])

    def _encode(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        vectors = np.empty((len(inputs), self.dimensions), dtype=np.float32)
        order = sorted(range(len(inputs)), key=lambda at: len(inputs[at]))
        for start in range(0, len(order), _GROUP):
            group = order[start : start + _GROUP]
            vectors[group] = self._forward([inputs[at] for at in group])
        return vectors

    def _forward(self, group: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        torch = self._torch
        shape = (len(group), max(len(item) for item in group))
        ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, item in enumerate(group):
            ids[row, : len(item)] = item
            mask[row, : len(item)] = 1
        feed = {"input_ids": ids, "attention_mask": mask}
        with torch.inference_mode():
            vectors = _unit_vectors(self._model, {k: torch.from_numpy(v).to(self._device) for k, v in feed.items()})
            made: NDArray[np.float32] = vectors.float().cpu().numpy()
        return made


def export(model: str, folder: Path) -> None:
    """Write card, tokeniser and, where OpenVINO is installed, the graph with float16 weights into an empty folder.

    The graph takes token ids without a mask, since the runtime never pads; mean pooling and
    normalising are inside it. Float16 weights halve the file and move similarities by at most 0.0005.

    Raises ``EncoderUnavailable`` when torch or the model is missing, ``EncoderMismatch`` for a default model whose
    weights are not the published ones.
    """
    source = _source(model)
    sha256 = weights_sha256(source, model)
    module = _model(source, "cpu")
    config = module[0].auto_model.config
    card = EncoderCard(
        id=encoder_id(model, sha256, _pooling(module)),
        model=model,
        weights_sha256=sha256,
        dimensions=int(module.get_embedding_dimension()),
        max_tokens=min(int(module.max_seq_length or config.max_position_embeddings), config.max_position_embeddings),
    )
    shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
    if find_spec("openvino") is not None:
        _write_graph(module, folder / GRAPH)
    card.write(folder)


def _pooling(module: Any) -> str:
    modes = [part.pooling_mode for part in module if hasattr(part, "pooling_mode")]
    return "+".join([modes[0]] if isinstance(modes[0], str) else modes[0]) if modes else "none"


def _write_graph(module: Any, path: Path) -> None:
    import openvino

    torch = _torch()

    class Graph(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch is not typed here
        """Token ids to unit vectors, every token attended to."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, input_ids: Any) -> Any:
            return _unit_vectors(self.module, {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)})

    ids = torch.tensor([[5, 6, 7, 8], [8, 7, 6, 5]])
    with torch.inference_mode():
        graph = openvino.convert_model(Graph().eval(), example_input={"input_ids": ids})
    openvino.save_model(graph, str(path), compress_to_fp16=True)


def _unit_vectors(module: Any, feed: Mapping[str, Any]) -> Any:
    return _torch().nn.functional.normalize(module(dict(feed))["sentence_embedding"], dim=-1)


def _source(model: str) -> Path:
    folder = model_folder(model)
    if folder is not None:
        return folder
    _torch()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*_Pooling/*", "*_Dense/*", "*_Normalize/*"]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderUnavailable(
            f"{model!r} is neither a folder here nor a model that can be fetched: {error}"
        ) from error


def _model(source: Path, device: str) -> Any:
    _torch()
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(source), device=device, trust_remote_code=False).eval()


def _torch() -> Any:
    try:
        import sentence_transformers  # noqa: F401  # one message for both: neither is of use here without the other
        import torch
    except ImportError as error:
        raise EncoderUnavailable(
            "this needs torch and sentence-transformers: pip install 'antiprompt-gateway[train]' (or [gpu])"
        ) from error
    return torch


if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]))
