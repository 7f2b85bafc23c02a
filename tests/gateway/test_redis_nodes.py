import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from gateway.errors import StateUnavailable
from gateway.redis_client import RedisClient
from gateway.redis_keys import FLAG, JUDGED, REVIEW, TABLE
from gateway.redis_nodes import NotReplicated, address_of, hash_tag, key_of, must_last
from gateway.review_records import Review
from gateway.reviews import ReviewStore
from gateway.settings import RedisSettings, load_settings
from tests.conftest import running
from tests.gateway.real_redis import Node, Watched, a_primary_with_sentinels, has_replicas, wait_until
from tests.gateway.reviewing import assessing, filed, verdict

TIMEOUT_S = 1.0


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A primary, its replica and three Sentinels, which this test may kill."""
    with a_primary_with_sentinels(tmp_path) as nodes:
        yield nodes


@pytest.fixture
async def client(watched: Watched, tmp_path: Path) -> AsyncIterator[RedisClient]:
    async with running(RedisClient(settings_for(watched.sentinels), tmp_path / "data")) as client:
        yield client


def settings_for(sentinels: list[Node]) -> RedisSettings:
    names = tuple(node.address for node in sentinels)
    return RedisSettings(sentinels=names, wait_replicas=1, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a"), "a"),
        (("EVAL", "return 1", 2, "a", "b"), "a"),
        (("EVAL", "return 1", 0), None),
        (("XREADGROUP", "GROUP", "g", "w", b"STREAMS", "a", ">"), "a"),
        (("XREAD", "COUNT", 1, "STREAMS", "a", "0"), "a"),
        (("XGROUP CREATE", "a", "g", "0"), "a"),
        (("CONFIG GET", "append*"), None),
        (("PING",), None),
    ],
)
def test_the_key_of_a_command_is_found(command: tuple[object, ...], key: str | None) -> None:
    assert key_of(command) == key


def test_what_somebody_relies_on_waits_for_the_replicas_and_nothing_else_does() -> None:
    assert must_last(("HSET", FLAG("flag_1"), "state", "open"))
    assert must_last(("EVAL", "return 1", 1, REVIEW("rev_1")))
    assert not must_last(("HGETALL", FLAG("flag_1")))
    assert not must_last(("SET", JUDGED("acme", "0"), "block"))
    assert not must_last(("PING",))


def test_a_hash_tag_is_what_stands_in_braces_and_every_tag_of_the_table_is_whole() -> None:
    assert hash_tag("antiprompt:{flags}:flag:flag_{1}") == "flags"
    assert hash_tag("antiprompt:secret") == "antiprompt:secret"
    assert hash_tag("antiprompt:{}:x") == "antiprompt:{}:x"
    assert all(key.pattern.count("{") == key.pattern.count("}") <= 1 for key in TABLE)


@pytest.mark.parametrize(
    "text", ["redis", "redis:", "redis:x", ":6379", "user@redis:6379", "redis:6379/0", "redis:99999"]
)
def test_an_address_is_host_and_port(text: str) -> None:
    assert address_of("[::1]:26379") == ("::1", 26379)
    with pytest.raises(ValueError, match=r"host:port|[Pp]ort"):
        address_of(text)
    with pytest.raises(ValueError, match=r"host:port|[Pp]ort"):
        RedisSettings(sentinels=(text,))


def test_there_is_one_way_to_redis() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        RedisSettings(sentinels=("a:1",), cluster_nodes=("b:2",))
    with pytest.raises(ValueError, match="redis:// or rediss://"):
        RedisSettings(sentinels=("a:1",), url="unix:///run/redis.sock")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one database"):
        RedisSettings(cluster_nodes=("a:1",), url="redis://:secret@ignored:1/3")  # type: ignore[arg-type]


def test_the_private_server_has_no_replicas_to_wait_for() -> None:
    with pytest.raises(ValueError, match="outside Redis"):
        RedisSettings(wait_replicas=1)


def test_sentinels_are_set_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPROMPT_REDIS__SENTINELS", '["one:26379", "two:26379"]')
    assert load_settings().redis.sentinels == ("one:26379", "two:26379")
    assert load_settings().redis.outside


async def test_no_acknowledged_review_is_lost_when_the_primary_is_killed(tmp_path: Path) -> None:
    with a_primary_with_sentinels(tmp_path, replicas=2) as watched:
        async with running(RedisClient(settings_for(watched.sentinels), tmp_path / "data")) as client:
            store = ReviewStore(client, assessing())
            flags = [await filed(client, f"bleach, cup {number}") for number in range(12)]
            acknowledged = [await store.decide(verdict(flag)) for flag in flags[:5]]
            watched.primary.kill()
            acknowledged += [await decided(store, client, flag) for flag in flags[5:]]
            promoted = [node for node in watched.replicas if node.ask("ROLE")[0] == "master"]
            assert len(promoted) == 1
            kept = {review.id for review in await store.recent()}
            assert {review.id for review in acknowledged} == kept
            assert len(kept) == len(flags)
            assert {(await store.get(flag)).state for flag in flags} == {"confirmed"}
            audited = [entry.subject for entry in await store.audit()]
            assert sorted(audited) == sorted(kept), "each review once, though it was asked for again and again"


async def decided(store: ReviewStore, client: RedisClient, flag: str) -> Review:
    """A review, by a moderator who presses the button again until it was taken."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await store.decide(verdict(flag))
            except StateUnavailable:
                await client.wait_until_available()


async def test_what_no_replica_has_is_not_acknowledged_however_often_it_is_asked_for(
    watched: Watched, client: RedisClient
) -> None:
    primary, replica = watched.primary, watched.replicas[0]
    store = ReviewStore(client, assessing())
    flag = await filed(client)
    replica.kill()
    for _ in range(2):  # the second time the review is found, and still nobody else has it
        with pytest.raises(StateUnavailable, match="replicas"):
            await store.decide(verdict(flag))
    assert client.available, "what needs no replica is served"
    assert (await store.get(flag)).state == "confirmed"
    replica.start()
    wait_until(lambda: has_replicas(primary, 1), what="the replica")
    review = await store.decide(verdict(flag))
    assert [kept.id for kept in await store.recent()] == [review.id]


async def test_a_write_in_a_transaction_waits_too(watched: Watched, client: RedisClient) -> None:
    watched.replicas[0].kill()
    with client.guard() as redis:
        for transaction in (True, False):
            pipe = redis.pipeline(transaction=transaction)
            pipe.hset(FLAG("flag_1"), "state", "open")
            pipe.hgetall(FLAG("flag_1"))
            with pytest.raises(NotReplicated):
                await pipe.execute()
        with pytest.raises(NotReplicated):
            await redis.set(FLAG("flag_2"), "x")
        pipe = redis.pipeline(transaction=True)
        pipe.set(JUDGED("acme", "0"), "block")
        assert await pipe.execute() == [True]


async def test_doctor_looks_at_the_sentinels_and_the_replica(
    watched: Watched, client: RedisClient, tmp_path: Path
) -> None:
    replica, sentinels = watched.replicas[0], watched.sentinels
    assert await client.check() == []
    alone = settings_for(sentinels).model_copy(update={"wait_replicas": 0, "sentinels": (sentinels[0].address,)})
    async with running(RedisClient(alone, tmp_path / "alone")) as other:
        found = {finding.name: finding.message for finding in await other.check()}
        assert found.keys() == {"replicas", "sentinels"}
        assert "set redis.wait_replicas to 1" in found["replicas"]
    replica.kill()
    sentinels[1].kill()
    sentinels[2].kill()
    wait_until(lambda: not has_replicas_at_all(watched.primary), what="the loss of the replica")
    found = {finding.name: finding for finding in await client.check()}
    assert found["replicas"].level == "error"
    assert "does not answer" in found[f"sentinel {sentinels[1].address}"].message
    wait_until(lambda: not quorum(sentinels[0]), what="the Sentinel's notice")
    assert (
        "could not fail over" in {f.name: f.message for f in await client.check()}[f"sentinel {sentinels[0].address}"]
    )


def has_replicas_at_all(node: Node) -> bool:
    return bool(node.ask("INFO", "replication")["connected_slaves"])


def quorum(sentinel: Node) -> bool:
    try:
        return bool(sentinel.ask("SENTINEL", "CKQUORUM", "mymaster"))
    except ResponseError:
        return False
