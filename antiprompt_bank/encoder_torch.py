"""The encoder as modules of torch (sentence-transformers), and its export for the CPU runtime.

``python -m antiprompt_bank.encoder_torch MODEL FOLDER [ADAPTER | --features]`` exports. It is run as a process of its
own, so that the one that serves never loads torch: 300 MB and five seconds it does not need.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from antiprompt_bank.adapter import BLOCKS, LAYERS, MAXIMA, Adapter
from antiprompt_bank.errors import EncoderUnavailable
from antiprompt_bank.model_files import GRAPH, TOKENIZER, EncoderCard, encoder_id, model_folder, weights_sha256


def export(model: str, folder: Path, adapter: Path | None = None, *, features: bool = False) -> None:
    """Write card, tokeniser and, where OpenVINO is installed, the graph with float16 weights into an empty folder.

    The graph takes token ids without a mask, since the runtime never pads; pooling, the adapter and normalising are
    inside it. Float16 weights halve the file and move similarities by at most 0.0005. With ``features`` the graph ends
    before the adapter.

    Raises ``EncoderUnavailable`` when torch or the model is missing, ``EncoderMismatch`` for a default model whose
    weights are not the published ones or an adapter that belongs to others, ``BankCorrupt`` for a damaged adapter.
    """
    source = model_source(model)
    sha256 = weights_sha256(source, model)
    on_top = None if adapter is None else Adapter.read(adapter)
    if on_top is not None:
        on_top.check_base(sha256)
        on_top.copy_to(folder)
    module = open_model(source, "cpu")
    config = module[0].auto_model.config
    dimensions = int(module.get_embedding_dimension())
    adapter_sha256 = None if on_top is None else on_top.sha256
    card = EncoderCard(
        id=encoder_id(model, sha256, f"features-{BLOCKS}" if features else _pooling(module), adapter_sha256),
        model=model,
        weights_sha256=sha256,
        dimensions=BLOCKS * dimensions if features else dimensions if on_top is None else on_top.card.dimensions,
        max_tokens=min(int(module.max_seq_length or config.max_position_embeddings), config.max_position_embeddings),
        adapter_sha256=adapter_sha256,
        features=features,
    )
    shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
    if find_spec("openvino") is not None:
        _write_graph(module, encoder_head(card, on_top, "cpu"), folder / GRAPH)
    card.write(folder)


def encoder_head(card: EncoderCard, adapter: Adapter | None, device: str) -> Any:
    """What turns a model and its inputs into what an encoder of this card gives, as a torch module."""
    torch = import_torch()

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
    torch = import_torch()
    states = module[0].auto_model(**feed, output_hidden_states=True).hidden_states[-LAYERS:]
    mask = feed["attention_mask"][..., None].to(states[0].dtype)
    length = mask.sum(dim=1)
    blocks = [(state * mask).sum(dim=1) / length for state in states]
    blocks += [(states[at] + (mask - 1) * 1e4).max(dim=1).values for at in MAXIMA]
    return torch.cat([torch.nn.functional.normalize(block, dim=-1) for block in blocks], dim=-1)


def adapter_module(adapter: Adapter) -> Any:
    """The adapter as a torch module in float32: features ``(n, BLOCKS * d)`` to unit vectors ``(n, o)``."""
    torch = import_torch()
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

    torch = import_torch()

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
    torch = import_torch()
    hidden = torch.nn.functional.gelu(adapter["first"](read))
    return torch.nn.functional.normalize(adapter["second"](hidden), dim=-1)


def model_source(model: str) -> Path:
    """The folder of a sentence-transformers model, fetched if need be. Raises ``EncoderUnavailable``."""
    folder = model_folder(model)
    if folder is not None:
        return folder
    import_torch()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*_Pooling/*", "*_Dense/*", "*_Normalize/*"]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderUnavailable(
            f"{model!r} is neither a folder here nor a model that can be fetched: {error}"
        ) from error


def open_model(source: Path, device: str) -> Any:
    """The sentence-transformers model of a folder, in float32. Raises ``EncoderUnavailable`` without torch."""
    import_torch()
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(source), device=device, trust_remote_code=False).eval()


def import_torch() -> Any:
    """torch, beside sentence-transformers. Raises ``EncoderUnavailable`` with what to install."""
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
