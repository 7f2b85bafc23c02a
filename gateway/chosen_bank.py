"""The bank that settings choose: a version of a folder, or the seed bank with its encoder."""

from __future__ import annotations

from pathlib import Path

from antiprompt_bank import Bank, BankNotFound, BankStore, EncoderMismatch, load
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.model_files import DEFAULT_MODEL
from antiprompt_bank.remote import RemoteVersions
from gateway.settings import Settings


def load_chosen_bank(settings: Settings, *, version: str | None = None, threads: int = 1) -> Bank:
    """``version`` in place of the one that settings name. Raises what ``antiprompt_bank.load`` raises."""
    chosen = settings.bank
    if chosen.path is None:
        return load_seed_bank(settings, version=version or chosen.version, threads=threads)
    return load(chosen.path, version=version or chosen.version, device=chosen.device, threads=threads)


def load_seed_bank(settings: Settings, *, version: str | None = None, threads: int = 1) -> Bank:
    """The seed bank with the encoder and the adapter that settings name: the one that was built before where they name
    that and nothing else than what ships, otherwise one that is kept in ``data_dir``."""
    chosen = settings.bank
    if chosen.seed is not None and chosen.model == DEFAULT_MODEL and chosen.adapter == "shipped":
        return BankStore(chosen.seed).load(version, device=chosen.device, threads=threads)
    return load(
        version=version,
        device=chosen.device,
        threads=threads,
        cache_dir=settings.data_dir / "bank",
        model=chosen.model,
        adapter=None if chosen.adapter == "none" else chosen.adapter,
    )


def versions_folder(settings: Settings) -> Path:
    """Where versions are kept: the folder that settings name, or one of the gateway's own beside the seed bank."""
    return settings.bank.path or settings.data_dir / "bank" / "made"


def remote_versions(settings: Settings) -> RemoteVersions | None:
    """Where all gateways find all versions; None where settings name no such place. Raises ``RemoteUnavailable``."""
    return RemoteVersions(settings.bank.remote) if settings.bank.remote is not None else None


def load_version(settings: Settings, version: str | None, encoder: Encoder | None, *, threads: int = 1) -> Bank:
    """A version that was published, None for the one that settings choose. ``encoder`` is used again if it fits.

    Without ``bank.path`` a version is one that this installation made, or the seed bank itself. One that is not here
    is fetched from ``bank.remote``.
    """
    store = BankStore(versions_folder(settings))
    if version is None or not _is_here(settings, store, version):
        return load_chosen_bank(settings, version=version, threads=threads)
    try:
        return store.load(version, device=settings.bank.device, threads=threads, encoder=encoder)
    except EncoderMismatch:
        if encoder is None:
            raise
        return store.load(version, device=settings.bank.device, threads=threads)


def _is_here(settings: Settings, store: BankStore, version: str) -> bool:
    """Whether the folder has a version, now at the latest. Raises ``RemoteUnavailable`` and ``BankCorrupt``."""
    remote = remote_versions(settings) if version not in store.versions() else None
    if remote is not None:
        try:
            remote.pull(version, store)
        except BankNotFound:  # it may be the seed bank
            return False
    return version in store.versions()
