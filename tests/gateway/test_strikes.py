import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway import strikes as strikes_module
from gateway.errors import BadRequest, NotFound
from gateway.flags import Source
from gateway.redis_client import RedisClient
from gateway.redis_keys import STRIKE_OF, STRIKE_TENANTS, STRIKES, STRUCK
from gateway.review_records import Decision
from gateway.reviews import ReviewStore
from gateway.settings import StrikeSettings
from gateway.strike_rules import Strikes
from gateway.strikes import Conduct, Standing, Strike, StrikeStore, conduct_of, erase_strikes
from tests.gateway.reviewing import assessing, filed, verdict

DAY_MS = 86_400_000.0
WEEK_S = 7 * 86_400.0
RULES = Strikes(warn_at=2, slow_at=3, slow_s=600, suspend_at=4, suspend_s=7200)
BLOCK = Strike(at_ms=0, weight=1, side="request", hazard="hate", part="acme")


def standing(days: Sequence[float], now: float, rules: Strikes = RULES, weight: float = 1) -> Conduct:
    """Where strikes on these days leave somebody on the day ``now``."""
    made = [Strike(at_ms=day * DAY_MS, weight=weight, side="request") for day in days]
    return conduct_of(made, rules, now * DAY_MS, WEEK_S)


# ---- Where somebody stands.


def test_nobody_without_strikes_is_anything_but_in_good_standing() -> None:
    assert standing([], 5) == Conduct(0.0, 0, Standing.GOOD)


def test_a_strike_weighs_half_after_each_half_life() -> None:
    assert standing([0], 7).weight == pytest.approx(0.5)
    assert standing([0, 7], 14).weight == pytest.approx(0.75)
    assert standing([7, 0], 14) == standing([0, 7], 14)


def test_what_follows_grows_with_the_weight() -> None:
    found = [standing([1] * count, 1).standing for count in range(6)]
    assert found == ["good", "good", "warned", "slowed", "suspended", "suspended"]
    assert standing([1], 1, weight=10).standing is Standing.SUSPENDED


def test_three_strikes_within_hours_are_three_although_the_first_has_faded_a_little() -> None:
    assert standing([0, 0.1, 0.2], 0.2).weight < 3
    assert standing([0, 0.1, 0.2], 0.2).standing is Standing.SLOWED


def test_a_suspension_ends_after_its_time_and_a_warning_with_the_weight() -> None:
    suspended = standing([0] * 4, 3600 * 1000 / DAY_MS)
    assert suspended.standing is Standing.SUSPENDED
    assert suspended.left_s == pytest.approx(3600)
    assert standing([0] * 4, 0.5).standing is Standing.WARNED
    assert standing([0] * 4, 8).standing is Standing.GOOD


def test_a_suspension_is_not_cut_short_when_its_strikes_fade() -> None:
    long = Strikes(suspend_at=4, suspend_s=30 * 86_400)
    assert standing([0] * 4, 29, long).weight < 0.3
    assert standing([0] * 4, 29, long).standing is Standing.SUSPENDED
    assert standing([0] * 4, 31, long).standing is Standing.GOOD


def test_a_policy_that_names_nothing_lets_nothing_follow() -> None:
    assert standing([1] * 50, 1, Strikes()).standing is Standing.GOOD


def test_a_strike_that_was_taken_back_does_not_count() -> None:
    made = [BLOCK, replace(BLOCK, back="rev_1"), BLOCK]
    assert conduct_of(made, RULES, 0, WEEK_S) == Conduct(2.0, 2, Standing.WARNED)


# ---- In Redis.


@pytest.fixture
def store(redis_client: RedisClient) -> StrikeStore:
    return StrikeStore(redis_client, StrikeSettings())


async def struck(store: StrikeStore, case_id: str, end_user: str = "ann", tenant: str = "acme") -> Conduct:
    return await store.add(BLOCK, case_id=case_id, tenant=tenant, end_user=end_user, rules=RULES)


async def conduct(store: StrikeStore, end_user: str = "ann", tenant: str = "acme") -> Conduct:
    return await store.conduct(tenant=tenant, end_user=end_user, rules=RULES)


async def test_every_gateway_sees_the_same_at_once(redis_client: RedisClient, store: StrikeStore) -> None:
    other = StrikeStore(redis_client, StrikeSettings())
    told = [await struck(each, f"case_{number}") for number, each in enumerate((store, other, store, other))]
    assert [each.standing for each in told] == ["good", "warned", "slowed", "suspended"]
    assert (await conduct(store)).standing == (await conduct(other)).standing == Standing.SUSPENDED


async def test_strikes_of_many_gateways_at_once_are_all_kept(store: StrikeStore) -> None:
    await asyncio.gather(*(struck(store, f"case_{number}") for number in range(40)))
    assert (await conduct(store)).strikes == 40


async def test_a_case_is_one_strike_however_often_it_is_told(store: StrikeStore) -> None:
    for _ in range(5):
        assert (await struck(store, "case_1")).strikes == 1


async def test_end_users_and_tenants_are_strangers_to_each_other(store: StrikeStore) -> None:
    await struck(store, "case_1")
    assert (await conduct(store, "bob")).strikes == 0
    assert (await conduct(store, tenant="other")).strikes == 0


async def test_looking_keeps_nothing(redis_client: RedisClient, store: StrikeStore) -> None:
    await conduct(store)
    with redis_client.guard() as redis:
        assert [key async for key in redis.scan_iter(match="*strike*")] == []
        assert not await redis.exists(STRUCK())


async def test_only_the_newest_are_kept_and_what_is_dropped_leaves_nothing(
    redis_client: RedisClient, store: StrikeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strikes_module, "MAX_STRIKES", 3)
    for number in range(5):
        await struck(store, f"case_{number}")
        await asyncio.sleep(0.002)  # Redis tells times apart by the millisecond
    with redis_client.guard() as redis:
        assert set(await redis.hkeys(STRIKES("ann", "acme"))) == {"case_2", "case_3", "case_4"}
        assert await redis.exists(*(STRIKE_OF(f"case_{number}") for number in range(5))) == 3


async def test_everything_goes_by_itself_and_not_before_a_suspension_ends(
    redis_client: RedisClient, store: StrikeStore
) -> None:
    await struck(store, "case_1")
    keys = (STRIKES("ann", "acme"), STRIKE_OF("case_1"), STRIKE_TENANTS("ann"))
    with redis_client.guard() as redis:
        for key in keys:
            assert 0 < await redis.ttl(key) <= 10 * WEEK_S
        year = Strikes(suspend_at=1, suspend_s=365 * 86_400)
        await store.add(BLOCK, case_id="case_2", tenant="acme", end_user="ann", rules=year)
        await struck(store, "case_3")  # under other rules: it shortens nothing
        assert await redis.ttl(keys[0]) > 300 * 86_400
        assert await redis.ttl(keys[2]) > 300 * 86_400


async def test_the_list_has_the_heaviest_first_and_says_what_follows(store: StrikeStore) -> None:
    for number in range(3):
        await struck(store, f"case_a{number}")
    await struck(store, "case_b", "bob", "other")
    found = await store.listed(lambda part: RULES if part == "acme" else Strikes())
    assert [(each.end_user, each.tenant, each.conduct.strikes) for each in found] == [
        ("ann", "acme", 3),
        ("bob", "other", 1),
    ]
    assert found[0].conduct.standing is Standing.SLOWED
    assert found[0].hazards == ("hate",)
    assert [each.end_user for each in await store.listed(lambda part: RULES, limit=1)] == ["ann"]


async def test_clearing_forgets_is_audited_and_names_nobody(redis_client: RedisClient, store: StrikeStore) -> None:
    person = redis_client.end_user_digest("ann@example.com")
    for number in range(4):
        await struck(store, f"case_{number}", person)
    assert await store.clear(tenant="acme", end_user=person, by="grace") == 4
    assert await conduct(store, person) == Conduct()
    assert await store.listed(lambda part: RULES) == []
    (entry,) = await ReviewStore(redis_client).audit()
    assert (entry.actor, entry.action, entry.note) == ("grace", "clear_strikes", "4 strikes, tenant acme")
    assert person.startswith(entry.subject)
    assert len(entry.subject) == 8
    with redis_client.guard() as redis:
        assert [key async for key in redis.scan_iter(match="*strike*")] == []
    with pytest.raises(NotFound):
        await store.clear(tenant="acme", end_user=person, by="grace")
    with pytest.raises(BadRequest):
        await store.clear(tenant="acme", end_user=person, by=" ")


async def test_erasing_a_person_forgets_the_strikes_of_every_tenant(
    redis_client: RedisClient, store: StrikeStore
) -> None:
    await struck(store, "case_1")
    await struck(store, "case_2", tenant="other")
    await struck(store, "case_3", "bob")
    assert await erase_strikes("ann", redis_client) == 2
    assert await erase_strikes("ann", redis_client) == 0
    with redis_client.guard() as redis:
        left = [str(key) async for key in redis.scan_iter(match="*strike*")]
        assert set(left) == {STRIKES("bob", "acme"), STRIKE_OF("case_3"), STRIKE_TENANTS("bob")}
        assert await redis.zrange(STRUCK(), 0, -1) == ["bob acme"]


# ---- What people decide about them.


async def asked_again(redis: RedisClient, **fields: object) -> str:
    return await filed(redis, **{"source": Source.APPEAL, "side": "request", "case_id": "case_1", **fields})  # type: ignore[arg-type]


async def test_an_appeal_that_is_granted_takes_the_strike_back_and_an_undo_gives_it_again(
    redis_client: RedisClient, store: StrikeStore
) -> None:
    reviews = ReviewStore(redis_client, assessing())
    for number in range(4):
        await struck(store, f"case_{number}")
    id = await asked_again(redis_client)
    review = await reviews.decide(verdict(id, decision=Decision.DISMISS))
    assert (await conduct(store)).standing is Standing.SLOWED
    assert (await struck(store, "case_1")).strikes == 3  # told again, it stays taken back
    await reviews.undo(review.id, "ada")
    assert (await conduct(store)).standing is Standing.SUSPENDED
    await reviews.decide(verdict(id, decision=Decision.DISMISS))
    assert (await conduct(store)).strikes == 3


@pytest.mark.parametrize(
    ("decision", "fields"),
    [
        (Decision.CONFIRM, {}),
        (Decision.ESCALATE, {}),
        (Decision.DISMISS, {"side": "response"}),
        (Decision.DISMISS, {"source": Source.POLICY}),
        (Decision.DISMISS, {"tenant": "other"}),
        (Decision.DISMISS, {"case_id": "case_2"}),
        (Decision.DISMISS, {"case_id": None}),
    ],
)
async def test_a_strike_stays_where_nobody_found_its_block_wrong(
    decision: Decision, fields: dict[str, object], redis_client: RedisClient, store: StrikeStore
) -> None:
    """Confirmed or only passed on; about the reply, about what policy merely flagged, somebody else's, another case."""
    await struck(store, "case_1")
    id = await asked_again(redis_client, **fields)
    await ReviewStore(redis_client, assessing()).decide(verdict(id, decision=decision))
    assert (await conduct(store)).strikes == 1


async def test_a_second_review_of_the_same_block_does_not_give_back_what_the_first_took(
    redis_client: RedisClient, store: StrikeStore
) -> None:
    reviews = ReviewStore(redis_client, assessing())
    await struck(store, "case_1")
    first, second = await asked_again(redis_client), await asked_again(redis_client, source=Source.USER, text="other")
    await reviews.decide(verdict(first, decision=Decision.DISMISS))
    later = await reviews.decide(verdict(second, decision=Decision.DISMISS))
    await reviews.undo(later.id, "ada")
    assert (await conduct(store)).strikes == 0
