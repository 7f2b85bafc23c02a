"""Flags from filing to erasure: who may file which, what is kept of it, and what remains of a person afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import UPSTREAM_KEY, Callers, MakeGateway
from tests.end_to_end.exemplars import BAD_REPLY, BAD_REQUEST, GOOD_REPLY, GOOD_REQUEST
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking, assert_told
from tests.fakes import ScriptedUpstream, stream, whole
from tests.transcripts import chat_completion, chat_stream

FLAGS: Final = "/flags"
REASON: Final = "it is wrong"
PER_KEY: Final = 5
PER_END_USER: Final = 2
PAIR: Final = (GOOD_REPLY, GOOD_REQUEST)


async def filed(caller: Caller, *, key: str | None = None, **fields: object) -> str:
    """File a flag that is taken; its id."""
    reply = await file(caller, key=key, **fields)
    assert reply.status_code == 202, reply.text
    assert reply.json().keys() == {"id", "state"}
    assert reply.json()["state"] == "open"
    return str(reply.json()["id"])


async def file(caller: Caller, *, key: str | None = None, **fields: object) -> httpx2.Response:
    headers = {"Idempotency-Key": key} if key is not None else {}
    return await caller.http.post(FLAGS, json={"reason": REASON, **fields}, headers=headers)


async def test_a_reply_is_flagged_by_its_case_and_the_flag_has_its_text(
    callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    caller = await callers("refusal")
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY, id="chatcmpl-by-case")))
    await caller.http.post(CHAT, json=asking())
    case_id = caller.case_id
    id = await filed(
        caller, case_id=case_id, hazard="specialized_advice", corrected_answer="Bake it longer.", end_user="ada"
    )
    (flag,) = await state.flags_of(caller.tenant)
    assert (flag.id, flag.case_id, flag.completion_id) == (id, case_id, "chatcmpl-by-case")
    assert (flag.text, flag.prompt, flag.side) == (GOOD_REPLY, GOOD_REQUEST, "response")
    assert (flag.reason, flag.hazard, flag.corrected_answer) == (REASON, "specialized_advice", "Bake it longer.")
    assert flag.end_user not in (None, "ada")  # a digest
    assert flag.bank_version == (await state.case(case_id)).bank_version


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_reply_is_flagged_by_its_completion_as_soon_as_it_is_there(
    streamed: bool, callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    caller = await callers("refusal")
    completion_id = f"chatcmpl-{caller.tenant}"
    events = chat_stream(GOOD_REPLY, id=completion_id)
    upstream.on(CHAT, stream(*events) if streamed else whole(chat_completion(GOOD_REPLY, id=completion_id)))
    await caller.http.post(CHAT, json=asking(stream=streamed))
    await filed(caller, completion_id=completion_id)
    (flag,) = await state.flags_of(caller.tenant)
    assert (flag.case_id, flag.text, flag.prompt) == (caller.received[0].headers["x-antiprompt-case"], *PAIR)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("part", ["refusal", "desired", "error"])
async def test_a_flag_on_a_request_that_was_stopped_is_about_the_request_and_not_about_our_words(
    part: str, streamed: bool, callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    caller = await callers(part)
    messages = [
        {"role": "user", "content": BAD_REQUEST},
        {"role": "assistant", "content": "Let me think."},
        {"role": "user", "content": "Well?"},
    ]
    await caller.http.post(CHAT, json={"model": "m", "messages": messages, "stream": streamed})
    case_id = caller.case_id
    await filed(caller, case_id=case_id)
    (flag,) = await state.flags_of(caller.tenant)
    assert (flag.text, flag.prompt, flag.side) == (BAD_REQUEST, None, "request")
    assert (flag.case_id, flag.exemplar) == (case_id, (await state.case(case_id)).exemplar)
    assert flag.exemplar is not None
    kept = await state.exchange(case_id)
    assert kept is not None
    assert kept.reply == ()  # a refusal is no reply of the model's


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("part", ["refusal", "desired", "error"])
async def test_a_flag_or_an_appeal_on_a_reply_that_was_stopped_has_what_the_model_said(
    part: str, streamed: bool, callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    caller = await callers(part)
    upstream.on(CHAT, stream(*chat_stream(BAD_REPLY)) if streamed else whole(chat_completion(BAD_REPLY)))
    await caller.http.post(CHAT, json=asking(stream=streamed))
    case_id = caller.case_id
    await filed(caller, case_id=case_id)
    await caller.http.post("/appeals", json={"case_id": case_id, "reason": "it was a novel"})
    flags = await state.flags_of(caller.tenant)
    assert sorted(flag.source for flag in flags) == ["appeal", "user"]
    for flag in flags:
        assert (flag.prompt, flag.side) == (GOOD_REQUEST, "response")
        assert flag.text
        assert BAD_REPLY.startswith(flag.text) if streamed else flag.text == BAD_REPLY  # a stream is cut where it hits
        assert flag.exemplar is not None


async def test_words_that_come_with_a_stopped_request_s_case_are_about_the_request(
    callers: Callers, state: State
) -> None:
    caller = await callers("refusal")
    await caller.http.post(CHAT, json=asking(BAD_REQUEST))
    await filed(caller, case_id=caller.case_id, text=BAD_REQUEST)
    (flag,) = await state.flags_of(caller.tenant)
    assert (flag.text, flag.prompt, flag.side) == (BAD_REQUEST, None, "request")


async def test_an_appeal_names_the_text_that_was_stopped_wherever_it_stood(callers: Callers, state: State) -> None:
    caller = await callers("refusal")
    messages = [{"role": "system", "content": BAD_REQUEST}, {"role": "user", "content": GOOD_REQUEST}]
    await caller.http.post(CHAT, json={"model": "m", "messages": messages})
    await caller.http.post("/appeals", json={"case_id": caller.case_id, "reason": "it is our own text"})
    (flag,) = await state.flags_of(caller.tenant)
    assert (flag.text, flag.side) == (BAD_REQUEST, "request")


async def test_a_text_is_flagged_in_words(callers: Callers, state: State) -> None:
    caller = await callers("refusal")
    id = await filed(caller, text=GOOD_REPLY, prompt=GOOD_REQUEST)
    (flag,) = await state.flags_of(caller.tenant)
    assert (flag.id, flag.text, flag.prompt, flag.side) == (id, *PAIR, "response")
    state_of_it = await caller.http.get(f"{FLAGS}/{id}")
    assert (state_of_it.status_code, state_of_it.json()) == (200, {"id": id, "state": "open"})


async def test_what_policy_flags_is_the_same_record(callers: Callers, state: State, upstream: ScriptedUpstream) -> None:
    caller = await callers("flag")
    upstream.on(CHAT, whole(chat_completion("Hello")))
    for _ in range(2):  # the same text twice is one flag
        assert (await caller.http.post(CHAT, json=asking(BAD_REQUEST))).status_code == 200
    (flag,) = await state.flags_of(caller.tenant)
    assert (flag.source, flag.side, flag.text, flag.hazard) == (
        "policy",
        "request",
        BAD_REQUEST,
        "indiscriminate_weapons",
    )
    assert (await caller.http.get(f"{FLAGS}/{flag.id}")).json()["state"] == "open"


async def test_an_idempotency_key_files_a_flag_once_and_another_body_under_it_is_409(
    callers: Callers, state: State
) -> None:
    caller, other = await callers("refusal"), await callers("refusal")
    ids = [await filed(caller, key="once", text="a") for _ in range(2)]
    ids += await asyncio.gather(*(filed(caller, key="once", text="a") for _ in range(8)))
    assert len(set(ids)) == 1
    assert_told(await file(caller, key="once", text="b"), 409, "conflict")
    assert await filed(other, key="once", text="b") not in ids  # another tenant's key is another key
    assert [flag.text for flag in await state.flags_of(caller.tenant)] == ["a"]
    assert len({await filed(caller, text="a") for _ in range(2)}) == 2  # without a key, each is its own


async def test_another_tenant_learns_nothing_of_a_flag_a_case_or_a_completion(
    callers: Callers, upstream: ScriptedUpstream
) -> None:
    caller, other = await callers("refusal"), await callers("refusal")
    upstream.on(CHAT, whole(chat_completion("Hello", id="chatcmpl-mine")))
    await caller.http.post(CHAT, json=asking())
    case_id = caller.case_id
    id = await filed(caller, case_id=case_id)
    theirs = assert_told(await other.http.get(f"{FLAGS}/{id}"), 404, "not_found")
    nobodys = assert_told(await other.http.get(f"{FLAGS}/flag_unknown"), 404, "not_found")
    assert theirs.replace(id, "") == nobodys.replace("flag_unknown", "")
    assert_told(await file(other, case_id=case_id), 404, "not_found")
    assert_told(await file(other, completion_id="chatcmpl-mine"), 404, "not_found")


MALFORMED: Final[dict[str, dict[str, Any]]] = {
    "nothing named": {},
    "no reason": {"text": "a", "reason": ""},
    "a wrong type": {"text": 7},
    "an unknown field": {"text": "a", "severity": "high"},
    "an unknown hazard": {"text": "a", "hazard": "boredom"},
    "an id that is none": {"case_id": "../../etc/passwd"},
    "a text too long": {"text": "x" * 100_001},
}


@pytest.mark.parametrize("fields", [*MALFORMED.values()], ids=[*MALFORMED])
async def test_a_flag_that_cannot_be_understood_is_400_and_not_kept(
    fields: dict[str, Any], callers: Callers, state: State
) -> None:
    caller = await callers("refusal")
    assert_told(await file(caller, **fields), 400, "invalid_request")
    assert await state.flags_of(caller.tenant) == []


# Quotas and retention.


@pytest.fixture(scope="session")
def strict(make_gateway: MakeGateway) -> RunningGateway:
    """A gateway that keeps no text of exchanges and takes few flags."""
    return make_gateway(
        RETENTION__EXCHANGE_TTL_S="0",
        FLAGS__PER_KEY_PER_HOUR=str(PER_KEY),
        FLAGS__PER_END_USER_PER_HOUR=str(PER_END_USER),
        UPSTREAM__API_KEY=UPSTREAM_KEY,
    )


@pytest.fixture
async def frugal(strict: RunningGateway) -> AsyncIterator[Caller]:
    """A new tenant of that gateway."""
    async with State.beside(strict.data_dir) as state:
        tenant, token = await state.new_key("refusal")
    caller = Caller(f"{strict.url}/v1", tenant, token)
    yield caller
    await caller.close()


async def test_a_key_may_file_so_many_flags_an_hour(frugal: Caller) -> None:
    for number in range(PER_KEY):
        await filed(frugal, text=str(number))
    refused = await file(frugal, text="one more")
    assert str(PER_KEY) in assert_told(refused, 429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 2 * 3600


async def test_an_end_user_may_file_so_many_flags_an_hour_and_others_still_may(frugal: Caller) -> None:
    for number in range(PER_END_USER):
        await filed(frugal, text=str(number), end_user="ada")
    assert_told(await file(frugal, text="one more", end_user="ada"), 429, "rate_limit_exceeded")
    await filed(frugal, text="one of another's", end_user="grace")


async def test_without_retention_no_text_is_kept_and_a_flag_by_id_has_none(
    frugal: Caller, strict: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("The marmalade reply.", id="chatcmpl-unkept")))
    await frugal.http.post(CHAT, json=asking("The marmalade question?", user="ada"))
    case_id = frugal.case_id
    async with State.beside(strict.data_dir) as state:
        assert await state.exchange(case_id) is None
        await filed(frugal, case_id=case_id)
        (flag,) = await state.flags_of(frugal.tenant)
    assert (flag.text, flag.case_id, flag.completion_id) == (None, case_id, "chatcmpl-unkept")
    assert found_on_disk(strict.data_dir, "marmalade") == []


def found_on_disk(folder: Path, word: str) -> list[Path]:
    """The files below ``folder`` in which ``word`` stands."""
    return [file for file in folder.rglob("*") if file.is_file() and word.encode() in file.read_bytes()]


async def test_erasing_a_person_removes_their_texts_everywhere_and_keeps_the_counts(
    gateway: RunningGateway, callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    asks, files, stays = await callers("refusal"), await callers("flag"), await callers("refusal")
    upstream.on(CHAT, whole(chat_completion("A gooseberry reply.")))
    await asks.http.post(CHAT, json=asking("A gooseberry question?", user="ada@example.org"))
    case_id = asks.case_id
    await filed(asks, case_id=case_id, end_user="gooseberry-ada")
    flagged = asking(f"{BAD_REQUEST} gooseberry", safety_identifier="gooseberry-ada")
    await files.http.post(CHAT, json=flagged)
    await filed(files, text="A gooseberry text.", corrected_answer="No gooseberry.", end_user="gooseberry-ada")
    upstream.on(CHAT, whole(chat_completion("An elderflower reply.")))
    await stays.http.post(CHAT, json=asking("An elderflower question?", user="grace"))
    assert (await state.exchange(case_id)) is not None
    assert (await state.exchange(stays.case_id)) is not None
    counts = await state.flags.counts()
    await state.redis.client.config_set("rdbcompression", "no")  # so that a text on the disk can be found by its words
    assert found_on_disk(gateway.data_dir, "gooseberry") != []

    for person in ("ada@example.org", "gooseberry-ada"):
        await asyncio.to_thread(gateway.command, "erase", "--end-user", person)

    assert found_on_disk(gateway.data_dir, "gooseberry") == []
    assert found_on_disk(gateway.data_dir, "elderflower") != []
    assert await state.exchange(case_id) is None
    assert (await state.case(case_id)).tenant == asks.tenant
    assert await state.flags.counts() == counts
    assert [flag.text for flag in await state.flags_of(files.tenant)] == [None, None]
    shown = await asyncio.to_thread(gateway.json, "cases", "show", case_id)
    assert (shown["exchange"], shown["end_user"]) == (None, None)
    assert "gooseberry" not in json.dumps(await asyncio.to_thread(gateway.json, "flags", "list"))


async def test_an_operator_sees_a_case_with_its_text_and_the_open_flags(
    gateway: RunningGateway, callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    caller = await callers("refusal")
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))
    await caller.http.post(CHAT, json=asking())
    case_id = caller.case_id
    await state.case(case_id)
    id = await filed(caller, case_id=case_id)
    shown = await asyncio.to_thread(gateway.json, "cases", "show", case_id)
    assert (shown["id"], shown["tenant"], shown["action"]) == (case_id, caller.tenant, "allow")
    assert shown["exchange"] == {"request": [["user", GOOD_REQUEST]], "reply": [GOOD_REPLY]}
    (listed,) = [flag for flag in await asyncio.to_thread(gateway.json, "flags", "list") if flag["id"] == id]
    assert (listed["tenant"], listed["text"], listed["state"]) == (caller.tenant, GOOD_REPLY, "open")
    assert GOOD_REPLY[:20] not in await asyncio.to_thread(gateway.command, "flags", "list")
