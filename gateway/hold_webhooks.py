"""Webhooks for held content: whoever offered it is told, signed, what a person decided, and when that is undone.

What has to be told stands in Redis, written by the script that carries the decision out. Whichever gateway is free
claims it for a while and posts; where it is killed meanwhile, the claim runs out and another one posts. So each
decision arrives at least once, and what is posted is always the state at that moment: a decision and its undoing
that follow each other closely may arrive as one. A post holds an id and a state, and no text.

A receiver checks ``x-antiprompt-signature``, which is ``v1=`` and the hexadecimal HMAC-SHA256, under the shared
secret, of the value of ``x-antiprompt-timestamp`` (UTC seconds since 1970), a full stop and the body; and refuses
timestamps that are not of now. The address comes from settings alone, no redirect is followed, and nothing of the
answer but its status is looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import Any, Final, Literal

import orjson

from gateway.errors import GatewayError, StateUnavailable
from gateway.flag_records import FlagState
from gateway.http_client import HttpClient
from gateway.redis_client import RedisClient
from gateway.redis_keys import FLAG, HOLD_WEBHOOK_TRIES, HOLD_WEBHOOKS
from gateway.settings import HoldSettings, UpstreamSettings
from gateway.telemetry import Metrics, logger

HoldState = Literal["allowed", "held", "approved", "rejected"]

TIMESTAMP_HEADER: Final = "x-antiprompt-timestamp"
SIGNATURE_HEADER: Final = "x-antiprompt-signature"
INTERVAL_S: Final = 0.5
CLAIM_SLACK_S: Final = 5.0
"""How much longer than a post may take a claim lasts."""

MAX_AT_ONCE: Final = 16
FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 3600.0

_HOLD: Final = "hold_"
_FLAG: Final = "flag_"
_STATES: Final[dict[FlagState, HoldState]] = {
    FlagState.OPEN: "held",
    FlagState.CLAIMED: "held",
    FlagState.ESCALATED: "held",
    FlagState.CONFIRMED: "rejected",
    FlagState.DISMISSED: "approved",
}

_CLAIM_SCRIPT: Final = """
local waiting, tries = unpack(KEYS)
local lease_ms, most = tonumber(ARGV[1]), ARGV[2]
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local claimed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', now_ms, 'LIMIT', 0, most)) do
    redis.call('ZADD', waiting, now_ms + lease_ms, id)
    claimed[#claimed + 1] = {id, redis.call('HINCRBY', tries, id, 1)}
end
return claimed
"""
"""Claims what is due, and answers pairs of a flag's id and which try this is."""

_TOLD_SCRIPT: Final = """
local waiting, tries, flag = unpack(KEYS)
local state = redis.call('HGET', flag, 'state')
local same = not state
for at = 2, #ARGV do same = same or state == ARGV[at] end
redis.call('HDEL', tries, ARGV[1])
if same then return redis.call('ZREM', waiting, ARGV[1]) end
return redis.call('ZADD', waiting, 0, ARGV[1])
"""
"""Forgets what has been told, unless the flag is in another state by now: then that is due at once, even where another
gateway has told it already, since the older post may have arrived after it."""


def hold_id_of(flag_id: str) -> str:
    """What a hold is called by whoever offered the content."""
    return _HOLD + flag_id.removeprefix(_FLAG)


def flag_id_of(hold_id: str) -> str:
    """The flag behind a hold."""
    return _FLAG + hold_id.removeprefix(_HOLD)


def state_of(state: FlagState) -> HoldState:
    """What a flag's state means for the content that waits for it."""
    return _STATES[state]


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The value of ``x-antiprompt-signature``."""
    return "v1=" + hmac.digest(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hex()


def wait_s(tries: int) -> float:
    """How long after its so many-th failure a post is tried again: twice as long each time, up to an hour."""
    return float(min(FIRST_RETRY_S * 2.0 ** min(tries - 1, 30), MAX_RETRY_S))


class HoldWebhooks:
    """Posts decisions. ``start`` before use, then ``follow`` until cancelled, ``close`` at the end.

    Without an address in the settings it does nothing.
    """

    def __init__(self, redis: RedisClient, settings: HoldSettings, metrics: Metrics) -> None:
        self._redis = redis
        self._settings = settings
        self._metrics = metrics
        timeout_s = settings.webhook_timeout_s
        self._http = HttpClient(
            UpstreamSettings(
                connect_timeout_s=timeout_s,
                read_timeout_s=timeout_s,
                total_timeout_s=timeout_s,
                max_connections=MAX_AT_ONCE,
                connect_retries=0,
                breaker_failures=10_000,  # each decision has a patience of its own
            )
        )

    @property
    def configured(self) -> bool:
        """Whether anybody is to be told."""
        return self._settings.webhook_url is not None

    async def start(self) -> None:
        if self.configured:
            await self._http.start()

    async def close(self) -> None:
        if self.configured:
            await self._http.close()

    async def follow(self, *, interval_s: float = INTERVAL_S) -> None:
        """Post whatever is due, until cancelled."""
        while self.configured:
            try:
                busy = await self.post_due()
            except StateUnavailable:
                busy = False
            if not busy:
                await asyncio.sleep(interval_s)

    async def post_due(self) -> bool:
        """Claim and post what is due now; whether there was anything. Raises ``StateUnavailable``."""
        lease_ms = int((self._settings.webhook_timeout_s + CLAIM_SLACK_S) * 1000)
        with self._redis.guard() as redis:
            if not await redis.zcount(HOLD_WEBHOOKS(), "-inf", time.time() * 1000):
                return False  # a claim is a write, which replicas may have to confirm
            claimed: Any = await redis.eval(
                _CLAIM_SCRIPT, 2, HOLD_WEBHOOKS(), HOLD_WEBHOOK_TRIES(), lease_ms, MAX_AT_ONCE
            )
        posts = (self._deliver(str(flag_id), int(tries)) for flag_id, tries in claimed)
        for outcome in await asyncio.gather(*posts, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        return bool(claimed)

    async def _deliver(self, flag_id: str, tries: int) -> None:
        with self._redis.guard() as redis:
            held: Any = await redis.hget(FLAG(flag_id), "state")
        state = state_of(FlagState(held)) if held is not None else None
        cause = None if state is None else await self._post(hold_id_of(flag_id), state)
        if cause is None:
            meaning_it = [str(each) for each, meant in _STATES.items() if meant == state]
            with self._redis.guard() as redis:
                keys = (HOLD_WEBHOOKS(), HOLD_WEBHOOK_TRIES(), FLAG(flag_id))
                await redis.eval(_TOLD_SCRIPT, len(keys), *keys, flag_id, *meaning_it)
            self._metrics.webhooks.labels("told").inc()
            return
        await self._put_off(flag_id, tries, cause)

    async def _post(self, hold_id: str, state: HoldState) -> str | None:
        """Post one state; in a word, why that failed."""
        url, secret = self._settings.webhook_url, self._settings.webhook_secret
        assert url is not None
        assert secret is not None
        body, timestamp = orjson.dumps({"id": hold_id, "state": state}), str(int(time.time()))
        signed = signature(secret.get_secret_value(), timestamp, body)
        headers = (("content-type", "application/json"), (TIMESTAMP_HEADER, timestamp), (SIGNATURE_HEADER, signed))
        try:
            async with self._http.stream("POST", url, headers, body) as reply:
                return None if 200 <= reply.status < 300 else f"status_{reply.status}"
        except GatewayError as error:
            return error.code

    async def _put_off(self, flag_id: str, tries: int, cause: str) -> None:
        """Try again later, or give up."""
        given_up = tries >= self._settings.webhook_tries
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            if given_up:
                pipe.zrem(HOLD_WEBHOOKS(), flag_id)
                pipe.hdel(HOLD_WEBHOOK_TRIES(), flag_id)
            else:
                due_ms = int((time.time() + wait_s(tries)) * 1000)
                pipe.zadd(HOLD_WEBHOOKS(), {flag_id: due_ms}, xx=True)
            await pipe.execute()
        self._metrics.webhooks.labels("given_up" if given_up else "failed").inc()
        told = logger().error if given_up else logger().warning
        told("a decision could not be told", hold=hold_id_of(flag_id), cause=cause, tries=tries, given_up=given_up)
