import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import MappingProxyType

import pytest
from pydantic import SecretStr

from gateway.cases import MAX_BUFFERED_CASES, Case, CaseFinding, CaseStore, Exchange, new_case_id
from gateway.errors import NotFound, StateUnavailable
from gateway.redis_client import RedisClient
from gateway.redis_keys import CASE, CASE_RECENT, EXCHANGE, EXCHANGE_ORDER
from gateway.settings import RedisSettings, RetentionSettings
from tests.conftest import RealRedis, running

EXCHANGE_TEXT = Exchange((("system", "be brief"), ("user", "my question"), ("tool", "42")), ("my answer",))


def case(**fields: object) -> Case:
    known = {"tenant": "acme", "surface": "chat", "action": "allow", "created_at": time.time(), "id": new_case_id()}
    return Case(**{**known, **fields})


@pytest.fixture
def dropped() -> Counter[str]:
    return Counter()


@pytest.fixture
async def store(redis_client: RedisClient, dropped: Counter[str]) -> AsyncIterator[CaseStore]:
    store = CaseStore(redis_client, RetentionSettings(), on_dropped=lambda cause, n: dropped.update({cause: n}))
    await store.start()
    yield store
    await store.close()


async def test_a_case_is_found_before_and_after_it_is_flushed(store: CaseStore) -> None:
    finding = CaseFinding(side="request", role="user", index=1, risk=0.5, risks=MappingProxyType({"jailbreak": 0.5}))
    kept = case(completion_id="chatcmpl-1", shadow=("r1",), findings=(finding,), timings_ms={"screening": 1.5})
    store.record(kept, EXCHANGE_TEXT)
    for _ in range(2):
        assert await store.get(kept.id, tenant="acme") == kept
        assert await store.by_completion("chatcmpl-1", tenant="acme") == kept
        assert await store.exchange(kept.id, tenant="acme") == EXCHANGE_TEXT
        await store.flush()
        assert store.buffered == 0
    assert await store.recent() == [kept]


async def test_the_buffer_is_flushed_by_itself(store: CaseStore) -> None:
    store.record(case())
    async with asyncio.timeout(5):
        while store.buffered:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_another_tenant_finds_nothing(store: CaseStore) -> None:
    kept = case(completion_id="c1")
    store.record(kept, EXCHANGE_TEXT)
    for _ in range(2):
        for looking in (store.get(kept.id, tenant="b"), store.exchange(kept.id, tenant="b")):
            with pytest.raises(NotFound):
                await looking
        with pytest.raises(NotFound):
            await store.by_completion("c1", tenant="b")
        assert await store.get(kept.id, tenant=None) == kept
        await store.flush()


async def test_half_a_surrogate_pair_does_not_stop_the_flush(store: CaseStore) -> None:
    kept = case()
    store.record(kept, Exchange((("user", "a\ud83d"),)))
    await store.flush()
    assert await store.exchange(kept.id, tenant="acme") == Exchange((("user", "a?"),))


async def test_cases_and_texts_live_as_long_as_settings_say(redis_client: RedisClient) -> None:
    store = CaseStore(redis_client, RetentionSettings(exchange_ttl_s=100, case_ttl_s=1000))
    kept = case()
    store.record(kept, EXCHANGE_TEXT)
    await store.flush()
    with redis_client.guard() as redis:
        assert 90 < await redis.ttl(EXCHANGE(kept.id)) <= 100
        assert 990 < await redis.ttl(CASE(kept.id)) <= 1000
    old = case(created_at=time.time() - 2000)
    store.record(old, EXCHANGE_TEXT)
    await store.flush()
    with redis_client.guard() as redis:
        assert await redis.zrange(CASE_RECENT(), 0, -1) == [kept.id]
        assert await redis.zrange(EXCHANGE_ORDER(), 0, -1) == [kept.id]
    assert await store.exchange_bytes() == len(EXCHANGE_TEXT.to_json())


@pytest.mark.parametrize("never", [{"exchange_ttl_s": 0}, {"exchange_max_bytes": 0}])
async def test_with_zero_no_text_is_ever_kept(redis_client: RedisClient, never: dict[str, int]) -> None:
    store = CaseStore(redis_client, RetentionSettings(**never))
    kept = case()
    store.record(kept, EXCHANGE_TEXT)
    assert await store.exchange(kept.id, tenant="acme") is None
    await store.flush()
    assert await store.exchange(kept.id, tenant="acme") is None
    assert await store.get(kept.id, tenant="acme") == kept


async def test_the_oldest_texts_go_when_the_bound_is_reached(redis_client: RedisClient) -> None:
    size = len(EXCHANGE_TEXT.to_json())
    store = CaseStore(redis_client, RetentionSettings(exchange_max_bytes=3 * size + 1))
    cases = [case(created_at=time.time() + second) for second in range(5)]
    for kept in cases:
        store.record(kept, EXCHANGE_TEXT)
        await store.flush()
    found = [await store.exchange(kept.id, tenant="acme") for kept in cases]
    assert found == [None, None, EXCHANGE_TEXT, EXCHANGE_TEXT, EXCHANGE_TEXT]
    assert await store.exchange_bytes() == 3 * size
    store.record(cases[-1], EXCHANGE_TEXT)  # recorded anew, counted once
    await store.flush()
    assert await store.exchange_bytes() == 3 * size


async def test_a_text_over_the_bound_is_dropped_and_counted(redis_client: RedisClient, dropped: Counter[str]) -> None:
    store = CaseStore(
        redis_client, RetentionSettings(exchange_max_bytes=10), on_dropped=lambda cause, n: dropped.update({cause: n})
    )
    store.record(case(), EXCHANGE_TEXT)
    assert dropped == {"too_large": 1}


async def test_a_full_buffer_drops_the_oldest_case_and_counts(store: CaseStore, dropped: Counter[str]) -> None:
    first = case()
    store.record(first, EXCHANGE_TEXT)
    for _ in range(MAX_BUFFERED_CASES):
        store.record(case())
    assert store.buffered == MAX_BUFFERED_CASES
    assert dropped == {"buffer_full": 1}


async def test_with_redis_away_texts_are_dropped_and_cases_wait(
    redis_server: RealRedis, tmp_path: Path, dropped: Counter[str]
) -> None:
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as redis:
        store = CaseStore(redis, RetentionSettings(), on_dropped=lambda cause, n: dropped.update({cause: n}))
        await store.start()
        redis_server.kill()
        early, late = case(), case()
        store.record(early, EXCHANGE_TEXT)
        await store.flush()
        store.record(late, EXCHANGE_TEXT)
        assert dropped == {"redis_away": 2}
        assert await store.get(early.id, tenant="acme") == early
        with pytest.raises(StateUnavailable):
            await store.get("case_unknown", tenant="acme")
        redis_server.start()
        async with asyncio.timeout(10):
            while store.buffered:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert {found.id for found in await store.recent()} == {early.id, late.id}
        assert await store.exchange(late.id, tenant="acme") is None
        await store.close()


async def test_an_end_user_is_erased_and_their_cases_stay(store: CaseStore, redis_client: RedisClient) -> None:
    ann, bob = redis_client.end_user_digest("ann"), redis_client.end_user_digest("bob")
    mine, textless, theirs = case(end_user=ann), case(end_user=ann), case(end_user=bob)
    store.record(mine, EXCHANGE_TEXT)
    store.record(textless)
    store.record(theirs, EXCHANGE_TEXT)
    assert await store.erase_end_user(ann) == (2, 1)
    assert (await store.get(mine.id, tenant="acme")).end_user is None
    assert await store.exchange(mine.id, tenant="acme") is None
    assert await store.exchange(theirs.id, tenant="acme") == EXCHANGE_TEXT
    assert await store.exchange_bytes() == len(EXCHANGE_TEXT.to_json())
    assert await store.erase_end_user(ann) == (0, 0)
    with redis_client.guard() as redis:
        assert await redis.ttl(CASE(mine.id)) > 0


async def test_a_text_that_has_expired_leaves_the_disk_with_the_second_cleaning_after_it(short_dir: Path) -> None:
    async with running(RedisClient(RedisSettings(), short_dir)) as redis:
        store = CaseStore(redis, RetentionSettings())
        kept = case()
        store.record(kept, EXCHANGE_TEXT)
        await store.flush()
        with redis.guard() as connection:
            await connection.delete(EXCHANGE(kept.id))  # as expiry does

        def on_disk() -> bool:
            files = [path for path in short_dir.rglob("*") if path.is_file()]
            return any(b"my question" in path.read_bytes() for path in files)

        await store._clean_disk()
        assert on_disk()
        await store._clean_disk()
        assert not on_disk()


async def test_cases_of_a_stretch_of_time_are_taken_evenly(store: CaseStore) -> None:
    now = time.time()
    kept = [case(created_at=now - age_s) for age_s in range(100, 0, -1)]
    for one in kept:
        store.record(one)
    stretch = kept[20:80]
    assert await store.spread(stretch[0].created_at, stretch[-1].created_at, limit=1000) == stretch[::-1]
    some = await store.spread(stretch[0].created_at, stretch[-1].created_at, limit=6)
    assert some == stretch[::10][::-1]
    assert await store.spread(now + 10, now + 20, limit=6) == []
