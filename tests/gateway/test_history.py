from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.errors import StateUnavailable
from gateway.history import TenantHistory
from gateway.redis_client import RedisClient
from gateway.settings import RedisSettings
from tests.conftest import RealRedis, running


async def test_a_judged_text_is_known_to_every_replica_for_its_tenant_only(redis_client: RedisClient) -> None:
    await TenantHistory(redis_client).remember_judged("acme", ["bad", "worse"], "block")
    replica = TenantHistory(redis_client)
    for _ in range(2):
        assert await replica.judged("acme", ["bad", "fine", "worse"]) == {"bad": "block", "worse": "block"}
    assert await replica.judged("other", ["bad"]) == {}


async def test_no_text_reaches_redis(redis_client: RedisClient) -> None:
    await TenantHistory(redis_client).remember_judged("acme", ["a telling text"], "flag")
    with redis_client.guard() as redis:
        keys = [key async for key in redis.scan_iter("antiprompt:judged:*")]
        assert len(keys) == 1
        assert "telling" not in keys[0] + await redis.get(keys[0])


async def test_an_issued_id_belongs_to_its_tenant_on_every_replica(redis_client: RedisClient) -> None:
    await TenantHistory(redis_client).remember_issued("acme", ["resp_1", "conv_1"])
    replica = TenantHistory(redis_client)
    assert await replica.owns("acme", "resp_1")
    assert await replica.owns("acme", "conv_1")
    assert not await replica.owns("other", "resp_1")
    assert not await replica.owns("acme", "resp_2")


async def test_with_redis_away_this_process_still_knows_and_a_strange_id_cannot_be_told(
    redis_server: RealRedis, tmp_path: Path
) -> None:
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as redis:
        history = TenantHistory(redis)
        await history.remember_judged("acme", ["before"], "block")
        redis_server.kill()
        await history.remember_judged("acme", ["after"], "flag")
        await history.remember_issued("acme", ["resp_1"])
        assert await history.judged("acme", ["before", "after", "new"]) == {"before": "block", "after": "flag"}
        assert await history.owns("acme", "resp_1")
        with pytest.raises(StateUnavailable):
            await history.owns("acme", "resp_2")
