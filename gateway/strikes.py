"""Strikes: who was blocked again and again, by tenant and end user. They fade, and can be taken back.

Each block that policy enforced on a text of the end user's, or on a reply to them, is one strike; what is in shadow
never is. Where somebody stands follows from the strikes and the policy alone: nothing else is kept, so a strike that
is taken back, or a policy that is changed, shows at the next request. All of it happens in one script under Redis'
own clock, so that every gateway sees the same. With Redis away nobody is warned, slowed down or suspended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from antiprompt_bank.records import Side
from gateway.errors import BadRequest, NotFound
from gateway.redis_client import Field, RedisClient
from gateway.redis_keys import REVIEW_AUDIT, STRIKE_OF, STRIKE_TENANTS, STRIKES, STRUCK
from gateway.settings import StrikeSettings
from gateway.strike_rules import Strikes

MAX_STRIKES: Final = 200
"""Strikes kept of one end user of a tenant; the oldest go first."""

STANDING_HEADER: Final = "x-antiprompt-standing"
PSEUDONYM_DIGITS: Final = 8
AUDIT_MAX_ENTRIES: Final = 1_000_000
_HALF_LIVES: Final = 10  # after which a strike weighs a thousandth
_MAX_LISTED: Final = 500

STRIKE_SCRIPT: Final = """
local strikes, of_case, tenants, struck = unpack(KEYS)
local case, strike, ttl_s, most, member, tenant, prefix = unpack(ARGV)
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function keep(key) if redis.call('TTL', key) < tonumber(ttl_s) then redis.call('EXPIRE', key, ttl_s) end end
if case ~= '' and redis.call('HEXISTS', strikes, case) == 0 then
    local made = cjson.decode(strike)
    made.at_ms = now_ms
    redis.call('HSET', strikes, case, cjson.encode(made))
    redis.call('SET', of_case, member, 'EX', ttl_s)
    redis.call('SADD', tenants, tenant)
    redis.call('ZREMRANGEBYSCORE', struck, '-inf', now_ms)
    redis.call('ZADD', struck, 'GT', now_ms + ttl_s * 1000, member)
    keep(strikes)
    keep(tenants)
    if redis.call('HLEN', strikes) > tonumber(most) then
        local held, oldest, since = redis.call('HGETALL', strikes), nil, now_ms + 1
        for at = 1, #held, 2 do
            local found = cjson.decode(held[at + 1]).at_ms
            if found < since then oldest, since = held[at], found end
        end
        redis.call('HDEL', strikes, oldest)
        redis.call('DEL', prefix .. oldest)
    end
end
return {now_ms, redis.call('HGETALL', strikes)}
"""
"""Adds a strike, once for a case ('': none), and answers the time (ms) and all strikes of the end user."""


class Standing(StrEnum):
    """What follows for an end user, mildest first."""

    GOOD = "good"
    WARNED = "warned"
    SLOWED = "slowed"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One block. ``at_ms`` is UTC in milliseconds since 1970, by Redis' clock; ``part`` the part of the policy under
    which it happened, ``back`` the review that took it back ("": it counts)."""

    at_ms: float
    weight: float
    side: Side
    hazard: str = ""
    part: str = ""
    back: str = ""


@dataclass(frozen=True, slots=True)
class Conduct:
    """Where an end user stands now: the faded weight of ``strikes`` strikes, what follows, and how long yet."""

    weight: float = 0.0
    strikes: int = 0
    standing: Standing = Standing.GOOD
    left_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Struck:
    """An end user (a digest) with strikes, as the dashboard lists them. ``last_at`` is UTC seconds since 1970."""

    end_user: str
    tenant: str
    last_at: float
    hazards: tuple[str, ...]
    conduct: Conduct

    @property
    def pseudonym(self) -> str:
        """What people see in the place of an end user."""
        return pseudonym(self.end_user)


def pseudonym(end_user: str) -> str:
    """The start of an end user's digest: enough to tell people apart, and no name."""
    return end_user[:PSEUDONYM_DIGITS]


def conduct_of(strikes: Sequence[Strike], rules: Strikes, now_ms: float, half_life_s: float) -> Conduct:
    """Where somebody with these strikes stands at a moment. Pure.

    A strike weighs half as much after each half-life. What a weight leads to begins with the strike that reached it,
    and lasts for the policy's time; a warning lasts while the weight does.
    """
    counting = sorted((strike for strike in strikes if not strike.back), key=lambda strike: strike.at_ms)
    weight, since_ms, slowed_ms, suspended_ms = 0.0, now_ms, 0.0, 0.0
    for strike in counting:
        weight = _faded(weight, strike.at_ms - since_ms, half_life_s) + strike.weight
        since_ms = strike.at_ms
        if _reaches(weight, rules.slow_at):
            slowed_ms = since_ms + rules.slow_s * 1000
        if _reaches(weight, rules.suspend_at):
            suspended_ms = since_ms + rules.suspend_s * 1000
    weight = _faded(weight, now_ms - since_ms, half_life_s)
    if suspended_ms > now_ms:
        return Conduct(weight, len(counting), Standing.SUSPENDED, (suspended_ms - now_ms) / 1000)
    if slowed_ms > now_ms:
        return Conduct(weight, len(counting), Standing.SLOWED, (slowed_ms - now_ms) / 1000)
    return Conduct(weight, len(counting), Standing.WARNED if _reaches(weight, rules.warn_at) else Standing.GOOD)


class StrikeStore:
    """All strikes. Every method raises ``StateUnavailable`` while Redis is away."""

    def __init__(self, redis: RedisClient, settings: StrikeSettings) -> None:
        self._redis = redis
        self._half_life_s = settings.half_life_s

    async def add(self, strike: Strike, *, case_id: str, tenant: str, end_user: str, rules: Strikes) -> Conduct:
        """Count a block against an end user (a digest), once for a case, and say where that leaves them."""
        ttl_s = int(max(_HALF_LIVES * self._half_life_s, rules.slow_s, rules.suspend_s))
        line = orjson.dumps(strike).decode()
        return await self._run(case_id, line, ttl_s, tenant, end_user, rules)

    async def conduct(self, *, tenant: str, end_user: str, rules: Strikes) -> Conduct:
        """Where an end user (a digest) of a tenant stands."""
        return await self._run("", "", 0, tenant, end_user, rules)

    async def listed(self, rules_of: Callable[[str], Strikes], *, limit: int = 50) -> Sequence[Struck]:
        """The end users whose strikes weigh most, of the 500 struck last. ``rules_of`` knows a policy's parts."""
        with self._redis.guard() as redis:
            members: Any = await redis.zrange(STRUCK(), 0, _MAX_LISTED - 1, desc=True)
            pipe = redis.pipeline(transaction=False)
            for member in members:
                pipe.hvals(STRIKES(*_person(member)))
            rows = await pipe.execute()
        now_ms, found = time.time() * 1000, []
        for member, row in zip(members, rows, strict=True):
            strikes = [_strike(line) for line in row]
            if not any(not strike.back for strike in strikes):
                continue
            last = max(strikes, key=lambda strike: strike.at_ms)
            conduct = conduct_of(strikes, rules_of(last.part), now_ms, self._half_life_s)
            hazards = tuple(dict.fromkeys(strike.hazard for strike in strikes if strike.hazard and not strike.back))
            found.append(Struck(*_person(member), last.at_ms / 1000, hazards, conduct))
        return sorted(found, key=lambda struck: -struck.conduct.weight)[:limit]

    async def clear(self, *, tenant: str, end_user: str, by: str) -> int:
        """Forget all strikes of an end user (a digest) of a tenant; audited. Returns how many there were.

        Raises ``NotFound`` where there are none, and ``BadRequest`` where nobody is named.
        """
        if not by.strip():
            raise BadRequest("name the person who does this", param="by")
        key = STRIKES(end_user, tenant)
        with self._redis.guard() as redis:
            cases: Any = await redis.hkeys(key)
            if not cases:
                raise NotFound("this end user has no strikes")
            pipe = redis.pipeline(transaction=True)
            _forget(pipe, end_user, tenant, cases)
            pipe.srem(STRIKE_TENANTS(end_user), tenant)
            row: dict[Field, Field] = {"actor": by, "action": "clear_strikes", "subject": pseudonym(end_user)}
            row["note"] = f"{len(cases)} strikes, tenant {tenant}"
            pipe.xadd(REVIEW_AUDIT(), row, maxlen=AUDIT_MAX_ENTRIES)
            await pipe.execute()
        return len(cases)

    async def _run(self, case_id: str, line: str, ttl_s: int, tenant: str, end_user: str, rules: Strikes) -> Conduct:
        keys = [STRIKES(end_user, tenant), STRIKE_OF(case_id), STRIKE_TENANTS(end_user), STRUCK()]
        args: list[str | int] = [case_id, line, ttl_s, MAX_STRIKES, f"{end_user} {tenant}", tenant, STRIKE_OF("")]
        with self._redis.guard() as redis:
            answer: Any = await redis.eval(STRIKE_SCRIPT, len(keys), *keys, *args)
        now_ms, held = answer
        return conduct_of([_strike(each) for each in held[1::2]], rules, float(now_ms), self._half_life_s)


async def erase_strikes(end_user: str, redis: RedisClient) -> int:
    """Forget all strikes of an end user (a digest), of every tenant. Returns how many there were.

    Raises ``StateUnavailable``; then run it again.
    """
    found = 0
    with redis.guard() as connection:
        tenants: Any = await connection.smembers(STRIKE_TENANTS(end_user))
        for tenant in tenants:
            cases: Any = await connection.hkeys(STRIKES(end_user, tenant))
            pipe = connection.pipeline(transaction=True)
            _forget(pipe, end_user, tenant, cases)
            await pipe.execute()
            found += len(cases)
        await connection.delete(STRIKE_TENANTS(end_user))
    return found


def _forget(pipe: Any, end_user: str, tenant: str, cases: Sequence[str]) -> None:
    pipe.delete(STRIKES(end_user, tenant), *(STRIKE_OF(case) for case in cases))
    pipe.zrem(STRUCK(), f"{end_user} {tenant}")


def _person(member: str) -> tuple[str, str]:
    end_user, _, tenant = member.partition(" ")
    return end_user, tenant


def _strike(line: str) -> Strike:
    return Strike(**orjson.loads(line))


def _faded(weight: float, passed_ms: float, half_life_s: float) -> float:
    return weight * math.pow(2.0, -max(0.0, passed_ms) / 1000 / half_life_s)


def _reaches(weight: float, threshold: float | None) -> bool:
    """To a tenth, so that three strikes within the hour are three although the first has faded by a little."""
    return threshold is not None and round(weight, 1) >= threshold
