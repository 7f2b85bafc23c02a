from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway import auth
from gateway.auth import Authenticator, Principal, is_loopback, refuse_open_listen
from gateway.client_keys import ClientKeyStore
from gateway.errors import Forbidden, StateUnavailable, Unauthorized
from gateway.redis_client import RedisClient
from gateway.settings import RedisSettings, SettingsError
from tests.conftest import RealRedis

HERE = "127.0.0.1"
LOCAL = {"host": "127.0.0.1:8080"}


def bearer(token: str) -> dict[str, str]:
    return {"host": "gateway.example", "authorization": f"Bearer {token}"}


@pytest.fixture
async def redis(redis_server: RealRedis, tmp_path: Path) -> AsyncIterator[RedisClient]:
    client = RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
def keys(redis: RedisClient) -> ClientKeyStore:
    return ClientKeyStore(redis)


@pytest.fixture
def authenticator(keys: ClientKeyStore) -> Authenticator:
    return Authenticator(keys, allowed_hosts=("Gateway.Local",))


async def test_a_key_gives_its_tenant_and_what_it_may_do(authenticator: Authenticator, keys: ClientKeyStore) -> None:
    key, token = await keys.create(
        "acme", policy="strict", models=("m1",), requests_per_minute=5, tokens_per_minute=50, sees_scores=True
    )
    caller = await authenticator.principal(bearer(token), "203.0.113.9")
    assert caller == Principal(
        tenant="acme",
        key_id=key.id,
        policy="strict",
        models=("m1",),
        requests_per_minute=5,
        tokens_per_minute=50,
        sees_scores=True,
    )
    assert caller.may_use("m1")
    assert not caller.may_use("m2")


async def test_every_other_token_is_unauthorized(authenticator: Authenticator, keys: ClientKeyStore) -> None:
    key, token = await keys.create("acme")
    other, other_token = await keys.create("acme")
    await keys.revoke(other.id)
    secret = token.rsplit(f"{key.id}_")[1]
    wrong = ["sk-abc", token[:-5], token + "x", f"agk_000000000000_{secret}", f"agk_{other.id}_{secret}", other_token]
    for attempt in wrong:
        with pytest.raises(Unauthorized):
            await authenticator.principal(bearer(attempt), HERE)
    for headers in (LOCAL, {**LOCAL, "authorization": token}, {**LOCAL, "authorization": f"Basic {token}"}):
        with pytest.raises(Unauthorized):
            await authenticator.principal(headers, HERE)


async def test_a_revoked_key_ends_when_the_cache_does(
    authenticator: Authenticator, keys: ClientKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, token = await keys.create("acme")
    await authenticator.principal(bearer(token), HERE)
    await keys.revoke(key.id)
    monkeypatch.setattr(auth, "FRESH_S", 0.0)
    with pytest.raises(Unauthorized):
        await authenticator.principal(bearer(token), HERE)


async def test_without_keys_this_machine_is_served_under_its_own_names(authenticator: Authenticator) -> None:
    for host in ("127.0.0.1:8080", "localhost", "LOCALHOST:80", "[::1]:8080", "127.0.0.2", "gateway.local:8080"):
        assert await authenticator.principal({"host": host}, HERE) == Principal(tenant="default")
    caller = await authenticator.principal({**LOCAL, "authorization": "Bearer sk-upstream"}, "::1")
    assert caller.key_id is None
    for origin in ("http://localhost:3000", "chrome-extension://abc", "null"):
        await authenticator.principal({**LOCAL, "origin": origin}, HERE)


@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        (LOCAL, "192.0.2.1"),
        (LOCAL, "::ffff:192.0.2.1"),
        (LOCAL, None),
        (LOCAL, "testclient"),
        ({"host": "evil.example"}, HERE),
        ({"host": "127.0.0.1.evil.example"}, HERE),
        ({"host": "localhost@evil.example"}, HERE),
        ({}, HERE),
        ({"host": "[::1"}, HERE),
        ({**LOCAL, "origin": "http://[::1"}, HERE),
        ({**LOCAL, "origin": "https://evil.example"}, HERE),
    ],
)
async def test_without_keys_nobody_else_is_served(
    authenticator: Authenticator, headers: dict[str, str], peer: str | None
) -> None:
    with pytest.raises(Forbidden):
        await authenticator.principal(headers, peer)


async def test_a_gateway_key_never_passes_where_there_are_no_keys(authenticator: Authenticator) -> None:
    with pytest.raises(Unauthorized):
        await authenticator.principal({**LOCAL, "authorization": "Bearer agk_0123456789ab_" + "x" * 43}, HERE)


async def test_the_first_key_closes_the_keyless_door_and_revoking_it_does_not_open_it(
    authenticator: Authenticator, keys: ClientKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "FRESH_S", 0.0)
    await authenticator.principal(LOCAL, HERE)
    key, _ = await keys.create("acme")
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await authenticator.principal(LOCAL, HERE)
        await keys.revoke(key.id)


async def test_with_redis_away_known_keys_are_served_for_a_while_and_others_wait(
    authenticator: Authenticator, keys: ClientKeyStore, redis_server: RealRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, known = await keys.create("acme")
    _, never_seen = await keys.create("acme")
    await authenticator.principal(bearer(known), HERE)
    redis_server.kill()
    monkeypatch.setattr(auth, "FRESH_S", 0.0)
    assert (await authenticator.principal(bearer(known), HERE)).tenant == "acme"
    with pytest.raises(StateUnavailable):
        await authenticator.principal(bearer(never_seen), HERE)
    with pytest.raises(Unauthorized):
        await authenticator.principal(LOCAL, HERE)
    monkeypatch.setattr(auth, "STALE_S", 0.0)
    with pytest.raises(StateUnavailable):
        await authenticator.principal(bearer(known), HERE)


async def test_a_gateway_that_has_never_reached_redis_opens_to_nobody(tmp_path: Path) -> None:
    away = RedisClient(RedisSettings(url=SecretStr("unix:///nowhere/redis.sock")), tmp_path)
    with pytest.raises(StateUnavailable):
        await Authenticator(ClientKeyStore(away)).principal(LOCAL, HERE)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_loopback_is_served_without_keys(host: str) -> None:
    assert is_loopback(host)
    refuse_open_listen(host, has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "gateway.example", "localhost.evil.example"])
def test_a_wider_host_needs_keys(host: str) -> None:
    assert not is_loopback(host)
    refuse_open_listen(host, has_keys=True)
    with pytest.raises(SettingsError, match="antiprompt keys create"):
        refuse_open_listen(host, has_keys=False)
