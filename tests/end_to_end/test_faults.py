"""The table of what may be wrong with the model server: its clear error, and that nothing is lost by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import openai
import pytest

from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import MakeGateway
from tests.end_to_end.exemplars import GOOD_REPLY
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking, assert_error, assert_still_serves, assert_told, raised_for
from tests.fakes import (
    CLOSE,
    CUT,
    HANG,
    Gate,
    Script,
    ScriptedUpstream,
    Step,
    cut,
    error,
    hang,
    raw,
    redirect,
    stream,
    whole,
)
from tests.transcripts import DONE, chat_completion, chat_stream, sse

MAX_REPLY_BYTES: Final = 20_000
MAX_EVENT_BYTES: Final = 4096
BREAKER_FAILURES: Final = 4
BREAKER_RESET_S: Final = 2.0
PATIENCE_S: Final = 30.0
OK: Final = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(scope="session")
def watched(make_gateway: MakeGateway) -> RunningGateway:
    """A gateway that soon gives a bad model server up."""
    return make_gateway(
        UPSTREAM__READ_TIMEOUT_S="1",
        UPSTREAM__CONNECT_RETRIES="0",
        UPSTREAM__MAX_REPLY_BYTES=str(MAX_REPLY_BYTES),
        UPSTREAM__MAX_EVENT_BYTES=str(MAX_EVENT_BYTES),
        UPSTREAM__BREAKER_FAILURES=str(BREAKER_FAILURES),
        UPSTREAM__BREAKER_RESET_S=str(BREAKER_RESET_S),
        STREAM__MAX_HOLD_MS="600000",
    )


@pytest.fixture
async def caller(watched: RunningGateway) -> AsyncIterator[Caller]:
    caller = Caller(f"{watched.url}/v1", "default", "sk-the-callers-own")
    yield caller
    await caller.close()


NO_ANSWER: Final = {
    "reset before the head": (cut(), 502, "upstream_unreachable"),
    "closed before the head": (raw(CLOSE), 502, "upstream_unreachable"),
    "closed inside the head": (raw(OK + b"content-type: appl", CLOSE), 502, "upstream_unreachable"),
    "never answered": (hang(), 504, "upstream_timeout"),
    "not HTTP": (raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", CLOSE), 502, "upstream_invalid"),
    "a redirect": (redirect("http://127.0.0.1:1/elsewhere"), 502, "upstream_invalid"),
    "compressed": (whole(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), 502, "upstream_invalid"),
}
"""What goes wrong before the model has said a word, and is told the same to those who want a stream."""

NO_REPLY: Final = {
    "cut off in the body": (raw(OK + b'content-length: 90\r\n\r\n{"id"', CUT), 502, "upstream_unreachable"),
    "silent in the body": (raw(OK + b'content-length: 90\r\n\r\n{"id"', HANG), 504, "upstream_timeout"),
    "not JSON": (whole(b"<html>It works!</html>"), 502, "upstream_invalid"),
    "no object": (whole([chat_completion("Hello")]), 502, "upstream_invalid"),
    "not UTF-8": (whole(b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'), 502, "upstream_invalid"),
    "of another shape": (whole({"choices": "Hello"}), 502, "upstream_invalid"),
    "too long": (whole(chat_completion("x" * MAX_REPLY_BYTES)), 502, "upstream_invalid"),
    "too long, by and by": (stream(*[b" " * 4096] * 8), 502, "upstream_invalid"),
    "empty": (whole(b""), 502, "upstream_invalid"),
}


@pytest.mark.parametrize(("script", "status", "code"), [*NO_ANSWER.values()], ids=[*NO_ANSWER])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_model_server_that_does_not_answer_is_told_as_such(
    script: Script, status: int, code: str, streamed: bool, caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, script)
    with pytest.raises(raised_for(status)) as raised:
        await caller.openai.chat.completions.create(**asking(stream=streamed))
    assert raised.value.status_code == status
    assert_error(caller.last.body, code)
    assert len(upstream.requests) == 1  # what may have reached a model is not sent again
    await assert_still_serves(caller, upstream)


@pytest.mark.parametrize(("script", "status", "code"), [*NO_REPLY.values()], ids=[*NO_REPLY])
async def test_a_reply_that_cannot_be_read_in_full_never_leaves(
    script: Script, status: int, code: str, caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, script)
    assert_told(await caller.http.post(CHAT, json=asking()), status, code)
    await assert_still_serves(caller, upstream)


async def test_a_model_server_that_refuses_connections_is_told_as_such(caller: Caller, upstream_port: int) -> None:
    for streamed in (False, True):
        reply = await caller.http.post(CHAT, json=asking(stream=streamed))
        message = assert_told(reply, 502, "upstream_unreachable")
        assert str(upstream_port) not in message  # the address is the operator's secret
    upstream = ScriptedUpstream()
    upstream.port = upstream_port
    async with upstream:
        await assert_still_serves(caller, upstream)


OWN_ERRORS: Final = {
    "unknown model": error(404, "The model `m` does not exist", code="model_not_found"),
    "bad request": error(400, "temperature is too high", code="invalid_value"),
    "unauthorized": error(401, "Incorrect API key provided", code="invalid_api_key"),
    "rate limit": error(429, "slow down", headers={"Retry-After": "7", "x-ratelimit-remaining-requests": "0"}),
    "server error": error(500, "the GPU is on fire"),
    "overloaded": error(503, "try later", headers={"Retry-After": "3"}),
    "not even JSON": whole(b"<h1>Bad gateway</h1>", status=502, headers={"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("script", [*OWN_ERRORS.values()], ids=[*OWN_ERRORS])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_the_model_servers_own_errors_arrive_as_they_are(
    script: Script, streamed: bool, caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, script)
    head, _, body = script.steps[0].partition(b"\r\n\r\n")  # type: ignore[union-attr]  # one write of bytes
    status = int(head.split()[1])
    with pytest.raises(raised_for(status)) as raised:
        await caller.openai.chat.completions.create(**asking(stream=streamed))
    assert (raised.value.status_code, caller.last.body) == (status, body)
    sent = dict(line.decode().lower().split(": ", 1) for line in head.split(b"\r\n")[1:])
    assert sent.items() <= caller.last.headers.items()
    await assert_still_serves(caller, upstream)


# Streams that break.

BEGUN: Final = GOOD_REPLY[:90]
UNSEEN: Final = "Xylophone"
"""Stands in the last characters of what the model said before it broke off: no window holds it yet."""

BREAKS: Final[dict[str, tuple[tuple[Step, ...], str]]] = {
    "reset": ((CUT,), "upstream_unreachable"),
    "closed": ((CLOSE,), "upstream_unreachable"),
    "silent": ((HANG,), "upstream_timeout"),
    "no JSON": ((b"data: {not json\n\n", DONE), "upstream_invalid"),
    "no object": ((b'data: "text"\n\n', DONE), "upstream_invalid"),
    "not UTF-8": ((b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n', DONE), "upstream_invalid"),
    "of another shape": ((sse({"choices": {"delta": "Hello"}}), DONE), "upstream_invalid"),
    "an event too large": ((sse({"padding": "x" * MAX_EVENT_BYTES}), DONE), "upstream_invalid"),
    "an event that never ends": ((b"data: " + b"x" * MAX_EVENT_BYTES, HANG), "upstream_invalid"),
}


def begun() -> list[bytes]:
    """A stream of which a first window may leave, and the end is still held."""
    return chat_stream(BEGUN + UNSEEN, done=False)[:-1]


async def listen(client: Any, said: list[str]) -> None:
    """Ask for a stream; what it says is added to ``said`` as it comes."""
    async for chunk in await client.chat.completions.create(**asking(stream=True)):
        said.append(chunk.choices[0].delta.content or "")  # noqa: PERF401  # what came before an error counts


def events(body: bytes) -> Iterable[bytes]:
    """The data of each event."""
    return (line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line.startswith(b"data: "))


@pytest.mark.parametrize(("fault", "code"), [*BREAKS.values()], ids=[*BREAKS])
async def test_a_stream_that_breaks_ends_in_an_error_and_withholds_what_was_not_screened(
    fault: tuple[Step, ...], code: str, caller: Caller, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.on(CHAT, stream(*begun(), gate, *fault))
    caller.on_first_bytes = gate.open
    said: list[str] = []
    with pytest.raises(openai.APIError) as raised:
        await listen(caller.openai, said)
    assert raised.value.code == code
    assert BEGUN.startswith("".join(said))
    assert len("".join(said)) > len(BEGUN) / 2
    assert_error([*events(caller.last.body)][-1], code)
    assert UNSEEN.encode() not in caller.last.body
    await upstream.last.ended()  # the connection is not left open
    await assert_still_serves(caller, upstream)


@pytest.mark.parametrize(("fault", "code"), [*BREAKS.values()], ids=[*BREAKS])
async def test_a_stream_that_breaks_before_its_first_window_is_an_error_with_a_status(
    fault: tuple[Step, ...], code: str, caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, stream(*chat_stream("Well", done=False)[:-1], *fault))
    reply = await caller.http.post(CHAT, json=asking(stream=True))
    assert_told(reply, 504 if code == "upstream_timeout" else 502, code)
    await assert_still_serves(caller, upstream)


async def test_a_stream_that_broke_is_counted_and_has_its_case(
    caller: Caller, watched: RunningGateway, upstream: ScriptedUpstream
) -> None:
    before = watched.metric("antiprompt_errors_total", code="upstream_unreachable")
    gate = Gate()
    upstream.on(CHAT, stream(*begun(), gate, CUT))
    caller.on_first_bytes = gate.open
    await caller.http.post(CHAT, json=asking(stream=True))
    assert watched.metric("antiprompt_errors_total", code="upstream_unreachable") == before + 1
    async with State.beside(watched.data_dir) as state:
        case = await state.case(caller.case_id)
    assert (case.action, case.unscreened) == ("error", "upstream_unreachable")
    assert (case.upstream_status, case.completion_id) == (200, "chatcmpl-1")


async def test_a_caller_who_leaves_in_mid_stream_closes_the_call_to_the_model(
    caller: Caller, watched: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, stream(*begun(), HANG))
    async with caller.http.stream("POST", CHAT, json=asking(stream=True)) as reply:
        await anext(reply.aiter_bytes())
    assert (await upstream.last.ended()).closed_early
    async with State.beside(watched.data_dir) as state:
        await state.case(caller.case_id)
    await assert_still_serves(caller, upstream)


async def test_a_caller_who_leaves_before_a_whole_reply_closes_the_call_to_the_model(
    caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, raw(OK + b'content-length: 90\r\n\r\n{"id"', HANG))
    asked = asyncio.create_task(caller.http.post(CHAT, json=asking()))
    received = await upstream.arrived()
    asked.cancel()
    assert (await received.ended()).closed_early
    await assert_still_serves(caller, upstream)


async def test_a_model_server_that_keeps_failing_is_left_alone_for_a_while_and_then_tried_again(
    caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, cut())
    for _ in range(BREAKER_FAILURES):
        assert_told(await caller.http.post(CHAT, json=asking()), 502, "upstream_unreachable")
    asked_s = upstream.last.arrived_at_s
    upstream.on(CHAT, whole(chat_completion("I am back.")))
    refusals = []
    async with asyncio.timeout(PATIENCE_S):
        while (reply := await caller.http.post(CHAT, json=asking())).status_code != 200:
            refusals.append(assert_told(reply, 502, "upstream_unreachable"))
            assert int(reply.headers["retry-after"]) >= 1
            await asyncio.sleep(0.05)
    # The first to be asked again was asked after the pause, and everybody before was refused without it.
    assert len(upstream.requests) == BREAKER_FAILURES + 1
    assert upstream.last.arrived_at_s - asked_s > BREAKER_RESET_S / 2
    assert all("keeps failing" in message for message in refusals)
    assert json.loads(caller.last.body)["choices"][0]["message"]["content"] == "I am back."
    await assert_still_serves(caller, upstream)
