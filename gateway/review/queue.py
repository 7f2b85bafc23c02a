"""The queue: what waits for a person, riskiest first; claiming, giving back, and the look-alikes of a flag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from starlette.responses import Response

from gateway.flag_records import Flag, FlagState, Source
from gateway.review.alike import look_alikes
from gateway.review.forms import Form
from gateway.review.guard import Visit, see
from gateway.review.pages import query
from gateway.review_records import QueueFilter, QueueOrder, Review

PAGE_FLAGS: Final = 50
ALIKE_AMONG: Final = 200
"""Flags among which look-alikes are sought: as many as one page of the store may hold."""

_AGES_S: Final = {"1 h": 3600, "24 h": 86_400, "7 d": 7 * 86_400}
_STATES: Final = (FlagState.OPEN, FlagState.ESCALATED, FlagState.CONFIRMED, FlagState.DISMISSED)
_SHOWN_UNDO: Final = 5
_RECENT: Final = 200  # reviews of all moderators, among which this one's last are


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to see of the queue, as its address says it."""

    state: FlagState
    order: QueueOrder
    filters: QueueFilter
    age: str | None
    like: str | None
    after: str | None

    @classmethod
    def of(cls, form: Form) -> Wish:
        """Raises ``BadRequest`` for a value that no filter has."""
        age = form.choice("age", tuple(_AGES_S))
        order: QueueOrder = "newest" if form.choice("order", get_args(QueueOrder)) == "newest" else "priority"
        return cls(
            state=FlagState(form.choice("state", _STATES) or FlagState.OPEN),
            order=order,
            filters=QueueFilter(
                hazard=form.text("hazard"),
                source=form.choice("source", tuple(Source)),
                tenant=form.text("tenant", most=64),
                language=form.text("language", most=16),
                max_age_s=_AGES_S[age] if age is not None else None,
            ),
            age=age,
            like=form.text("like"),
            after=form.text("after"),
        )

    @property
    def fields(self) -> dict[str, str | None]:
        """The address again, as names and values."""
        return {
            "state": None if self.state is FlagState.OPEN else self.state,
            "order": None if self.order == "priority" else self.order,
            "hazard": self.filters.hazard,
            "source": self.filters.source,
            "tenant": self.filters.tenant,
            "language": self.filters.language,
            "age": self.age,
            "like": self.like,
        }


async def show_queue(visit: Visit) -> Response:
    """The flags that somebody asks for, fifty at a time."""
    wish = Wish.of(visit.form)
    reviews = visit.parts.reviews
    found = await reviews.queue(
        state=wish.state,
        filters=wish.filters,
        order=wish.order,
        after=wish.after,
        limit=ALIKE_AMONG if wish.like else PAGE_FLAGS,
    )
    flags: Sequence[Flag] = found.flags
    if wish.like is not None:
        one = await reviews.get(wish.like)
        flags = await asyncio.to_thread(look_alikes, one, flags)
    values = {
        "wish": wish,
        "flags": flags,
        "after": found.next if wish.like is None else None,
        "total": found.total,
        "states": _STATES,
        "ages": tuple(_AGES_S),
        "back": "/review/queue" + query(wish.fields),
    }
    if visit.request.headers.get("hx-request") == "true":
        return visit.page("queue_list.html", **values)
    return visit.page("queue.html", undoable=await undoable(visit), tab="queue", **values)


async def take_next(visit: Visit) -> Response:
    """Claim the first flag that nobody holds, and open it."""
    found = await visit.parts.reviews.queue(limit=PAGE_FLAGS)
    now = time.time()
    for flag in found.flags:
        if flag.claimed_by in (None, visit.name) or (flag.claimed_until or 0.0) <= now:
            await visit.parts.reviews.claim(flag.id, visit.name)
            return see(f"/review/flags/{flag.id}")
    return see("/review/queue")


async def claim(visit: Visit) -> Response:
    """Keep a flag for this person. Where another holds it, the page of the error says who."""
    flag = await visit.parts.reviews.claim(visit.form.needed("flag"), visit.name)
    if visit.request.headers.get("hx-request") == "true":
        return visit.page("queue_row.html", flag=flag, back=visit.form.way_back("/review/queue"), wish=None)
    return see(visit.form.way_back(f"/review/flags/{flag.id}"))


async def release(visit: Visit) -> Response:
    """Give a flag back before its time."""
    flag_id = visit.form.needed("flag")
    await visit.parts.reviews.release(flag_id, visit.name)
    if visit.request.headers.get("hx-request") == "true":
        flag = await visit.parts.reviews.get(flag_id)
        return visit.page("queue_row.html", flag=flag, back=visit.form.way_back("/review/queue"), wish=None)
    return see(visit.form.way_back("/review/queue"))


async def undoable(visit: Visit) -> Sequence[Review]:
    """This person's last decisions that can still be taken back, newest first."""
    if not visit.may("POST", "/review/undo"):
        return ()
    now = time.time()
    mine = [
        review
        for review in await visit.parts.reviews.recent(limit=_RECENT)
        if review.moderator == visit.name and review.stands and review.undo_until > now
    ]
    return mine[:_SHOWN_UNDO]
