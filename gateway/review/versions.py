"""Versions of the bank: what each holds, what one has beside another, which one decides, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from antiprompt_bank import BankCorrupt, BankNotFound, BankStore
from gateway.chosen_bank import versions_folder
from gateway.errors import NotFound
from gateway.parts import Parts
from gateway.review.guard import Visit, see

SHOWN: Final = 25
SHOWN_RECORDS: Final = 100
_MOST_WORDS: Final = 1000


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version, as its manifest and the retraining gate tell it. ``problem`` says why it cannot be read."""

    name: str
    parent: str | None = None
    created_at: str | None = None
    counts: Mapping[str, int] | None = None
    scores: Mapping[str, Any] | None = None
    problem: str | None = None


async def show_versions(visit: Visit) -> Response:
    """The newest versions, who put which in force, and where each gateway stands."""
    versions = visit.parts.versions
    names = (await asyncio.to_thread(versions.versions))[:SHOWN]
    rows = await asyncio.to_thread(_rows, visit.parts, names)
    scored = [await versions.scores(row.name) for row in rows]
    current = await versions.current()
    bank = visit.parts.screener.bank
    return visit.page(
        "versions.html",
        tab="bank",
        rows=list(zip(rows, scored, strict=True)),
        current=current,
        in_force=bank.base_version if bank is not None else None,
        version=bank.version if bank is not None else None,
        history=await versions.history(limit=SHOWN),
        replicas=await visit.parts.entries.replicas(),
        pinned=visit.parts.settings.bank.version,
    )


async def show_difference(visit: Visit) -> Response:
    """What the newer of two versions has beside the older."""
    older, newer = visit.form.needed("older"), visit.form.needed("newer")
    store = _store(visit.parts)
    try:
        difference = await asyncio.to_thread(store.diff, older, newer)
    except BankNotFound as error:
        raise NotFound("there is no such version of the bank") from error
    return visit.page(
        "difference.html",
        tab="bank",
        older=older,
        newer=newer,
        groups=(
            ("added", difference.added[:SHOWN_RECORDS], len(difference.added)),
            ("removed", difference.removed[:SHOWN_RECORDS], len(difference.removed)),
            ("changed", difference.changed[:SHOWN_RECORDS], len(difference.changed)),
        ),
    )


async def publish(visit: Visit) -> Response:
    """Put a version in force on every gateway."""
    note = visit.form.needed("note", most=_MOST_WORDS)
    await visit.parts.versions.publish(visit.form.needed("version"), by=visit.name, note=note)
    return see("/review/versions")


async def roll_back(visit: Visit) -> Response:
    """Put an earlier version in force again: the one that is named, or the one before the current one."""
    note = visit.form.needed("note", most=_MOST_WORDS)
    await visit.parts.versions.rollback(by=visit.name, note=note, version=visit.form.text("version"))
    return see("/review/versions")


def _rows(parts: Parts, names: Sequence[str]) -> list[VersionRow]:
    if not names:
        return []
    store = _store(parts)
    found = []
    for name in names:
        try:
            manifest = store.manifest(name)
        except (BankNotFound, BankCorrupt):
            found.append(VersionRow(name, problem="its manifest cannot be read"))
            continue
        found.append(VersionRow(name, manifest.parent, manifest.created_at, manifest.counts))
    return found


def _store(parts: Parts) -> BankStore:
    return BankStore(versions_folder(parts.settings))
