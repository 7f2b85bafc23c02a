"""Every kind of key that the gateway has comes back from a backup as it was; what is of the moment does not."""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.backup_files import BackupError
from gateway.backup_state import MOMENTARY, StateCopy, Value
from gateway.overlay_entries import EntryStore
from gateway.overlay_records import Replica
from gateway.redis_client import RedisClient
from gateway.redis_keys import FLAG, INSTALLATION_SECRET, JUDGED, RETRAINING, SESSION, TABLE, Key
from gateway.retraining_queue import GROUP
from gateway.settings import RedisSettings
from tests.conftest import RealRedis, running

PAUSE_S = 20.0


@pytest.fixture
def other_server() -> Iterator[RealRedis]:
    """Another machine's redis-server, empty."""
    directory = Path(tempfile.mkdtemp(prefix="ap-"))
    server = RealRedis(directory)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
async def other(other_server: RealRedis, tmp_path: Path) -> AsyncIterator[RedisClient]:
    async with running(RedisClient(RedisSettings(url=SecretStr(other_server.url)), tmp_path / "other")) as client:
        yield client


async def taken(redis: RedisClient, *, pause_s: float = PAUSE_S) -> list[Value]:
    lines = io.BytesIO()
    count = await StateCopy(redis).take(lines, pause_s=pause_s)
    values = [Value.from_line(line) for line in lines.getvalue().splitlines()]
    assert len(values) == count
    return values


async def fill(redis: RedisClient) -> None:
    """Enough keys for reading them to take more than one round."""
    pipe = redis.client.pipeline(transaction=False)
    for n in range(2000):
        pipe.set(FLAG(f"flag_{n}"), n)
    await pipe.execute()


def name(key: Key) -> str:
    return key(*(f"part{n}" for n in range(key.pattern.count("%s"))))


async def write(redis: Any, key: Key) -> None:
    """Something of the key's type."""
    match key.type:
        case "string":
            await redis.set(name(key), "ä value")
        case "hash":
            await redis.hset(name(key), mapping={"a": "1", "b": "ü"})
        case "list":
            await redis.rpush(name(key), "a", "b", "a")
        case "set":
            await redis.sadd(name(key), "a", "b")
        case "zset":
            await redis.zadd(name(key), {"a": 1.5, "b": -2})
        case "stream":
            await redis.xadd(name(key), {"n": "1"})
            await redis.xadd(name(key), {"n": "2"})


async def read(redis: Any, key: Key) -> object:
    """All that is in a key; never nothing."""
    match key.type:
        case "string":
            found = await redis.get(name(key))
        case "hash":
            found = await redis.hgetall(name(key))
        case "list":
            found = await redis.lrange(name(key), 0, -1)
        case "set":
            found = await redis.smembers(name(key))
        case "zset":
            found = await redis.zrange(name(key), 0, -1, withscores=True)
        case "stream":
            found = await redis.xrange(name(key))
    assert found
    return found


async def test_every_key_of_the_table_comes_back_as_it_was_but_for_the_momentary(
    redis_client: RedisClient, other: RedisClient
):
    kept = [key for key in TABLE if not key.pattern.startswith(MOMENTARY) and key is not INSTALLATION_SECRET]
    left_out = {key.pattern.split(":")[1] for key in TABLE if key.pattern.startswith(MOMENTARY)}
    assert left_out == {"archiving", "confirmed", "oidc", "{rate", "replica", "replicas", "{flags}", "session"}
    for key in TABLE:
        if key is not INSTALLATION_SECRET:
            await write(redis_client.client, key)
    count = await StateCopy(other).put(await taken(redis_client))
    assert count == len(kept) + 1  # and the secret
    for key in kept:
        assert await read(other.client, key) == await read(redis_client.client, key), key.pattern
    assert await other.client.get(INSTALLATION_SECRET()) == await redis_client.client.get(INSTALLATION_SECRET())
    assert {str(key) for key in await other.client.keys("*")} == {name(key) for key in kept} | {INSTALLATION_SECRET()}


async def test_a_consumer_group_keeps_what_it_gave_to_whom(redis_client: RedisClient, other: RedisClient):
    redis = redis_client.client
    await redis.xgroup_create(RETRAINING(), GROUP, id="0", mkstream=True)
    for n in range(4):
        await redis.xadd(RETRAINING(), {"review": f"rev_{n}", "action": "confirm"})
    await redis.xreadgroup(GROUP, "one", {RETRAINING(): ">"}, count=2)
    await StateCopy(other).put(await taken(redis_client))
    waiting: Any = await other.client.xpending_range(RETRAINING(), GROUP, min="-", max="+", count=10)
    assert [(each["consumer"], each["times_delivered"]) for each in waiting] == [("one", 1)] * 2
    left: Any = await other.client.xreadgroup(GROUP, "two", {RETRAINING(): ">"})
    assert [fields["review"] for _, fields in left[0][1]] == ["rev_2", "rev_3"]


async def test_a_key_ends_when_it_would_have_and_stays_away_if_that_is_past(
    redis_client: RedisClient, other: RedisClient
):
    redis = redis_client.client
    await redis.set(JUDGED("t", "soon"), "block", px=200)
    await redis.set(JUDGED("t", "later"), "block", px=500_000)
    values = await taken(redis_client)
    await asyncio.sleep(0.25)
    await StateCopy(other).put(values)
    assert await other.client.get(JUDGED("t", "soon")) is None
    assert 0 < await other.client.pttl(JUDGED("t", "later")) <= 500_000


async def test_writes_wait_while_it_is_taken_so_that_it_is_of_one_moment(
    redis_client: RedisClient, redis_url: str, tmp_path: Path
):
    """Two counters are always raised together, by a client that never stops; a copy has them equal."""
    await fill(redis_client)
    done, raised = asyncio.Event(), asyncio.Event()
    patient = RedisSettings(url=SecretStr(redis_url), timeout_s=60)

    async def raise_both(writer: RedisClient) -> None:
        while not done.is_set():
            pipe = writer.client.pipeline(transaction=True)
            pipe.incr("antiprompt:{flags}:a")
            pipe.incr("antiprompt:{flags}:z")
            await pipe.execute()
            raised.set()

    async with running(RedisClient(patient, tmp_path / "writer")) as writer:
        raising = asyncio.create_task(raise_both(writer))
        await raised.wait()
        values = {value.key: value.dump for value in await taken(redis_client)}
        raised.clear()
        await raised.wait()  # writes go on afterwards
        done.set()
        await raising
    assert values["antiprompt:{flags}:a"] == values["antiprompt:{flags}:z"]


async def test_reading_that_takes_longer_than_writes_wait_is_no_backup(redis_client: RedisClient):
    await fill(redis_client)
    with pytest.raises(BackupError, match="--pause"):
        await taken(redis_client, pause_s=0.001)
    await redis_client.client.set(FLAG("flag_1"), "written")  # nobody waits any longer


async def test_with_no_pause_nothing_waits(redis_server: RealRedis, tmp_path: Path):
    """A Redis that forbids CLIENT PAUSE, as managed ones do."""
    assert redis_server.command("ACL SETUSER default -client").startswith("+OK")
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as client:
        with pytest.raises(BackupError, match="--pause 0"):
            await taken(client)
        assert [value.key for value in await taken(client, pause_s=0)] == [INSTALLATION_SECRET()]


async def test_clear_takes_the_gateways_keys_and_nobody_elses(redis_client: RedisClient):
    redis, state = redis_client.client, StateCopy(redis_client)
    assert await state.keys() == []  # the secret, which any connection makes, is no state
    await redis.set("somebody:else", "1")
    await redis.set(SESSION("s"), "1")
    await redis.set(FLAG("flag_1"), "1")
    assert await state.keys() == [FLAG("flag_1")]
    await state.clear()
    assert await redis.keys("*") == ["somebody:else"]


async def test_gateways_that_run_are_counted(redis_client: RedisClient):
    state = StateCopy(redis_client)
    assert await state.gateways() == 0
    await EntryStore(redis_client).report(Replica("one", "v1", "v1", "0-0", time.time()))
    assert await state.gateways() == 1


async def test_what_an_older_redis_cannot_read_is_told(redis_client: RedisClient):
    value = Value(FLAG("flag_1"), None, b"\x00\x01a\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00")
    with pytest.raises(BackupError, match="older"):
        await StateCopy(redis_client).put([value])


@pytest.mark.parametrize("line", [b"", b"{}", b'{"key": "k", "ends_ms": null, "dump": "!"}', b"\xff"])
def test_a_line_that_cannot_be_read_is_told(line: bytes):
    with pytest.raises(BackupError):
        Value.from_line(line)
