"""Flags and their reviews as Redis holds them -> ``Reviewed`` rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from antiprompt_bank import HAZARDS
from gateway.alignment.reviewed import Reviewed, Standing
from gateway.flag_records import Flag, FlagState
from gateway.redis_client import RedisClient
from gateway.review_records import Decision, Review
from gateway.reviews import ReviewStore

_STANDING: Final = {
    FlagState.OPEN: Standing.PENDING,
    FlagState.ESCALATED: Standing.PENDING,
    FlagState.CONFIRMED: Standing.CONFIRMED,
    FlagState.DISMISSED: Standing.DISMISSED,
}
_DECISION: Final = {FlagState.CONFIRMED: Decision.CONFIRM, FlagState.DISMISSED: Decision.DISMISS}


@dataclass(frozen=True, slots=True)
class Collected:
    """All flags that can be learned from, and how many others there are, by reason."""

    rows: tuple[Reviewed, ...]
    left_out: Mapping[str, int]


async def collect(redis: RedisClient) -> Collected:
    """Read every flag. Raises ``StateUnavailable`` while Redis is away.

    What a user proposed as a correction is no correction: only a moderator's counts. Flags without text (erased, or
    never kept), without the prompt they answer, or of a hazard whose texts are never stored, are counted and left out.
    """
    store = ReviewStore(redis)
    rows: dict[str, Reviewed] = {}
    left_out: Counter[str] = Counter()
    for state, standing in _STANDING.items():
        after = None
        while True:
            page = await store.queue(state=state, order="newest", after=after, limit=200)
            for flag in page.flags:
                review = await _review_in_force(store, flag, state) if state.decided else None
                found = reviewed(flag, standing, review)
                if isinstance(found, str):
                    left_out[found] += 1
                else:
                    rows[flag.id] = found  # a flag decided meanwhile is met twice: its later standing counts
            after = page.next
            if after is None:
                break
    return Collected(tuple(rows[id] for id in sorted(rows)), dict(sorted(left_out.items())))


def reviewed(flag: Flag, standing: Standing, review: Review | None) -> Reviewed | str:
    """The row of a flag, or why there is none."""
    if standing in (Standing.CONFIRMED, Standing.DISMISSED) and review is None:
        return "no review that stands"
    hazard = (review.hazard if review else None) or flag.hazard
    if hazard is not None and not HAZARDS[hazard].carries_text:
        return "a hazard whose texts are never stored"
    if flag.text is None or not flag.text.strip():
        return "text erased or never kept"
    asked = flag.text if flag.side == "request" else flag.prompt
    if asked is None or not asked.strip():
        return "no prompt beside the answer"
    return Reviewed(
        flag_id=flag.id,
        standing=standing,
        prompt=asked,
        answer=None if flag.side == "request" else flag.text,
        corrected=review.corrected_answer if review else None,
        hazard=hazard,
        severity=review.severity if review else 2,
        language=flag.language or "en",
        review_id=review.id if review else None,
        role=review.role if review else None,
        bank_version=flag.bank_version,
    )


async def _review_in_force(store: ReviewStore, flag: Flag, state: FlagState) -> Review | None:
    """The newest review that stands and says what the flag's state says."""
    found: Sequence[Review] = await store.reviews_of(flag.id)
    return next((each for each in reversed(found) if each.stands and each.decision is _DECISION[state]), None)
