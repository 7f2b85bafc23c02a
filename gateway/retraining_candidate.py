"""A candidate version: the one in force with everything that people decided since, built and calibrated anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from antiprompt_bank import Antiprompt, Bank, BankStore, State
from antiprompt_bank.encoder import Encoder, export_encoder, open_encoder
from antiprompt_bank.features import open_features
from antiprompt_bank.seeding import calibration_records
from antiprompt_bank.withheld import build_with_withheld, is_withheld
from gateway.overlay_records import BankEntry
from gateway.settings import Settings

Tell = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much is done."""


def with_entries(base: Sequence[Antiprompt], entries: Sequence[BankEntry]) -> list[Antiprompt]:
    """The records of a version with the entries compacted into it, in an order that depends on nothing else.

    An entry takes the place of the version's own record. One that is retired and was in no version is left out; one
    that waits for a second person, in shadow, stays an entry only: a version holds nothing that nobody stands for. One
    that edits an exemplar of another version adds nothing.
    """
    changed = {entry.id: entry for entry in entries}
    kept = [changed[record.id].record if record.id in changed else record for record in base]
    known = {record.id for record in base}
    new = [
        entry.record
        for entry in sorted(entries, key=lambda entry: entry.id)
        if entry.id not in known
        and not entry.edits
        and not entry.awaits_second
        and entry.record.state in (State.LIVE, State.SHADOW)
    ]
    return [*kept, *new]


def confirmed_by_people(base: Sequence[Antiprompt], entries: Sequence[BankEntry]) -> list[Antiprompt]:
    """Every harmful exemplar that a person confirmed and nobody withdrew, from the version and the entries."""
    found = {record.id: record for record in base if record.source == "review"}
    found |= {entry.id: entry.record for entry in entries if entry.review_id is not None or entry.id in found}
    return [replace(r, state=State.LIVE) for r in found.values() if r.harmful and r.state is State.LIVE]


def build_candidate(base: Bank, entries: Sequence[BankEntry], store: BankStore, settings: Settings, tell: Tell) -> Bank:
    """Build the candidate and save it, not published. The version below is saved too, where the store lacks it.

    With ``retraining.train_adapter`` an adapter is trained on the candidate's exemplars first, and all vectors are its.
    Raises ``ValueError`` and ``BankError``; a half-written version is never left in the store.
    """
    records = with_entries(base.records, entries)
    harmless = calibration_records()
    encoder = base.encoder
    if settings.retraining.train_adapter:
        encoder = _trained(records, store.root, settings, tell)
    candidate = build_with_withheld(
        records, encoder, base=base, progress=lambda done, total: tell("vectors", done, total), harmless=harmless
    )
    tell("saving", 0, 1)
    if base.version not in store.versions():  # the seed bank, as the way back
        store.save(base)
    store.save(candidate, parent=base.version)
    tell("saving", 1, 1)
    return candidate


def _trained(records: Sequence[Antiprompt], root: Path, settings: Settings, tell: Tell) -> Encoder:
    """An encoder with an adapter trained on these exemplars; what was trained before is trained again only if new."""
    from antiprompt_bank.training import train_adapter  # torch: seconds

    model, device = settings.bank.model, settings.bank.device
    folder = root / "adapter"
    made = train_adapter(
        [record for record in records if record.state is State.LIVE and not is_withheld(record)],
        folder,
        open_features(settings.data_dir / "training", model=model, device=device),
        progress=lambda done, total: tell("adapter", done, total),
    )
    exported = export_encoder(root / "encoders" / made.sha256[:16], model, adapter=folder)
    return open_encoder(exported, device=device)
