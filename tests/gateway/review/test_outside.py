from __future__ import annotations

from gateway.parts import Parts
from tests.gateway.review.conftest import Person


async def test_without_an_identity_provider_there_is_no_such_way(stranger: Person, parts: Parts) -> None:
    assert "your organisation" not in (await stranger.get("/review/log-in")).text
    assert (await stranger.get("/review/oidc")).status_code == 404


async def test_an_answer_that_this_browser_did_not_ask_for_is_refused(stranger: Person) -> None:
    for query in ("", "?state=x&code=c", "?state=%00", "?code=c"):
        answer = await stranger.get(f"/review/oidc/back{query}")
        assert answer.status_code == 403
        assert "not begun in this browser" in answer.text
    stranger.client.cookies.set("antiprompt_oidc", "x", path="/review/oidc")
    answer = await stranger.get("/review/oidc/back?state=x&error=access_denied")
    assert answer.status_code == 403
    assert "refused the log-in" in answer.text
