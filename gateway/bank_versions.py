"""BankVersions: which version of the bank is in force on all gateways, who put it there, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.redis_client import RedisClient


@dataclass(frozen=True, slots=True)
class Published:
    """A version that was put in force. ``action`` is publish or rollback; ``at`` is UTC in seconds since 1970."""

    version: str
    action: str
    by: str
    note: str
    at: float


class BankVersions:
    """The versions in ``folder`` (``bank.path``; None: the seed bank alone), and the pointer to one of them in Redis.

    Methods that ask Redis raise ``StateUnavailable`` while it is away.
    """

    def __init__(self, redis: RedisClient, folder: Path | None) -> None:
        self._redis = redis
        self._folder = folder

    def versions(self) -> Sequence[str]:
        """All versions in the folder, newest first. Blocking: it reads the disk."""
        raise NotImplementedError

    async def current(self) -> Published | None:
        """What was put in force last; None where nobody has, and the folder's own pointer counts."""
        raise NotImplementedError

    async def publish(self, version: str, *, by: str, note: str) -> Published:
        """Put a version in force on every gateway within two seconds. Raises ``NotFound`` for one that is not there,
        ``Conflict`` where settings pin a version, ``BadRequest`` without a person or a reason."""
        raise NotImplementedError

    async def rollback(self, *, by: str, note: str, version: str | None = None) -> Published:
        """Put an earlier version in force again: ``version``, or the one before the current one."""
        raise NotImplementedError

    async def history(self, *, limit: int = 100) -> Sequence[Published]:
        """What was put in force, newest first."""
        raise NotImplementedError

    async def scores(self, version: str) -> Mapping[str, Any] | None:
        """What the retraining gate measured of a version; None where it was made by hand."""
        raise NotImplementedError
