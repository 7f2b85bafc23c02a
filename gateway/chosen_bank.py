"""The bank that settings choose: a version of a folder, or the seed bank with its encoder."""

from __future__ import annotations

from antiprompt_bank import Bank, load
from gateway.settings import Settings


def load_chosen_bank(settings: Settings, *, version: str | None = None, threads: int = 1) -> Bank:
    """``version`` in place of the one that settings name. Raises what ``antiprompt_bank.load`` raises."""
    chosen = settings.bank
    if chosen.path is None:
        return load_seed_bank(settings, version=version or chosen.version, threads=threads)
    return load(chosen.path, version=version or chosen.version, device=chosen.device, threads=threads)


def load_seed_bank(settings: Settings, *, version: str | None = None, threads: int = 1) -> Bank:
    """The seed bank with the encoder and the adapter that settings name, kept in ``data_dir``."""
    chosen = settings.bank
    return load(
        version=version,
        device=chosen.device,
        threads=threads,
        cache_dir=settings.data_dir / "bank",
        model=chosen.model,
        adapter=None if chosen.adapter == "none" else chosen.adapter,
    )
