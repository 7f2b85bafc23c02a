"""Sessions of the people who review: kept in Redis under the hash of a token that only the browser has.

A session ends when it was idle for too long, when it is too old however busy, at log-out, and when the account's
password changes or the account is disabled (its ``stamp`` is another then). Logging in always makes a new token:
one that was planted in a browser before is worth nothing after.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.accounts import Account, AccountStore
from gateway.redis_client import Field, RedisClient
from gateway.redis_keys import SESSION
from gateway.roles import Role
from gateway.settings import ReviewSettings

_REFRESH_S = 30.0
"""How much of its idle time a session may have used before a request writes that it is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Who is logged in. ``csrf_token`` stands in every form that changes something."""

    account: Account
    csrf_token: str
    began_at: float

    @property
    def name(self) -> str:
        return self.account.name

    @property
    def role(self) -> Role:
        return self.account.role

    def owns(self, csrf_token: str) -> bool:
        """Whether a form came from a page of this session, in a time that does not tell how nearly."""
        return hmac.compare_digest(csrf_token.encode("utf-8", "replace"), self.csrf_token.encode())


class SessionStore:
    """All sessions. Every method raises ``StateUnavailable`` while Redis is away."""

    def __init__(self, redis: RedisClient, accounts: AccountStore, settings: ReviewSettings) -> None:
        self._redis = redis
        self._accounts = accounts
        self._settings = settings

    async def begin(self, account: Account, *, replaces: str | None = None) -> str:
        """Log in: a new session and its token, which is not kept. ``replaces`` is a token that ends with it."""
        token = secrets.token_urlsafe(32)
        now = time.time()
        row: dict[Field, Field] = {
            "account": account.name,
            "stamp": account.stamp,
            "csrf_token": secrets.token_urlsafe(32),
            "began_at": now,
            "seen_at": now,
        }
        with self._redis.guard() as redis:
            if replaces is not None:
                await redis.delete(_key(replaces))
            pipe = redis.pipeline(transaction=True)
            pipe.hset(_key(token), mapping=row)
            pipe.expire(_key(token), self._settings.session_idle_s)
            await pipe.execute()
        return token

    async def find(self, token: str) -> Session | None:
        """The session of a token, kept alive by this; None for one that has ended or never was."""
        with self._redis.guard() as redis:
            row: Mapping[Any, Any] = await redis.hgetall(_key(token))
        if not row:
            return None
        account = await self._accounts.find(row["account"])
        now, began_at = time.time(), float(row["began_at"])
        too_old = now - began_at >= self._settings.session_max_s
        if account is None or not account.enabled or account.stamp != row["stamp"] or too_old:
            await self.end(token)
            return None
        if now - float(row["seen_at"]) > min(_REFRESH_S, self._settings.session_idle_s / 4):
            await self._keep_alive(token, now)
        return Session(account=account, csrf_token=row["csrf_token"], began_at=began_at)

    async def end(self, token: str) -> None:
        """Log out."""
        with self._redis.guard() as redis:
            await redis.delete(_key(token))

    async def _keep_alive(self, token: str, now: float) -> None:
        with self._redis.guard() as redis:
            # Only if it is still there: a log-out meanwhile must stand.
            if await redis.expire(_key(token), self._settings.session_idle_s):
                await redis.eval(_SEEN, 1, _key(token), now)


_SEEN = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'seen_at', ARGV[1]) end"


def _key(token: str) -> str:
    return SESSION(hashlib.sha256(token.encode("utf-8", "replace")).hexdigest())
