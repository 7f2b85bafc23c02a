"""Quotas: how much a key or an end user may ask for in a minute or an hour, counted in Redis for all replicas.

A sliding window of two counters: the current window's use, and the last window's weighted by how much of it still
overlaps (as Cloudflare counts, https://blog.cloudflare.com/counting-things-a-lot-of-different-things/). While Redis
is away each process counts for itself, from nothing: limits are then by process, but never off.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

from gateway.errors import RateLimited, StateUnavailable
from gateway.redis_client import RedisClient
from gateway.redis_keys import RATE
from gateway.settings import FlagSettings

MINUTE_S = 60
HOUR_S = 3600
MAX_LOCAL_COUNTERS = 100_000

Mode = Literal["take", "look", "count"]
"""take: count if it fits; look: only say whether it would fit; count: count whether it fits or not."""

_USE = """
local limit, window_ms, cost, mode = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local window, share = math.floor(now_ms / window_ms), now_ms % window_ms / window_ms
local held = redis.call('HMGET', KEYS[1], 'window', 'use', 'last')
local age, use, last = window - tonumber(held[1] or 0), tonumber(held[2] or 0), tonumber(held[3] or 0)
if age == 1 then use, last = 0, use elseif age ~= 0 then use, last = 0, 0 end
local fits = use + last * (1 - share) + cost <= limit
if mode == 'count' or (mode == 'take' and fits) then
    redis.call('HSET', KEYS[1], 'window', window, 'use', use + cost, 'last', last)
    redis.call('PEXPIRE', KEYS[1], 2 * window_ms)
end
return {fits and '1' or '0', tostring(use), tostring(last), tostring(share)}
"""


@dataclass(frozen=True, slots=True)
class Quota:
    """``limit`` of ``what`` in ``window_s`` seconds, for ``whom`` (an id or a digest; never shown)."""

    what: str
    whom: str
    limit: int
    window_s: int

    @property
    def key(self) -> str:
        return RATE(self.whom, self.what)


@dataclass(frozen=True, slots=True)
class _Use:
    """The counters before an attempt: this window's use, the last one's, and the share of this window gone by."""

    fits: bool
    use: float
    last: float
    share: float


class Quotas:
    """All rate limits."""

    def __init__(self, redis: RedisClient, flags: FlagSettings) -> None:
        self._redis = redis
        self._flags = flags
        self._local: dict[str, tuple[int, int, int]] = {}  # key -> window, use, last

    async def take_request(
        self, key_id: str, *, requests_per_minute: int | None, tokens_per_minute: int | None
    ) -> None:
        """Count one request of a key. Raises ``RateLimited`` when its requests or its tokens are used up."""
        if tokens_per_minute is not None:
            await self._spend(Quota("tokens", key_id, tokens_per_minute, MINUTE_S), 1, "look")
        if requests_per_minute is not None:
            await self._spend(Quota("requests", key_id, requests_per_minute, MINUTE_S), 1, "take")

    async def count_tokens(self, key_id: str, tokens: int, *, tokens_per_minute: int | None) -> None:
        """Count what an exchange has used, once it is known; going over is paid for by the key's next request."""
        if tokens_per_minute is not None and tokens > 0:
            await self._use(Quota("tokens", key_id, tokens_per_minute, MINUTE_S), tokens, "count")

    async def take_flag(self, *, tenant: str, key_id: str | None, end_user: str | None) -> None:
        """Count one flag of a key (of the tenant where there is none) and of an end user (a digest).

        Raises ``RateLimited``.
        """
        whom = key_id if key_id is not None else f"tenant {tenant}"
        await self._spend(Quota("flags", whom, self._flags.per_key_per_hour, HOUR_S), 1, "take")
        if end_user is not None:
            await self._spend(
                Quota("flags by one end user", f"{tenant} {end_user}", self._flags.per_end_user_per_hour, HOUR_S),
                1,
                "take",
            )

    async def take_as_slowed(self, *, tenant: str, end_user: str, requests_per_minute: int) -> None:
        """Count one request of an end user (a digest) whom strikes have slowed down. Raises ``RateLimited``."""
        what = "requests by an end user who was blocked repeatedly"
        await self._spend(Quota(what, f"{tenant} {end_user}", requests_per_minute, MINUTE_S), 1, "take")

    async def take_log_in(self, *, account: str, address: str, per_account: int, per_address: int) -> None:
        """Count one attempt to log in, right or wrong, on an account (a digest) and from an address.

        Raises ``RateLimited``.
        """
        await self._spend(Quota("log-ins from one address", f"address {address}", per_address, MINUTE_S), 1, "take")
        await self._spend(Quota("log-ins on one account", f"account {account}", per_account, MINUTE_S), 1, "take")

    async def _spend(self, quota: Quota, cost: int, mode: Mode) -> None:
        found = await self._use(quota, cost, mode)
        if not found.fits:
            wait_s = math.ceil(_wait_s(quota, found, cost))
            per = "minute" if quota.window_s == MINUTE_S else "hour"
            raise RateLimited(
                f"over the limit of {quota.limit} {quota.what} per {per}; try again in {wait_s} s", retry_after_s=wait_s
            )

    async def _use(self, quota: Quota, cost: int, mode: Mode) -> _Use:
        try:
            with self._redis.guard() as redis:
                answer = await redis.eval(_USE, 1, quota.key, quota.limit, quota.window_s * 1000, cost, mode)
        except StateUnavailable:
            return self._use_locally(quota, cost, mode)
        fits, use, last, share = answer
        return _Use(fits == "1", float(use), float(last), float(share))

    def _use_locally(self, quota: Quota, cost: int, mode: Mode) -> _Use:
        """What ``_USE`` does, in this process."""
        window, share = divmod(time.time() / quota.window_s, 1)
        held, use, last = self._local.pop(quota.key, (0, 0, 0))
        if window - held == 1:
            use, last = 0, use
        elif window != held:
            use = last = 0
        fits = use + last * (1 - share) + cost <= quota.limit
        spent = use + cost if mode == "count" or (mode == "take" and fits) else use
        if len(self._local) >= MAX_LOCAL_COUNTERS:
            del self._local[next(iter(self._local))]
        self._local[quota.key] = (int(window), spent, last)
        return _Use(fits, use, last, share)


def _wait_s(quota: Quota, found: _Use, cost: int) -> float:
    """Seconds until ``cost`` fits if nothing else is used: as the last window, then this one, slides out."""
    room = quota.limit - cost
    if room < 0:
        return quota.window_s
    if found.use <= room:
        return (1 - (room - found.use) / found.last - found.share) * quota.window_s
    return (1 - found.share + 1 - room / found.use) * quota.window_s
