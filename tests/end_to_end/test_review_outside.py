"""The dashboard on a listener of its own, and people who come to it from an identity provider, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import httpx
import pytest
from argon2 import PasswordHasher
from joserfc.jwk import ECKey
from playwright.async_api import Browser, Page, expect

from gateway.accounts import AccountStore
from gateway.roles import Role
from tests.end_to_end.chromium import chromium, needed
from tests.end_to_end.conftest import MakeGateway
from tests.end_to_end.identity_provider import CLIENT, SECRET, IdentityProvider
from tests.end_to_end.running_gateway import RunningGateway, free_port
from tests.end_to_end.state import State
from tests.end_to_end.told import assert_error

needed("logging in by an identity provider")

PATIENCE_MS: Final = 120_000
PASSWORD: Final = "correct horse battery"
PROVIDER_PORT: Final = free_port()
REVIEW_PORT: Final = free_port()
REVIEW: Final = f"http://127.0.0.1:{REVIEW_PORT}"
BACK: Final = f"{REVIEW}/review/oidc/back"
KEY: Final = ECKey.generate_key("P-256", auto_kid=True)
"""The provider's in every test: the gateway reads it once in an hour."""

expect.set_options(timeout=PATIENCE_MS)  # a busy machine is not a failure


@pytest.fixture(scope="module")
def gateway_beside(make_gateway: MakeGateway) -> RunningGateway:
    """A gateway whose dashboard has a port of its own, and an identity provider."""
    return make_gateway(
        REVIEW__PORT=str(REVIEW_PORT),
        REVIEW__PUBLIC_URL=REVIEW,
        REVIEW__OIDC_ISSUER=f"http://localhost:{PROVIDER_PORT}",
        REVIEW__OIDC_CLIENT_ID=CLIENT,
        REVIEW__OIDC_CLIENT_SECRET=SECRET,
    )


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    async with IdentityProvider(PROVIDER_PORT, BACK, key=KEY) as listening:
        yield listening


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


NewPage = Callable[[], Awaitable[Page]]


@pytest.fixture
async def new_page(browser: Browser) -> AsyncIterator[NewPage]:
    """A window that shares nothing with others. Whatever its console says against the pages fails the test."""
    complaints: list[str] = []

    async def make() -> Page:
        window = await browser.new_context()
        window.set_default_timeout(PATIENCE_MS)
        page = await window.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    assert [said for said in complaints if not re.search("status of 4|Error Code 4", said)] == []


async def account(gateway: RunningGateway, name: str, role: Role = Role.LEAD) -> None:
    """An account without a password."""
    async with State.beside(gateway.data_dir) as state:
        await AccountStore(state.redis).create(name, role, None)


async def sent_out(page: Page) -> None:
    """From the log-in page to the provider's, and on."""
    await page.goto(f"{REVIEW}/review")
    await page.get_by_role("link", name="Log in with your organisation").click()
    await page.get_by_role("button", name="Continue as").click()


# ---- The listener.


async def test_the_dashboard_is_at_its_own_port_alone_and_the_gateway_at_its_own(
    gateway_beside: RunningGateway,
) -> None:
    async with httpx.AsyncClient() as client:
        page = await client.get(f"{REVIEW}/review/log-in")
        assert (page.status_code, page.headers["x-frame-options"]) == (200, "DENY")
        sheet = re.search(r'href="(/review/static/[^"]+)"', page.text)
        assert sheet is not None
        assert (await client.get(REVIEW + sheet[1])).status_code == 200
        for path in ("/review", "/review/log-in", "/review/queue"):
            assert_error((await client.get(gateway_beside.url + path)).content, "unknown_route")
        for path in ("/v1/models", "/v1/flags", "/healthz", "/readyz", "/metrics"):
            assert_error((await client.get(REVIEW + path)).content, "unknown_route")
            assert (await client.get(gateway_beside.url + path)).status_code != 404 or path == "/v1/flags"
        assert (await client.get(f"{gateway_beside.url}/healthz")).status_code == 200
        too_large = await client.get(f"{REVIEW}/review/log-in", headers={"x-large": "x" * (80 << 10)})
        assert too_large.status_code == 431


def test_a_gateway_tells_where_its_dashboard_is_and_takes_both_listeners_down(make_gateway: MakeGateway) -> None:
    port = free_port()
    short = make_gateway(REVIEW__PORT=str(port))
    assert httpx.get(f"http://127.0.0.1:{port}/review/log-in").status_code == 200
    assert f"http://127.0.0.1:{port}/review" in short.log()
    assert short.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/review/log-in")


# ---- The identity provider.


async def test_whom_the_provider_knows_comes_back_logged_in_with_the_role_that_was_given_here(
    gateway_beside: RunningGateway, provider: IdentityProvider, new_page: NewPage
) -> None:
    await account(gateway_beside, provider.person, Role.ANALYST)
    page = await new_page()
    await sent_out(page)
    await page.wait_for_url(f"{REVIEW}/review/queue")
    await expect(page.locator(".person")).to_have_text(re.compile(r"mia@example\.org\s+analyst"))
    kept = {cookie["name"]: cookie for cookie in await page.context.cookies(REVIEW)}
    assert "antiprompt_oidc" not in kept  # what tied the log-in to this browser has done its work
    assert (kept["antiprompt_review"]["httpOnly"], kept["antiprompt_review"]["sameSite"]) == (True, "Strict")
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url("**/review/log-in")
    await page.goto(f"{REVIEW}/review/queue")
    await page.wait_for_url("**/review/log-in")


@pytest.mark.parametrize(
    ("person", "verified", "refuses", "told"),
    [
        ("stranger@example.org", True, False, "there is no account for you here"),
        ("zoe@example.org", False, False, "has not verified your email address"),
        ("zoe@example.org", True, True, "the identity provider refused the log-in"),
    ],
)
async def test_who_has_no_business_here_is_told_why_and_is_not_let_in(
    person: str,
    verified: bool,
    refuses: bool,
    told: str,
    gateway_beside: RunningGateway,
    provider: IdentityProvider,
    new_page: NewPage,
) -> None:
    if not refuses and not verified:
        await account(gateway_beside, person)
    provider.person, provider.verified, provider.refuses = person, verified, refuses
    page = await new_page()
    await sent_out(page)
    await expect(page.get_by_text(told)).to_be_visible()
    await page.goto(f"{REVIEW}/review/queue")
    await page.wait_for_url("**/review/log-in")


async def test_an_answer_that_another_browser_asked_for_or_that_was_used_opens_nothing(
    gateway_beside: RunningGateway, provider: IdentityProvider, new_page: NewPage
) -> None:
    provider.person = "ada@example.org"
    await account(gateway_beside, provider.person)
    mine, victim = await new_page(), await new_page()
    answers: list[str] = []
    mine.on("request", lambda request: answers.append(request.url) if request.url.startswith(BACK) else None)
    await sent_out(mine)
    await mine.wait_for_url(f"{REVIEW}/review/queue")
    assert len(answers) == 1
    for page in (victim, mine):  # handed on to somebody else; and once more
        await page.goto(answers[0])
        await expect(page.get_by_text("this log-in was not begun in this browser")).to_be_visible()
    await victim.goto(f"{REVIEW}/review/queue")
    await victim.wait_for_url("**/review/log-in")


async def test_while_the_provider_is_away_a_password_still_opens(
    gateway_beside: RunningGateway, new_page: NewPage
) -> None:
    async with State.beside(gateway_beside.data_dir) as state:
        accounts = AccountStore(state.redis, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        await accounts.create("grace", Role.LEAD, PASSWORD)
    page = await new_page()
    await page.goto(f"{REVIEW}/review/log-in")
    await page.get_by_label("Name").fill("grace")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{REVIEW}/review/queue")
