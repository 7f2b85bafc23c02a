"""The bank: its exemplars, where each comes from, how often it was behind a case, and what a lead changes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from starlette.responses import Response

from antiprompt_bank import HAZARDS, Antiprompt, Bank, Kind, State
from gateway.errors import BadRequest, NotFound
from gateway.overlay_records import BankEntry
from gateway.review.forms import Form
from gateway.review.guard import Visit, see

PAGE_EXEMPLARS: Final = 40
CASES_COUNTED: Final = 500
"""The newest cases among which the hits of an exemplar are counted."""

_HAZARDS: Final = tuple(slug for slug, hazard in HAZARDS.items() if hazard.carries_text)
_LABELS: Final = ("harmful", "benign")
_SIDES: Final = ("request", "response")
_ORIGINS: Final = ("version", "review")


@dataclass(frozen=True, slots=True)
class Search:
    """What somebody looks for in the bank; what is None does not matter."""

    words: str | None
    label: str | None
    hazard: str | None
    side: str | None
    state: str | None
    language: str | None
    origin: str | None
    skip: int

    @classmethod
    def of(cls, form: Form) -> Search:
        """Raises ``BadRequest`` for a value that no exemplar has."""
        return cls(
            words=form.text("words"),
            label=form.choice("label", _LABELS),
            hazard=form.choice("hazard", tuple(HAZARDS)),
            side=form.choice("side", _SIDES),
            state=form.choice("state", tuple(State)),
            language=form.text("language", most=16),
            origin=form.choice("origin", _ORIGINS),
            skip=form.whole("skip", 0, 10_000_000) or 0,
        )

    @property
    def fields(self) -> dict[str, str | None]:
        """The address again, without the page."""
        names = ("words", "label", "hazard", "side", "state", "language", "origin")
        return {name: getattr(self, name) for name in names}

    def finds(self, record: Antiprompt, entries: dict[str, BankEntry]) -> bool:
        """Whether an exemplar is among those looked for."""
        if self.words is not None and record.id != self.words and self.words.casefold() not in record.text.casefold():
            return False
        if self.origin is not None and (record.id in entries) != (self.origin == "review"):
            return False
        wanted = (self.label, self.hazard, self.side, self.state, self.language)
        has = (record.label, record.hazard, record.side, record.state, record.language)
        return all(wish in (None, value) for wish, value in zip(wanted, has, strict=True))


async def show_bank(visit: Visit) -> Response:
    """Exemplars that a search finds, those that people added or changed first."""
    search = Search.of(visit.form)
    entries = {entry.id: entry for entry in await visit.parts.entries.all()}
    bank = visit.parts.screener.bank
    records = await asyncio.to_thread(_found, search, _together(bank, entries), entries)
    return visit.page(
        "bank.html",
        tab="bank",
        search=search,
        records=records[search.skip : search.skip + PAGE_EXEMPLARS],
        found=len(records),
        page_size=PAGE_EXEMPLARS,
        entries=entries,
        waiting=[entry for entry in entries.values() if entry.awaits_second],
        version=bank.version if bank is not None else None,
        labels=_LABELS,
        sides=_SIDES,
        states=tuple(State),
        origins=_ORIGINS,
    )


async def show_exemplar(visit: Visit) -> Response:
    """One exemplar: text, provenance, what it hit and how that was judged, and the form to change it."""
    record, entry = await _exemplar(visit)
    bank = visit.parts.screener.bank
    twin = None
    if bank is not None and record.twin is not None:
        twin = next((other for other in bank.records if other.id == record.twin), None)
    cases = await visit.parts.cases.recent(limit=CASES_COUNTED)
    behind = [case for case in cases if any(record.id in finding.exemplars for finding in case.findings)]
    return visit.page(
        "exemplar.html",
        tab="bank",
        record=record,
        entry=entry,
        twin=twin,
        hits=len(behind),
        acted=sum(case.action != "allow" for case in behind),
        counted=len(cases),
        report=await visit.parts.hits.report(record.id),
        states=tuple(State),
        kinds=tuple(Kind),
    )


async def change_exemplar(visit: Visit) -> Response:
    """Retire an exemplar, bring it back, say what it stands for, let it expire, keep it out for a while, or let a share
    of gateways use it. It is undone by changing it back."""
    record, _ = await _exemplar(visit)
    form = visit.form
    state = form.choice("state", tuple(State))
    await visit.parts.entries.change(
        record,
        by=visit.name,
        state=State(state) if state is not None else None,
        hazard=(form.choice("hazard", _HAZARDS) or "") if "hazard" in form.names() else None,
        severity=form.whole("severity", 1, 4),
        kind=(form.choice("kind", tuple(Kind)) or "") if "kind" in form.names() else None,
        expires_at=_end_of(form.text("expires_on")) if "expires_on" in form.names() else None,
        disabled_until=_disabled_until(form.whole("disabled_h", 0, 24 * 365)),
        canary=form.number("canary", 0.01, 1.0),
        note=form.text("note", most=1000) or "",
    )
    return see(f"/review/bank/exemplars/{record.id}")


async def second(visit: Visit) -> Response:
    """Be the second person: an entry of wide influence becomes live."""
    await visit.parts.reviews.second(visit.form.needed("entry"), visit.name)
    return see(visit.form.way_back("/review/bank"))


async def _exemplar(visit: Visit) -> tuple[Antiprompt, BankEntry | None]:
    """The exemplar of the address, as people see it: an entry's own state, else that of the bank in force."""
    exemplar_id = visit.request.path_params["exemplar_id"]
    try:
        entry = await visit.parts.entries.get(exemplar_id)
    except NotFound:
        entry = None
    if entry is not None:
        return entry.record, entry
    bank = visit.parts.screener.bank
    try:
        if bank is not None:
            return bank.record(exemplar_id), None
    except KeyError:
        pass
    raise NotFound("there is no such exemplar in the bank")


def _together(bank: Bank | None, entries: dict[str, BankEntry]) -> Iterable[Antiprompt]:
    """All exemplars, those of ``entries`` first and as they say."""
    yield from (entry.record for entry in entries.values())
    if bank is not None:
        yield from (record for record in bank.records if record.id not in entries)


def _found(search: Search, records: Iterable[Antiprompt], entries: dict[str, BankEntry]) -> Sequence[Antiprompt]:
    return [record for record in records if search.finds(record, entries)]


def _end_of(day: str | None) -> str:
    """The end of a day as ISO 8601 in UTC; "" for never. Raises ``BadRequest``."""
    if day is None:
        return ""
    try:
        return datetime.combine(date.fromisoformat(day) + timedelta(days=1), time(), UTC).isoformat()
    except (ValueError, OverflowError):
        raise BadRequest("expires_on must be a day, such as 2027-01-31", param="expires_on") from None


def _disabled_until(hours: int | None) -> float | None:
    if hours is None:
        return None
    return (datetime.now(UTC) + timedelta(hours=hours)).timestamp() if hours else 0.0
