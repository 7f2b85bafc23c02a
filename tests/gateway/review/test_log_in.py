from __future__ import annotations

import re

import httpx
from starlette.applications import Starlette

from gateway.parts import Parts
from gateway.roles import Role
from tests.gateway.review.conftest import HOST, PASSWORD, Person


async def enter(person: Person, name: str, password: str) -> int:
    """Fill in the log-in form as a browser does; the status of the answer."""
    page = await person.get("/review/log-in")
    found = re.search('name="csrf" value="([^"]+)"', page.text)
    assert found is not None
    person.csrf = found[1]
    return (await person.post("/review/log-in", name=name, password=password)).status_code


async def test_without_an_account_the_page_says_how_to_make_one(stranger: Person) -> None:
    page = await stranger.get("/review/log-in")
    assert "antiprompt moderators create" in page.text
    assert "password" not in re.findall('type="([^"]+)"', page.text)


async def test_name_and_password_lead_to_the_queue(stranger: Person, parts: Parts) -> None:
    await parts.accounts.create("mia", Role.MODERATOR, PASSWORD)
    assert await enter(stranger, " Mia ", PASSWORD) == 303
    assert (await stranger.get("/review/queue")).status_code == 200


async def test_a_wrong_password_and_an_unknown_name_are_answered_alike(stranger: Person, parts: Parts) -> None:
    await parts.accounts.create("mia", Role.MODERATOR, PASSWORD)
    await enter(stranger, "mia", "wrong password")
    answers = [
        (await stranger.post("/review/log-in", name=name, password="wrong password")) for name in ("mia", "nobody")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].text == answers[1].text
    assert (await stranger.get("/review/queue")).status_code == 303


async def test_the_cookie_is_strict_and_secure_where_https_is(stranger: Person, parts: Parts) -> None:
    await parts.accounts.create("mia", Role.MODERATOR, PASSWORD)
    page = await stranger.get("/review/log-in")
    stranger.csrf = re.findall('name="csrf" value="([^"]+)"', page.text)[0]
    answer = await stranger.post("/review/log-in", name="mia", password=PASSWORD)
    cookie = next(each for each in answer.headers.get_list("set-cookie") if each.startswith("antiprompt_review="))
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    secure = await stranger.client.get(HOST.replace("http", "https") + "/review/log-in")
    assert all("Secure" in each for each in secure.headers.get_list("set-cookie"))


async def test_logging_in_takes_another_token_than_one_that_was_planted(stranger: Person, parts: Parts) -> None:
    await parts.accounts.create("mia", Role.MODERATOR, PASSWORD)
    stranger.client.cookies.set("antiprompt_review", "planted")
    assert await enter(stranger, "mia", PASSWORD) == 303
    tokens = [cookie.value for cookie in stranger.client.cookies.jar if cookie.name == "antiprompt_review"]
    assert await parts.sessions.find("planted") is None
    mine = [token for token in tokens if token and token != "planted"]
    assert [(await parts.sessions.find(token)) is not None for token in mine] == [True]


async def test_the_form_is_of_the_browser_that_asked_for_it(stranger: Person, parts: Parts) -> None:
    await parts.accounts.create("mia", Role.MODERATOR, PASSWORD)
    assert await enter(stranger, "mia", "wrong password") == 401
    stranger.client.cookies.delete("antiprompt_log_in")
    assert (await stranger.post("/review/log-in", name="mia", password=PASSWORD)).status_code == 403


async def test_too_many_attempts_on_one_account_are_refused_right_or_wrong(stranger: Person, parts: Parts) -> None:
    await parts.accounts.create("mia", Role.MODERATOR, PASSWORD)
    await parts.accounts.create("leo", Role.MODERATOR, PASSWORD)
    statuses = {await enter(stranger, "mia", "wrong password") for _ in range(21)}  # a minute may end in between
    assert statuses == {401, 429}
    assert await enter(stranger, "leo", PASSWORD) == 303


async def test_too_many_attempts_from_one_address_are_refused_whatever_the_name(stranger: Person, parts: Parts) -> None:
    await parts.accounts.create("mia", Role.MODERATOR, PASSWORD)
    statuses = [await enter(stranger, f"nobody-{n}", "wrong password") for n in range(61)]
    assert 429 in statuses[30:]
    assert set(statuses[:30]) == {401}


async def test_nothing_odd_is_an_error_of_ours(stranger: Person, parts: Parts) -> None:
    await parts.accounts.create("mia", Role.MODERATOR, PASSWORD)
    for name, password in (("", ""), ("mia" * 50, PASSWORD), ("mía", "p" * 5000), ("mia\x00", "\x00"), ("mia", "")):
        assert await enter(stranger, name, password) == 401


async def test_a_password_does_not_cross_a_network_in_the_clear(app: Starlette, parts: Parts) -> None:
    await parts.accounts.create("mia", Role.MODERATOR, PASSWORD)
    elsewhere = httpx.ASGITransport(app, client=("192.0.2.7", 50_000))
    async with httpx.AsyncClient(transport=elsewhere, base_url=HOST) as client:
        person = Person(client)
        assert await enter(person, "mia", PASSWORD) == 403
        answer = await person.post("/review/log-in", name="mia", password=PASSWORD)
        assert "https" in answer.text
        assert (await person.get("/review/oidc")).status_code == 403
    async with httpx.AsyncClient(transport=elsewhere, base_url=HOST.replace("http", "https")) as client:
        page = await client.get("/review/log-in")
        csrf = re.findall('name="csrf" value="([^"]+)"', page.text)[0]
        fields = {"csrf": csrf, "name": "mia", "password": PASSWORD}
        assert (await client.post("/review/log-in", data=fields)).status_code == 303
