"""The official client, sync and async, gets through the gateway what it gets without it.

Most tests here ask the model server twice, once directly and once through the gateway, and compare what the client
returns or raises, and what the model server received.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import openai
import pytest
from pydantic import BaseModel

from antiprompt_bank.hazards import OPENAI_CATEGORIES
from tests.end_to_end.conftest import UPSTREAM_KEY, Callers
from tests.end_to_end.exemplars import BAD_REPLY, BAD_REQUEST, GOOD_REPLY, GOOD_REQUEST, TELL_TALE
from tests.end_to_end.official import Method, Official
from tests.end_to_end.uses import CHAT, LOAF, UPSTREAM_HEADERS, USES, Loaf
from tests.fakes import Received, ScriptedUpstream, error, hang, stream, whole
from tests.transcripts import chat_completion, chat_stream, response, response_stream, sse

BAD_CHAT: Final = {"model": "m", "messages": [{"role": "user", "content": BAD_REQUEST}]}


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Which of the two clients a test uses; it runs with each."""
    return bool(request.param == "async")


@pytest.fixture
async def clients(is_async: bool, callers: Callers, upstream: ScriptedUpstream) -> AsyncIterator[list[Official]]:
    """One that asks the model server itself, and one that asks through the gateway."""
    caller = await callers("refusal")
    async with AsyncExitStack() as stack:
        made = []
        for base_url in (upstream.base_url, str(caller.openai.base_url)):
            made.append(Official(base_url, caller.token, is_async=is_async))
            stack.push_async_callback(made[-1].close)
        yield made


@pytest.fixture
def through(clients: list[Official]) -> Official:
    """The one that asks through the gateway."""
    return clients[1]


@pytest.fixture
async def strict(is_async: bool, callers: Callers) -> AsyncIterator[Official]:
    """One whose policy blocks with errors."""
    caller = await callers("error")
    official = Official(str(caller.openai.base_url), caller.token, is_async=is_async)
    yield official
    await official.close()


@pytest.mark.parametrize("name", USES)
async def test_requests_and_replies_are_what_they_are_without_the_gateway(
    name: str, clients: list[Official], upstream: ScriptedUpstream
) -> None:
    use = USES[name]
    upstream.on(use.path, use.script)
    direct, through = [_seen(await use.call(official)) for official in clients]
    assert direct
    assert through == direct
    _check_same_request(*upstream.requests)


def _seen(result: Any) -> Any:
    """What a user can see of a result, comparable."""
    if isinstance(result, list):
        return [_seen(item) for item in result]
    if isinstance(result, BaseModel):
        # Parsed replies hold models that the client's own classes do not declare.
        return type(result).__name__, result.model_dump(warnings=False), getattr(result, "_request_id", None)
    return result.content


_OF_THE_CONNECTION: Final = {"host", "connection", "content-length", "accept-encoding", "transfer-encoding"}


def _check_same_request(direct: Received, through: Received) -> None:
    """Line, headers and body are the same, but for what belongs to a connection, and for the key."""
    assert (through.method, through.path, through.query) == (direct.method, direct.path, direct.query)
    assert through.body == direct.body
    sent, passed_on = (
        {name: value for name, value in each.headers.items() if name not in _OF_THE_CONNECTION}
        for each in (direct, through)
    )
    assert passed_on == {**sent, "authorization": f"Bearer {UPSTREAM_KEY}"}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_reply_headers_arrive_and_the_gateway_adds_its_own(
    streamed: bool, clients: list[Official], upstream: ScriptedUpstream
) -> None:
    answer = stream(*chat_stream(GOOD_REPLY), headers=UPSTREAM_HEADERS)
    upstream.on(
        "/chat/completions", answer if streamed else whole(chat_completion(GOOD_REPLY), headers=UPSTREAM_HEADERS)
    )
    direct, through = [
        dict((await each.ask(lambda c: c.chat.completions.with_raw_response.create(**CHAT, stream=streamed))).headers)
        for each in clients
    ]
    assert UPSTREAM_HEADERS.items() <= direct.items()
    assert through.pop("x-antiprompt-case")
    assert through.pop("x-antiprompt-action") == "allow"
    for headers in (direct, through):
        for name in (*_OF_THE_CONNECTION, "date"):
            headers.pop(name, None)
    assert through == direct


async def test_sound_can_be_read_as_it_comes(through: Official, upstream: ScriptedUpstream) -> None:
    upstream.on("/audio/speech", whole(bytes(range(256)), headers={"Content-Type": "audio/mpeg"}))
    speak = {"model": "m", "voice": "alloy", "input": GOOD_REPLY}
    heard = await through.follow_bytes(lambda c: c.audio.speech.with_streaming_response.create(**speak))
    assert heard == bytes(range(256))


# What goes wrong.

ERRORS: Final = {
    "wrong parameter": error(400, "temperature must be at most 2", code="invalid_value"),
    "wrong key": error(401, "Incorrect API key provided", code="invalid_api_key"),
    "not allowed": error(403, "This model is not for you"),
    "unknown model": error(404, "The model m does not exist", code="model_not_found"),
    "conflict": error(409, "Already running"),
    "not understood": error(422, "Unprocessable"),
    "too many": error(429, "Slow down", code="rate_limit_exceeded", headers={"retry-after": "7", **UPSTREAM_HEADERS}),
    "out of money": error(429, "You exceeded your quota", code="insufficient_quota"),
    "broken": error(500, "The server had an error", headers=UPSTREAM_HEADERS),
    "overloaded": error(503, "Try again", headers={"retry-after": "30"}),
    "another shape": whole({"detail": [{"loc": ["body", "n"], "msg": "wrong"}]}, status=422),
    "a page": whole(b"<h1>Bad gateway</h1>", status=502, headers={"Content-Type": "text/html"}),
    "nothing": whole(b"", status=500),
    "an odd status": error(529, "Overloaded"),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ERRORS)
async def test_errors_are_raised_as_without_the_gateway(
    name: str, streamed: bool, clients: list[Official], upstream: ScriptedUpstream
) -> None:
    upstream.on("/chat/completions", ERRORS[name])
    direct, through = [
        await _raised(each, lambda c: c.chat.completions.create(**CHAT, stream=streamed)) for each in clients
    ]
    assert _facts(through) == _facts(direct)
    assert len(upstream.requests) == 2
    for header in ("retry-after", "content-type", *UPSTREAM_HEADERS):
        assert through.response.headers.get(header) == direct.response.headers.get(header)
    assert through.response.content == direct.response.content


async def _raised(official: Official, method: Method) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as raised:
        await official.ask(method)
    return raised.value


def _facts(error: openai.APIError) -> dict[str, Any]:
    return {"kind": type(error), "message": str(error), **{k: v for k, v in vars(error).items() if k not in _HTTP}}


_HTTP: Final = ("request", "response")


async def test_an_error_in_a_stream_is_raised(clients: list[Official], upstream: ScriptedUpstream) -> None:
    broken = sse({"error": {"message": "The engine is gone", "type": "server_error", "code": "gone", "param": None}})
    upstream.on("/chat/completions", stream(*chat_stream(GOOD_REPLY)[:40], broken))
    facts = []
    for each in clients:
        with pytest.raises(openai.APIError) as raised:
            await each.read(lambda c: c.chat.completions.create(**CHAT, stream=True))
        facts.append(_facts(raised.value))
    assert facts[1] == facts[0]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_what_the_client_tries_again_reaches_the_model_again(
    status: int, streamed: bool, through: Official, upstream: ScriptedUpstream
) -> None:
    answer = stream(*chat_stream(GOOD_REPLY)) if streamed else whole(chat_completion(GOOD_REPLY))
    upstream.on("/chat/completions", error(status, headers={"retry-after-ms": "1"}), answer)
    patient = through.with_options(max_retries=1)
    if streamed:
        chunks = await patient.read(lambda c: c.chat.completions.create(**CHAT, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == GOOD_REPLY
    else:
        assert (await patient.ask(lambda c: c.chat.completions.create(**CHAT))).choices[0].message.content == GOOD_REPLY
    assert [each.headers["x-stainless-retry-count"] for each in upstream.requests] == ["0", "1"]


async def test_the_model_server_may_forbid_a_second_try(through: Official, upstream: ScriptedUpstream) -> None:
    upstream.on(
        "/chat/completions", error(500, headers={"x-should-retry": "false"}), whole(chat_completion(GOOD_REPLY))
    )
    await _raised(through.with_options(max_retries=3), lambda c: c.chat.completions.create(**CHAT))
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_client_that_loses_patience_leaves_the_model_too(
    streamed: bool, through: Official, upstream: ScriptedUpstream
) -> None:
    upstream.on("/chat/completions", hang())
    hasty = through.with_options(timeout=1.0)
    with pytest.raises(openai.APITimeoutError):
        await hasty.ask(lambda c: c.chat.completions.create(**CHAT, stream=streamed))
    assert (await upstream.last.ended()).closed_early


# What policy stops.


async def test_a_blocked_chat_is_a_refusal(through: Official, upstream: ScriptedUpstream) -> None:
    reply = await through.ask(lambda c: c.chat.completions.with_raw_response.create(**BAD_CHAT, n=2))
    assert reply.headers["x-antiprompt-action"] == "block"
    assert reply.headers["x-antiprompt-case"]
    completion = reply.parse()
    assert [choice.finish_reason for choice in completion.choices] == ["content_filter", "content_filter"]
    assert all(choice.message.content and not choice.message.tool_calls for choice in completion.choices)
    assert not upstream.requests


async def test_a_blocked_stream_is_a_refusal(through: Official, upstream: ScriptedUpstream) -> None:
    chunks = await through.read(lambda c: c.chat.completions.create(**BAD_CHAT, stream=True))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices)
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["content_filter"]
    assert not upstream.requests


async def test_the_helpers_for_parsing_and_streams_raise_what_they_have_for_filtered_replies(
    through: Official, upstream: ScriptedUpstream
) -> None:
    loaf = Loaf(name=BAD_REPLY, minutes=LOAF.minutes).model_dump_json()
    upstream.on("/chat/completions", whole(chat_completion(loaf)), stream(*chat_stream(loaf, size=len(loaf))))
    with pytest.raises(openai.ContentFilterFinishReasonError):
        await through.ask(lambda c: c.chat.completions.parse(**CHAT, response_format=Loaf))
    with pytest.raises(openai.ContentFilterFinishReasonError):
        await through.follow(lambda c: c.chat.completions.stream(**CHAT, response_format=Loaf), "get_final_completion")
    assert len(upstream.requests) == 2


async def test_a_blocked_response_is_incomplete(through: Official, upstream: ScriptedUpstream) -> None:
    upstream.on("/responses", whole(response(BAD_REPLY)), stream(*response_stream(BAD_REPLY)))
    ask = {"model": "m", "input": GOOD_REQUEST}
    reply = await through.ask(lambda c: c.responses.create(**ask))
    events = await through.read(lambda c: c.responses.create(**ask, stream=True))
    assert events[-1].type == "response.incomplete"
    for each in (reply, events[-1].response):
        assert (each.status, each.incomplete_details.reason) == ("incomplete", "content_filter")
        assert TELL_TALE not in each.to_json()
    parsed = await through.ask(lambda c: c.responses.parse(model="m", input=BAD_REQUEST, text_format=Loaf))
    assert parsed.output_parsed is None
    assert parsed.incomplete_details.reason == "content_filter"


BLOCKED: Final[dict[str, Method]] = {
    "chat": lambda c: c.chat.completions.create(**BAD_CHAT),
    "chat stream": lambda c: c.chat.completions.create(**BAD_CHAT, stream=True),
    "completion": lambda c: c.completions.create(model="m", prompt=BAD_REQUEST),
    "response": lambda c: c.responses.create(model="m", input=BAD_REQUEST),
    "response stream": lambda c: c.responses.create(model="m", input=BAD_REQUEST, stream=True),
    "embedding": lambda c: c.embeddings.create(model="m", input=BAD_REQUEST),
    "image": lambda c: c.images.generate(model="m", prompt=BAD_REQUEST),
    "speech": lambda c: c.audio.speech.create(model="m", voice="alloy", input=BAD_REQUEST),
}


@pytest.mark.parametrize("name", BLOCKED)
async def test_a_block_in_the_error_style_is_a_bad_request(
    name: str, strict: Official, upstream: ScriptedUpstream
) -> None:
    raised = await _raised(strict.with_options(max_retries=2), BLOCKED[name])
    assert isinstance(raised, openai.BadRequestError)
    assert (raised.code, raised.type) == ("content_filter", "invalid_request_error")
    assert raised.response.headers["x-antiprompt-case"] in raised.message
    assert TELL_TALE not in raised.message
    assert not upstream.requests


# What the gateway answers or keeps.


async def test_moderations_are_answered_here(through: Official, upstream: ScriptedUpstream) -> None:
    reply = await through.ask(lambda c: c.moderations.create(input=[GOOD_REQUEST, BAD_REQUEST]))
    assert [result.flagged for result in reply.results] == [False, True]
    for result in reply.results:
        scores = result.category_scores.to_dict()
        assert set(result.categories.to_dict()) == set(scores) == set(OPENAI_CATEGORIES)
        assert set(scores.values()) <= {0.0, 1.0}
    assert reply.id.startswith("modr-")
    assert not upstream.requests


async def test_a_response_is_continued_read_and_deleted_by_its_id(
    through: Official, upstream: ScriptedUpstream, callers: Callers
) -> None:
    upstream.on("/responses", whole(response("Flour.", id="resp_9")), whole(response("Water.", id="resp_10")))
    first = await through.ask(lambda c: c.responses.create(model="m", input=GOOD_REQUEST))
    second = await through.ask(
        lambda c: c.responses.create(model="m", input="And then?", previous_response_id=first.id)
    )
    assert second.output_text == "Water."
    assert upstream.last.json["previous_response_id"] == "resp_9"
    upstream.on("/responses/resp_9", whole(response("Flour.", id="resp_9")))
    assert (await through.ask(lambda c: c.responses.retrieve("resp_9"))).output_text == "Flour."
    asked = len(upstream.requests)
    stranger = await callers("refusal")
    with pytest.raises(openai.NotFoundError):
        await stranger.openai.responses.retrieve("resp_9")
    with pytest.raises(openai.APIStatusError):
        await stranger.openai.responses.create(model="m", input="And then?", previous_response_id="resp_9")
    assert len(upstream.requests) == asked
    await through.ask(lambda c: c.responses.delete("resp_9"))
    assert (upstream.last.method, upstream.last.path) == ("DELETE", "/v1/responses/resp_9")


async def test_a_wrong_key_is_an_authentication_error(through: Official, upstream: ScriptedUpstream) -> None:
    raised = await _raised(through.with_options(api_key="sk-wrong"), lambda c: c.chat.completions.create(**CHAT))
    assert isinstance(raised, openai.AuthenticationError)
    assert raised.code == "invalid_api_key"
    assert not upstream.requests
