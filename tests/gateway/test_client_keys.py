import pytest

from gateway.client_keys import ClientKeyStore, split_token
from gateway.errors import Conflict, NotFound
from gateway.redis_client import RedisClient
from gateway.redis_keys import CLIENT_KEY


@pytest.fixture
def keys(redis_client: RedisClient) -> ClientKeyStore:
    return ClientKeyStore(redis_client)


async def test_a_key_is_made_listed_and_revoked(keys: ClientKeyStore) -> None:
    assert not await keys.exist()
    first, _ = await keys.create("acme", label="ci", models=("gpt-x",), requests_per_minute=5, sees_scores=True)
    second, _ = await keys.create("other")
    assert await keys.list() == [first, second]
    assert await keys.exist()
    revoked = await keys.revoke(first.id)
    assert revoked.revoked_at is not None
    assert await keys.list() == [revoked, second]


async def test_a_token_that_was_made_elsewhere_becomes_a_key_and_proves_itself(keys: ClientKeyStore) -> None:
    token = f"agk_00000000000f_{'x' * 32}"
    key = await keys.adopt(token, "acme", label="first")
    assert await keys.adopt(token, "somebody-else") == key
    stored = await keys.find(key.id)
    assert stored is not None
    assert stored.key == key
    assert stored.proves("x" * 32)
    with pytest.raises(Conflict):
        await keys.adopt(f"agk_00000000000f_{'y' * 32}", "acme")
    with pytest.raises(ValueError):
        await keys.adopt(f"agk_00000000000e_{'x' * 31}", "acme")
    assert await keys.list() == [key]


async def test_the_secret_is_nowhere_in_redis(keys: ClientKeyStore, redis_client: RedisClient) -> None:
    key, token = await keys.create("acme")
    id, secret = split_token(token) or ("", "")
    assert id == key.id
    with redis_client.guard() as redis:
        assert secret not in str(await redis.hgetall(CLIENT_KEY(id)))
    stored = await keys.find(id)
    assert stored is not None
    assert stored.proves(secret)
    assert not stored.proves(secret[:-1] + "x" if secret[-1] != "x" else secret[:-1] + "y")
    assert secret not in repr(stored)


async def test_an_unknown_key_cannot_be_revoked_nor_comes_to_be_by_it(keys: ClientKeyStore) -> None:
    with pytest.raises(NotFound):
        await keys.revoke("000000000000")
    assert await keys.list() == []


@pytest.mark.parametrize("bad", [{"tenant": "a:b"}, {"tenant": ""}, {"tenant": "a", "requests_per_minute": 0}])
async def test_values_out_of_range_are_refused(keys: ClientKeyStore, bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        await keys.create(**bad)
    assert not await keys.exist()


@pytest.mark.parametrize(
    "token", ["", "sk-abc", "agk_", "agk_0123456789ab_", "agk_0123456789AB_" + "x" * 43, "agk_x_y"]
)
def test_what_is_no_key_is_not_split(token: str) -> None:
    assert split_token(token) is None
