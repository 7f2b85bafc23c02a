from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway import quotas as quotas_module
from gateway.errors import RateLimited
from gateway.quotas import MINUTE_S, Quota, Quotas, _Use, _wait_s
from gateway.redis_client import RedisClient
from gateway.settings import FlagSettings, RedisSettings

FLAGS = FlagSettings(per_key_per_hour=3, per_end_user_per_hour=2)


@pytest.fixture(params=["redis", "local"])
async def quotas(request: pytest.FixtureRequest, redis_client: RedisClient, tmp_path: Path) -> Quotas:
    """Quotas that count in Redis, and quotas whose Redis is away: both must refuse the same."""
    if request.param == "redis":
        return Quotas(redis_client, FLAGS)
    away = RedisClient(RedisSettings(url=SecretStr("unix:///nowhere/redis.sock")), tmp_path)
    return Quotas(away, FLAGS)


async def requests_until_refused(quotas: Quotas, key_id: str, *, limit: int) -> tuple[int, RateLimited]:
    for number in range(100):
        try:
            await quotas.take_request(key_id, requests_per_minute=limit, tokens_per_minute=None)
        except RateLimited as error:
            return number, error
    raise AssertionError("never refused")


async def test_a_key_gets_its_requests_and_no_more(quotas: Quotas) -> None:
    taken, error = await requests_until_refused(quotas, "k1", limit=5)
    assert taken == 5
    assert error.retry_after_s is not None
    assert 0 < error.retry_after_s <= 2 * MINUTE_S
    assert "5 requests per minute" in error.message
    assert "k1" not in error.message
    assert (await requests_until_refused(quotas, "k2", limit=3))[0] == 3


async def test_a_key_without_limits_is_never_refused(quotas: Quotas) -> None:
    for _ in range(50):
        await quotas.take_request("k", requests_per_minute=None, tokens_per_minute=None)


async def test_tokens_are_counted_after_the_reply_and_refuse_the_next_request(quotas: Quotas) -> None:
    await quotas.take_request("k", requests_per_minute=None, tokens_per_minute=100)
    await quotas.count_tokens("k", 99, tokens_per_minute=100)
    await quotas.take_request("k", requests_per_minute=None, tokens_per_minute=100)
    await quotas.count_tokens("k", 500, tokens_per_minute=100)
    with pytest.raises(RateLimited, match="100 tokens per minute"):
        await quotas.take_request("k", requests_per_minute=None, tokens_per_minute=100)


async def test_a_request_that_tokens_refuse_costs_no_request(quotas: Quotas) -> None:
    await quotas.count_tokens("k", 100, tokens_per_minute=100)
    for _ in range(3):
        with pytest.raises(RateLimited, match="tokens"):
            await quotas.take_request("k", requests_per_minute=1, tokens_per_minute=100)
    await quotas.take_request("k", requests_per_minute=1, tokens_per_minute=None)


async def test_flags_have_a_limit_by_end_user_and_one_by_key(quotas: Quotas) -> None:
    await quotas.take_flag(tenant="t", key_id=None, end_user="ann")
    await quotas.take_flag(tenant="t", key_id="other", end_user="ann")
    with pytest.raises(RateLimited, match="2 flags by one end user per hour"):
        await quotas.take_flag(tenant="t", key_id=None, end_user="ann")
    await quotas.take_flag(tenant="t", key_id=None, end_user=None)
    with pytest.raises(RateLimited, match="3 flags per hour"):
        await quotas.take_flag(tenant="t", key_id=None, end_user="bob")


async def test_replicas_share_one_count(redis_client: RedisClient) -> None:
    first, second = Quotas(redis_client, FLAGS), Quotas(redis_client, FLAGS)
    assert (await requests_until_refused(first, "k", limit=4))[0] == 4
    assert (await requests_until_refused(second, "k", limit=4))[0] == 0


async def test_the_last_window_counts_by_its_overlap(redis_client: RedisClient) -> None:
    """The window is moved back by hand: the counters are as they would be one window later."""
    quotas = Quotas(redis_client, FLAGS)
    hour = Quota("requests", "k", 1000, 3600)
    await quotas._use(hour, 1000, "count")
    with redis_client.guard() as redis:
        await redis.hincrby(hour.key, "window", -1)
        seen = await quotas._use(hour, 0, "look")
        assert (seen.use, seen.last) == (0, 1000)
        assert (await quotas._use(hour, int(1000 * seen.share), "look")).fits
        assert not (await quotas._use(hour, int(1000 * seen.share) + 2, "look")).fits
        await redis.hincrby(hour.key, "window", -1)
        assert (await quotas._use(hour, 1000, "look")).fits
        assert 0 < await redis.ttl(hour.key) <= 2 * 3600


@pytest.mark.parametrize(
    ("use", "last", "share", "wait_s"),
    [(0, 10, 0.0, 6), (6, 10, 0.5, 12), (10, 0, 0.0, 66), (10, 0, 0.5, 36), (10, 10, 0.5, 36)],
)
def test_the_wait_ends_when_the_cost_fits(use: int, last: int, share: float, wait_s: float) -> None:
    assert _wait_s(Quota("requests", "k", 10, 60), _Use(False, use, last, share), 1) == pytest.approx(wait_s)


async def test_local_counters_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas_module, "MAX_LOCAL_COUNTERS", 10)
    quotas = Quotas(RedisClient(RedisSettings(url=SecretStr("unix:///nowhere")), tmp_path), FLAGS)
    for number in range(50):
        await quotas.take_request(f"k{number}", requests_per_minute=5, tokens_per_minute=None)
    assert len(quotas._local) == 10
