"""How the queue is read where many flags wait: one script looks at them, and pages follow each other."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.flag_records import Flag, FlagState, Source
from gateway.flags import FlagStore
from gateway.redis_client import RedisClient
from gateway.redis_keys import REVIEW
from gateway.review_queue import MAX_SCANNED
from gateway.review_records import QueueFilter
from gateway.reviews import ReviewStore
from tests.conftest import running
from tests.gateway.reviewing import assessing, filed, verdict

HOUR_S = 3600.0


async def file(redis: RedisClient, *flags: Flag) -> list[str]:
    async with running(FlagStore(redis, None)) as store:
        return [id for id, _ in await asyncio.gather(*(store.add(flag) for flag in flags))]


def a_flag(number: int, **fields: object) -> Flag:
    known: dict[str, object] = {"hazard": "hate", "language": "en", "risk": 0.5, "tenant": "acme"}
    return Flag(source=Source.USER, side="request", text=f"text {number}", **{**known, **fields})  # type: ignore[arg-type]


async def all_pages(store: ReviewStore, filters: QueueFilter, *, limit: int, order: str = "priority") -> list[str]:
    ids: list[str] = []
    after = None
    while True:
        page = await store.queue(filters=filters, order=order, after=after, limit=limit)  # type: ignore[arg-type]
        ids += [flag.id for flag in page.flags]
        if page.next is None:
            return ids
        after = page.next


@pytest.mark.parametrize("order", ["priority", "newest"])
@pytest.mark.parametrize("limit", [1, 2, 7, 200])
async def test_pages_of_a_filter_hold_every_flag_once_in_the_order_of_the_whole_queue(
    order: str, limit: int, redis_client: RedisClient
) -> None:
    moment = time.time()
    flags = [
        a_flag(
            number,
            language="de" if number % 3 else "en",
            hazard="hate" if number % 2 else "privacy",
            created_at=moment - number % 4 * HOUR_S,  # many of one priority and of one time
        )
        for number in range(40)
    ]
    ids = await file(redis_client, *flags)
    store = ReviewStore(redis_client)
    filters = QueueFilter(hazard="hate", language="de", max_age_s=1.5 * HOUR_S)
    wanted = {id for id, flag in zip(ids, flags, strict=True) if flag.hazard == "hate" and flag.language == "de"}
    wanted &= {id for id, flag in zip(ids, flags, strict=True) if flag.created_at > moment - 1.5 * HOUR_S}
    whole = [id for id in await all_pages(store, QueueFilter(), limit=200, order=order) if id in wanted]
    assert await all_pages(store, filters, limit=limit, order=order) == whole
    assert set(whole) == wanted
    assert wanted


async def test_what_few_flags_pass_is_found_over_several_pages(redis_client: RedisClient) -> None:
    old = [a_flag(number, risk=0.6, created_at=time.time() - 5 * HOUR_S) for number in range(MAX_SCANNED + 5)]
    await file(redis_client, *old)
    await file(redis_client, a_flag(-1, risk=0.4))
    store = ReviewStore(redis_client)
    first = await store.queue(filters=QueueFilter(max_age_s=HOUR_S))
    assert (first.flags, first.total) == ((), MAX_SCANNED + 6)
    assert first.next is not None
    second = await store.queue(filters=QueueFilter(max_age_s=HOUR_S), after=first.next)
    assert [flag.text for flag in second.flags] == ["text -1"]
    assert second.next is None


async def test_decided_flags_can_be_filtered_too(redis_client: RedisClient) -> None:
    hate, privacy = await file(redis_client, a_flag(1), a_flag(2, hazard="privacy"))
    store = ReviewStore(redis_client, assessing())
    for id in (hate, privacy):
        await store.decide(verdict(id))
    page = await store.queue(state=FlagState.CONFIRMED, filters=QueueFilter(hazard="privacy"))
    assert [flag.id for flag in page.flags] == [privacy]


async def test_a_review_that_can_no_longer_be_undone_is_read_once_and_others_always(redis_client: RedisClient) -> None:
    store, other = ReviewStore(redis_client, assessing()), ReviewStore(redis_client, assessing())
    review = await store.decide(verdict(await filed(redis_client)))
    assert (await store.recent())[0].stands
    await other.undo(review.id, "ada")
    assert not (await store.recent())[0].stands, "another gateway took it back"
    with redis_client.guard() as redis:
        row = await redis.hget(REVIEW(review.id), "review")
        await redis.hset(REVIEW(review.id), "review", row.replace(f'"at":{review.at}', '"at":1000.0'))
        assert (await store.review(review.id)).at == 1000.0
        await redis.delete(REVIEW(review.id))
    assert (await store.review(review.id)).at == 1000.0
    assert await other.recent() == [], "it never read it"
