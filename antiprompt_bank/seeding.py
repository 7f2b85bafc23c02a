"""The seed bank: what ships with the library, built once into a cache folder and loaded from there afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import Progress as ProgressBar

from antiprompt_bank.adapter import CARD, SHIPPED, WEIGHTS
from antiprompt_bank.additions import Progress
from antiprompt_bank.bank import Bank
from antiprompt_bank.building import build_bank
from antiprompt_bank.encoder import Device, export_encoder, open_encoder
from antiprompt_bank.errors import BankCorrupt, BankNotFound
from antiprompt_bank.glossing import LEXICONS
from antiprompt_bank.model_files import DEFAULT_MODEL, file_sha256
from antiprompt_bank.records import Antiprompt
from antiprompt_bank.shipped_vectors import VECTORS, Recording, Shipped
from antiprompt_bank.store import BankStore

_PACKAGE: Final = Path(__file__).parent
_SEED: Final = _PACKAGE / "seed"

_BUILT_BY: Final = (
    "additions.py",
    "building.py",
    "calibration.py",
    "fitting.py",
    "glossing.py",
    "hazards.py",
    "manifest.py",
    "neighbours.py",
    "records.py",
    "store.py",
    "telling.py",
    "tokens.py",
    "windows.py",
)
"""The code that a built bank follows from."""

_EXPORTED_BY: Final = ("adapter.py", "encoder_torch.py", "model_files.py")


def load(
    path: Path | str | None = None,
    *,
    version: str | None = None,
    device: Device = "auto",
    threads: int = 1,
    cache_dir: Path | str | None = None,
    model: str = DEFAULT_MODEL,
    adapter: Path | Literal["shipped"] | None = "shipped",
) -> Bank:
    """A bank, ready to score.

    ``path`` is a folder of versions (see ``store``); ``version`` one of them, by default the published one. Without a
    path it is the seed bank, built once into ``cache_dir`` (the user's cache folder by default) and reused after that:
    a minute the first time (minutes with another encoder than the one that ships), seconds later. ``device`` is where
    the encoder runs (``auto``: a GPU where there is one), ``threads`` how many inferences may run side by side on a
    CPU.

    ``model`` and ``adapter`` say with which encoder the seed bank is built: another sentence-transformers model, by
    name or path; and ``shipped`` or the folder of an adapter, or None for the model's own vectors. (A folder of
    versions knows its encoder.) The shipped adapter belongs to the default model; with another one it is left out.

    Raises ``BankNotFound``, ``BankCorrupt``, ``EncoderMismatch`` and ``EncoderUnavailable``.
    """
    if path is not None:
        return BankStore(Path(path)).load(version, device=device, threads=threads)
    cache = Path(cache_dir) if cache_dir is not None else user_cache_path("antiprompt")
    trained = (SHIPPED if model == DEFAULT_MODEL else None) if adapter == "shipped" else adapter
    key = _key(model, trained)
    store = BankStore(cache / "seed" / key)
    export = cache / "encoders" / _export_key(model, trained)
    with _locked(cache / "seed.lock"):
        try:
            return store.load(version, device=device, threads=threads)
        except BankNotFound:
            if version is not None:
                raise
        except BankCorrupt:  # a cache holds nothing of its own: what is damaged is made again
            shutil.rmtree(store.root)
            shutil.rmtree(export, ignore_errors=True)
        with _progress() as told:
            exported = export_encoder(export, model, adapter=trained)
            # All cores for the minute or two that this takes; what serves afterwards keeps to its threads.
            encoder = open_encoder(exported, device=device, threads=max(threads, os.cpu_count() or 1))
            bank = build_bank(seed_records(), Shipped(encoder), progress=told, harmless=calibration_records())
        store.publish(store.save(bank))
    return store.load(device=device, threads=threads)


def record_vectors(file: Path) -> int:
    """Write ``file`` for ``shipped_vectors``: every window of the seed, by the encoder that ships; says how many."""
    with tempfile.TemporaryDirectory() as made, _progress() as told:
        exported = export_encoder(Path(made) / "encoder", adapter=SHIPPED)
        encoder = Recording(open_encoder(exported, device="cpu", threads=os.cpu_count() or 1))
        build_bank(seed_records(), encoder, progress=told, harmless=calibration_records())
        return encoder.write(file)


def seed_records() -> list[Antiprompt]:
    """Every exemplar of the seed, in the order of its files' names.

    Raises ``BankCorrupt`` with file and line when one cannot be read.
    """
    return _records(_seed_files())


def calibration_records() -> list[Antiprompt]:
    """The harmless texts that calibrations fall back to where one's own are too few; none of them is in a bank.

    Raises ``BankCorrupt`` with file and line when one cannot be read, with its id when one is harmful.
    """
    records = _records(_calibration_files())
    for record in records:
        if record.harmful:
            raise BankCorrupt(f"{record.id} of the calibration set is harmful")
    return records


def _records(files: Iterable[Path]) -> list[Antiprompt]:
    records = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                records.append(Antiprompt.from_json(json.loads(line)))
            except ValueError as error:
                raise BankCorrupt(f"{file.name}, line {number}: {error}") from error
    return records


def _calibration_files() -> list[Path]:
    return sorted((_SEED / "calibration").glob("*.jsonl"))


def _seed_files() -> list[Path]:
    return sorted(_SEED.glob("*.jsonl"))


def _key(model: str, adapter: Path | None) -> str:
    """Names what a seed bank follows from: the exemplars, the encoder and the code that builds."""
    digest = hashlib.sha256(_export_key(model, adapter).encode())
    lexicons = sorted(LEXICONS.glob("*.tsv"))
    for file in (*_seed_files(), *_calibration_files(), *lexicons, *(_PACKAGE / name for name in _BUILT_BY)):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _export_key(model: str, adapter: Path | None) -> str:
    """Names what an export follows from: model, adapter, and the code that writes it, whose form may change."""
    digest = hashlib.sha256(model.encode())
    for name in _EXPORTED_BY:
        digest.update((_PACKAGE / name).read_bytes())
    if adapter is not None:
        for name in (WEIGHTS, CARD):
            if (adapter / name).is_file():  # what is missing is told by who reads it
                digest.update(file_sha256(adapter / name).encode())
    return f"{Path(model).name}-{digest.hexdigest()[:12]}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; let go by the system when it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _progress() -> Iterator[Progress | None]:
    if not sys.stderr.isatty():
        yield None
        return
    with ProgressBar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Building the seed bank (once)", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    sys.stdout.write(f"{record_vectors(VECTORS)} windows in {VECTORS}\n")
