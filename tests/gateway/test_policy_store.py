import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.errors import Forbidden, NotFound, StateUnavailable
from gateway.policy import Action, Policy, PolicyError, Strictness
from gateway.policy_file import DEFAULT_POLICY_FILE
from gateway.policy_records import BreakGlass, Event
from gateway.policy_store import PolicyStore
from gateway.redis_client import RedisClient, end_tasks
from gateway.redis_keys import POLICY, POLICY_BREAK_GLASS, POLICY_CURRENT, POLICY_HISTORY
from gateway.settings import RedisSettings
from tests.conftest import RealRedis
from tests.gateway.scores import finding

FIRST = "rules: [{name: hate, hazard: hate, side: any, risk_at_least: 0.5, action: block}]\n"
SECOND = FIRST.replace("0.5", "0.9")
THIRD = FIRST.replace("block", "flag")
ONE_HOUR = timedelta(hours=1)


def version(text: str) -> str:
    return Policy.from_yaml(text).version


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(FIRST, "utf-8")
    return path


@pytest.fixture
async def store(redis_client: RedisClient, file: Path) -> PolicyStore:
    store = PolicyStore(redis_client, file)
    await store.start()
    return store


def write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


async def another(redis_client: RedisClient, path: Path, text: str | None = None) -> PolicyStore:
    """A gateway beside the first, which starts with a file that says ``text``."""
    if text is not None:
        write(path, text)
    store = PolicyStore(redis_client, path)
    await store.start()
    return store


@asynccontextmanager
async def following(store: PolicyStore) -> AsyncIterator[None]:
    task = asyncio.create_task(store.follow(interval_s=0.01))
    try:
        yield
    finally:
        await end_tasks(task)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for is an attribute
            await asyncio.sleep(0.005)


# ---- The file.


async def test_the_file_becomes_the_first_version(store: PolicyStore) -> None:
    assert store.current.version == version(FIRST)
    assert await store.text(version(FIRST)) == FIRST == await store.text()
    (entry,) = await store.history()
    assert (entry.event, entry.version, entry.author, entry.note) == (
        Event.FILE,
        version(FIRST),
        "file",
        "policy.yaml",
    )
    assert timedelta(0) <= datetime.now(UTC) - entry.at < timedelta(minutes=1)
    status = store.status
    assert (status.source, status.locked, status.break_glass, status.problem) == ("file", False, None, None)


async def test_without_a_file_the_policy_that_ships_is_in_force(redis_client: RedisClient) -> None:
    store = PolicyStore(redis_client)
    await store.start()
    assert store.current.version == version(DEFAULT_POLICY_FILE.read_text("utf-8"))


async def test_before_the_start_there_is_no_policy(redis_client: RedisClient, file: Path) -> None:
    with pytest.raises(RuntimeError, match=r"PolicyStore\.start"):
        _ = PolicyStore(redis_client, file).current


@pytest.mark.parametrize("text", ["mode: maybe", None])
async def test_a_gateway_does_not_start_without_a_policy(
    redis_client: RedisClient, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "other.yaml"
    if text is not None:
        write(path, text)
    with pytest.raises(PolicyError, match="mode: must be" if text else "cannot be read"):
        await PolicyStore(redis_client, path).start()


async def test_a_second_gateway_does_not_write_the_same_file_again(
    store: PolicyStore, redis_client: RedisClient, file: Path
) -> None:
    stores = await asyncio.gather(*(another(redis_client, file) for _ in range(5)))
    assert {each.current.version for each in stores} == {version(FIRST)}
    assert len(await store.audit()) == 1


async def test_gateways_that_start_at_once_agree_on_one_first_version(redis_client: RedisClient, file: Path) -> None:
    stores = [PolicyStore(redis_client, file) for _ in range(8)]
    await asyncio.gather(*(store.start() for store in stores))
    assert len(await stores[0].audit()) == 1
    assert {store.status.source for store in stores} == {"file"}


async def test_a_changed_file_takes_over_until_somebody_publishes(
    store: PolicyStore, redis_client: RedisClient, file: Path
) -> None:
    changed = await another(redis_client, file, SECOND)
    await store.refresh()
    assert store.current.version == changed.current.version == version(SECOND)
    await store.publish(THIRD, author="ann", note="milder")
    later = await another(redis_client, file, FIRST)
    assert later.current.version == version(THIRD)
    assert later.status.source == "published"


# ---- Versions.


async def test_a_published_policy_is_in_force_on_every_gateway(
    store: PolicyStore, redis_client: RedisClient, file: Path
) -> None:
    other = await another(redis_client, file)
    async with following(other):
        assert await store.publish(SECOND, author="ann", note="fewer false alarms") == version(SECOND)
        assert store.current.version == version(SECOND)
        await until(lambda: other.current.version == version(SECOND))
    assert other.current.decide([finding(hate=0.8)]).action is Action.ALLOW
    entry = (await other.history())[0]
    assert (entry.event, entry.author, entry.note) == (Event.PUBLISH, "ann", "fewer false alarms")
    assert other.status.author == "ann"


async def test_a_request_under_way_keeps_the_policy_it_has(store: PolicyStore) -> None:
    taken = store.current
    await store.publish(SECOND, author="ann", note="x")
    assert store.current is not taken
    assert taken.decide([finding(hate=0.8)]).action is Action.BLOCK


async def test_rolling_back_puts_an_earlier_version_in_force_and_stands_in_the_history(store: PolicyStore) -> None:
    await store.publish(SECOND, author="ann", note="try")
    assert await store.rollback(version(FIRST), author="bob", note="too lax") == version(FIRST)
    assert store.current.version == version(FIRST)
    assert [(each.event, each.author) for each in await store.history()] == [
        (Event.ROLLBACK, "bob"),
        (Event.PUBLISH, "ann"),
        (Event.FILE, "file"),
    ]
    assert len(await store.history(limit=2)) == 2
    with pytest.raises(NotFound, match="policy history"):
        await store.rollback("0123456789ab", author="bob", note="x")


@pytest.mark.parametrize("text", ["mode: maybe", "rules: [", "locked: true"])
async def test_what_cannot_be_used_is_not_published(store: PolicyStore, text: str) -> None:
    with pytest.raises(PolicyError):
        await store.publish(text, author="ann", note="x")
    assert store.current.version == version(FIRST)
    assert len(await store.audit()) == 1


@pytest.mark.parametrize(("author", "note"), [("", "x"), ("ann", " "), ("ann", "x" * 1001), ("file", "x")])
async def test_who_and_why_must_be_said(store: PolicyStore, author: str, note: str) -> None:
    with pytest.raises(ValueError, match=r"must be given|cannot be 'file'"):
        await store.publish(SECOND, author=author, note=note)
    with pytest.raises(ValueError, match=r"must be given|cannot be 'file'"):
        await store.break_glass(ONE_HOUR, author=author, reason=note)
    assert len(await store.audit()) == 1


# ---- What Redis holds may be wrong.


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda r: r.set(POLICY(version(SECOND)), "mode: maybe"), "cannot be used by this gateway"),
        (lambda r: r.set(POLICY(version(SECOND)), THIRD), "is not the text that was published"),
        (lambda r: r.delete(POLICY(version(SECOND))), "is missing from Redis"),
        (lambda r: r.set(POLICY_CURRENT(), "no JSON"), "cannot be read"),
        (lambda r: r.set(POLICY_CURRENT(), "[]"), "cannot be read"),
        (lambda r: r.set(POLICY_CURRENT(), '{"version": 3}'), "cannot be read"),
        (lambda r: r.set(POLICY_BREAK_GLASS(), "no JSON", ex=60), "cannot be read"),
    ],
)
async def test_a_bad_stored_policy_never_replaces_a_good_one(
    redis_client: RedisClient,
    store: PolicyStore,
    file: Path,
    damage: Callable[[object], Awaitable[object]],
    problem: str,
) -> None:
    writer = await another(redis_client, file)
    with redis_client.guard() as redis:
        await writer.publish(SECOND, author="ann", note="x")
        await damage(redis)
    async with following(store):
        await until(lambda: store.status.problem is not None)
        assert problem in str(store.status.problem)
        assert store.current.version == version(FIRST)
        assert not store.current.break_glass
        with redis_client.guard() as redis:
            await redis.delete(POLICY_BREAK_GLASS())
        await writer.publish(THIRD, author="ann", note="mend it")
        await until(lambda: store.current.version == version(THIRD))
    assert store.status.problem is None


async def test_a_key_of_a_wrong_type_is_told_and_survived(store: PolicyStore, redis_client: RedisClient) -> None:
    with redis_client.guard() as redis:
        await redis.delete(POLICY_CURRENT())
        await redis.lpush(POLICY_CURRENT(), "x")
    async with following(store):
        await until(lambda: store.status.problem is not None)
    assert store.current.version == version(FIRST)


async def test_when_redis_was_emptied_the_last_good_policy_stays(store: PolicyStore, redis_client: RedisClient) -> None:
    await store.publish(SECOND, author="ann", note="x")
    with redis_client.guard() as redis:
        await redis.flushall()
    await store.refresh()
    assert store.current.version == version(SECOND)


async def test_a_damaged_version_can_be_published_again(
    store: PolicyStore, redis_client: RedisClient, file: Path
) -> None:
    other = await another(redis_client, file)
    await other.publish(SECOND, author="ann", note="x")
    with redis_client.guard() as redis:
        await redis.set(POLICY(version(SECOND)), "mode: maybe")
    for _ in range(2):
        await store.refresh()
        assert store.status.problem is not None
    await other.publish(SECOND, author="ann", note="again")
    await store.refresh()
    assert (store.current.version, store.status.problem) == (version(SECOND), None)


# ---- Break-glass.


async def test_break_glass_puts_every_gateway_into_shadow_and_is_audited(
    store: PolicyStore, redis_client: RedisClient, file: Path
) -> None:
    other = await another(redis_client, file)
    async with following(other):
        broken = await store.break_glass(timedelta(minutes=90), author="ann", reason="all requests blocked")
        assert store.current.break_glass
        await until(lambda: other.current.break_glass)
    for view in (other.current, other.current.strengthened(Strictness.STRICT)):
        assert view.decide([finding(hate=0.9)]).action is Action.ALLOW
    seen = other.status.break_glass
    assert isinstance(seen, BreakGlass)
    assert (seen.author, seen.reason) == ("ann", "all requests blocked")
    assert abs(seen.until - broken.until) < timedelta(seconds=10)
    entry = (await other.audit())[0]
    assert (entry.event, entry.author, entry.note, entry.minutes) == (
        Event.BREAK_GLASS,
        "ann",
        "all requests blocked",
        90,
    )
    assert entry.version == version(FIRST)
    with redis_client.guard() as redis:
        assert 0 < await redis.ttl(POLICY_BREAK_GLASS()) <= 90 * 60


async def test_break_glass_can_be_ended_and_that_is_audited_too(store: PolicyStore) -> None:
    assert not await store.restore(author="bob", note="nothing to end")
    await store.break_glass(ONE_HOUR, author="ann", reason="x")
    assert await store.restore(author="bob", note="mended")
    assert not store.current.break_glass
    assert store.current.decide([finding(hate=0.9)]).action is Action.BLOCK
    assert [entry.event for entry in await store.audit()] == [Event.RESTORE, Event.BREAK_GLASS, Event.FILE]
    assert [entry.event for entry in await store.history()] == [Event.FILE]


async def test_break_glass_ends_by_itself(store: PolicyStore, redis_client: RedisClient) -> None:
    await store.break_glass(ONE_HOUR, author="ann", reason="x")
    async with following(store):
        with redis_client.guard() as redis:
            await redis.pexpire(POLICY_BREAK_GLASS(), 30)
        await until(lambda: not store.current.break_glass)
    assert store.status.break_glass is None


async def test_publishing_during_break_glass_takes_force_when_it_ends(store: PolicyStore) -> None:
    await store.break_glass(ONE_HOUR, author="ann", reason="x")
    await store.publish(SECOND, author="ann", note="x")
    assert (store.current.version, store.current.break_glass) == (version(SECOND), True)
    await store.restore(author="ann", note="x")
    assert (store.current.version, store.current.break_glass) == (version(SECOND), False)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(minutes=-5), timedelta(hours=24, seconds=1)])
async def test_break_glass_lasts_a_day_at_most(store: PolicyStore, lifetime: timedelta) -> None:
    with pytest.raises(ValueError, match="24 hours"):
        await store.break_glass(lifetime, author="ann", reason="x")
    assert not store.current.break_glass


@pytest.mark.parametrize("lifetime_s", [None, 10 * 86_400])
async def test_break_glass_set_past_the_store_is_not_for_ever(
    store: PolicyStore, redis_client: RedisClient, lifetime_s: int | None
) -> None:
    with redis_client.guard() as redis:
        await redis.set(POLICY_BREAK_GLASS(), '{"author": "mallory", "reason": "x"}', ex=lifetime_s)
    await store.refresh()
    if lifetime_s is None:
        assert not store.current.break_glass
    else:
        assert store.status.break_glass is not None
        assert store.status.break_glass.until <= datetime.now(UTC) + timedelta(hours=24)


# ---- A locked file.


async def test_a_locked_file_is_the_only_source(redis_client: RedisClient, store: PolicyStore, file: Path) -> None:
    await store.publish(SECOND, author="ann", note="x")
    await store.break_glass(ONE_HOUR, author="ann", reason="x")
    locked = await another(redis_client, file, THIRD + "locked: true\n")
    await asyncio.wait_for(locked.follow(), 5)
    assert (locked.current.version, locked.current.break_glass) == (version(THIRD + "locked: true\n"), False)
    assert locked.status.source == "file"
    for change in (
        locked.publish(FIRST, author="ann", note="x"),
        locked.rollback(version(FIRST), author="ann", note="x"),
        locked.break_glass(ONE_HOUR, author="ann", reason="x"),
        locked.restore(author="ann", note="x"),
    ):
        with pytest.raises(Forbidden, match="locked: true"):
            await change
    assert len(await store.audit()) == 3


# ---- A command beside a gateway.


async def test_a_command_changes_nothing_by_looking(redis_client: RedisClient, store: PolicyStore, file: Path) -> None:
    await store.break_glass(ONE_HOUR, author="ann", reason="x")
    write(file, SECOND)
    command = PolicyStore(redis_client, file)
    await command.attach()
    assert (command.current.version, command.current.break_glass) == (version(FIRST), True)
    assert await command.text() == FIRST
    assert len(await store.audit()) == 2


# ---- Redis away.


@pytest.fixture
async def mortal_client(redis_server: RealRedis, tmp_path: Path) -> AsyncIterator[RedisClient]:
    client = RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path / "data")
    await client.start()
    yield client
    await client.close()


async def test_with_redis_away_the_last_good_policy_stays_and_its_return_is_followed(
    redis_server: RealRedis, mortal_client: RedisClient, file: Path
) -> None:
    store = await another(mortal_client, file)
    await store.publish(SECOND, author="ann", note="x")
    async with following(store):
        redis_server.kill()
        await until(lambda: not mortal_client.available)
        with pytest.raises(StateUnavailable):
            await store.publish(THIRD, author="ann", note="x")
        assert store.current.version == version(SECOND)
        redis_server.start()
        await until(lambda: mortal_client.available)
        await store.publish(THIRD, author="ann", note="x")
        assert store.current.version == version(THIRD)


async def test_break_glass_ends_in_time_while_redis_is_away(
    redis_server: RealRedis, mortal_client: RedisClient, file: Path
) -> None:
    store = await another(mortal_client, file)
    await store.break_glass(ONE_HOUR, author="ann", reason="x")
    with mortal_client.guard() as redis:
        await redis.pexpire(POLICY_BREAK_GLASS(), 300)
    await store.refresh()
    assert store.current.break_glass
    async with following(store):
        redis_server.kill()
        await until(lambda: not store.current.break_glass)
    assert not mortal_client.available
    assert store.current.decide([finding(hate=0.9)]).action is Action.BLOCK


async def test_a_gateway_that_starts_without_redis_serves_the_file_and_catches_up(
    redis_server: RealRedis, mortal_client: RedisClient, file: Path
) -> None:
    published = await another(mortal_client, file)
    await published.publish(SECOND, author="ann", note="x")
    redis_server.kill()
    store = await another(mortal_client, file)
    assert store.current.version == version(FIRST)
    async with following(store):
        redis_server.start()
        await until(lambda: store.current.version == version(SECOND))


async def test_the_keys_are_as_the_table_says(store: PolicyStore, redis_client: RedisClient) -> None:
    await store.break_glass(ONE_HOUR, author="ann", reason="x")
    table = {
        key(*[version(FIRST)] * key.pattern.count("%s")): key.type
        for key in (POLICY, POLICY_CURRENT, POLICY_HISTORY, POLICY_BREAK_GLASS)
    }
    with redis_client.guard() as redis:
        held = {key async for key in redis.scan_iter("antiprompt:{policy}:*")}
        assert held == set(table)
        assert {key: await redis.type(key) for key in held} == table
