"""ReviewStore: the moderators' queue, who holds which flag, how they decide, and how that is taken back.

A decision is one script in Redis: review, audit entry, entry for the workers, the flags' states and the bank's entries
are written together or not at all. The same verdict makes the same review id, so a retry after a lost answer finds it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from gateway.errors import BadRequest, Conflict, NotFound
from gateway.exemplars import Taught, check_verdict, taught_by
from gateway.flag_records import Flag, FlagState, Source, flag_from_hash
from gateway.influence import Assess, InfluenceReport, Reach
from gateway.overlay_entries import EntryStore
from gateway.overlay_records import BankEntry
from gateway.redis_client import RedisClient
from gateway.redis_keys import BANK_ENTRIES, FLAG, FLAG_LEASES, REVIEW, STRIKE_OF, STRIKES
from gateway.review_drafts import drawn_up, withdrawn
from gateway.review_log import ReviewLog, check_person
from gateway.review_queue import Page, ReviewQueue
from gateway.review_records import LEASE_S, QueueFilter, QueueOrder, Review, Verdict
from gateway.review_scripts import (
    CLAIM_SCRIPT,
    DECIDE_SCRIPT,
    RELEASE_SCRIPT,
    UNDO_SCRIPT,
    decide_call,
    undo_call,
)

__all__ = ["Page", "ReviewStore"]

_MAX_LEASE_S = 3600
_UNASSESSED = "nothing here can say how far it reaches"


class ReviewStore(ReviewLog):
    """All reviews: to be read as in ``ReviewLog``, and how they come about.

    Every method raises ``StateUnavailable`` while Redis is away.

    ``assess`` says how far a new exemplar would reach (see ``influence``); without it every new exemplar counts as
    wide and waits for a second person.
    """

    def __init__(self, redis: RedisClient, assess: Assess | None = None) -> None:
        super().__init__(redis)
        self._assess = assess
        self._queue = ReviewQueue(redis)
        self._entries = EntryStore(redis)

    async def queue(
        self,
        *,
        state: FlagState = FlagState.OPEN,
        filters: QueueFilter = QueueFilter(),  # noqa: B008  # it is frozen
        order: QueueOrder = "priority",
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Flags in a state (open, escalated, confirmed or dismissed); those that are claimed stand among the open ones.

        Confirmed and dismissed ones come newest first whatever the order. Raises ``BadRequest`` for a cursor that no
        page gave, or a limit outside 1 to 200.
        """
        return await self._queue.page(state, filters, order, after, limit)

    async def get(self, flag_id: str) -> Flag:
        """One flag, with ``claimed_by`` and ``claimed_until`` while somebody holds it. Raises ``NotFound``."""
        return (await self._read([flag_id]))[0][0]

    async def claim(self, flag_id: str, moderator: str, *, lease_s: int = LEASE_S) -> Flag:
        """Keep a flag for one person; claiming again extends it. An expired lease is free for anybody.

        Raises ``Conflict`` naming who holds it, or for a decided flag, and ``NotFound``.
        """
        if not 1 <= lease_s <= _MAX_LEASE_S:
            raise BadRequest(f"a claim lasts 1 to {_MAX_LEASE_S} seconds", param="lease_s")
        check_person(moderator)
        with self._redis.guard() as redis:
            found: Any = await redis.eval(
                CLAIM_SCRIPT, 2, FLAG(flag_id), FLAG_LEASES(), flag_id, moderator, lease_s * 1000
            )
        _refuse(found, flag_id)
        return await self.get(flag_id)

    async def release(self, flag_id: str, moderator: str) -> None:
        """Give a flag back before its time; nothing happens where somebody else holds it."""
        with self._redis.guard() as redis:
            await redis.eval(RELEASE_SCRIPT, 2, FLAG(flag_id), FLAG_LEASES(), flag_id, moderator)

    async def preview(self, verdict: Verdict) -> InfluenceReport | None:
        """What carrying it out would reach, before anybody does; None where nothing would enter the bank."""
        check_verdict(verdict)
        flags, _ = await self._read(verdict.flag_ids)
        taught = taught_by(verdict, flags)
        return await self._influence(taught) if taught.exemplars else None

    async def decide(self, verdict: Verdict) -> Review:
        """Carry a verdict out: review, audit entry, retraining entry, states and bank entries, all or nothing.

        The same verdict given again is the same review. Raises ``Conflict`` for a flag that is decided already or
        held by another, ``NotFound``, and ``BadRequest`` for a verdict that does not fit its flags.
        """
        check_verdict(verdict)
        flags, rounds = await self._read(verdict.flag_ids)
        review_id = self._review_id(verdict, rounds)
        with self._redis.guard() as redis:
            row: Any = await redis.hgetall(REVIEW(review_id))
        if row:
            await self._redis.confirm(REVIEW(review_id))  # the attempt that wrote it may have had no answer
            return Review.from_row(row)
        for flag in flags:
            if flag.state.decided:
                _refuse(["decided", flag.state], flag.id)
        taught = taught_by(verdict, flags)
        review, entries = drawn_up(verdict, flags, review_id, taught, await self._influence(taught))
        keys, args = decide_call(review, flags, entries, await self._struck(flags), int(review.at * 1000))
        with self._redis.guard() as redis:
            said: Any = await redis.eval(DECIDE_SCRIPT, len(keys), *keys, *args)
        if said[0] in ("done", "same"):
            return Review.from_row({"review": said[1]})
        _refuse([said[0], *said[2:]], said[1])
        raise AssertionError(said)

    async def undo(self, review_id: str, moderator: str) -> Review:
        """Take a review back: its flags are open again and its bank entries withdrawn on every gateway.

        Raises ``Conflict`` when it is older than ten minutes or undone already, and ``NotFound``.
        """
        check_person(moderator)
        review = await self.review(review_id)
        before = await self._before(review)
        with self._redis.guard() as redis:
            lines: Any = await redis.hmget(BANK_ENTRIES(), list(review.entry_ids)) if review.entry_ids else []
        retired = [withdrawn(BankEntry.from_json(line), moderator) for line in lines if line is not None]
        struck = await self._struck(list(before))
        keys, args = undo_call(review, moderator, before, retired, struck, int(time.time() * 1000))
        with self._redis.guard() as redis:
            said: Any = await redis.eval(UNDO_SCRIPT, len(keys), *keys, *args)
        match said[0]:
            case "missing":
                raise NotFound(f"there is no review {review_id!r}")
            case "undone":
                raise Conflict("this review was undone already")
            case "late":
                raise Conflict("a review can be undone for ten minutes; change the bank's entries instead")
            case "later":
                raise Conflict(f"{said[1]} has been decided anew since; undo that first")
        return await self.review(review_id)

    async def second(self, entry_id: str, moderator: str) -> BankEntry:
        """Make a wide entry live. Raises ``Conflict`` unless it waits for that, ``Forbidden`` for the same person."""
        return await self._entries.second(entry_id, moderator)

    async def _read(self, flag_ids: Sequence[str]) -> tuple[list[Flag], list[str]]:
        """The flags, and for each how often a review of it was undone. Raises ``NotFound``."""
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            for id in flag_ids:
                pipe.hgetall(FLAG(id))
            rows = await pipe.execute()
        for id, row in zip(flag_ids, rows, strict=True):
            if not row:
                raise NotFound(f"there is no flag {id!r}")
        flags = [flag_from_hash(id, row) for id, row in zip(flag_ids, rows, strict=True)]
        return flags, [row.get("rounds", "0") for row in rows]

    async def _before(self, review: Review) -> dict[Flag, FlagState]:
        """The flags of a review, and the state in which each waited before it."""
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            for id in review.flag_ids:
                pipe.hgetall(FLAG(id))
            rows = await pipe.execute()
        return {
            flag_from_hash(id, row): FlagState(row.get("before", "open"))
            for id, row in zip(review.flag_ids, rows, strict=True)
            if row
        }

    async def _struck(self, flags: Sequence[Flag]) -> dict[str, str]:
        """Of flags by which people ask for another look at a case: where the strike for it is kept.

        What policy flagged is another text than what it blocked, and says nothing of the block.
        """
        asked = [(flag, flag.case_id) for flag in flags if flag.source is not Source.POLICY and flag.case_id]
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=False)
            for _, case_id in asked:
                pipe.get(STRIKE_OF(case_id))
            found = await pipe.execute() if asked else []
        struck = {}
        for (flag, _), person in zip(asked, found, strict=True):
            end_user, _, tenant = (person or "").partition(" ")
            if person and tenant == flag.tenant:  # a case id that came while Redis was away has not been checked
                struck[flag.id] = STRIKES(end_user, tenant)
        return struck

    def _review_id(self, verdict: Verdict, rounds: Sequence[str]) -> str:
        """The id that a verdict has, given again it is the same; after an undo the same words are a new verdict."""
        pairs = sorted(zip(verdict.flag_ids, rounds, strict=True))
        words = (verdict.hazard, verdict.corrected_answer, verdict.benign_twin, verdict.comment)
        parts = [verdict.moderator, str(verdict.decision), str(verdict.severity), *map(repr, words), repr(pairs)]
        return "rev_" + self._redis.digest("review", *parts)[:24]

    async def _influence(self, taught: Taught) -> InfluenceReport:
        exemplars = [exemplar for _, exemplar in taught.exemplars]
        if not exemplars:
            return InfluenceReport(())
        if self._assess is not None:
            return await self._assess(exemplars)
        return InfluenceReport(tuple(Reach(each.id, 0, 0, 0, 0, why=(_UNASSESSED,)) for each in exemplars))


def _refuse(said: Sequence[str], flag_id: str) -> None:
    match said[0]:
        case "missing":
            raise NotFound(f"there is no flag {flag_id!r}")
        case "decided":
            raise Conflict(f"{flag_id} is {said[1]} already")
        case "held":
            raise Conflict(f"{said[1]} holds {flag_id}")
