"""Drafts: a review and its bank entries as they are to be written, and as they end when the review is undone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from antiprompt_bank import State
from gateway.exemplars import Taught
from gateway.flag_records import Flag
from gateway.influence import InfluenceReport
from gateway.overlay_records import BankEntry
from gateway.review_records import Review, Verdict


def drawn_up(
    verdict: Verdict, flags: Sequence[Flag], review_id: str, taught: Taught, report: InfluenceReport
) -> tuple[Review, list[BankEntry]]:
    """The review, and the bank entries that go with it: narrow ones live, wide ones in shadow."""
    now_s = time.time()
    notes, entries = list(taught.notes), []
    for (flag_id, exemplar), reach in zip(taught.exemplars, report.entries, strict=True):
        if reach.known is not None:
            notes.append(f"{flag_id}: the bank knows this already, as {reach.known}")
            continue
        entries.append(
            BankEntry(
                record=replace(exemplar, state=State.SHADOW if reach.wide else State.LIVE),
                by=verdict.moderator,
                flag_id=flag_id,
                review_id=review_id,
                awaits_second=reach.wide,
                changed_at=now_s,
                why="; ".join(reach.why),
            )
        )
    review = Review(
        id=review_id,
        flag_ids=verdict.flag_ids,
        moderator=verdict.moderator,
        role=verdict.role,
        decision=verdict.decision,
        at=now_s,
        hazard=verdict.hazard,
        severity=verdict.severity,
        corrected_answer=verdict.corrected_answer,
        benign_twin=verdict.benign_twin,
        comment=verdict.comment,
        entry_ids=tuple(entry.id for entry in entries),
        awaits_second=any(entry.awaits_second for entry in entries),
        notes=tuple(notes),
        waited_s=tuple(max(0.0, now_s - flag.created_at) for flag in flags),
        sources=tuple(str(flag.source) for flag in flags),
        hazards=tuple(flag.hazard for flag in flags),
    )
    return review, entries


def withdrawn(entry: BankEntry, moderator: str) -> BankEntry:
    """An entry as it is once nobody asks for it any more: kept, because a version may hold it by now."""
    record = replace(entry.record, state=State.RETIRED)
    return replace(entry, record=record, awaits_second=False, changed_at=time.time(), why=f"undone by {moderator}")
