from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from gateway.accounts import AccountStore
from gateway.errors import Conflict, NotFound
from gateway.redis_client import RedisClient
from gateway.redis_keys import ACCOUNT
from gateway.roles import Role

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery"


@pytest.fixture
def accounts(redis_client: RedisClient) -> AccountStore:
    return AccountStore(redis_client, CHEAP)


async def test_there_is_no_account_and_no_password_to_begin_with(accounts: AccountStore) -> None:
    assert not await accounts.exist()
    assert await accounts.list() == []
    assert await accounts.authenticate("admin", "admin") is None
    assert await accounts.authenticate("admin", "") is None


async def test_a_name_and_its_password_prove_an_account(accounts: AccountStore) -> None:
    made = await accounts.create("mia", Role.LEAD, PASSWORD)
    assert await accounts.authenticate("mia", PASSWORD) == made
    assert await accounts.exist()
    assert await accounts.list() == [made]
    assert await accounts.authenticate("mia", PASSWORD + "x") is None
    assert await accounts.authenticate("leo", PASSWORD) is None
    assert await accounts.authenticate("MIA*", PASSWORD) is None


async def test_the_password_is_nowhere_in_redis(accounts: AccountStore, redis_client: RedisClient) -> None:
    made = await accounts.create("mia", Role.MODERATOR, PASSWORD)
    with redis_client.guard() as redis:
        row = await redis.hgetall(ACCOUNT("mia"))
    assert row["password_hash"].startswith("$argon2id$")
    assert PASSWORD not in str(row)
    assert row["password_hash"] not in repr(made)


async def test_a_name_is_taken_once(accounts: AccountStore) -> None:
    await accounts.create("mia", Role.MODERATOR, PASSWORD)
    with pytest.raises(Conflict):
        await accounts.create("mia", Role.ADMIN, "another password!")
    found = await accounts.authenticate("mia", PASSWORD)
    assert found is not None
    assert found.role is Role.MODERATOR


@pytest.mark.parametrize("password", ["", "short", "x" * 11, "x" * 1025])
async def test_a_password_that_will_not_do_is_refused(accounts: AccountStore, password: str) -> None:
    with pytest.raises(ValueError, match="12 to 1024"):
        await accounts.create("mia", Role.MODERATOR, password)
    assert not await accounts.exist()


@pytest.mark.parametrize("name", ["", "Mia", "mia leo", "a:b", "x" * 65, "é"])
async def test_a_name_that_is_not_plain_is_refused(accounts: AccountStore, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await accounts.create(name, Role.MODERATOR, PASSWORD)
    assert not await accounts.exist()


async def test_a_new_password_replaces_the_old_one_and_the_stamp(accounts: AccountStore) -> None:
    made = await accounts.create("mia", Role.MODERATOR, PASSWORD)
    await accounts.set_password("mia", "another password!")
    assert await accounts.authenticate("mia", PASSWORD) is None
    found = await accounts.authenticate("mia", "another password!")
    assert found is not None
    assert found.stamp != made.stamp


async def test_a_disabled_account_logs_in_no_more_until_it_is_enabled(accounts: AccountStore) -> None:
    made = await accounts.create("mia", Role.MODERATOR, PASSWORD)
    await accounts.disable("mia")
    assert await accounts.authenticate("mia", PASSWORD) is None
    held = await accounts.find("mia")
    assert held is not None
    assert not held.enabled
    assert held.stamp != made.stamp
    await accounts.enable("mia")
    assert await accounts.authenticate("mia", PASSWORD) is not None


async def test_a_role_changes(accounts: AccountStore) -> None:
    await accounts.create("mia", Role.MODERATOR, PASSWORD)
    await accounts.set_role("mia", Role.ADMIN)
    found = await accounts.find("mia")
    assert found is not None
    assert found.role is Role.ADMIN


async def test_an_account_of_an_identity_provider_has_no_password(accounts: AccountStore) -> None:
    made = await accounts.create("mia@example.org", Role.ANALYST, None)
    assert made.outside
    assert await accounts.authenticate("mia@example.org", "") is None
    assert await accounts.authenticate("mia@example.org", PASSWORD) is None


async def test_what_is_not_there_is_not_made_by_changing_it(accounts: AccountStore) -> None:
    with pytest.raises(NotFound):
        await accounts.set_role("mia", Role.ADMIN)
    with pytest.raises(NotFound):
        await accounts.set_password("mia", PASSWORD)
    with pytest.raises(NotFound):
        await accounts.disable("mia")
    assert await accounts.find("mia") is None


async def test_a_hash_of_another_cost_is_made_anew(accounts: AccountStore, redis_client: RedisClient) -> None:
    await accounts.create("mia", Role.MODERATOR, PASSWORD)
    dearer = AccountStore(redis_client, PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    assert await dearer.authenticate("mia", PASSWORD) is not None
    with redis_client.guard() as redis:
        assert "m=16,t=2" in str(await redis.hget(ACCOUNT("mia"), "password_hash"))
    assert await dearer.authenticate("mia", PASSWORD) is not None
