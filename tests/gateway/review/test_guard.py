"""Every route: who may use it, that nobody else may, and that no form from elsewhere is taken."""

from __future__ import annotations

import pytest

from gateway.parts import Parts
from gateway.review import ENDPOINTS
from gateway.review.pages import HEADERS
from gateway.roles import PERMITTED, Role
from tests.gateway.review.conftest import FileFlag, LogIn, Person

ROUTES = sorted(ENDPOINTS)
POSTS = [route for route in ROUTES if route.startswith("POST")]


def address(route: str) -> tuple[str, str]:
    method, path = route.split(" ", 1)
    return method, path.replace("{flag_id}", "flag_0").replace("{exemplar_id}", "ap_0")


def test_the_table_names_every_route_and_no_other() -> None:
    assert set(ENDPOINTS) == set(PERMITTED)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_route_is_for_the_roles_of_the_table_alone(route: str, role: Role, log_in: LogIn) -> None:
    person = await log_in(role)
    method, path = address(route)
    answer = await (person.get(path) if method == "GET" else person.post(path))
    refused = answer.status_code == 403 and "may not do this" in answer.text
    assert refused != (role in PERMITTED[route]), answer.text
    assert answer.status_code < 500 or "still loading" in answer.text  # no bank is loaded here


@pytest.mark.parametrize("route", ROUTES)
async def test_nobody_gets_in_without_a_session(route: str, stranger: Person) -> None:
    method, path = address(route)
    answer = await (stranger.get(path) if method == "GET" else stranger.post(path))
    assert (answer.status_code, answer.headers["location"]) == (303, "/review/log-in")


@pytest.mark.parametrize("route", POSTS)
async def test_a_form_without_the_session_s_token_is_refused(route: str, log_in: LogIn) -> None:
    person = await log_in(Role.ADMIN)
    for token in ("", "x" * 43):
        person.csrf = token
        answer = await person.post(address(route)[1])
        assert answer.status_code == 403
        assert "not of your session" in answer.text


@pytest.mark.parametrize(
    "header", [{"origin": "https://evil.test"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
async def test_a_form_of_another_site_is_refused(header: dict[str, str], log_in: LogIn, file_flag: FileFlag) -> None:
    person = await log_in(Role.ADMIN)
    flag = await file_flag()
    answer = await person.client.post("/review/claim", data={"csrf": person.csrf, "flag": flag}, headers=header)
    assert answer.status_code == 403
    assert (await person.post("/review/claim", flag=flag)).status_code == 303


@pytest.mark.parametrize("path", ["/review/queue", "/review/log-in", "/review/nothing", "/review/flags/flag_0"])
async def test_every_page_carries_the_strict_headers(path: str, log_in: LogIn) -> None:
    answer = await (await log_in(Role.ADMIN)).get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "unsafe" not in answer.headers["content-security-policy"]
    for inline in ("<style", "style=", "javascript:", "onclick", "onload", "hx-on"):
        assert inline not in answer.text
    assert all("src=" in tag for tag in answer.text.split("<script")[1:])


async def test_a_form_in_another_encoding_is_an_error_in_words(log_in: LogIn) -> None:
    person = await log_in(Role.ADMIN)
    for kind, body in (
        ("application/json", b"{}"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/x-www-form-urlencoded", b"csrf=%ff%fe"),
        ("application/x-www-form-urlencoded", b"\xff"),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % n for n in range(3000))),
    ):
        answer = await person.client.post("/review/decide", content=body, headers={"content-type": kind})
        assert answer.status_code == 400, kind


async def test_a_session_ends_with_log_out_for_every_copy_of_its_cookie(log_in: LogIn, parts: Parts) -> None:
    person = await log_in(Role.MODERATOR)
    token = person.client.cookies["antiprompt_review"]
    assert (await person.post("/review/log-out")).headers["location"] == "/review/log-in"
    assert await parts.sessions.find(token) is None


async def test_htmx_is_sent_to_the_log_in_as_a_whole_page(stranger: Person) -> None:
    answer = await stranger.get("/review/queue", **{"hx-request": "true"})
    assert answer.headers["hx-redirect"] == "/review/log-in"


async def test_a_static_file_may_be_kept_and_no_other_file_is_served(stranger: Person) -> None:
    sheet = await stranger.get("/review/static/review.css")
    assert sheet.status_code == 200
    assert sheet.headers["content-type"].startswith("text/css")
    assert "immutable" in sheet.headers["cache-control"]
    for other in ("../pages.py", "%2e%2e%2fpages.py", "nothing.css"):
        assert (await stranger.get(f"/review/static/{other}")).status_code == 404
