"""What stands for text that the model server keeps: let through only where it was issued to this tenant, or is listed.

So nobody reads, or has the model read, what belongs to others, and nothing reaches the model unscreened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import openai
import pytest

from gateway.refusals import refusal_text
from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import Callers, MakeGateway
from tests.end_to_end.dialects import DIALECTS
from tests.end_to_end.exemplars import BAD_REPLY, BAD_REQUEST, GOOD_REPLY, GOOD_REQUEST, SAFE_ANSWER, TELL_TALE
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State
from tests.fakes import ScriptedUpstream, stream, whole
from tests.transcripts import response, response_stream

RESPONSES: Final = DIALECTS["responses"]
MINE: Final = "resp_mine"

Json = dict[str, Any]


@pytest.fixture
async def owner(callers: Callers, upstream: ScriptedUpstream) -> Caller:
    """A tenant to whom the model server has issued a response and a conversation."""
    caller = await callers("refusal")
    upstream.on("/responses", whole({**response(GOOD_REPLY, id=MINE), "conversation": {"id": "conv_mine"}}))
    await RESPONSES.hear(caller.openai, GOOD_REQUEST, store=True)
    return caller


# Continuing.


@pytest.mark.parametrize(
    "named", [{"previous_response_id": MINE}, {"conversation": "conv_mine"}, {"conversation": {"id": "conv_mine"}}]
)
async def test_a_response_is_continued_by_its_own_tenant_alone(
    named: Json, owner: Caller, callers: Callers, upstream: ScriptedUpstream
) -> None:
    heard = await RESPONSES.hear(owner.openai, "Go on.", **named)
    assert heard.said == (GOOD_REPLY,)
    assert upstream.last.json == {"model": "m", "input": "Go on.", **named}
    asked = len(upstream.requests)
    for stranger in (await callers("refusal"), await callers("shadow")):
        with pytest.raises(openai.NotFoundError) as raised:
            await RESPONSES.hear(stranger.openai, "Go on.", **named)
        assert raised.value.param == next(iter(named))
    assert len(upstream.requests) == asked


async def test_the_id_of_a_stream_may_be_continued_too(callers: Callers, upstream: ScriptedUpstream) -> None:
    caller = await callers("refusal")
    upstream.on("/responses", stream(*response_stream(GOOD_REPLY, id="resp_streamed")), whole(response(GOOD_REPLY)))
    await RESPONSES.hear_stream(caller.openai, GOOD_REQUEST)
    heard = await RESPONSES.hear(caller.openai, "Go on.", previous_response_id="resp_streamed")
    assert heard.said == (GOOD_REPLY,)


async def test_what_continues_a_response_is_screened(owner: Caller, upstream: ScriptedUpstream) -> None:
    asked = len(upstream.requests)
    heard = await RESPONSES.hear(owner.openai, BAD_REQUEST, previous_response_id=MINE)
    assert heard.endings == ("content_filter",)
    assert len(upstream.requests) == asked


# Reading what is stored.


async def test_a_stored_response_is_read_and_deleted_by_its_own_tenant_alone(
    owner: Caller, callers: Callers, upstream: ScriptedUpstream
) -> None:
    items = {"object": "list", "data": [{"type": "message", "role": "user", "content": GOOD_REQUEST}]}
    upstream.on(f"/responses/{MINE}", whole(response(GOOD_REPLY, id=MINE)))
    upstream.on(f"/responses/{MINE}/input_items", whole(items))
    assert (await owner.openai.responses.retrieve(MINE)).output_text == GOOD_REPLY
    assert (await owner.openai.responses.input_items.list(MINE)).data[0].content == GOOD_REQUEST
    upstream.on(f"/responses/{MINE}", whole({"id": MINE, "object": "response", "deleted": True}))
    await owner.openai.responses.delete(MINE)
    assert [asked.method for asked in upstream.requests[1:]] == ["GET", "GET", "DELETE"]

    asked, stranger = len(upstream.requests), (await callers("refusal")).openai.responses
    for call in (stranger.retrieve, stranger.delete, stranger.cancel, stranger.input_items.list):
        with pytest.raises(openai.NotFoundError):
            await call(MINE)
    assert len(upstream.requests) == asked


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_stored_response_is_screened_when_it_is_read(
    streamed: bool, owner: Caller, upstream: ScriptedUpstream, state: State
) -> None:
    events = stream(*response_stream(BAD_REPLY, id=MINE, size=len(BAD_REPLY)))
    upstream.on(f"/responses/{MINE}", events if streamed else whole(response(BAD_REPLY, id=MINE)))
    reply = await owner.http.get(f"/responses/{MINE}", params={"stream": "true"} if streamed else None)
    assert reply.status_code == 200
    assert refusal_text(["indiscriminate_weapons"], "en") in reply.text
    assert TELL_TALE not in reply.text
    assert upstream.last.query == ("stream=true" if streamed else "")
    case = await state.case(owner.case_id)
    assert (case.action, case.side, case.surface) == ("block", "response", "responses")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_stored_response_is_replaced_and_not_asked_for_anew(
    streamed: bool, callers: Callers, upstream: ScriptedUpstream
) -> None:
    owner = await callers("regenerate")
    upstream.on("/responses", whole(response(GOOD_REPLY, id=MINE)))
    await RESPONSES.hear(owner.openai, GOOD_REQUEST)
    events = stream(*response_stream(BAD_REPLY, id=MINE))
    upstream.on(f"/responses/{MINE}", events if streamed else whole(response(BAD_REPLY, id=MINE)))
    reply = await owner.http.get(f"/responses/{MINE}", params={"stream": "true"} if streamed else None)
    assert SAFE_ANSWER in reply.text
    assert TELL_TALE not in reply.text
    assert [asked.method for asked in upstream.requests] == ["POST", "GET"]


# What runs or is kept upstream, and must be listed.

LISTABLE: Final[list[Any]] = [
    pytest.param("/responses", {"tools": [{"type": "web_search"}]}, "tools", id="hosted tool"),
    pytest.param("/chat/completions", {"web_search_options": {}}, "tools", id="hosted tool of chat"),
    pytest.param("/responses", {"prompt": {"id": "pmpt_1"}}, "prompt", id="stored prompt"),
    pytest.param("/responses", {"background": True}, "background", id="background"),
]


def _body(path: str, more: Json) -> Json:
    dialect = next(dialect for dialect in DIALECTS.values() if dialect.surface.path == path)
    return {**dialect.request(GOOD_REQUEST), **more}


@pytest.mark.parametrize(("path", "more", "param"), LISTABLE)
async def test_what_runs_upstream_is_refused(
    path: str, more: Json, param: str, callers: Callers, upstream: ScriptedUpstream
) -> None:
    caller = await callers("refusal")
    reply = await caller.http.post(path, json=_body(path, more))
    assert (reply.status_code, reply.json()["error"]["param"]) == (403, param)
    assert not upstream.requests


@pytest.fixture(scope="module")
def listing(make_gateway: MakeGateway) -> RunningGateway:
    """A gateway without client keys whose operator trusts some of what the model server does."""
    return make_gateway(
        ROUTES__HOSTED_TOOLS='["web_search"]',
        ROUTES__STORED_PROMPTS='["pmpt_1"]',
        ROUTES__CONVERSATIONS='["conv_shared"]',
        ROUTES__BACKGROUND="true",
        ROUTES__PASSED_THROUGH='["GET /v1/files", "GET /v1/batches/*"]',
    )


@pytest.fixture
async def trusted(listing: RunningGateway) -> AsyncIterator[Caller]:
    caller = Caller(f"{listing.url}/v1", "default", "sk-of-the-caller")
    yield caller
    await caller.close()


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [*LISTABLE, pytest.param("/responses", {"conversation": "conv_shared"}, "", id="conversation")],
)
async def test_what_is_listed_goes_through(
    path: str, more: Json, param: str, trusted: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on("/responses", whole(response(GOOD_REPLY)))
    upstream.on("/chat/completions", DIALECTS["chat"].script(GOOD_REPLY))
    reply = await trusted.http.post(path, json=_body(path, more))
    assert reply.status_code == 200
    assert upstream.last.json == _body(path, more)


@pytest.mark.parametrize(
    "more",
    [{"tools": [{"type": "web_search"}, {"type": "code_interpreter"}]}, {"prompt": {"id": "pmpt_2"}}],
)
async def test_what_is_not_listed_is_refused_beside_what_is(
    more: Json, trusted: Caller, upstream: ScriptedUpstream
) -> None:
    reply = await trusted.http.post("/responses", json=_body("/responses", more))
    assert reply.status_code == 403
    assert not upstream.requests


async def test_a_route_that_no_surface_knows_passes_where_it_is_listed(
    trusted: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on("/files", whole({"data": []}))
    upstream.on("/batches/b_1/results", whole(b"raw \x00 bytes"))
    assert (await trusted.http.get("/files", params={"limit": 2})).json() == {"data": []}
    assert upstream.last.query == "limit=2"
    assert upstream.last.headers["authorization"] == "Bearer sk-of-the-caller"
    assert (await trusted.http.get("/batches/b_1/results")).content == b"raw \x00 bytes"
    for method, path in (("POST", "/files"), ("GET", "/files/f_1"), ("GET", "/batches")):
        refused = await trusted.http.request(method, path)
        assert refused.status_code in (404, 405)
        assert refused.json()["error"]["type"] == "invalid_request_error"
    assert len(upstream.requests) == 2
