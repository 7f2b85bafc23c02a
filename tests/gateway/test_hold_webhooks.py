"""Webhooks about held content, on a real Redis and a real socket; a gateway that dies, a receiver that fails."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from gateway.errors import StateUnavailable
from gateway.flags import Source
from gateway.hold_webhooks import MAX_RETRY_S, HoldWebhooks, flag_id_of, hold_id_of, signature, wait_s
from gateway.redis_client import RedisClient
from gateway.redis_keys import HOLD_WEBHOOK_TRIES, HOLD_WEBHOOKS
from gateway.review_records import Decision
from gateway.reviews import ReviewStore
from gateway.settings import HoldSettings, RedisSettings
from gateway.telemetry import Metrics
from tests.conftest import RealRedis, running
from tests.fakes import Gate, Script, ScriptedUpstream, hang, redirect, whole
from tests.gateway.reviewing import assessing, filed, verdict

SECRET = "a secret of sixteen letters or more"
PATH = "/decided"
PATIENCE_S = 30.0
TOLD = whole({})


class Desk:
    """Everything between a decision and a receiver."""

    def __init__(self, redis: RedisClient, receiver: ScriptedUpstream, **settings: object) -> None:
        self.redis = redis
        self.receiver = receiver
        self.metrics = Metrics()
        self.reviews = ReviewStore(redis, assessing())
        chosen = {"webhook_url": f"{receiver.base_url}{PATH}?t=1", "webhook_secret": SECRET, **settings}
        self.webhooks = HoldWebhooks(redis, HoldSettings.model_validate(chosen), self.metrics)

    async def start(self) -> None:
        await self.webhooks.start()

    async def close(self) -> None:
        await self.webhooks.close()

    async def held(self, text: str = "Buy my pills.", **fields: object) -> str:
        fields = {"source": Source.POLICY, "side": "request", "prompt": None, "awaited": True, **fields}
        return await filed(self.redis, text, **fields)

    async def decide(self, flag_id: str, decision: Decision = Decision.DISMISS) -> str:
        return (await self.reviews.decide(verdict(flag_id, decision=decision))).id

    @property
    def told(self) -> list[dict[str, str]]:
        """The bodies that the receiver was sent."""
        return [request.json for request in self.receiver.requests]

    def count(self, result: str) -> float:
        return self.metrics.webhooks.labels(result)._value.get()

    async def waiting(self) -> list[str]:
        with self.redis.guard() as redis:
            return [str(id) for id in await redis.zrange(HOLD_WEBHOOKS(), 0, -1)]

    async def make_due(self) -> None:
        """As if the wait were over."""
        with self.redis.guard() as redis:
            for id in await redis.zrange(HOLD_WEBHOOKS(), 0, -1):
                await redis.zadd(HOLD_WEBHOOKS(), {id: 0})


# ---- What is told, and how.


async def test_a_decision_is_posted_once_and_signed(redis_client: RedisClient) -> None:
    async with ScriptedUpstream() as receiver, running(Desk(redis_client, receiver)) as desk:
        receiver.on(PATH, TOLD)
        id = await desk.held()
        assert not await desk.webhooks.post_due()
        await desk.decide(id)
        assert await desk.webhooks.post_due()
        assert not await desk.webhooks.post_due()
        assert desk.told == [{"id": hold_id_of(id), "state": "approved"}]
        request = receiver.last
        assert (request.method, request.query) == ("POST", "t=1")
        stamp, signed = request.headers["x-antiprompt-timestamp"], request.headers["x-antiprompt-signature"]
        proof = hmac.new(SECRET.encode(), stamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
        assert signed == f"v1={proof}"
        assert int(stamp) > 1_700_000_000
        assert request.headers["content-type"] == "application/json"
        assert desk.count("told") == 1


async def test_an_undone_decision_is_told_too_and_a_pass_to_a_lead_is_not(redis_client: RedisClient) -> None:
    async with ScriptedUpstream() as receiver, running(Desk(redis_client, receiver)) as desk:
        receiver.on(PATH, TOLD)
        id = await desk.held()
        await desk.decide(id, Decision.ESCALATE)
        assert not await desk.webhooks.post_due()
        review = await desk.decide(id, Decision.CONFIRM)
        await desk.webhooks.post_due()
        await desk.reviews.undo(review, "ada")
        await desk.webhooks.post_due()
        assert [told["state"] for told in desk.told] == ["rejected", "held"]


async def test_nobody_is_told_of_what_nobody_waits_for(redis_client: RedisClient) -> None:
    async with ScriptedUpstream() as receiver, running(Desk(redis_client, receiver)) as desk:
        await desk.decide(await desk.held(awaited=False))
        assert await desk.waiting() == []


async def test_content_that_policy_had_flagged_before_it_was_held_is_waited_for_all_the_same(
    redis_client: RedisClient,
) -> None:
    async with ScriptedUpstream() as receiver, running(Desk(redis_client, receiver)) as desk:
        receiver.on(PATH, TOLD)
        first = await desk.held(awaited=False)
        assert await desk.held() == first
        assert (await desk.reviews.get(first)).awaited
        await desk.decide(first)
        await desk.webhooks.post_due()
        assert desk.told == [{"id": hold_id_of(first), "state": "approved"}]


async def test_many_decisions_at_once_all_arrive(redis_client: RedisClient) -> None:
    async with ScriptedUpstream() as receiver, running(Desk(redis_client, receiver)) as desk:
        receiver.on(PATH, TOLD)
        ids = [await desk.held(f"Text number {number}.") for number in range(40)]
        await desk.reviews.decide(verdict(*ids, decision=Decision.DISMISS))
        while await desk.webhooks.post_due():
            pass
        assert sorted(told["id"] for told in desk.told) == sorted(map(hold_id_of, ids))


# ---- What goes wrong.


@pytest.mark.parametrize(
    "answer", [whole({}, status=500), whole({}, status=404), redirect("http://127.0.0.1:9/elsewhere")]
)
async def test_a_receiver_that_refuses_is_asked_again_and_redirects_are_not_followed(
    redis_client: RedisClient, answer: Script
) -> None:
    async with ScriptedUpstream() as receiver, running(Desk(redis_client, receiver)) as desk:
        receiver.on(PATH, answer, TOLD)
        await desk.decide(await desk.held())
        await desk.webhooks.post_due()
        assert not await desk.webhooks.post_due()  # not yet
        assert (desk.count("failed"), desk.count("told")) == (1, 0)
        await desk.make_due()
        await desk.webhooks.post_due()
        assert (desk.count("told"), await desk.waiting()) == (1, [])
        assert desk.told[0] == desk.told[1]
        with redis_client.guard() as redis:
            assert not await redis.exists(HOLD_WEBHOOK_TRIES())


async def test_a_receiver_that_never_answers_costs_its_time_and_no_more(redis_client: RedisClient) -> None:
    async with (
        ScriptedUpstream() as receiver,
        running(Desk(redis_client, receiver, webhook_timeout_s=0.05)) as desk,
    ):
        receiver.on(PATH, hang())
        await desk.decide(await desk.held())
        await desk.webhooks.post_due()
        assert (desk.count("failed"), len(await desk.waiting())) == (1, 1)


async def test_a_long_answer_is_not_read(redis_client: RedisClient) -> None:
    async with ScriptedUpstream() as receiver, running(Desk(redis_client, receiver)) as desk:
        receiver.on(PATH, whole(b"x" * (1 << 20)))
        await desk.decide(await desk.held())
        await desk.webhooks.post_due()
        assert desk.count("told") == 1


async def test_after_its_tries_a_post_is_given_up_and_the_metric_says_so(redis_client: RedisClient) -> None:
    async with ScriptedUpstream() as receiver, running(Desk(redis_client, receiver, webhook_tries=3)) as desk:
        receiver.on(PATH, whole({}, status=503))
        await desk.decide(await desk.held())
        for _ in range(5):
            await desk.make_due()
            await desk.webhooks.post_due()
        assert (len(desk.told), desk.count("failed"), desk.count("given_up")) == (3, 2, 1)
        assert await desk.waiting() == []


def test_waits_double_up_to_an_hour() -> None:
    assert [wait_s(tries) for tries in (1, 2, 3, 10)] == [1, 2, 4, 512]
    assert wait_s(1000) == MAX_RETRY_S


async def test_a_decision_that_is_undone_while_it_is_posted_is_followed_by_what_holds(
    redis_client: RedisClient,
) -> None:
    gate = Gate()
    async with ScriptedUpstream() as receiver, running(Desk(redis_client, receiver)) as desk:
        receiver.on(PATH, Script((gate, *TOLD.steps)), TOLD)
        review = await desk.decide(await desk.held())
        posting = asyncio.create_task(desk.webhooks.post_due())
        await receiver.arrived(within_s=PATIENCE_S)
        await desk.reviews.undo(review, "ada")
        other = HoldWebhooks(redis_client, desk.webhooks._settings, desk.metrics)
        await other.start()
        await other.post_due()  # a gateway that is free tells it first
        await other.close()
        gate.open()
        await posting
        await desk.webhooks.post_due()
        assert [told["state"] for told in desk.told] == ["approved", "held", "held"]
        assert await desk.waiting() == []


async def test_with_redis_away_nothing_is_posted_and_what_is_due_waits(redis_server: RealRedis, tmp_path: Path) -> None:
    url = SecretStr(redis_server.url)
    async with (
        running(RedisClient(RedisSettings(url=url), tmp_path)) as redis,
        ScriptedUpstream() as receiver,
        running(Desk(redis, receiver)) as desk,
    ):
        receiver.on(PATH, TOLD)
        await desk.decide(await desk.held())
        redis_server.kill()
        with pytest.raises(StateUnavailable):
            await desk.webhooks.post_due()
        following = asyncio.create_task(desk.webhooks.follow(interval_s=0.01))
        redis_server.start()
        await receiver.arrived(within_s=PATIENCE_S)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_what_a_killed_gateway_was_posting_is_posted_by_another(redis_server: RealRedis, tmp_path: Path) -> None:
    url = SecretStr(redis_server.url)
    async with (
        running(RedisClient(RedisSettings(url=url), tmp_path)) as redis,
        ScriptedUpstream() as receiver,
        running(Desk(redis, receiver)) as desk,
    ):
        receiver.on(PATH, hang(), TOLD)
        id = await desk.held()
        await desk.decide(id)
        settings = {"url": f"{receiver.base_url}{PATH}", "redis": redis_server.url, "data": str(tmp_path / "other")}
        doomed = await asyncio.to_thread(
            subprocess.Popen, [sys.executable, "-c", _GATEWAY, json.dumps({**settings, "secret": SECRET})]
        )
        await receiver.arrived(within_s=PATIENCE_S)
        doomed.send_signal(signal.SIGKILL)
        await asyncio.to_thread(doomed.wait)
        following = asyncio.create_task(desk.webhooks.follow(interval_s=0.02))
        await receiver.arrived(2, within_s=PATIENCE_S)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert desk.told == [{"id": hold_id_of(id), "state": "approved"}] * 2


_GATEWAY = """
import asyncio, json, sys
from pathlib import Path
from pydantic import SecretStr
from gateway import hold_webhooks
from gateway.redis_client import RedisClient
from gateway.settings import HoldSettings, RedisSettings
from gateway.telemetry import Metrics

async def main(told):
    hold_webhooks.CLAIM_SLACK_S = -9.0  # a claim of one second
    redis = RedisClient(RedisSettings(url=SecretStr(told["redis"])), Path(told["data"]))
    await redis.start()
    settings = HoldSettings(webhook_url=told["url"], webhook_secret=SecretStr(told["secret"]))
    webhooks = hold_webhooks.HoldWebhooks(redis, settings, Metrics())
    await webhooks.start()
    await webhooks.follow()

asyncio.run(main(json.loads(sys.argv[1])))
"""


# ---- Settings.


@pytest.mark.parametrize(
    "wrong",
    [
        {"webhook_url": "http://example.org/hook"},
        {"webhook_url": "ftp://example.org/hook"},
        {"webhook_url": "https://user:word@example.org/hook"},
        {"webhook_url": "https://example.org/hook#part"},
        {"webhook_url": "hook"},
        {"webhook_secret": "short"},
        {"webhook_secret": None},
        {"webhook_url": None},
        {"webhook_tries": 0},
        {"webhook_timeout_s": 0},
    ],
)
def test_an_address_that_is_not_safe_or_not_signed_is_refused(wrong: dict[str, object]) -> None:
    whole_ones = {"webhook_url": "https://example.org/hook?a=1", "webhook_secret": SECRET}
    HoldSettings.model_validate(whole_ones)
    with pytest.raises(ValidationError):
        HoldSettings.model_validate({**whole_ones, **wrong})


async def test_without_an_address_nothing_is_done(redis_client: RedisClient) -> None:
    webhooks = HoldWebhooks(redis_client, HoldSettings(), Metrics())
    await webhooks.start()
    await webhooks.follow()
    await webhooks.close()
    assert not webhooks.configured


def test_a_hold_and_its_flag_name_each_other() -> None:
    assert (hold_id_of("flag_0a"), flag_id_of("hold_0a")) == ("hold_0a", "flag_0a")


def test_the_signature_covers_time_and_body() -> None:
    one = signature(SECRET, "1", b"{}")
    assert one.startswith("v1=")
    assert (
        len({one, signature(SECRET, "2", b"{}"), signature(SECRET, "1", b"{ }"), signature("other", "1", b"{}")}) == 4
    )
