"""The seed bank: what ships with the library, built once into a cache folder and loaded from there afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import Progress as ProgressBar

from antiprompt_bank.bank import Bank
from antiprompt_bank.building import Progress, build_bank
from antiprompt_bank.encoder import Device, export_encoder, open_encoder
from antiprompt_bank.errors import BankCorrupt, BankNotFound
from antiprompt_bank.model_files import DEFAULT_ID
from antiprompt_bank.records import Antiprompt
from antiprompt_bank.store import BankStore

_PACKAGE: Final = Path(__file__).parent
_SEED: Final = _PACKAGE / "seed"


def load(
    path: Path | str | None = None,
    *,
    version: str | None = None,
    device: Device = "auto",
    threads: int = 1,
    cache_dir: Path | str | None = None,
) -> Bank:
    """A bank, ready to score.

    ``path`` is a folder of versions (see ``store``); ``version`` one of them, by default the published one. Without a
    path it is the seed bank, built once into ``cache_dir`` (the user's cache folder by default) and reused after
    that: about a minute the first time, a second later. ``device`` is where the encoder runs (``auto``: a GPU where
    there is one), ``threads`` how many inferences may run side by side on a CPU.

    Raises ``BankNotFound``, ``BankCorrupt``, ``EncoderMismatch`` and ``EncoderUnavailable``.
    """
    if path is not None:
        return BankStore(Path(path)).load(version, device=device, threads=threads)
    cache = Path(cache_dir) if cache_dir is not None else user_cache_path("antiprompt")
    store = BankStore(cache / "seed" / _seed_key())
    export = cache / "encoders" / f"{DEFAULT_ID.replace(':', '-')}-{_export_key()}"
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
            encoder = open_encoder(export_encoder(export), device=device, threads=threads)
            bank = build_bank(seed_records(), encoder, progress=told)
        store.publish(store.save(bank))
    return bank


def seed_records() -> list[Antiprompt]:
    """Every exemplar of the seed, in the order of its files' names.

    Raises ``BankCorrupt`` with file and line when one cannot be read.
    """
    records = []
    for file in _seed_files():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                records.append(Antiprompt.from_json(json.loads(line)))
            except ValueError as error:
                raise BankCorrupt(f"{file.name}, line {number}: {error}") from error
    return records


def _seed_files() -> list[Path]:
    return sorted(_SEED.glob("*.jsonl"))


def _seed_key() -> str:
    """Names what a seed bank follows from: the exemplars, the encoder and the code that builds."""
    digest = hashlib.sha256(DEFAULT_ID.encode())
    for file in (*_seed_files(), *sorted(_PACKAGE.glob("*.py"))):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _export_key() -> str:
    """Names what an export follows from beside the model: the code that writes it, whose form may change."""
    digest = hashlib.sha256()
    for name in ("encoder_torch.py", "model_files.py"):
        digest.update((_PACKAGE / name).read_bytes())
    return digest.hexdigest()[:8]


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
