import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from antiprompt_bank import Label, State
from gateway.errors import BadRequest, Conflict, Forbidden, NotFound
from gateway.flags import FlagState, FlagStore, Source
from gateway.overlay_entries import EntryStore
from gateway.redis_client import RedisClient
from gateway.redis_keys import BANK_CHANGES, FLAG, RETRAINING, REVIEW, REVIEW_AUDIT
from gateway.review_records import Decision, QueueFilter
from gateway.reviews import ReviewStore
from gateway.settings import RedisSettings
from tests.conftest import RealRedis, running
from tests.gateway.reviewing import BLEACH, QUESTION, assessing, filed, verdict

DISMISS = Decision.DISMISS


@pytest.fixture
def store(redis_client: RedisClient) -> ReviewStore:
    return ReviewStore(redis_client, assessing())


@pytest.fixture
def entries(redis_client: RedisClient) -> EntryStore:
    return EntryStore(redis_client)


async def lengths(redis: RedisClient) -> tuple[int, int, int]:
    """Entries of the audit log, of the workers' stream, and changes of the bank."""
    with redis.guard() as connection:
        return (
            await connection.xlen(REVIEW_AUDIT()),
            await connection.xlen(RETRAINING()),
            await connection.xlen(BANK_CHANGES()),
        )


# The queue.


async def test_the_riskiest_flags_come_first_and_a_persons_before_policys(
    store: ReviewStore, redis_client: RedisClient
) -> None:
    low = await filed(redis_client, "a", risk=0.1)
    high = await filed(redis_client, "b", risk=0.9)
    policys = await filed(redis_client, "c", risk=0.9, source=Source.POLICY)
    page = await store.queue()
    assert [flag.id for flag in page.flags] == [high, policys, low]
    assert (page.next, page.total) == (None, 3)
    newest = await store.queue(order="newest")
    assert [flag.id for flag in newest.flags] == [policys, high, low]


async def test_what_policy_meets_again_and_again_rises(store: ReviewStore, redis_client: RedisClient) -> None:
    often = await filed(redis_client, "often", risk=0.5, source=Source.POLICY)
    once = await filed(redis_client, "once", risk=0.55, source=Source.POLICY)
    assert [flag.id for flag in (await store.queue()).flags] == [once, often]
    for _ in range(3):
        await filed(redis_client, "often", risk=0.5, source=Source.POLICY)
    assert [flag.id for flag in (await store.queue()).flags] == [often, once]


async def test_pages_follow_each_other_while_flags_leave(store: ReviewStore, redis_client: RedisClient) -> None:
    ids = [await filed(redis_client, str(n), risk=0.9 - n / 100, created_at=1000.0) for n in range(7)]
    first = await store.queue(limit=3)
    assert [flag.id for flag in first.flags] == ids[:3]
    await store.decide(verdict(ids[0], ids[2]))
    second = await store.queue(limit=3, after=first.next)
    assert [flag.id for flag in second.flags] == ids[3:6]
    third = await store.queue(limit=3, after=second.next)
    assert ([flag.id for flag in third.flags], third.next) == (ids[6:], None)


async def test_flags_of_one_priority_are_all_seen_once(store: ReviewStore, redis_client: RedisClient) -> None:
    ids = {await filed(redis_client, str(n), risk=0.5, created_at=1000.0) for n in range(12)}
    seen: list[str] = []
    after = None
    while True:
        page = await store.queue(limit=5, after=after)
        seen += [flag.id for flag in page.flags]
        after = page.next
        if after is None:
            break
    assert (len(seen), set(seen)) == (12, ids)


async def test_filters_narrow_the_queue_alone_and_together(store: ReviewStore, redis_client: RedisClient) -> None:
    plain = await filed(redis_client, "a")
    hate = await filed(redis_client, "b", hazard="hate", language="de")
    other = await filed(redis_client, "c", tenant="other", hazard="hate", created_at=1000.0)
    policys = await filed(redis_client, "d", source=Source.POLICY, hazard=None)

    async def found(**filters: object) -> set[str]:
        return {flag.id for flag in (await store.queue(filters=QueueFilter(**filters))).flags}  # type: ignore[arg-type]

    assert await found(hazard="hate") == {hate, other}
    assert await found(tenant="acme") == {plain, hate, policys}
    assert await found(source="policy") == {policys}
    assert await found(language="de") == {hate}
    assert await found(hazard="hate", tenant="acme") == {hate}
    assert await found(max_age_s=3600) == {plain, hate, policys}
    assert await found(hazard="hate", max_age_s=3600) == {hate}
    assert await found(hazard="privacy") == set()


@pytest.mark.parametrize("cursor", ["", "x", "nan:flag_1", "1.0", "inf:flag_1"])
async def test_a_cursor_that_no_page_gave_is_refused(cursor: str, store: ReviewStore) -> None:
    with pytest.raises(BadRequest):
        await store.queue(after=cursor)


async def test_whose_flags_were_dismissed_waits_longer(store: ReviewStore, redis_client: RedisClient) -> None:
    for number in range(4):
        id = await filed(redis_client, f"wrong {number}", end_user="noisy")
        await store.decide(verdict(id, decision=DISMISS))
    noisy = await filed(redis_client, "x", end_user="noisy", risk=0.9)
    fresh = await filed(redis_client, "y", end_user="fresh", risk=0.3)
    assert [flag.id for flag in (await store.queue()).flags] == [fresh, noisy]


# Claims.


async def test_a_claimed_flag_is_one_persons_until_it_is_released(
    store: ReviewStore, redis_client: RedisClient
) -> None:
    id = await filed(redis_client)
    flag = await store.claim(id, "ada")
    assert (flag.state, flag.claimed_by) == (FlagState.CLAIMED, "ada")
    assert (await store.queue()).flags == (flag,)
    with pytest.raises(Conflict, match="ada"):
        await store.claim(id, "grace")
    with pytest.raises(Conflict, match="ada"):
        await store.decide(verdict(id, moderator="grace"))
    await store.release(id, "grace")
    assert (await store.get(id)).claimed_by == "ada"
    assert (await FlagStore(redis_client, None).counts())[FlagState.CLAIMED] == 1
    await store.release(id, "ada")
    assert (await store.get(id)).claimed_by is None
    assert (await FlagStore(redis_client, None).counts())[FlagState.CLAIMED] == 0
    assert (await store.claim(id, "grace")).claimed_by == "grace"


async def test_an_expired_claim_is_free(store: ReviewStore, redis_client: RedisClient) -> None:
    id = await filed(redis_client)
    await store.claim(id, "ada")
    with redis_client.guard() as connection:
        await connection.hset(FLAG(id), "claimed_until", "1000")
    assert (await store.get(id)).state is FlagState.OPEN
    assert (await store.claim(id, "grace")).claimed_by == "grace"
    with pytest.raises(Conflict, match="grace"):
        await store.decide(verdict(id, moderator="ada"))


async def test_of_many_who_claim_one_flag_at_once_one_has_it(store: ReviewStore, redis_client: RedisClient) -> None:
    id = await filed(redis_client)
    found = await asyncio.gather(*(store.claim(id, f"m{n}") for n in range(20)), return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in found) == 1
    assert sum(isinstance(each, Conflict) for each in found) == 19


async def test_what_is_not_there_cannot_be_claimed(store: ReviewStore) -> None:
    with pytest.raises(NotFound):
        await store.claim("flag_unknown", "ada")
    with pytest.raises(BadRequest):
        await store.claim("flag_unknown", " ")


# Decisions.


async def test_a_confirmed_flag_becomes_exemplars_with_all_that_was_said(
    store: ReviewStore, redis_client: RedisClient, entries: EntryStore
) -> None:
    id = await filed(redis_client)
    await store.claim(id, "ada")
    review = await store.decide(
        verdict(id, severity=4, corrected_answer="Drink water.", benign_twin="Never drink bleach.", comment="clear")
    )
    assert (await store.get(id)).state is FlagState.CONFIRMED
    assert (review.awaits_second, review.sources, review.hazards) == (False, ("user",), ("specialized_advice",))
    made = {entry.record.text: entry for entry in await entries.all()}
    assert set(review.entry_ids) == {entry.id for entry in made.values()}
    harmful = made[BLEACH].record
    assert (harmful.label, harmful.side, harmful.prompt) == (Label.HARMFUL, "response", QUESTION)
    assert (harmful.hazard, harmful.severity) == ("specialized_advice", 4)
    assert (harmful.desired_response, harmful.state) == ("Drink water.", State.LIVE)
    for text in ("Drink water.", "Never drink bleach."):
        benign = made[text].record
        assert (benign.label, benign.prompt, benign.twin) == (Label.BENIGN, QUESTION, harmful.id)
    assert (made[BLEACH].by, made[BLEACH].flag_id, made[BLEACH].review_id) == ("ada", id, review.id)
    assert await store.reviews_of(id) == [review]
    assert await lengths(redis_client) == (1, 1, 3)
    (noted,) = await store.audit()
    assert (noted.actor, noted.action, noted.subject) == ("ada", "confirm", review.id)


async def test_a_dismissed_flag_becomes_a_benign_exemplar(
    store: ReviewStore, redis_client: RedisClient, entries: EntryStore
) -> None:
    id = await filed(redis_client, side="request", prompt=None)
    await store.decide(verdict(id, decision=DISMISS))
    (entry,) = await entries.all()
    assert (entry.record.label, entry.record.side, entry.record.prompt) == (Label.BENIGN, "request", None)
    assert (await store.get(id)).state is FlagState.DISMISSED
    assert (await store.queue()).flags == ()
    assert [flag.id for flag in (await store.queue(state=FlagState.DISMISSED)).flags] == [id]


async def test_an_escalated_flag_waits_in_a_queue_of_its_own(
    store: ReviewStore, redis_client: RedisClient, entries: EntryStore
) -> None:
    id = await filed(redis_client)
    await store.decide(verdict(id, decision=Decision.ESCALATE))
    assert (await store.queue()).flags == ()
    (flag,) = (await store.queue(state=FlagState.ESCALATED)).flags
    assert (flag.id, flag.state) == (id, FlagState.ESCALATED)
    assert await entries.all() == []
    await store.decide(verdict(id, moderator="lead"))
    assert (await store.queue(state=FlagState.ESCALATED)).flags == ()
    assert [review.decision for review in await store.reviews_of(id)] == [Decision.ESCALATE, Decision.CONFIRM]


async def test_look_alikes_are_decided_together_or_not_at_all(
    store: ReviewStore, redis_client: RedisClient, entries: EntryStore
) -> None:
    ids = [await filed(redis_client, f"text {number}") for number in range(5)]
    await store.claim(ids[3], "grace")
    with pytest.raises(Conflict, match="grace holds"):
        await store.decide(verdict(*ids))
    assert {flag.state for flag in (await store.queue()).flags} == {FlagState.OPEN, FlagState.CLAIMED}
    assert await entries.all() == []
    assert await lengths(redis_client) == (0, 0, 0)
    await store.release(ids[3], "grace")
    review = await store.decide(verdict(*ids))
    assert len(review.entry_ids) == 5
    assert (await store.queue()).flags == ()


async def test_the_same_verdict_again_is_the_same_review_and_another_is_a_conflict(
    store: ReviewStore, redis_client: RedisClient
) -> None:
    id = await filed(redis_client)
    first = await store.decide(verdict(id))
    assert await store.decide(verdict(id)) == first
    assert await lengths(redis_client) == (1, 1, 1)
    with pytest.raises(Conflict, match="confirmed already"):
        await store.decide(verdict(id, decision=DISMISS))
    with pytest.raises(Conflict, match="confirmed already"):
        await store.claim(id, "grace")


async def test_of_two_moderators_who_decide_at_once_one_wins(store: ReviewStore, redis_client: RedisClient) -> None:
    id = await filed(redis_client)
    verdicts = [verdict(id, moderator=f"m{n}") for n in range(10)]
    found = await asyncio.gather(*map(store.decide, verdicts), return_exceptions=True)
    assert sum(isinstance(each, Conflict) for each in found) == 9
    assert len(await store.reviews_of(id)) == 1
    assert await lengths(redis_client) == (1, 1, 1)


async def test_a_flag_without_text_is_decided_and_teaches_nothing(
    store: ReviewStore, redis_client: RedisClient, entries: EntryStore
) -> None:
    id = await filed(redis_client, None)
    review = await store.decide(verdict(id))
    assert review.entry_ids == ()
    assert "erased" in review.notes[0]
    assert await entries.all() == []


async def test_what_is_never_stored_as_text_never_enters_the_bank(
    store: ReviewStore, redis_client: RedisClient, entries: EntryStore
) -> None:
    id = await filed(redis_client)
    review = await store.decide(verdict(id, hazard="child_exploitation"))
    assert (review.entry_ids, await entries.all()) == ((), [])


async def test_what_the_bank_knows_already_is_not_added_again(redis_client: RedisClient, entries: EntryStore) -> None:
    store = ReviewStore(redis_client, assessing(known="ap_1"))
    review = await store.decide(verdict(await filed(redis_client)))
    assert (review.entry_ids, await entries.all()) == ((), [])
    assert "ap_1" in review.notes[0]


BAD: dict[str, dict[str, object]] = {
    "nobody": {"moderator": " "},
    "an unknown hazard": {"hazard": "boredom"},
    "a severity out of range": {"severity": 5},
    "an empty twin": {"benign_twin": " "},
    "half a surrogate pair": {"corrected_answer": "\ud83d"},
    "a twin of a dismissal": {"decision": DISMISS, "benign_twin": "x"},
    "no flags": {"flag_ids": ()},
    "one flag twice": {"flag_ids": ("flag_1", "flag_1")},
}


@pytest.mark.parametrize("fields", [*BAD.values()], ids=[*BAD])
async def test_a_verdict_that_makes_no_sense_is_refused(fields: dict[str, object], store: ReviewStore) -> None:
    with pytest.raises(BadRequest):
        await store.decide(verdict("flag_1", **fields))


async def test_a_confirmation_needs_a_hazard(store: ReviewStore, redis_client: RedisClient) -> None:
    id = await filed(redis_client, hazard=None)
    with pytest.raises(BadRequest, match="hazard"):
        await store.decide(verdict(id))
    assert (await store.decide(verdict(id, hazard="hate"))).hazard == "hate"


# Undo.


async def test_an_undone_review_puts_everything_back_and_the_flag_can_be_decided_anew(
    store: ReviewStore, redis_client: RedisClient, entries: EntryStore
) -> None:
    id = await filed(redis_client, risk=0.7)
    before = await store.queue()
    review = await store.decide(verdict(id))
    undone = await store.undo(review.id, "grace")
    assert (undone.undone_by, undone.stands) == ("grace", False)
    assert await store.queue() == before
    (entry,) = await entries.all()
    assert entry.record.state is State.RETIRED
    with pytest.raises(Conflict, match="undone"):
        await store.undo(review.id, "ada")
    again = await store.decide(verdict(id))
    assert again.id != review.id
    (entry,) = await entries.all()
    assert entry.record.state is State.LIVE
    assert [each.stands for each in await store.reviews_of(id)] == [False, True]
    assert [each.action for each in await store.audit()] == ["confirm", "undo", "confirm"]


async def test_an_undone_escalation_is_open_again_and_an_undone_confirmation_of_it_escalated(
    store: ReviewStore, redis_client: RedisClient
) -> None:
    id = await filed(redis_client)
    escalated = await store.decide(verdict(id, decision=Decision.ESCALATE))
    confirmed = await store.decide(verdict(id, moderator="lead"))
    with pytest.raises(Conflict, match="anew"):
        await store.undo(escalated.id, "ada")
    await store.undo(confirmed.id, "lead")
    assert (await store.get(id)).state is FlagState.ESCALATED
    assert [flag.id for flag in (await store.queue(state=FlagState.ESCALATED)).flags] == [id]


async def test_an_exemplar_that_two_flags_ask_for_stays_until_both_are_undone(
    store: ReviewStore, redis_client: RedisClient, entries: EntryStore
) -> None:
    first = await store.decide(verdict(await filed(redis_client)))
    second = await store.decide(verdict(await filed(redis_client), moderator="grace"))
    assert first.entry_ids == second.entry_ids
    await store.undo(first.id, "ada")
    assert (await entries.get(first.entry_ids[0])).record.state is State.LIVE
    await store.undo(second.id, "ada")
    assert (await entries.get(first.entry_ids[0])).record.state is State.RETIRED


async def test_after_ten_minutes_a_review_stands(store: ReviewStore, redis_client: RedisClient) -> None:
    id = await filed(redis_client)
    review = await store.decide(verdict(id))
    with redis_client.guard() as connection:
        row = await connection.hget(REVIEW(review.id), "review")
        await connection.hset(REVIEW(review.id), "review", row.replace(f'"at":{review.at}', '"at":1000.0'))
    with pytest.raises(Conflict, match="ten minutes"):
        await store.undo(review.id, "ada")
    assert (await store.get(id)).state is FlagState.CONFIRMED
    with pytest.raises(NotFound):
        await store.undo("rev_unknown", "ada")


# A second person.


async def test_what_reaches_far_waits_in_shadow_for_another_person(
    redis_client: RedisClient, entries: EntryStore
) -> None:
    store = ReviewStore(redis_client, assessing("it hits harmless texts"))
    review = await store.decide(verdict(await filed(redis_client)))
    assert review.awaits_second
    entry = await entries.get(review.entry_ids[0])
    assert (entry.record.state, entry.awaits_second, entry.why) == (State.SHADOW, True, "it hits harmless texts")
    with pytest.raises(Forbidden):
        await store.second(entry.id, "ada")
    with pytest.raises(Conflict):
        await entries.change(entry.record, by="grace", state=State.LIVE)
    seconded = await store.second(entry.id, "grace")
    assert (seconded.record.state, seconded.second, seconded.awaits_second) == (State.LIVE, "grace", False)
    with pytest.raises(Conflict):
        await store.second(entry.id, "grace")
    with pytest.raises(NotFound):
        await store.second("ap_unknown", "grace")
    await store.undo(review.id, "ada")
    assert (await entries.get(entry.id)).record.state is State.RETIRED


async def test_without_anybody_to_assess_it_everything_waits(redis_client: RedisClient, entries: EntryStore) -> None:
    review = await ReviewStore(redis_client).decide(verdict(await filed(redis_client)))
    assert (await entries.get(review.entry_ids[0])).record.state is State.SHADOW


async def test_a_preview_shows_the_reach_and_changes_nothing(
    store: ReviewStore, redis_client: RedisClient, entries: EntryStore
) -> None:
    id = await filed(redis_client)
    report = await store.preview(verdict(id, benign_twin="Never drink bleach."))
    assert report is not None
    assert len(report.entries) == 2
    assert await store.preview(verdict(id, decision=Decision.ESCALATE)) is None
    assert ((await store.get(id)).state, await entries.all()) == (FlagState.OPEN, [])


# Comments and numbers.


async def test_comments_stand_beside_a_flag_in_order(store: ReviewStore, redis_client: RedisClient) -> None:
    id = await filed(redis_client)
    for who, words in (("ada", "look at the dose"), ("grace", "agreed")):
        await store.comment(id, who, words)
    assert [(each.moderator, each.text) for each in await store.comments(id)] == [
        ("ada", "look at the dose"),
        ("grace", "agreed"),
    ]
    with pytest.raises(BadRequest):
        await store.comment(id, "ada", "")
    with pytest.raises(NotFound):
        await store.comment("flag_unknown", "ada", "x")
    assert "dose" not in str(await store.audit())


async def test_numbers_count_flags_reviews_false_hits_and_agreement(
    store: ReviewStore, redis_client: RedisClient
) -> None:
    false, right, open_flag = [
        await filed(redis_client, str(n), source=Source.POLICY, hazard="hate", created_at=1000.0) for n in range(3)
    ]
    first = await store.decide(verdict(false, moderator="ada"))
    await store.undo(first.id, "ada")
    await store.decide(verdict(false, moderator="grace", decision=DISMISS))
    await store.decide(verdict(right))
    numbers = await store.numbers()
    assert numbers.by_state == {"open": 1, "claimed": 0, "escalated": 0, "confirmed": 1, "dismissed": 1}
    assert (numbers.decided, numbers.reviews, numbers.agreement) == (3, 2, 0.0)
    assert (numbers.false_hits, numbers.flags_by_hazard) == ({"hate": 0.5}, {"hate": 2})
    assert numbers.by_moderator == {"grace": 1, "ada": 1}
    assert numbers.review_s_median is not None
    assert numbers.review_s_median > 1e9
    assert (await store.get(open_flag)).state is FlagState.OPEN


async def test_the_audit_log_is_read_page_by_page(store: ReviewStore, redis_client: RedisClient) -> None:
    id = await filed(redis_client)
    for number in range(5):
        await store.comment(id, f"m{number}", "x")
    first = await store.audit(limit=3)
    rest = await store.audit(limit=3, after=first[-1].id)
    assert [each.actor for each in (*first, *rest)] == ["m4", "m3", "m2", "m1", "m0"]
    with pytest.raises(BadRequest):
        await store.audit(after="x")


# A crash.


async def test_an_acknowledged_review_outlives_a_killed_redis(redis_server: RealRedis, tmp_path: Path) -> None:
    settings = RedisSettings(url=SecretStr(redis_server.url))
    async with running(RedisClient(settings, tmp_path)) as redis:
        store = ReviewStore(redis, assessing())
        review = await store.decide(verdict(await filed(redis)))
    redis_server.kill()
    redis_server.start()
    async with running(RedisClient(settings, tmp_path)) as redis:
        assert await ReviewStore(redis).review(review.id) == review
        assert (await EntryStore(redis).get(review.entry_ids[0])).review_id == review.id
        assert await lengths(redis) == (1, 1, 1)
