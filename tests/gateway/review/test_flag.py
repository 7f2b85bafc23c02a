from __future__ import annotations

import time

import pytest

from gateway.cases import Case, Exchange
from gateway.flags import FlagState
from gateway.parts import Parts
from gateway.roles import Role
from tests.gateway.review.conftest import ANTHRAX, FileFlag, LogIn


async def test_a_flag_shows_the_conversation_and_what_policy_did(
    log_in: LogIn, file_flag: FileFlag, parts: Parts
) -> None:
    person = await log_in(Role.ANALYST)
    case = Case(
        id="case_1", created_at=time.time(), tenant="acme", surface="chat", action="flag", rule="doubtful", risk=0.6
    )
    parts.cases.record(case, Exchange((("system", "You are a cook."), ("user", ANTHRAX)), ("Sure.",)))
    flag = await file_flag(case_id="case_1", reason="it is about weapons")
    page = (await person.get(f"/review/flags/{flag}")).text
    for words in ("You are a cook.", "Sure.", "doubtful", "it is about weapons", "still loading its bank"):
        assert words in page
    assert 'action="/review/decide"' not in page  # an analyst only reads


async def test_the_matched_passage_is_marked_and_its_exemplars_stand_beside_it(
    log_in: LogIn, file_flag: FileFlag, with_bank: None
) -> None:
    person = await log_in(Role.MODERATOR)
    filler = "The bread has to rest for an hour in a warm corner of the room before you fold it. " * 8
    flag = await file_flag(filler + ANTHRAX)
    page = (await person.get(f"/review/flags/{flag}")).text
    marked = page.split("<mark>")[1].split("</mark>")[0]
    assert "anthrax" in marked
    assert len(marked) < len(filler)
    assert "how vaccines against anthrax work" in page
    assert 'class="similarity"' in page


async def test_before_confirming_one_sees_what_it_would_reach(log_in: LogIn, file_flag: FileFlag) -> None:
    person = await log_in(Role.MODERATOR)
    flag = await file_flag("Tell me where the mayor's daughter goes to school.", hazard="privacy")
    part = await person.get(f"/review/flags/{flag}/influence?hazard=privacy&severity=3")
    assert "Recent traffic it would change" in part.text
    assert "<html" not in part.text
    assert "Recent traffic it would change" in (await person.get(f"/review/flags/{flag}?influence=1")).text


async def test_a_confirmed_flag_is_decided_with_all_that_the_form_says(
    log_in: LogIn, file_flag: FileFlag, parts: Parts
) -> None:
    person = await log_in(Role.MODERATOR)
    flag = await file_flag("Tell me where the mayor's daughter goes to school.", hazard=None)
    fields = {
        "decision": "confirm",
        "hazard": "privacy",
        "severity": "3",
        "corrected_answer": "I do not help to find children.",
        "benign_twin": "Where can the mayor's daughter learn to swim?",
        "comment": "seen twice this week",
    }
    answer = await person.post("/review/decide", flag=flag, **fields)
    assert answer.status_code == 303, answer.text
    (review,) = await parts.reviews.reviews_of(flag)
    assert (review.moderator, review.role, review.hazard, review.severity) == ("mia", "moderator", "privacy", 3)
    assert review.corrected_answer == fields["corrected_answer"]
    assert review.benign_twin == fields["benign_twin"]
    assert (await parts.reviews.get(flag)).state is FlagState.CONFIRMED
    page = (await person.get(f"/review/flags/{flag}")).text
    assert "seen twice this week" in page
    assert 'id="confirm"' not in page


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"decision": "delete"},
        {"decision": "confirm", "severity": "9"},
        {"decision": "confirm", "severity": "two"},
        {"decision": "confirm", "hazard": "rudeness"},
        {"decision": "confirm", "comment": "x" * 5000},
        {"decision": "confirm", "severity": "nan"},
    ],
)
async def test_a_decision_that_does_not_fit_is_an_error_in_words(
    fields: dict[str, str], log_in: LogIn, file_flag: FileFlag, parts: Parts
) -> None:
    person = await log_in(Role.MODERATOR)
    flag = await file_flag()
    assert (await person.post("/review/decide", flag=flag, **fields)).status_code == 400
    assert (await parts.reviews.get(flag)).state is FlagState.OPEN


async def test_no_flag_at_all_cannot_be_decided(log_in: LogIn) -> None:
    person = await log_in(Role.MODERATOR)
    assert (await person.post("/review/decide", decision="dismiss")).status_code == 400
    assert (await person.post("/review/decide", decision="dismiss", flag="flag_0")).status_code == 404


async def test_a_flag_that_another_holds_cannot_be_decided(log_in: LogIn, file_flag: FileFlag) -> None:
    mia, leo = await log_in(Role.MODERATOR), await log_in(Role.MODERATOR, "leo")
    flag = await file_flag()
    await mia.post("/review/claim", flag=flag)
    assert (await leo.post("/review/decide", flag=flag, decision="dismiss")).status_code == 409
    assert 'id="confirm"' not in (await leo.get(f"/review/flags/{flag}")).text
    assert (await mia.post("/review/decide", flag=flag, decision="dismiss")).status_code == 303


async def test_a_comment_stands_beside_the_flag_as_text(log_in: LogIn, file_flag: FileFlag) -> None:
    person = await log_in(Role.MODERATOR)
    flag = await file_flag()
    assert (await person.post(f"/review/flags/{flag}/comment", text="<b>look</b> at this")).status_code == 303
    page = (await person.get(f"/review/flags/{flag}")).text
    assert "&lt;b&gt;look&lt;/b&gt; at this" in page
    assert (await person.post(f"/review/flags/{flag}/comment", text="  ")).status_code == 400


async def test_a_flag_whose_text_was_erased_can_still_be_looked_at(log_in: LogIn, file_flag: FileFlag) -> None:
    person = await log_in(Role.MODERATOR)
    flag = await file_flag(None)
    page = await person.get(f"/review/flags/{flag}")
    assert page.status_code == 200
    assert "erased" in page.text


async def test_a_flag_that_is_not_there_is_nothing(log_in: LogIn) -> None:
    person = await log_in(Role.MODERATOR)
    for path in ("flag_0", "flag_0/influence", "%00", "..%2f..%2fetc"):
        assert (await person.get(f"/review/flags/{path}")).status_code == 404
