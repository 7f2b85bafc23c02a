"""The gauges that nobody sets in passing say what the parts and Redis hold."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.bank_versions import Published
from gateway.cases import Case, CaseStore
from gateway.errors import StateUnavailable
from gateway.flags import FlagStore
from gateway.observing import DAY_S, Observer
from gateway.policy_store import PolicyStore
from gateway.redis_client import RedisClient, end_tasks
from gateway.redis_keys import BANK_CURRENT, RETRAINING, RETRAINING_DEAD, RETRAINING_DUE
from gateway.retraining_queue import RetrainingQueue, Run
from gateway.reviews import ReviewStore
from gateway.settings import RedisSettings, RetentionSettings
from gateway.spool import Spool
from gateway.telemetry import Metrics
from tests.conftest import RealRedis, running
from tests.gateway.banks import Folder, Follower
from tests.gateway.reviewing import assessing, filed, verdict

PATIENCE_S = 60.0


@pytest.fixture
def make(redis_client: RedisClient, tmp_path: Path) -> Callable[[], Observer]:
    """Make an observer of a gateway whose parts have not started."""

    def made(redis: RedisClient = redis_client) -> Observer:
        follower = Follower(redis, Folder(tmp_path / "versions"), "one")
        return Observer(
            metrics=Metrics(),
            redis=redis,
            flags=FlagStore(redis, Spool(tmp_path / "spool", max_bytes=1 << 20)),
            cases=CaseStore(redis, RetentionSettings()),
            policies=PolicyStore(redis),
            screener=follower.screener,
            overlay=follower.overlay,
            retraining=RetrainingQueue(redis),
        )

    return made


def gauge(observer: Observer, name: str, **labels: str) -> float:
    found = observer.metrics.registry.get_sample_value(f"antiprompt_{name}", labels)
    assert found is not None, name
    return found


def _kept(observer: Observer) -> float | None:
    return observer.metrics.registry.get_sample_value("antiprompt_flags_kept", {"state": "open"})


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_flags_and_reviews_are_counted_by_how_far_they_have_come(make, redis_client: RedisClient):
    observer = make()
    await observer.shared()
    assert gauge(observer, "flags_kept", state="open") == gauge(observer, "oldest_open_flag_seconds") == 0
    an_hour_ago = time.time() - 3600
    first = await filed(redis_client, created_at=an_hour_ago)
    second = await filed(redis_client, "Another one.", created_at=an_hour_ago + 60)
    await ReviewStore(redis_client, assessing()).decide(verdict(first))
    await observer.shared()
    assert gauge(observer, "flags_kept", state="open") == 1
    assert gauge(observer, "flags_kept", state="confirmed") == 1
    assert gauge(observer, "reviews_kept") == 1
    assert 3500 < gauge(observer, "oldest_open_flag_seconds") < 3600  # the second one's
    assert second != first


async def test_the_workers_have_their_gauges_here_because_they_serve_none(make, redis_client: RedisClient):
    observer, queue = make(), RetrainingQueue(redis_client)
    await observer.shared()
    assert gauge(observer, "retraining_refused") == gauge(observer, "retraining_run_timestamp_seconds") == 0
    with redis_client.guard() as redis:
        await redis.xadd(RETRAINING(), {"review": "rev_1", "action": "confirm"})
        await redis.xadd(RETRAINING_DEAD(), {"review": "rev_0", "action": "confirm", "reason": "gone"})
        await redis.zadd(RETRAINING_DUE(), {"a": 20.0, "b": 30.0, "c": 40.0})
    await queue.finish(Run(123.0, "refused", "v1", "v2", ("it misses more",)), until=25.0)
    await observer.shared()
    assert gauge(observer, "retraining_waiting") == gauge(observer, "retraining_dead_letters") == 1
    assert gauge(observer, "retraining_due_exemplars") == 2
    assert (gauge(observer, "retraining_refused"), gauge(observer, "retraining_run_timestamp_seconds")) == (1, 123)
    await queue.finish(Run(456.0, "published", "v1", "v3", ()), until=25.0)
    await observer.shared()
    assert gauge(observer, "retraining_refused") == 0


async def test_drift_is_not_a_number_until_there_are_cases_enough_and_then_that_of_the_dashboard(
    make, redis_client: RedisClient
):
    observer = make()
    assert math.isnan(gauge(observer, "drift_index"))  # before anybody looked
    await observer.drift()
    assert math.isnan(gauge(observer, "drift_index"))
    now = time.time()
    for n in range(60):
        for ago_s, risk in ((60.0, 0.95), (2 * DAY_S, 0.05)):
            at = now - ago_s - n
            case = Case(id=f"{n}-{risk}", created_at=at, tenant="t", surface="chat", action="allow", risk=risk)
            observer.cases.record(case)
    await observer.drift()
    assert gauge(observer, "drift_index") > 1


async def test_what_is_true_of_this_process(make, redis_client: RedisClient):
    observer = make()
    await observer.policies.start()
    await observer.overlay.begin()
    observer.here()
    assert (gauge(observer, "redis_up"), gauge(observer, "spooled_flags"), gauge(observer, "bank_behind")) == (1, 0, 0)
    with redis_client.guard() as redis:
        gone = Published("20261120T120000000Z-000000000000", "publish", "ada", "better", time.time())
        await redis.set(BANK_CURRENT(), gone.to_json())
    following = asyncio.create_task(observer.overlay.follow(interval_s=0.01))
    async with asyncio.timeout(PATIENCE_S):
        while gauge(observer, "bank_behind") == 0:
            await asyncio.sleep(0.01)
            observer.here()
    await end_tasks(following)


async def test_an_observer_goes_on_while_redis_is_away_and_says_so(redis_server: RealRedis, tmp_path: Path, make):
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path / "data")) as redis:
        observer = make(redis)
        await observer.policies.start()
        await filed(redis)
        watching = asyncio.create_task(observer.follow())
        async with asyncio.timeout(PATIENCE_S):
            await until(lambda: _kept(observer) == 1)
            redis_server.kill()
            with suppress(StateUnavailable), redis.guard() as connection:
                await connection.ping()  # somebody meets the loss
            await until(lambda: gauge(observer, "redis_up") == 0)
        assert gauge(observer, "flags_kept", state="open") == 1
        assert not watching.done()
        await end_tasks(watching)


def test_the_first_text_that_cannot_be_screened_is_seen_to_happen():
    """A series that began with its first event would never have risen."""
    shown = Metrics().exposition().decode()
    for side in ("request", "response"):
        for cause in ("screening_unavailable", "overloaded"):
            assert f'antiprompt_unavailable_total{{cause="{cause}",side="{side}"}} 0.0' in shown
