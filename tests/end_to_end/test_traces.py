"""A gateway with traces on: each request is one trace in a real collector, from its key to its last byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest

from tests.collector import Collector, Received
from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import UPSTREAM_KEY, MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REPLY, GOOD_REQUEST
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, stream, whole
from tests.transcripts import chat_completion, chat_stream

END_USER: Final = "somebody@example.org"
MODEL: Final = "what-the-caller-calls-it"
CALLERS: Final = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


@pytest.fixture(scope="module")
def traced(make_gateway: MakeGateway, collector: Collector) -> Iterator[RunningGateway]:
    made = make_gateway(
        UPSTREAM__API_KEY=UPSTREAM_KEY,
        STREAM__MAX_HOLD_MS="600000",
        TRACING__ENDPOINT=collector.url,
        TRACING__SEND_EVERY_S="0.05",
        TRACING__FROM_CALLERS="true",
        TRACING__TO_UPSTREAM="true",
    )
    yield made
    made.close()


@pytest.fixture
async def caller(traced: RunningGateway) -> AsyncIterator[Caller]:
    async with State.beside(traced.data_dir) as state:
        tenant, token = await state.new_key("refusal")
    caller = Caller(f"{traced.url}/v1", tenant, token)
    yield caller
    await caller.close()


async def the_trace(collector: Collector, caller: Caller) -> tuple[Received, list[Received]]:
    """The root and the steps of the caller's last request."""
    root = await asyncio.to_thread(collector.root_with, "antiprompt.case", caller.case_id)
    return root, collector.of(root)


async def test_a_request_is_traced_from_its_key_to_its_answer_and_the_case_names_the_trace(
    traced: RunningGateway, collector: Collector, caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))
    await caller.http.post(CHAT, json={**asking(GOOD_REQUEST), "model": MODEL, "safety_identifier": END_USER})
    root, steps = await the_trace(collector, caller)
    names = [each.name for each in steps]
    screened = ["views", "queue", "encode", "search", "decide"]
    assert names == ["auth", *screened, "upstream", *screened]
    assert all(root.began_ns <= each.began_ns <= each.ended_ns <= root.ended_ns for each in steps)
    assert (root.name, root.values["http.response.status_code"]) == ("/v1/chat/completions", 200)
    assert (root.values["antiprompt.action"], root.values["antiprompt.tenant"]) == ("allow", caller.tenant)
    case = await asyncio.to_thread(traced.json, "cases", "show", caller.case_id)
    assert case["trace_id"] == root.trace
    lines = [json.loads(line) for line in traced.log().splitlines() if line.startswith("{")]
    assert [line["trace"] for line in lines if line.get("case") == caller.case_id] == [root.trace]
    asked = next(each for each in steps if each.name == "upstream")
    assert upstream.last.headers["traceparent"] == f"00-{root.trace}-{asked.id}-{'03' if root.parent == '' else '01'}"


async def test_a_blocked_request_ends_at_the_decision(
    collector: Collector, caller: Caller, upstream: ScriptedUpstream
) -> None:
    await caller.http.post(CHAT, json=asking(BAD_REQUEST))
    root, steps = await the_trace(collector, caller)
    assert [each.name for each in steps] == ["auth", "views", "queue", "encode", "search", "decide"]
    assert root.values["antiprompt.action"] == "block"
    assert root.values["antiprompt.hazard"] == "indiscriminate_weapons"


async def test_a_stream_tells_how_long_text_was_held_and_goes_on_with_the_callers_trace(
    collector: Collector, caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, stream(*chat_stream(GOOD_REPLY * 2)))
    head = {"traceparent": f"00-{CALLERS}-b7ad6b7169203331-01", "baggage": "k=v"}
    await caller.http.post(CHAT, json={**asking(GOOD_REQUEST), "stream": True}, headers=head)
    root, steps = await the_trace(collector, caller)
    assert (root.trace, root.parent) == (CALLERS, "b7ad6b7169203331")
    (held,) = [each for each in steps if each.name == "hold-back"]
    assert held.values["antiprompt.releases"] > 1
    assert held.values["antiprompt.held_ms"] > 0
    assert held.ended_ns <= root.ended_ns
    assert [each.name for each in steps].count("search") > 2  # a window at a time
    assert upstream.last.headers["traceparent"].split("-")[1] == CALLERS
    assert upstream.last.headers["baggage"] == "k=v"


async def test_nothing_that_anybody_wrote_is_in_a_trace(
    collector: Collector, caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))
    await caller.http.post(CHAT, json={**asking(GOOD_REQUEST), "model": MODEL, "safety_identifier": END_USER})
    await the_trace(collector, caller)
    await caller.http.post("/chat/" + MODEL, json={})  # no such route: its path is the caller's words
    unknown = await asyncio.to_thread(collector.root_with, "http.response.status_code", 404)
    upstream.on(f"/models/{MODEL}", whole({"id": MODEL}, status=403))
    await caller.http.get(f"/models/{MODEL}")
    model = await asyncio.to_thread(collector.root_with, "http.response.status_code", 403)
    assert (unknown.name, model.name) == ("request", "/v1/models/{model}")
    sent = b"".join(collector.bodies)
    token = caller.token.encode()
    for private in (b"bread", b"flour", b"anthrax", MODEL.encode(), END_USER.encode(), token, UPSTREAM_KEY.encode()):
        assert private not in sent
    assert b"antiprompt.case" in sent
