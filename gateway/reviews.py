"""ReviewStore: the moderators' queue, who holds which flag, what they decided, and how it is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.flag_records import Flag, FlagState
from gateway.influence import Assess, InfluenceReport
from gateway.overlay_records import BankEntry
from gateway.redis_client import RedisClient
from gateway.review_records import (
    LEASE_S,
    AuditEntry,
    Comment,
    Numbers,
    QueueFilter,
    QueueOrder,
    Review,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Page:
    """Some flags of the queue. ``next`` is what ``after`` takes for those behind them; None at the end.

    ``total`` counts the flags in that state, filters aside.
    """

    flags: tuple[Flag, ...]
    next: str | None
    total: int


class ReviewStore:
    """All reviews. Every method raises ``StateUnavailable`` while Redis is away.

    ``assess`` says how far a new exemplar would reach (see ``influence``); without it every new exemplar counts as
    wide and waits for a second person.
    """

    def __init__(self, redis: RedisClient, assess: Assess | None = None) -> None:
        self._redis = redis
        self._assess = assess

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
        raise NotImplementedError

    async def get(self, flag_id: str) -> Flag:
        """One flag, with ``claimed_by`` and ``claimed_until`` while somebody holds it. Raises ``NotFound``."""
        raise NotImplementedError

    async def claim(self, flag_id: str, moderator: str, *, lease_s: int = LEASE_S) -> Flag:
        """Keep a flag for one person; claiming again extends it. An expired lease is free for anybody.

        Raises ``Conflict`` naming who holds it, or for a decided flag, and ``NotFound``.
        """
        raise NotImplementedError

    async def release(self, flag_id: str, moderator: str) -> None:
        """Give a flag back before its time; nothing happens where somebody else holds it."""
        raise NotImplementedError

    async def preview(self, verdict: Verdict) -> InfluenceReport | None:
        """What carrying it out would reach, before anybody does; None where nothing would enter the bank."""
        raise NotImplementedError

    async def decide(self, verdict: Verdict) -> Review:
        """Carry a verdict out: review, audit entry, retraining entry, states and bank entries, all or nothing.

        The same verdict given again is the same review. Raises ``Conflict`` for a flag that is decided already or
        held by another, ``NotFound``, and ``BadRequest`` for a verdict that does not fit its flags.
        """
        raise NotImplementedError

    async def undo(self, review_id: str, moderator: str) -> Review:
        """Take a review back: its flags are open again and its bank entries withdrawn on every gateway.

        Raises ``Conflict`` when it is older than ten minutes or undone already, and ``NotFound``.
        """
        raise NotImplementedError

    async def second(self, entry_id: str, moderator: str) -> BankEntry:
        """Make a wide entry live. Raises ``Conflict`` unless it waits for that, ``Forbidden`` for the same person."""
        raise NotImplementedError

    async def comment(self, flag_id: str, moderator: str, text: str) -> Comment:
        """Write something beside a flag. Raises ``BadRequest`` for an empty or too long text, and ``NotFound``."""
        raise NotImplementedError

    async def comments(self, flag_id: str) -> Sequence[Comment]:
        """What was written beside a flag, oldest first."""
        raise NotImplementedError

    async def reviews_of(self, flag_id: str) -> Sequence[Review]:
        """The reviews of a flag, oldest first, undone ones too."""
        raise NotImplementedError

    async def review(self, review_id: str) -> Review:
        """One review. Raises ``NotFound``."""
        raise NotImplementedError

    async def recent(self, *, limit: int = 100) -> Sequence[Review]:
        """The newest reviews, undone ones too."""
        raise NotImplementedError

    async def audit(self, *, after: str | None = None, limit: int = 100) -> Sequence[AuditEntry]:
        """What people did, newest first; ``after`` is the id of the last entry of the page before."""
        raise NotImplementedError

    async def numbers(self) -> Numbers:
        """How the work goes."""
        raise NotImplementedError
