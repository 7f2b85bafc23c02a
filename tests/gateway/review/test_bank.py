from __future__ import annotations

import re

import pytest

from antiprompt_bank import Bank, State
from gateway.parts import Parts
from gateway.roles import Role
from tests.gateway.review.conftest import ANTHRAX, LogIn


def shown(text: str) -> list[str]:
    """The exemplars of a page, in its order."""
    return re.findall(r'class="title" href="/review/bank/exemplars/(ap_\w+)"', text)


async def test_exemplars_are_found_by_words_id_and_kind(log_in: LogIn, tiny_bank: Bank, with_bank: None) -> None:
    person = await log_in(Role.ANALYST)
    everything = shown((await person.get("/review/bank")).text)
    assert everything == [record.id for record in tiny_bank.records]
    anthrax = [record.id for record in tiny_bank.records if "anthrax" in record.text]
    assert shown((await person.get("/review/bank?words=ANTHRAX")).text) == anthrax
    assert shown((await person.get(f"/review/bank?words={anthrax[0]}")).text) == anthrax[:1]
    assert shown((await person.get("/review/bank?words=anthrax&label=benign")).text) == anthrax[1:]
    assert shown((await person.get("/review/bank?hazard=hate")).text) == []
    assert (await person.get("/review/bank?label=odd")).status_code == 400
    assert (await person.get("/review/bank?skip=-1")).status_code == 400


async def test_a_retired_exemplar_is_an_entry_with_a_name_and_a_reason(
    log_in: LogIn, tiny_bank: Bank, with_bank: None, parts: Parts
) -> None:
    person = await log_in(Role.LEAD)
    record = tiny_bank.records[0]
    path = f"/review/bank/exemplars/{record.id}"
    assert ANTHRAX in (await person.get(path)).text
    assert (await person.post(path, state="retired", note="too broad")).status_code == 303
    entry = await parts.entries.get(record.id)
    assert (entry.record.state, entry.by) == (State.RETIRED, "mia")
    page = (await person.get(path)).text
    assert "retired" in page
    assert record.id in shown((await person.get("/review/bank?state=retired&origin=review")).text)


async def test_an_exemplar_gets_a_last_day_and_is_kept_out_for_hours(
    log_in: LogIn, tiny_bank: Bank, with_bank: None, parts: Parts
) -> None:
    person = await log_in(Role.LEAD)
    record = tiny_bank.records[0]
    path = f"/review/bank/exemplars/{record.id}"
    answer = await person.post(
        path, state="live", expires_on="2031-01-31", disabled_h="5", canary="0.5", note="a trial"
    )
    assert answer.status_code == 303, answer.text
    entry = await parts.entries.get(record.id)
    assert entry.record.expires_at == "2031-02-01T00:00:00+00:00"
    assert entry.canary == 0.5
    assert entry.disabled_until > 0
    page = (await person.get(path)).text
    assert "out of decisions until" in page
    assert "50.0 %" in page
    await person.post(path, expires_on="", disabled_h="0", note="over")
    entry = await parts.entries.get(record.id)
    assert (entry.record.expires_at, entry.disabled_until) == (None, 0.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "gone"},
        {"expires_on": "tomorrow"},
        {"expires_on": "9999-12-31"},
        {"disabled_h": "-1"},
        {"canary": "2"},
    ],
)
async def test_a_change_that_does_not_fit_is_an_error_in_words(
    fields: dict[str, str], log_in: LogIn, tiny_bank: Bank, with_bank: None
) -> None:
    person = await log_in(Role.LEAD)
    path = f"/review/bank/exemplars/{tiny_bank.records[0].id}"
    assert (await person.post(path, note="why", **fields)).status_code == 400


async def test_the_map_shows_every_exemplar_and_no_text(log_in: LogIn, tiny_bank: Bank, with_bank: None) -> None:
    person = await log_in(Role.ANALYST)
    page = (await person.get("/review/bank/map")).text
    assert page.count("<circle") == len(tiny_bank.records)
    assert "anthrax" not in page


async def test_what_is_not_there_is_nothing(log_in: LogIn, with_bank: None) -> None:
    person = await log_in(Role.LEAD)
    assert (await person.get("/review/bank/exemplars/ap_0")).status_code == 404
    assert (await person.post("/review/bank/exemplars/ap_0", state="retired", note="x")).status_code == 404
    assert (await person.get("/review/versions/diff?older=a&newer=b")).status_code == 404
    assert (await person.post("/review/versions/publish", version="a", note="x")).status_code == 404
