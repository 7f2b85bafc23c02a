from __future__ import annotations

import re

import pytest

from antiprompt_bank import Bank, Kind, State
from antiprompt_bank.layers import Layers
from gateway.flags import Source
from gateway.parts import Parts
from gateway.review_records import Decision, Verdict
from gateway.roles import Role
from gateway.screening import Subject
from tests.gateway.review.conftest import ANTHRAX, FileFlag, LogIn


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


async def test_what_an_exemplar_stands_for_is_corrected_audited_and_changed_back(
    log_in: LogIn, tiny_bank: Bank, with_bank: None, parts: Parts
) -> None:
    person = await log_in(Role.LEAD)
    record = tiny_bank.records[0]
    path = f"/review/bank/exemplars/{record.id}"
    assert (await person.post(path, hazard="privacy", severity="4", kind="adversarial", note="typo")).status_code == 303
    entry = await parts.entries.get(record.id)
    assert (entry.record.hazard, entry.record.severity, entry.record.kind) == ("privacy", 4, Kind.ADVERSARIAL)
    assert entry.record.text == record.text
    laid = Layers(tiny_bank).with_records([entry.record])
    assert [score.hazard for score in laid.score([ANTHRAX], side="request")] == ["privacy"]
    page = (await person.get(path)).text
    assert '<option value="privacy" selected>' in page
    assert '<option value="adversarial" selected>' in page
    (told, *_) = await parts.reviews.audit()
    assert told.note == ("hazard indiscriminate_weapons -> privacy; severity 2 -> 4; kind none -> adversarial; typo")
    assert (await person.post(path, hazard=str(record.hazard), severity="2", kind="", note="back")).status_code == 303
    entry = await parts.entries.get(record.id)
    assert entry.record == record
    assert Layers(tiny_bank).with_records([entry.record]) is tiny_bank


async def test_its_page_tells_what_an_exemplar_hit_and_how_people_judged_that(
    log_in: LogIn, tiny_bank: Bank, with_bank: None, parts: Parts, file_flag: FileFlag
) -> None:
    person = await log_in(Role.ANALYST)
    record = tiny_bank.records[0]
    path = f"/review/bank/exemplars/{record.id}"
    page = (await person.get(path)).text
    assert "Would have hit" not in page
    assert "<svg" not in page
    for _ in range(1234):
        parts.hits.note(record.id)
    await parts.hits.flush()
    for decision in (Decision.CONFIRM, Decision.CONFIRM, Decision.DISMISS):
        flag = await file_flag(f"Some text, {decision}.", source=Source.POLICY, exemplar=record.id)
        await parts.reviews.decide(Verdict(flag_ids=(flag,), moderator="ada", decision=decision))
        await parts.reviews.decide(Verdict(flag_ids=(flag,), moderator="ada", decision=decision))
    page = (await person.get(path)).text
    assert "<dt>Hits in 30 days</dt><dd>1,234</dd>" in page
    assert (
        "<dt>Confirmed by people</dt><dd>1</dd>" in page
    )  # the same text is one flag, and the same verdict one review
    assert "<dt>False by people</dt><dd>1</dd>" in page
    assert "1234 hits</title>" in page


async def test_the_page_of_an_exemplar_in_shadow_tells_what_it_would_have_hit(
    log_in: LogIn, tiny_bank: Bank, with_bank: None, parts: Parts
) -> None:
    record = tiny_bank.records[0]
    await parts.entries.change(record, by="ada", state=State.SHADOW)
    bank = Layers(tiny_bank).with_records([entry.record for entry in await parts.entries.all()])
    parts.screener.swap(bank)
    await parts.screener.screen([Subject(ANTHRAX, "request"), Subject("Bake a loaf of bread.", "request")], tenant="t")
    await parts.hits.flush()
    page = (await (await log_in(Role.ANALYST)).get(f"/review/bank/exemplars/{record.id}")).text
    assert '<dt>Would have hit</dt><dd>1<span class="soft"> from the shadow</span></dd>' in page
    assert "<dt>Of them, passed so far</dt><dd>1</dd>" in page


async def test_a_harmless_look_alike_may_name_no_hazard_and_a_harmful_exemplar_must(
    log_in: LogIn, tiny_bank: Bank, with_bank: None, parts: Parts
) -> None:
    person = await log_in(Role.LEAD)
    harmful, benign = tiny_bank.records[:2]
    assert (await person.post(f"/review/bank/exemplars/{benign.id}", hazard="", note="general")).status_code == 303
    assert (await parts.entries.get(benign.id)).record.hazard is None
    assert (await person.get(f"/review/bank/exemplars/{benign.id}")).status_code == 200
    answer = await person.post(f"/review/bank/exemplars/{harmful.id}", hazard="", note="general")
    assert (answer.status_code, "needs a hazard" in answer.text) == (400, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "gone"},
        {"hazard": "child_exploitation"},
        {"hazard": "rudeness"},
        {"severity": "5"},
        {"severity": "mild"},
        {"kind": "odd"},
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
