"""The encoder in torch (sentence-transformers), on a GPU or a CPU, and its export for the CPU runtime.

``python -m antiprompt_bank.encoder_torch MODEL FOLDER [ADAPTER | --features]`` exports. It is run as a process of its
own, so that the one that serves never loads torch: 300 MB and five seconds it does not need.
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

from antiprompt_bank.adapter import BLOCKS, LAYERS, Adapter, leaning_of
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
        self.leaning = leaning_of(folder, card.adapter_sha256)
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
        self._head = _head(card, None if card.adapter_sha256 is None else Adapter.read(folder), device)

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
            tensors = {name: torch.from_numpy(array).to(self._device) for name, array in feed.items()}
            vectors = self._head(self._model, tensors)
            made: NDArray[np.float32] = vectors.float().cpu().numpy()
        return made


def export(model: str, folder: Path, adapter: Path | None = None, *, features: bool = False) -> None:
    """Write card, tokeniser and, where OpenVINO is installed, the graph with float16 weights into an empty folder.

    The graph takes token ids without a mask, since the runtime never pads; pooling, the adapter and normalising are
    inside it. Float16 weights halve the file and move similarities by at most 0.0005. With ``features`` the graph ends
    before the adapter.

    Raises ``EncoderUnavailable`` when torch or the model is missing, ``EncoderMismatch`` for a default model whose
    weights are not the published ones or an adapter that belongs to others, ``BankCorrupt`` for a damaged adapter.
    """
    source = _source(model)
    sha256 = weights_sha256(source, model)
    on_top = None if adapter is None else Adapter.read(adapter)
    if on_top is not None:
        on_top.check_base(sha256)
        on_top.copy_to(folder)
    module = _model(source, "cpu")
    config = module[0].auto_model.config
    dimensions = int(module.get_embedding_dimension())
    adapter_sha256 = None if on_top is None else on_top.sha256
    card = EncoderCard(
        id=encoder_id(model, sha256, "features" if features else _pooling(module), adapter_sha256),
        model=model,
        weights_sha256=sha256,
        dimensions=BLOCKS * dimensions if features else dimensions if on_top is None else on_top.card.dimensions,
        max_tokens=min(int(module.max_seq_length or config.max_position_embeddings), config.max_position_embeddings),
        adapter_sha256=adapter_sha256,
        features=features,
    )
    shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
    if find_spec("openvino") is not None:
        _write_graph(module, _head(card, on_top, "cpu"), folder / GRAPH)
    card.write(folder)


def _head(card: EncoderCard, adapter: Adapter | None, device: str) -> Any:
    """What turns a model and its inputs into what an encoder of this card gives, as a torch module."""
    torch = _torch()

    class Head(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch is not typed here
        """``(n, card.dimensions)``."""

        def __init__(self) -> None:
            super().__init__()
            self.adapter = None if adapter is None else adapter_module(adapter)

        def forward(self, module: Any, feed: Mapping[str, Any]) -> Any:
            if card.features:
                return features(module, feed)
            if self.adapter is not None:
                return projected(self.adapter, features(module, feed))
            return torch.nn.functional.normalize(module(dict(feed))["sentence_embedding"], dim=-1)

    return Head().eval().to(device)


def features(module: Any, feed: Mapping[str, Any]) -> Any:
    """``(n, BLOCKS * d)`` what an adapter reads of n texts: each block of d scaled to length 1 (see ``adapter``).

    ``module`` is a sentence-transformers model; ``feed`` holds ``input_ids`` and ``attention_mask``, both ``(n, t)``.
    """
    torch = _torch()
    states = module[0].auto_model(**feed, output_hidden_states=True).hidden_states[-LAYERS:]
    mask = feed["attention_mask"][..., None].to(states[0].dtype)
    length = mask.sum(dim=1)
    blocks = [(state * mask).sum(dim=1) / length for state in states]
    blocks.append((states[-1] + (mask - 1) * 1e4).max(dim=1).values)
    return torch.cat([torch.nn.functional.normalize(block, dim=-1) for block in blocks], dim=-1)


def adapter_module(adapter: Adapter) -> Any:
    """The adapter as a torch module in float32: features ``(n, BLOCKS * d)`` to unit vectors ``(n, o)``."""
    torch = _torch()
    matrices = {name: torch.from_numpy(array.astype(np.float32)) for name, array in adapter.matrices.items()}
    hidden, read = matrices["first.weight"].shape
    made = torch.nn.ModuleDict(
        {"first": torch.nn.Linear(read, hidden), "second": torch.nn.Linear(hidden, adapter.card.dimensions)}
    )
    made.load_state_dict(matrices)
    return made.eval()


def _pooling(module: Any) -> str:
    modes = [part.pooling_mode for part in module if hasattr(part, "pooling_mode")]
    return "+".join([modes[0]] if isinstance(modes[0], str) else modes[0]) if modes else "none"


def _write_graph(module: Any, head: Any, path: Path) -> None:
    import openvino

    torch = _torch()

    class Graph(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch is not typed here
        """Token ids to unit vectors, every token attended to."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.head = head

        def forward(self, input_ids: Any) -> Any:
            feed = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
            return self.head(self.module, feed)

    ids = torch.tensor([[5, 6, 7, 8], [8, 7, 6, 5]])
    with torch.inference_mode():
        graph = openvino.convert_model(Graph().eval(), example_input={"input_ids": ids})
    openvino.save_model(graph, str(path), compress_to_fp16=True)


def projected(adapter: Any, read: Any) -> Any:
    """``(n, o)`` unit vectors of the features ``(n, BLOCKS * d)`` of n texts; ``adapter`` has a first and a second."""
    torch = _torch()
    hidden = torch.nn.functional.gelu(adapter["first"](read))
    return torch.nn.functional.normalize(adapter["second"](hidden), dim=-1)


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
    kind = sys.argv[3] if len(sys.argv) > 3 else None
    wants_features = kind == "--features"
    export(
        sys.argv[1],
        Path(sys.argv[2]),
        None if kind is None or wants_features else Path(kind),
        features=wants_features,
    )
