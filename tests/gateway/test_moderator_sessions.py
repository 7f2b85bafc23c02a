from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from gateway.accounts import Account, AccountStore
from gateway.moderator_sessions import SessionStore
from gateway.redis_client import RedisClient
from gateway.roles import Role
from gateway.settings import ReviewSettings

PASSWORD = "correct horse battery"


@pytest.fixture
def accounts(redis_client: RedisClient) -> AccountStore:
    return AccountStore(redis_client, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def sessions(redis_client: RedisClient, accounts: AccountStore) -> SessionStore:
    return SessionStore(redis_client, accounts, ReviewSettings())


@pytest.fixture
async def mia(accounts: AccountStore) -> Account:
    return await accounts.create("mia", Role.MODERATOR, PASSWORD)


async def test_a_token_finds_its_session_until_log_out(sessions: SessionStore, mia: Account) -> None:
    token = await sessions.begin(mia)
    found = await sessions.find(token)
    assert found is not None
    assert (found.name, found.role) == ("mia", Role.MODERATOR)
    await sessions.end(token)
    assert await sessions.find(token) is None


async def test_no_other_token_does(sessions: SessionStore, mia: Account) -> None:
    token = await sessions.begin(mia)
    for wrong in ("", "x", token[:-1], token + "x", "\ud800"):
        assert await sessions.find(wrong) is None


async def test_neither_token_stands_in_redis(sessions: SessionStore, mia: Account, redis_client: RedisClient) -> None:
    token = await sessions.begin(mia)
    with redis_client.guard() as redis:
        keys = [key async for key in redis.scan_iter("antiprompt:session:*")]
        rows = [await redis.hgetall(key) for key in keys]
    assert len(rows) == 1
    assert token not in str((keys, rows))


async def test_logging_in_again_makes_another_token_and_ends_the_first(sessions: SessionStore, mia: Account) -> None:
    first = await sessions.begin(mia)
    second = await sessions.begin(mia, replaces=first)
    assert second != first
    assert await sessions.find(first) is None
    assert await sessions.find(second) is not None


async def test_a_form_belongs_to_one_session(sessions: SessionStore, mia: Account) -> None:
    mine, other = [await sessions.find(await sessions.begin(mia)) for _ in range(2)]
    assert mine is not None
    assert other is not None
    assert mine.owns(mine.csrf_token)
    assert not mine.owns(other.csrf_token)
    assert not mine.owns("")
    assert not mine.owns("\ud800")


async def test_a_new_password_ends_all_sessions(sessions: SessionStore, accounts: AccountStore, mia: Account) -> None:
    tokens = [await sessions.begin(mia) for _ in range(2)]
    await accounts.set_password("mia", "another password!")
    assert [await sessions.find(token) for token in tokens] == [None, None]


async def test_disabling_an_account_ends_its_sessions_for_good(
    sessions: SessionStore, accounts: AccountStore, mia: Account
) -> None:
    token = await sessions.begin(mia)
    await accounts.disable("mia")
    assert await sessions.find(token) is None
    await accounts.enable("mia")
    assert await sessions.find(token) is None


async def test_a_new_role_counts_at_once(sessions: SessionStore, accounts: AccountStore, mia: Account) -> None:
    token = await sessions.begin(mia)
    await accounts.set_role("mia", Role.ANALYST)
    found = await sessions.find(token)
    assert found is not None
    assert found.role is Role.ANALYST


async def test_an_idle_session_goes_by_itself(sessions: SessionStore, mia: Account, redis_client: RedisClient) -> None:
    await sessions.begin(mia)
    with redis_client.guard() as redis:
        (key,) = [key async for key in redis.scan_iter("antiprompt:session:*")]
        assert 0 < await redis.ttl(key) <= 3600


async def test_a_busy_session_is_kept_but_not_for_ever(
    sessions: SessionStore, mia: Account, redis_client: RedisClient
) -> None:
    token = await sessions.begin(mia)
    with redis_client.guard() as redis:
        (key,) = [key async for key in redis.scan_iter("antiprompt:session:*")]
        row = await redis.hgetall(key)
        await redis.hset(key, "seen_at", float(row["seen_at"]) - 600)
        await redis.expire(key, 5)
        assert await sessions.find(token) is not None
        assert await redis.ttl(key) > 5
        await redis.hset(key, "began_at", float(row["began_at"]) - ReviewSettings().session_max_s)
        assert await sessions.find(token) is None
        assert not await redis.exists(key)
