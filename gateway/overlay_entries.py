"""EntryStore: the bank's entries since its version, as people see and change them; which gateway stands where."""

from __future__ import annotations

from collections.abc import Sequence

from antiprompt_bank import Antiprompt, State
from gateway.overlay_records import BankEntry, Replica
from gateway.redis_client import RedisClient


class EntryStore:
    """All entries. Every method raises ``StateUnavailable`` while Redis is away."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def all(self) -> Sequence[BankEntry]:
        """Every entry, the one changed last first."""
        raise NotImplementedError

    async def get(self, entry_id: str) -> BankEntry:
        """Raises ``NotFound``."""
        raise NotImplementedError

    async def change(
        self,
        record: Antiprompt,
        *,
        by: str,
        state: State | None = None,
        expires_at: str | None = None,
        disabled_until: float | None = None,
        canary: float | None = None,
        note: str = "",
    ) -> BankEntry:
        """Change what a person may change of an exemplar, be it an entry or of the version below; None stays.

        ``expires_at`` is ISO 8601 with a zone ("" for never), ``disabled_until`` UTC seconds (0: not at all). Making
        live what waits for a second person is ``ReviewStore.second``'s: here it raises ``Conflict``. Raises
        ``BadRequest`` for a value out of its range.
        """
        raise NotImplementedError

    async def replicas(self) -> Sequence[Replica]:
        """The gateways that have lately said where they stand."""
        raise NotImplementedError
