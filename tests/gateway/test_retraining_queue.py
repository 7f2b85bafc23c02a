import asyncio
import time

import pytest

from gateway.redis_client import RedisClient
from gateway.redis_keys import RETRAINING, RETRAINING_BUILDER
from gateway.retraining_queue import RetrainingQueue, Run


@pytest.fixture
def queue(redis_client: RedisClient) -> RetrainingQueue:
    return RetrainingQueue(redis_client)


async def put(redis: RedisClient, *review_ids: str) -> None:
    with redis.guard() as connection:
        for id in review_ids:
            await connection.xadd(RETRAINING(), {"review": id, "action": "confirm"})


async def test_each_review_goes_to_one_worker_also_what_came_before_any(
    queue: RetrainingQueue, redis_client: RedisClient
) -> None:
    await put(redis_client, *(f"rev_{n}" for n in range(20)))
    one, two = await asyncio.gather(queue.read("one", count=10), queue.read("two", count=10))
    assert {each.review_id for each in (*one, *two)} == {f"rev_{n}" for n in range(20)}
    assert await queue.read("one") == []
    assert {each.tries for each in one} == {1}


async def test_what_a_dead_worker_left_is_claimed_and_the_tries_are_counted(
    queue: RetrainingQueue, redis_client: RedisClient
) -> None:
    await put(redis_client, "rev_1", "rev_2")
    await queue.read("dead")
    assert await queue.claim_left("alive", idle_ms=60_000) == []
    found = await queue.claim_left("alive", idle_ms=0)
    assert [(each.review_id, each.tries) for each in found] == [("rev_1", 2), ("rev_2", 2)]
    (again, _) = await queue.claim_left("alive", idle_ms=0)
    assert again.tries == 3


async def test_a_learned_review_leaves_the_stream_and_its_exemplars_are_due(
    queue: RetrainingQueue, redis_client: RedisClient
) -> None:
    await put(redis_client, "rev_1", "rev_2")
    first, second = await queue.read("one")
    assert (await queue.due()).exemplars == 0
    await queue.done(first, ["ap_1", "ap_2"])
    due = await queue.due()
    assert due.exemplars == 2
    assert due.since == pytest.approx(time.time(), abs=60)
    await queue.done(first, ["ap_1", "ap_2"])  # learned twice is learned once
    await queue.done(second, ["ap_2"])
    after = await queue.due()
    assert (after.exemplars, after.since) == (2, due.since)
    assert await queue.waiting() == 0
    assert await queue.claim_left("two", idle_ms=0) == []


async def test_what_fails_too_often_is_buried_with_its_reason(
    queue: RetrainingQueue, redis_client: RedisClient
) -> None:
    await put(redis_client, "rev_1")
    (delivery,) = await queue.read("one")
    await queue.bury(delivery, "NotFound: there is no review")
    (letter,) = await queue.dead()
    assert (letter.review_id, letter.reason) == ("rev_1", "NotFound: there is no review")
    assert await queue.waiting() == 0


async def test_one_worker_builds_at_a_time(queue: RetrainingQueue, redis_client: RedisClient) -> None:
    tokens = await asyncio.gather(*(queue.take_build() for _ in range(10)))
    (token,) = [token for token in tokens if token is not None]
    assert await queue.keep_build(token)
    assert not await queue.keep_build("another")
    await queue.end_build("another")
    assert await queue.take_build() is None
    await queue.end_build(token)
    assert await queue.take_build() is not None
    with redis_client.guard() as connection:
        assert 0 < await connection.pttl(RETRAINING_BUILDER()) <= 60_000
        await connection.delete(RETRAINING_BUILDER())  # as if its time had run out
    assert await queue.keep_build(token)
    assert not await queue.keep_build("another")


async def test_a_build_ends_what_was_due_before_it_began(queue: RetrainingQueue, redis_client: RedisClient) -> None:
    await put(redis_client, "rev_1", "rev_2")
    first, second = await queue.read("one")
    await queue.done(first, ["ap_1"])
    began = time.time()
    await asyncio.sleep(0.01)
    await queue.done(second, ["ap_2"])
    run = Run(began, "refused", "base", "candidate", ("recall is lost",), {"recall": 1})
    await queue.finish(run, until=began)
    assert (await queue.due()).exemplars == 1
    assert await queue.runs() == [run]
