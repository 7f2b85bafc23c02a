from __future__ import annotations

import re

from gateway.flags import FlagState
from gateway.parts import Parts
from gateway.roles import Role
from tests.gateway.review.conftest import ANTHRAX, FileFlag, LogIn, Person


def shown(text: str) -> list[str]:
    """The flags of a page, in its order."""
    return re.findall(r'<li class="flag [^"]*" id="(flag_\w+)"', text)


async def test_the_riskiest_flag_stands_first_and_filters_leave_what_was_asked_for(
    log_in: LogIn, file_flag: FileFlag
) -> None:
    person = await log_in(Role.MODERATOR)
    mild = await file_flag("A mild text.", risk=0.2, hazard="privacy", tenant="other")
    grave = await file_flag("A grave text.", risk=0.99)
    assert shown((await person.get("/review/queue")).text) == [grave, mild]
    assert shown((await person.get("/review/queue?hazard=privacy")).text) == [mild]
    assert shown((await person.get("/review/queue?tenant=acme&source=user&age=1 h")).text) == [grave]
    assert shown((await person.get("/review/queue?tenant=nobody")).text) == []


async def test_a_filter_that_does_not_exist_is_an_error_in_words(log_in: LogIn) -> None:
    person = await log_in(Role.MODERATOR)
    for query in ("state=claimed", "source=me", "age=1", "order=random", "hazard=" + "x" * 300, "after=%00", "like=x"):
        assert (await person.get(f"/review/queue?{query}")).status_code in (400, 404), query


async def test_a_text_is_never_markup(log_in: LogIn, file_flag: FileFlag) -> None:
    person = await log_in(Role.MODERATOR)
    nasty = "<script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"
    flag = await file_flag(nasty, reason=nasty, prompt=None, corrected_answer=nasty)
    for path in ("/review/queue", f"/review/flags/{flag}", f"/review/queue?like={flag}"):
        page = (await person.get(path)).text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "{{ 7 * 7 }}" in page


async def test_a_claim_is_seen_by_others_and_given_back(log_in: LogIn, file_flag: FileFlag) -> None:
    mia, leo = await log_in(Role.MODERATOR), await log_in(Role.MODERATOR, "leo")
    flag = await file_flag()
    assert (await mia.post("/review/claim", flag=flag)).headers["location"] == f"/review/flags/{flag}"
    refused = await leo.post("/review/claim", flag=flag)
    assert refused.status_code == 409
    assert "mia" in refused.text
    assert "mia holds it" in (await leo.get("/review/queue")).text
    await mia.post("/review/release", flag=flag)
    assert (await leo.post("/review/claim", flag=flag)).status_code == 303


async def test_the_next_flag_is_one_that_nobody_else_holds(log_in: LogIn, file_flag: FileFlag) -> None:
    mia, leo = await log_in(Role.MODERATOR), await log_in(Role.MODERATOR, "leo")
    grave, mild = await file_flag("A grave text.", risk=0.99), await file_flag("A mild text.", risk=0.3)
    assert (await mia.post("/review/next")).headers["location"] == f"/review/flags/{grave}"
    assert (await leo.post("/review/next")).headers["location"] == f"/review/flags/{mild}"
    third = await log_in(Role.MODERATOR, "ida")
    assert (await third.post("/review/next")).headers["location"] == "/review/queue"


async def test_look_alikes_are_listed_with_the_likest_first_and_selected(log_in: LogIn, file_flag: FileFlag) -> None:
    person = await log_in(Role.MODERATOR)
    one = await file_flag(ANTHRAX)
    near = await file_flag(ANTHRAX.replace("kitchen", "cellar"))
    await file_flag("Where does the mayor live?")
    await file_flag(ANTHRAX, side="response")
    page = (await person.get(f"/review/queue?like={one}")).text
    assert shown(page) == [one, near]
    assert page.count(" checked>") == 2


async def test_several_flags_are_dismissed_at_once_and_come_back_with_undo(
    log_in: LogIn, file_flag: FileFlag, parts: Parts
) -> None:
    person = await log_in(Role.MODERATOR)
    flags = [await file_flag(f"A text that is nearly the same, number {n}.") for n in range(3)]
    assert (await person.post("/review/decide", flag=flags, decision="dismiss")).status_code == 303
    page = (await person.get("/review/queue")).text
    assert "3 flags" in page
    assert shown(page) == []
    (review,) = set(re.findall('name="review" value="([^"]+)"', page))
    assert (await person.post("/review/undo", review=review)).status_code == 303
    assert set(shown((await person.get("/review/queue")).text)) == set(flags)
    assert (await parts.reviews.get(flags[0])).state is FlagState.OPEN


async def test_more_than_a_page_is_reached_by_its_link(log_in: LogIn, file_flag: FileFlag) -> None:
    person = await log_in(Role.ANALYST)
    filed = {await file_flag(f"Text {n}.", risk=n / 100) for n in range(60)}
    first = (await person.get("/review/queue")).text
    (link,) = re.findall('href="([^"]+)" rel="next"', first)
    second = (await person.get(link.replace("&amp;", "&"))).text
    assert len(shown(first)) == 50
    assert set(shown(first)) | set(shown(second)) == filed
    assert len(shown(second)) == 10


async def test_nobody_is_led_away_from_the_dashboard(log_in: LogIn, file_flag: FileFlag) -> None:
    person: Person = await log_in(Role.MODERATOR)
    flag = await file_flag()
    for back in (
        "https://evil.test/review/",
        "//evil.test/review/",
        "/review/\\evil",
        "/v1/models",
        "/review/\r\nx: y",
    ):
        answer = await person.post("/review/claim", flag=flag, back=back)
        assert answer.headers["location"] == f"/review/flags/{flag}"
    assert (await person.post("/review/claim", flag=flag, back="/review/queue?a=b")).headers["location"].endswith("a=b")
