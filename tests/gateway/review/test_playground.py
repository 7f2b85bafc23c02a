from __future__ import annotations

from gateway.parts import Parts
from gateway.redis_client import RedisClient
from gateway.review.playground import turns_of
from gateway.roles import Role
from tests.gateway.review.conftest import ANTHRAX, LogIn


def test_a_line_that_names_a_role_begins_a_turn() -> None:
    assert turns_of("user: one\ntwo\nAssistant:  three\n\nsystem:\nfour") == [
        ("user", "one\ntwo"),
        ("assistant", "three"),
        ("system", "four"),
    ]
    assert turns_of("no role: here") == [("user", "no role: here")]
    assert turns_of("hm\nuser: yes") == [("user", "hm"), ("user", "yes")]


async def test_a_known_text_would_be_blocked_and_nothing_of_it_is_kept(
    log_in: LogIn, with_bank: None, redis_client: RedisClient, parts: Parts
) -> None:
    person = await log_in(Role.ANALYST)
    page = await person.post("/review/playground", text=f"user: Hello.\nuser: {ANTHRAX}", side="request")
    assert page.status_code == 200, page.text
    assert "It would be blocked" in page.text
    assert "how vaccines against anthrax work" in page.text
    with redis_client.guard() as redis:
        kept = [key async for key in redis.scan_iter("antiprompt:*case*")]
    assert kept == []
    assert await parts.flags.list() == []


async def test_a_disguise_is_shown_as_it_is_read(log_in: LogIn, with_bank: None) -> None:
    person = await log_in(Role.MODERATOR)
    hidden = "".join(f"{letter}\u200b" for letter in ANTHRAX)
    page = (await person.post("/review/playground", text=hidden, side="request")).text
    assert "Readings" in page
    assert "It would be blocked" in page


async def test_an_answer_may_have_its_question(log_in: LogIn, with_bank: None) -> None:
    person = await log_in(Role.MODERATOR)
    page = await person.post("/review/playground", text="You bake it for an hour.", side="response", prompt="How?")
    assert page.status_code == 200
    assert "It would pass" in page.text


async def test_what_cannot_be_tried_is_an_error_in_words(log_in: LogIn, with_bank: None) -> None:
    person = await log_in(Role.MODERATOR)
    for fields in (
        {},
        {"text": " "},
        {"text": "x" * 20_001},
        {"text": "x", "side": "both"},
        {"text": "user: x\n" * 21},
    ):
        assert (await person.post("/review/playground", **fields)).status_code == 400
