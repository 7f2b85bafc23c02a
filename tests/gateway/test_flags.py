import asyncio
import resource
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.errors import Conflict, NotFound, StateUnavailable
from gateway.flags import Flag, FlagState, FlagStore, Source
from gateway.redis_client import RedisClient
from gateway.redis_keys import FLAG_STATE, FLAG_STREAM
from gateway.settings import RedisSettings
from gateway.spool import Spool
from tests.conftest import RealRedis, running

MAX_SPOOL_BYTES = 64 << 20


def flag(text: str = "how to x", *, tenant: str = "acme", source: Source = Source.USER, **fields: object) -> Flag:
    return replace(Flag(tenant=tenant, source=source, side="request", text=text), **fields)


@pytest.fixture
async def redis(redis_server: RealRedis, tmp_path: Path) -> AsyncIterator[RedisClient]:
    """A client of a server that the test may kill."""
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as client:
        yield client


@pytest.fixture
async def store(redis: RedisClient, tmp_path: Path) -> AsyncIterator[FlagStore]:
    store = FlagStore(redis, Spool(tmp_path / "spool" / "flags.spool", max_bytes=MAX_SPOOL_BYTES))
    await store.start()
    yield store
    await store.close()


async def lose(redis: RedisClient, server: RealRedis) -> None:
    """Kill the server and let the client notice."""
    server.kill()
    with pytest.raises(StateUnavailable), redis.guard() as connection:
        await connection.ping()


async def replayed(store: FlagStore) -> None:
    async with asyncio.timeout(30):
        while store.spool_flags:  # noqa: ASYNC110 - the store has no event for it, and users need none
            await asyncio.sleep(0.01)


async def kept_ids(redis: RedisClient) -> tuple[list[str], list[str]]:
    """Ids in the open index and in the stream, in order."""
    with redis.guard() as connection:
        index = await connection.zrange(FLAG_STATE("open"), 0, -1)
        entries = await connection.xrange(FLAG_STREAM())
    return index, [fields["flag"] for _, fields in entries]


async def test_a_flag_is_kept_and_seen_by_its_own_tenant_only(store: FlagStore) -> None:
    id, state = await store.add(flag(reason="wrong", hazard="violent_crimes", risk=0.5, end_user="e1"))
    assert state is FlagState.OPEN
    found = await store.get(id, tenant="acme")
    assert (found.text, found.reason, found.hazard, found.risk) == ("how to x", "wrong", "violent_crimes", 0.5)
    assert found.id == id
    assert found.created_at > 0
    assert (await store.get(id, tenant=None)) == found
    with pytest.raises(NotFound):
        await store.get(id, tenant="other")
    with pytest.raises(NotFound):
        await store.get("flag_unknown", tenant="acme")
    assert await store.list(FlagState.OPEN) == [found]
    assert (await store.counts())[FlagState.OPEN] == 1


async def test_the_newest_flags_are_listed_first_up_to_the_limit(store: FlagStore) -> None:
    for number in range(5):
        await store.add(flag(str(number), created_at=1000.0 + number))
    assert [found.text for found in await store.list(limit=2)] == ["4", "3"]
    assert await store.list(FlagState.CONFIRMED) == []


async def test_a_repeated_idempotency_key_gives_the_first_flag_and_another_body_is_a_conflict(store: FlagStore) -> None:
    first = await store.add(flag(), idempotency_key="k")
    assert await store.add(flag(), idempotency_key="k") == first
    assert (await store.add(flag(), idempotency_key="other"))[0] != first[0]
    assert (await store.add(flag(tenant="b"), idempotency_key="k"))[0] != first[0]
    with pytest.raises(Conflict):
        await store.add(flag("another text"), idempotency_key="k")
    assert len(await store.list()) == 3


async def test_the_fingerprint_decides_what_counts_as_the_same_body(store: FlagStore) -> None:
    first = await store.add(flag("text of the exchange"), idempotency_key="k", fingerprint='{"case_id":"c"}')
    assert await store.add(flag(text="gone by now"), idempotency_key="k", fingerprint='{"case_id":"c"}') == first
    with pytest.raises(Conflict):
        await store.add(flag("text of the exchange"), idempotency_key="k", fingerprint='{"case_id":"d"}')


async def test_concurrent_retries_of_one_flag_are_one_flag(store: FlagStore) -> None:
    answers = await asyncio.gather(*(store.add(flag(), idempotency_key="k") for _ in range(300)))
    assert len(set(answers)) == 1
    assert len(await store.list()) == 1


async def test_policy_flags_of_one_text_are_one_flag_that_counts(store: FlagStore) -> None:
    ids = {(await store.add(flag(source=Source.POLICY, case_id=str(n))))[0] for n in range(3)}
    await store.add(flag("other", source=Source.POLICY))
    assert len(ids) == 1
    assert (await store.get(ids.pop(), tenant="acme")).duplicates == 2
    assert len(await store.list()) == 2


async def test_with_redis_away_flags_go_to_the_spool_and_come_back_in_order_once(
    store: FlagStore, redis: RedisClient, redis_server: RealRedis
) -> None:
    before, _ = await store.add(flag("before"), idempotency_key="0")
    await lose(redis, redis_server)
    ids = [(await store.add(flag(str(n)), idempotency_key=str(n)))[0] for n in range(1, 20)]
    assert (await store.add(flag("before"), idempotency_key="0"))[0] == before
    assert (await store.add(flag("5"), idempotency_key="5"))[0] == ids[4]
    with pytest.raises(Conflict):
        await store.add(flag("not 5"), idempotency_key="5")
    assert store.spooled_total == 20
    assert (await store.get(ids[0], tenant="acme")).text == "1"
    with pytest.raises(NotFound):
        await store.get(ids[0], tenant="other")
    with pytest.raises(StateUnavailable):
        await store.get("flag_unknown", tenant="acme")
    redis_server.start()
    await replayed(store)
    assert await store.add(flag("5"), idempotency_key="5") == (ids[4], FlagState.OPEN)
    index, stream = await kept_ids(redis)
    assert sorted(index) == sorted([before, *ids])
    assert stream == [before, *ids]
    assert store.spool_bytes == 0


async def test_a_conflict_that_only_the_replay_can_see_loses_neither_flag(
    store: FlagStore, redis: RedisClient, redis_server: RealRedis
) -> None:
    first, _ = await store.add(flag("one"), idempotency_key="k")
    await lose(redis, redis_server)
    second, _ = await store.add(flag("two"), idempotency_key="k")
    redis_server.start()
    await replayed(store)
    assert (await store.get(first, tenant="acme")).text == "one"
    assert (await store.get(second, tenant="acme")).text == "two"


async def test_a_redis_that_takes_no_writes_sends_flags_to_the_spool(store: FlagStore, redis: RedisClient) -> None:
    with redis.guard() as connection:
        await connection.config_set("maxmemory", 1)
    id, _ = await store.add(flag())
    assert store.spool_flags == 1
    with redis.guard() as connection:
        await connection.config_set("maxmemory", 0)
    await replayed(store)
    assert [found.id for found in await store.list()] == [id]


async def test_a_full_disk_refuses_the_flag_and_keeps_no_part_of_it(
    store: FlagStore, redis: RedisClient, redis_server: RealRedis
) -> None:
    await lose(redis, redis_server)
    kept, _ = await store.add(flag("kept"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (store.spool_bytes + 10, hard))
    try:
        with pytest.raises(StateUnavailable, match="spool cannot be written"):
            await store.add(flag("refused"), idempotency_key="k")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    redis_server.start()
    await replayed(store)
    assert [found.id for found in await store.list()] == [kept]


async def test_without_a_spool_and_without_redis_a_flag_is_refused(redis: RedisClient, redis_server: RealRedis) -> None:
    store = FlagStore(redis, None)
    await store.start()
    await store.add(flag())
    await lose(redis, redis_server)
    with pytest.raises(StateUnavailable):
        await store.add(flag())
    await store.close()
    with pytest.raises(StateUnavailable):
        await store.add(flag())


async def test_an_end_user_is_erased_from_redis_and_their_flags_stay(store: FlagStore, redis: RedisClient) -> None:
    person = redis.end_user_digest("ann")
    mine, _ = await store.add(flag("my secret", prompt="p", reason="r", corrected_answer="c", end_user=person))
    theirs, _ = await store.add(flag("theirs", end_user=redis.end_user_digest("bob")))
    assert await store.erase_end_user(person) == 1
    erased = await store.get(mine, tenant="acme")
    assert (erased.text, erased.prompt, erased.reason, erased.corrected_answer, erased.end_user) == (None,) * 5
    assert erased.hazard is None
    assert (await store.get(theirs, tenant="acme")).text == "theirs"
    assert (await store.counts())[FlagState.OPEN] == 2


async def test_an_erasure_reaches_a_spool_that_another_gateway_replays_later(
    store: FlagStore, redis: RedisClient, redis_server: RealRedis, tmp_path: Path
) -> None:
    person = redis.end_user_digest("ann")
    await lose(redis, redis_server)
    id, _ = await store.add(flag("my secret", end_user=person))
    redis_server.start()
    async with running(
        RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path / "elsewhere")
    ) as elsewhere:
        other = FlagStore(elsewhere, None)
        assert await other.erase_end_user(person) in (0, 1)  # the first may have replayed it by now
        await replayed(store)
        assert (await store.get(id, tenant="acme")).text is None


async def test_an_erasure_rewrites_the_spool_on_the_disk(store: FlagStore, redis: RedisClient, tmp_path: Path) -> None:
    person = redis.end_user_digest("ann")
    with redis.guard() as connection:  # writes are refused, so that flags stay in the spool; deletions are not
        await connection.config_set("maxmemory", 1)
    await store.add(flag("my secret", end_user=person))
    await store.add(flag("theirs"))
    with redis.guard() as connection:
        await connection.config_set("maxmemory", 0)
    assert await store.erase_end_user(person) == 1
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "spool").iterdir())
    assert b"my secret" not in on_disk
    await replayed(store)
    assert [found.text for found in await store.list()] in (["theirs", None], [None, "theirs"])


class Load:
    """Concurrent writers that retry as clients do: with the same key until they have an answer."""

    def __init__(self, store: FlagStore, flags: int, writers: int = 40) -> None:
        self.acknowledged: dict[str, str] = {}
        self._store = store
        self._numbers = iter(range(flags))
        self._writers = writers

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._writers):
                group.create_task(self._write())

    async def _write(self) -> None:
        for number in self._numbers:
            id = await self._send(number)
            self.acknowledged[str(number)] = id
            if number % 10 == 0:  # the answer was lost on its way: the client sends it again
                assert await self._send(number) == id

    async def _send(self, number: int) -> str:
        while True:
            try:
                return (await self._store.add(flag(f"text {number}"), idempotency_key=str(number)))[0]
            except StateUnavailable:
                await asyncio.sleep(0.01)


async def test_kill_9_of_redis_during_10_000_flags_loses_none_and_doubles_none(
    store: FlagStore, redis: RedisClient, redis_server: RealRedis
) -> None:
    load = Load(store, 10_000)
    running = asyncio.create_task(load.run())
    for kill_at, start_at in ((2_000, 4_000), (6_000, 8_000)):
        while len(load.acknowledged) < kill_at:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        redis_server.kill()
        while len(load.acknowledged) < start_at:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.to_thread(redis_server.start)
    await running
    await replayed(store)
    index, stream = await kept_ids(redis)
    assert len(load.acknowledged) == 10_000
    assert sorted(index) == sorted(load.acknowledged.values())
    assert sorted(stream) == sorted(load.acknowledged.values())
    assert store.spooled_total >= 2_000


GATEWAY = """
import asyncio, sys
from pathlib import Path
from pydantic import SecretStr
from gateway.flags import Flag, FlagStore, Source
from gateway.redis_client import RedisClient
from gateway.settings import RedisSettings
from gateway.spool import Spool

async def main(url, folder):
    redis = RedisClient(RedisSettings(url=SecretStr(url)), folder)
    await redis.start()
    store = FlagStore(redis, Spool(folder / "spool" / "flags.spool", max_bytes=1 << 26))
    await store.start()
    numbers = iter(range(1_000_000))
    async def write():
        for number in numbers:
            flag = Flag(tenant="acme", source=Source.USER, text=str(number))
            id, _ = await store.add(flag, idempotency_key=str(number))
            print("kept", number, id, flush=True)
    await asyncio.gather(*(write() for _ in range(20)))

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


async def test_kill_9_of_the_gateway_while_it_spools_loses_no_acknowledged_flag(
    redis_server: RealRedis, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GATEWAY, redis_server.url, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged: dict[str, str] = {}

    async def read(until: int) -> None:
        async for line in process.stdout:
            if line.startswith(b"kept ") and line.endswith(b"\n"):
                _, number, id = line.decode().split()
                acknowledged[number] = id
            if len(acknowledged) >= until:
                return

    await read(300)
    redis_server.kill()
    await read(1_000)
    process.send_signal(signal.SIGKILL)
    await read(1_000_000)
    await process.wait()

    redis_server.start()
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as redis:
        store = FlagStore(redis, Spool(tmp_path / "spool" / "flags.spool", max_bytes=MAX_SPOOL_BYTES))
        await store.start()
        assert store.spool_flags > 0
        await replayed(store)
        for number in list(acknowledged)[::50]:
            assert (await store.add(flag(number, side=None), idempotency_key=number))[0] == acknowledged[number]
        index, stream = await kept_ids(redis)
        assert set(acknowledged.values()) <= set(index)
        assert len(stream) == len(set(stream)) == len(index)
        await store.close()
