from dataclasses import replace

import pytest

from gateway.alignment.reviewed import Standing
from gateway.alignment.reviewed_flags import collect, reviewed
from gateway.flags import Flag, Source
from gateway.redis_client import RedisClient
from gateway.review_records import Decision
from gateway.reviews import ReviewStore
from tests.gateway.reviewing import BLEACH, QUESTION, assessing, filed, verdict


@pytest.fixture
def store(redis_client: RedisClient) -> ReviewStore:
    return ReviewStore(redis_client, assessing())


async def test_each_flag_is_read_once_with_what_was_decided(store: ReviewStore, redis_client: RedisClient) -> None:
    confirmed = await filed(redis_client, bank_version="v7")
    dismissed = await filed(redis_client, "Take a walk.")
    waiting = await filed(redis_client, "Ask a neighbour.", corrected_answer="what the user would rather have")
    escalated = await filed(redis_client, "Ask nobody.")
    await store.decide(verdict(confirmed, hazard="self_harm", severity=4, corrected_answer="Rest."))
    await store.decide(verdict(dismissed, decision=Decision.DISMISS, role="lead"))
    await store.decide(verdict(escalated, decision=Decision.ESCALATE))
    found = await collect(redis_client)
    rows = {row.flag_id: row for row in found.rows}
    assert len(found.rows) == len(rows) == 4
    first = rows[confirmed]
    assert (first.standing, first.hazard, first.severity) == (Standing.CONFIRMED, "self_harm", 4)
    assert (first.prompt, first.answer, first.corrected) == (QUESTION, BLEACH, "Rest.")
    assert (first.role, first.bank_version, first.licence) == ("moderator", "v7", "proprietary")
    assert first.review_id is not None
    assert (rows[dismissed].standing, rows[dismissed].role) == (Standing.DISMISSED, "lead")
    assert rows[waiting].standing is rows[escalated].standing is Standing.PENDING
    assert rows[waiting].corrected is None
    assert found.left_out == {}


async def test_an_undone_review_counts_no_more(store: ReviewStore, redis_client: RedisClient) -> None:
    flag = await filed(redis_client)
    review = await store.decide(verdict(flag, corrected_answer="Rest."))
    await store.undo(review.id, "ada")
    (row,) = (await collect(redis_client)).rows
    assert (row.standing, row.corrected, row.review_id) == (Standing.PENDING, None, None)
    await store.decide(verdict(flag, decision=Decision.DISMISS))
    (row,) = (await collect(redis_client)).rows
    assert row.standing is Standing.DISMISSED


async def test_more_flags_than_one_page_holds_are_all_read(redis_client: RedisClient) -> None:
    ids = {await filed(redis_client, f"text {at}") for at in range(210)}
    assert {row.flag_id for row in (await collect(redis_client)).rows} == ids


async def test_what_cannot_be_learned_from_is_counted(store: ReviewStore, redis_client: RedisClient) -> None:
    await filed(redis_client, None)
    await filed(redis_client, "an answer to nobody knows what", prompt=None)
    unspeakable = await filed(redis_client, "not to be kept")
    await store.decide(verdict(unspeakable, hazard="child_exploitation"))
    found = await collect(redis_client)
    assert found.rows == ()
    assert found.left_out == {
        "a hazard whose texts are never stored": 1,
        "no prompt beside the answer": 1,
        "text erased or never kept": 1,
    }


def test_a_flagged_request_is_its_own_prompt() -> None:
    flag = Flag(tenant="acme", source=Source.USER, side="request", text="a request", hazard="hate", id="flag_1")
    row = reviewed(flag, Standing.PENDING, None)
    assert not isinstance(row, str)
    assert (row.prompt, row.answer) == ("a request", None)
    assert reviewed(replace(flag, text="b"), Standing.CONFIRMED, None) == "no review that stands"
