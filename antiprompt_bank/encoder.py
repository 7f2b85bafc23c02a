"""The encoder: what turns token ids into unit vectors, and which runtime does it here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.encoder_cuda import TorchEncoder
from antiprompt_bank.encoder_openvino import OpenVinoEncoder
from antiprompt_bank.errors import EncoderUnavailable
from antiprompt_bank.leaning import Leaning
from antiprompt_bank.model_files import DEFAULT_MODEL
from antiprompt_bank.windows import TokenSpans

Device = Literal["auto", "cpu", "cuda"]


class Encoder(Protocol):
    """A sentence encoder.

    ``id`` names model, weights, pooling and adapter: vectors of another id are refused. ``runtime`` says what computes
    them (``openvino-bf16``, ``torch-cuda-bf16``, ``torch-cpu``); runtimes of one id agree with each other. ``folder``
    holds the exported files that travel with a bank's version. A text's vector does not depend on what else is in the
    batch (cosine at least 0.9999). ``leaning`` has for each side its adapter's classifiers of harm, empty without
    one. Safe to call from several threads.
    """

    id: str
    runtime: str
    dimensions: int
    max_tokens: int
    folder: Path
    leaning: Mapping[str, Leaning]

    def tokenize(self, text: str) -> TokenSpans:
        """The whole text as token ids without special tokens, with character offsets; nothing is cut."""

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """``(n, dimensions)`` unit vectors of texts; adds the special tokens. ``ValueError`` when one is too long."""


class Around:
    """An ``Encoder`` that is another one in all but where its vectors come from."""

    def __init__(self, encoder: Encoder) -> None:
        self.id = encoder.id
        self.runtime = encoder.runtime
        self.dimensions = encoder.dimensions
        self.max_tokens = encoder.max_tokens
        self.folder = encoder.folder
        self.leaning = encoder.leaning
        self._encoder = encoder

    def tokenize(self, text: str) -> TokenSpans:
        """As the encoder does."""
        return self._encoder.tokenize(text)


def export_encoder(
    folder: Path, model: str = DEFAULT_MODEL, *, adapter: Path | None = None, features: bool = False
) -> Path:
    """Export ``model`` (a sentence-transformers name or path) into ``folder``, unless it is there already.

    ``adapter`` is the folder of an adapter to put on top of it; with ``features`` the export gives what an adapter
    reads, ``BLOCKS`` blocks of the model's dimensions, in place of a vector (see ``adapter``).

    Runs in a process of its own, so that this one never loads torch, and moves the finished folder into place in one
    step. Raises ``EncoderUnavailable`` with the cause when it fails.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _run_export(model, made, ["--features"] if features else [str(adapter)] if adapter else [])
        made.chmod(0o755)
        made.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was first: its export is as good
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def open_encoder(folder: Path, *, device: Device = "auto", threads: int = 1) -> Encoder:
    """The encoder of an exported folder. ``auto`` takes a GPU where torch can use one, the CPU otherwise.

    Raises ``EncoderUnavailable`` when the runtime that ``device`` asks for is not installed, or there is no GPU.
    """
    if device == "cuda" and not _cuda_usable():
        raise EncoderUnavailable("device is 'cuda', but torch sees no GPU here: pip install 'antiprompt-gateway[gpu]'")
    if device == "cuda" or (device == "auto" and _cuda_usable()):
        return TorchEncoder(folder, device="cuda")
    return OpenVinoEncoder(folder, threads=threads)


def _cuda_usable() -> bool:
    # Asking torch costs seconds and 300 MB: only a machine with the driver's device node is asked.
    if not Path("/dev/nvidiactl").exists() or find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def _run_export(model: str, folder: Path, kind: Sequence[str]) -> None:
    package_root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-W", "ignore", "-m", "antiprompt_bank.encoder_torch", model, str(folder), *kind]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)  # noqa: S603  # our own module, arguments as a list
    if done.returncode != 0:
        cause = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise EncoderUnavailable(f"{model} could not be exported: {cause[0]}")
