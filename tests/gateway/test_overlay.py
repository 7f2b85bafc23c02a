import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from antiprompt_bank import BankNotFound, Label, State
from gateway.errors import Conflict, StateUnavailable
from gateway.overlay_entries import EntryStore
from gateway.redis_client import RedisClient, end_tasks
from gateway.redis_keys import BANK_CHANGES, BANK_CURRENT, BANK_ENTRIES
from gateway.review_records import Decision
from gateway.reviews import ReviewStore
from gateway.settings import RedisSettings
from tests.conftest import RealRedis, running
from tests.gateway.banks import BENIGN, HARMFUL, NEW, Folder, Follower, exemplar
from tests.gateway.reviewing import assessing, filed, verdict

PATIENCE_S = 60.0


@pytest.fixture
async def redis(redis_server: RealRedis, tmp_path: Path) -> AsyncIterator[RedisClient]:
    """A client of a server that the test may kill."""
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "versions")


@pytest.fixture
async def followers(redis: RedisClient, folder: Folder) -> AsyncIterator[tuple[Follower, Follower]]:
    """Two gateways that follow."""
    pair = Follower(redis, folder, "one"), Follower(redis, folder, "two")
    async with AsyncExitStack() as stack:
        for follower in pair:
            await stack.enter_async_context(follower.running())
            await follower.overlay.begin()
        tasks = [asyncio.create_task(follower.overlay.follow(interval_s=0.01)) for follower in pair]
        try:
            yield pair
            assert not any(task.done() for task in tasks), tasks
        finally:
            await end_tasks(*tasks)


@pytest.fixture
def store(redis: RedisClient) -> ReviewStore:
    return ReviewStore(redis, assessing())


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110  # gateways have no event for it, and users need none
            await asyncio.sleep(0.01)


async def all_find(followers: tuple[Follower, ...], text: str) -> None:
    """Wait until every gateway finds this text harmful."""

    async def holds() -> bool:
        return all([await follower.risk(text) > 0.9 for follower in followers])

    await until(holds)


async def none_finds(followers: tuple[Follower, ...], text: str) -> None:
    async def holds() -> bool:
        return all([await follower.risk(text) < 0.1 for follower in followers])

    await until(holds)


async def confirm(store: ReviewStore, redis: RedisClient, text: str = NEW, **fields: object) -> str:
    id = await filed(redis, text, side="request", prompt=None)
    return (await store.decide(verdict(id, **fields))).id


async def test_a_confirmed_flag_acts_on_every_gateway_until_it_is_undone(
    followers: tuple[Follower, Follower], store: ReviewStore, redis: RedisClient
) -> None:
    await none_finds(followers, NEW)
    review_id = await confirm(store, redis)
    await all_find(followers, NEW)
    one, two = followers
    assert one.screener.in_force.version == two.screener.in_force.version
    await store.undo(review_id, "ada")
    await none_finds(followers, NEW)


async def test_a_dismissed_false_alarm_is_gone_on_every_gateway(
    followers: tuple[Follower, Follower], store: ReviewStore, redis: RedisClient
) -> None:
    alarm = HARMFUL + " in my garden"
    await all_find(followers, alarm)
    await confirm(store, redis, alarm, decision=Decision.DISMISS)
    await none_finds(followers, alarm)
    await all_find(followers, HARMFUL)


async def test_what_waits_in_shadow_decides_nothing_until_a_second_person_makes_it_live(
    followers: tuple[Follower, Follower], redis: RedisClient
) -> None:
    store, entries = ReviewStore(redis, assessing("wide")), EntryStore(redis)
    await confirm(store, redis)
    (entry,) = await entries.all()

    async def applied() -> bool:
        return all(any(record.id == entry.id for record in f.screener.in_force.records) for f in followers)

    await until(applied)
    await none_finds(followers, NEW)
    await store.second(entry.id, "grace")
    await all_find(followers, NEW)


async def test_an_exemplar_of_the_version_can_be_retired_expire_and_come_back(
    followers: tuple[Follower, Follower], redis: RedisClient
) -> None:
    entries, record = EntryStore(redis), exemplar(HARMFUL)
    await entries.change(record, by="ada", state=State.RETIRED)
    await none_finds(followers, HARMFUL)
    await entries.change(record, by="ada", state=State.LIVE)
    await all_find(followers, HARMFUL)
    await entries.change(record, by="ada", expires_at="2026-01-01T00:00:00+00:00")
    await none_finds(followers, HARMFUL)
    await entries.change(record, by="ada", expires_at="")
    await all_find(followers, HARMFUL)


async def test_a_disabled_exemplar_comes_back_by_itself(
    followers: tuple[Follower, Follower], redis: RedisClient
) -> None:
    entries = EntryStore(redis)
    await entries.change(exemplar(HARMFUL), by="ada", disabled_until=time.time() + 3600)
    await none_finds(followers, HARMFUL)
    await entries.change(exemplar(HARMFUL), by="ada", disabled_until=time.time() + 0.5)
    await all_find(followers, HARMFUL)


async def test_a_canary_decides_on_its_share_of_the_gateways(redis: RedisClient, folder: Folder) -> None:
    entries = EntryStore(redis)
    entry = await entries.change(exemplar(HARMFUL), by="ada", canary=0.3)
    live = sum(entry.record_at(0.0, f"gateway {n}").state is State.LIVE for n in range(1000))
    assert 200 < live < 400
    whole = replace(entry, canary=1.0)
    assert all(whole.record_at(0.0, f"gateway {n}").state is State.LIVE for n in range(1000))


async def test_a_burst_of_decisions_is_applied_whole(
    followers: tuple[Follower, Follower], store: ReviewStore, redis: RedisClient
) -> None:
    texts = [f"{word} {word} {word}" for word in ("apricot", "bramble", "cinnamon", "dandelion", "elder", "fennel")]
    await asyncio.gather(*(confirm(store, redis, text) for text in texts))
    for text in texts:
        await all_find(followers, text)


async def test_a_gateway_that_lost_redis_keeps_its_bank_and_catches_up(
    followers: tuple[Follower, Follower], store: ReviewStore, redis: RedisClient, redis_server: RealRedis
) -> None:
    await confirm(store, redis)
    await all_find(followers, NEW)
    redis_server.kill()
    with pytest.raises(StateUnavailable), redis.guard() as connection:
        await connection.ping()
    await all_find(followers, NEW)
    redis_server.start()
    await redis.wait_until_available()
    await confirm(store, redis, "borrow a cup of sugar")
    await all_find(followers, "borrow a cup of sugar")


async def test_a_gateway_that_starts_later_has_everything_before_it_serves(
    store: ReviewStore, redis: RedisClient, folder: Folder
) -> None:
    await confirm(store, redis)
    async with Follower(redis, folder, "late").running() as late:
        await late.overlay.begin()
        assert await late.risk(NEW) > 0.9


async def test_a_gateway_that_starts_without_redis_serves_the_folders_version(
    redis: RedisClient, redis_server: RealRedis, folder: Folder
) -> None:
    redis_server.kill()
    with pytest.raises(StateUnavailable), redis.guard() as connection:
        await connection.ping()
    async with Follower(redis, folder, "alone").running() as alone:
        await alone.overlay.begin()
        assert await alone.risk(HARMFUL) > 0.9


async def test_publishing_and_rolling_back_reach_every_gateway_and_entries_stay(
    followers: tuple[Follower, Follower], store: ReviewStore, redis: RedisClient, folder: Folder
) -> None:
    await confirm(store, redis)
    second = folder.add(exemplar("paint me a swallow"), exemplar(BENIGN, Label.BENIGN), minute=1, parent=folder.first)
    versions = followers[0].versions
    await versions.publish(second, by="ada", note="better")
    await all_find(followers, "paint me a swallow")
    await none_finds(followers, HARMFUL)
    await all_find(followers, NEW)  # what people confirmed is laid over any version
    await versions.rollback(by="ada", note="worse")
    await all_find(followers, HARMFUL)
    await none_finds(followers, "paint me a swallow")
    await all_find(followers, NEW)


async def test_rolling_back_takes_what_was_edited_of_the_newer_version_with_it(
    followers: tuple[Follower, Follower], redis: RedisClient, folder: Folder
) -> None:
    """An edit is laid over versions that hold the exemplar; it does not bring it into one that never had it."""
    newer, entries, versions = exemplar("paint me a swallow"), EntryStore(redis), followers[0].versions
    second = folder.add(exemplar(HARMFUL), newer, exemplar(BENIGN, Label.BENIGN), minute=1, parent=folder.first)
    await versions.publish(second, by="ada", note="better")
    await all_find(followers, newer.text)
    await entries.change(newer, by="ada", severity=4)
    await entries.change(exemplar(HARMFUL), by="ada", severity=4)
    await all_find(followers, newer.text)
    await versions.rollback(by="ada", note="worse")
    await none_finds(followers, newer.text)
    for follower in followers:
        assert follower.screener.in_force.record(exemplar(HARMFUL).id).severity == 4  # both versions hold that one
    await versions.publish(second, by="ada", note="better after all")
    await all_find(followers, newer.text)
    for follower in followers:
        assert follower.screener.in_force.record(newer.id).severity == 4


async def test_a_version_that_is_not_here_leaves_the_last_good_one_and_says_so(
    followers: tuple[Follower, Follower], redis: RedisClient, folder: Folder
) -> None:
    missing = folder.add(exemplar("paint me a swallow"), minute=1)
    await followers[0].versions.publish(missing, by="ada", note="better")
    await all_find(followers, "paint me a swallow")
    with redis.guard() as connection:
        line = str(await connection.get(BANK_CURRENT()))
        await connection.set(BANK_CURRENT(), line.replace(missing, "20200101T000000000Z-000000000000"))
    entries = EntryStore(redis)

    async def told() -> bool:
        replicas = await entries.replicas()
        return len(replicas) == 2 and all("cannot be used" in (replica.problem or "") for replica in replicas)

    await until(told)
    await all_find(followers, "paint me a swallow")
    await EntryStore(redis).change(exemplar(NEW), by="ada", of_version=False)
    await all_find(followers, NEW)  # entries still come
    with redis.guard() as connection:
        await connection.set(BANK_CURRENT(), line)

    async def well() -> bool:
        return all(replica.problem is None for replica in await entries.replicas())

    await until(well)


async def test_an_entry_that_cannot_be_read_is_left_out_and_the_others_act(
    followers: tuple[Follower, Follower], store: ReviewStore, redis: RedisClient
) -> None:
    with redis.guard() as connection:
        await connection.hset(BANK_ENTRIES(), "ap_broken", "{")
        await connection.xadd(BANK_CHANGES(), {"entry": "ap_broken"})
    await confirm(store, redis)
    await all_find(followers, NEW)


async def test_each_gateway_says_where_it_stands(
    followers: tuple[Follower, Follower], store: ReviewStore, redis: RedisClient, folder: Folder
) -> None:
    await confirm(store, redis)
    await all_find(followers, NEW)
    with redis.guard() as connection:
        ((last, _),) = await connection.xrevrange(BANK_CHANGES(), count=1)

    async def told() -> bool:
        replicas = await EntryStore(redis).replicas()
        return [(r.name, r.position) for r in replicas] == [("one", last), ("two", last)]

    await until(told)
    for replica in await EntryStore(redis).replicas():
        assert (replica.base, replica.problem) == (folder.first, None)
        assert replica.bank.startswith(folder.first + "+")


async def test_a_pinned_version_is_held_on_to(redis: RedisClient, folder: Folder) -> None:
    second = folder.add(exemplar("paint me a swallow"), minute=1)
    await Follower(redis, folder, "free").versions.publish(second, by="ada", note="better")
    async with Follower(redis, folder, "pinned", pinned=folder.first).running() as pinned:
        await pinned.overlay.begin()
        assert await pinned.risk(HARMFUL) > 0.9
        with pytest.raises(Conflict):
            await pinned.versions.publish(second, by="ada", note="x")


async def test_without_any_bank_a_gateway_does_not_begin(redis: RedisClient, folder: Folder) -> None:
    (folder.store.root / "CURRENT").unlink()
    with pytest.raises(BankNotFound):
        await Follower(redis, folder, "one").overlay.begin()
