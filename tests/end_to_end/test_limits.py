"""The table of every limit on what a caller may ask for: its clear error, and that nothing is lost by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import pytest

from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REQUEST
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.told import CHAT, asking, assert_error, assert_still_serves, assert_told, raised_for
from tests.fakes import Gate, ScriptedUpstream, raw, whole
from tests.transcripts import chat_completion

MAX_BODY_BYTES: Final = 20_000
MAX_HEADER_BYTES: Final = 2048
MAX_DEPTH: Final = 8
MAX_TEXTS: Final = 5
MAX_WINDOWS: Final = 6
MAX_QUEUE_WINDOWS: Final = 3
MAX_CONCURRENT: Final = 4
PATIENCE_S: Final = 30.0

JSON: Final = {"content-type": "application/json"}


POLICY: Final = """
block_style: error
on_unavailable: {input: allow, output: allow}
rules: [{name: block, hazard: "*", side: any, risk_at_least: 0.9, action: block}]
"""
"""Lets pass what cannot be screened, which a full queue is no case of."""


@pytest.fixture(scope="session")
def narrow(make_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory) -> RunningGateway:
    """A gateway whose limits are all near, without client keys."""
    policy_file = tmp_path_factory.mktemp("narrow") / "policy.yaml"
    policy_file.write_text(POLICY, "utf-8")
    return make_gateway(
        POLICY_FILE=str(policy_file),
        LIMITS__MAX_BODY_BYTES=str(MAX_BODY_BYTES),
        LIMITS__MAX_HEADER_BYTES=str(MAX_HEADER_BYTES),
        LIMITS__MAX_JSON_DEPTH=str(MAX_DEPTH),
        LIMITS__MAX_TEXTS=str(MAX_TEXTS),
        LIMITS__MAX_CONCURRENT=str(MAX_CONCURRENT),
        LIMITS__BODY_TIMEOUT_S="0.2",
        SCREENING__MAX_WINDOWS=str(MAX_WINDOWS),
        SCREENING__MAX_QUEUE_WINDOWS=str(MAX_QUEUE_WINDOWS),
    )


@pytest.fixture
async def caller(narrow: RunningGateway) -> AsyncIterator[Caller]:
    caller = Caller(f"{narrow.url}/v1", "default", "sk-the-callers-own")
    yield caller
    await caller.close()


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else "leaf"


def body(**more: Any) -> bytes:
    return json.dumps(asking(**more)).encode()


BODIES: Final[dict[str, tuple[bytes, int, str]]] = {
    "empty": (b"", 400, "invalid_request"),
    "no JSON": (b'{"model": "m", "messages": [', 400, "invalid_request"),
    "no object": (b'["model", "m"]', 400, "invalid_request"),
    "not UTF-8": (b'{"model": "m", "messages": [{"role": "user", "content": "\xc3\x28"}]}', 400, "invalid_request"),
    "half a surrogate pair": (rb'{"messages": [{"role": "user", "content": "\ud800"}]}', 400, "invalid_request"),
    "NaN": (b'{"model": "m", "messages": [], "temperature": NaN}', 400, "invalid_request"),
    "UTF-16": (json.dumps(asking()).encode("utf-16"), 400, "invalid_request"),
    "messages of a wrong type": (body(messages="Hello"), 400, "invalid_request"),
    "a message of a wrong type": (body(messages=["Hello"]), 400, "invalid_request"),
    "content of a wrong type": (body(messages=[{"role": "user", "content": 7}]), 400, "invalid_request"),
    "a part of an unknown kind": (
        body(messages=[{"role": "user", "content": [{"type": "hologram", "data": "x"}]}]),
        400,
        "unscreenable_content",
    ),
    # Odd, but a string is a string, and a lenient model server would read it.
    "text in place of parts": (body(messages=[{"role": "user", "content": [BAD_REQUEST]}]), 400, "content_filter"),
    "text in place of tools": (body(tools=BAD_REQUEST), 400, "content_filter"),
    "text in a field unknown": (body(hint={"deep": [BAD_REQUEST]}), 400, "content_filter"),
    "too large": (body(padding="x" * MAX_BODY_BYTES), 413, "request_too_large"),
    "nested too deeply": (body(padding=nested(MAX_DEPTH)), 413, "request_too_large"),
    "nested a thousandfold": (b'{"a":' * 900 + b"1" + b"}" * 900, 413, "request_too_large"),
    "too many texts": (
        body(messages=[{"role": "user", "content": str(n)} for n in range(MAX_TEXTS + 1)]),
        413,
        "request_too_large",
    ),
    "too many windows": (
        body(text=" ".join(f"Loaf {n} weighs {n * n} grams." for n in range(200))),
        413,
        "request_too_large",
    ),
}


@pytest.mark.parametrize(("content", "status", "code"), [*BODIES.values()], ids=[*BODIES])
async def test_a_body_that_cannot_be_taken_is_told_as_such_and_goes_no_further(
    content: bytes, status: int, code: str, caller: Caller, upstream: ScriptedUpstream
) -> None:
    assert_told(await caller.http.post(CHAT, content=content, headers=JSON), status, code)
    assert upstream.requests == []
    await assert_still_serves(caller, upstream)


async def test_a_body_in_pieces_is_stopped_as_soon_as_it_is_too_large(
    caller: Caller, upstream: ScriptedUpstream
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b" " * (MAX_BODY_BYTES // 4)

    assert_told(await caller.http.post(CHAT, content=pieces(), headers=JSON), 413, "request_too_large")
    await assert_still_serves(caller, upstream)


async def test_a_compressed_body_is_refused_unread(caller: Caller, upstream: ScriptedUpstream) -> None:
    reply = await caller.http.post(CHAT, content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"})
    assert "gzip" in assert_told(reply, 400, "invalid_request")
    assert upstream.requests == []


async def test_what_nests_just_within_the_limit_travels_unchanged(caller: Caller, upstream: ScriptedUpstream) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello")))
    asked = asking(padding=nested(MAX_DEPTH - 2))
    assert (await caller.http.post(CHAT, json=asked)).status_code == 200
    assert upstream.last.json == asked


async def test_of_a_key_that_stands_twice_the_last_is_screened_and_sent(
    caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello")))
    good, bad = (json.dumps(asking(text)["messages"]) for text in (GOOD_REQUEST, BAD_REQUEST))
    hidden = f'{{"model": "m", "messages": {good}, "messages": {bad}}}'
    assert_told(await caller.http.post(CHAT, content=hidden.encode(), headers=JSON), 400, "content_filter")
    assert upstream.requests == []
    shown = f'{{"model": "m", "messages": {bad}, "messages": {good}}}'
    assert (await caller.http.post(CHAT, content=shown.encode(), headers=JSON)).status_code == 200
    assert upstream.last.body.count(b'"messages"') == 1
    assert upstream.last.json == asking(GOOD_REQUEST)


ROUTES: Final = {
    "an unknown route": ("POST", "/assistants", 404, "unknown_route"),
    "an unknown stored reply": ("GET", "/responses/resp_unknown", 404, "not_found"),
    "a route beside a known one": ("POST", "/chat/completions/extra", 404, "unknown_route"),
    "a path that climbs": ("GET", "/models/%2e%2e/files", 404, "unknown_route"),
    "a wrong method": ("GET", "/chat/completions", 405, "method_not_allowed"),
    "another wrong method": ("DELETE", "/models", 405, "method_not_allowed"),
}


@pytest.mark.parametrize(("method", "path", "status", "code"), [*ROUTES.values()], ids=[*ROUTES])
async def test_what_no_surface_knows_is_refused_and_goes_no_further(
    method: str, path: str, status: int, code: str, caller: Caller, upstream: ScriptedUpstream
) -> None:
    assert_told(await caller.http.request(method, path, json={}), status, code)
    assert upstream.requests == []


@pytest.mark.parametrize("status", [400, 404, 413, 429])
async def test_the_official_client_raises_the_class_that_its_user_expects(
    status: int, caller: Caller, upstream: ScriptedUpstream
) -> None:
    ask: dict[int, Any] = {
        400: lambda: caller.openai.chat.completions.create(**asking(messages="Hello")),
        404: lambda: caller.openai.responses.retrieve("resp_unknown"),
        413: lambda: caller.openai.chat.completions.create(**asking(extra_body={"padding": "x" * MAX_BODY_BYTES})),
        429: lambda: caller.openai.moderations.create(input=[f"Word {n}." for n in range(MAX_QUEUE_WINDOWS + 1)]),
    }
    with pytest.raises(raised_for(status)) as raised:
        await ask[status]()
    assert raised.value.status_code == status
    await assert_still_serves(caller, upstream)


# Heads and bodies on the wire.


async def on_the_wire(gateway: RunningGateway, *pieces: bytes) -> bytes:
    """Send these bytes, and read until the gateway closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read(-1)
    finally:
        writer.close()


async def test_a_head_over_the_limit_is_431(caller: Caller, upstream: ScriptedUpstream) -> None:
    reply = await caller.http.post(CHAT, json=asking(), headers={"x-much": "x" * MAX_HEADER_BYTES})
    assert_told(reply, 431, "headers_too_large")
    assert upstream.requests == []
    await assert_still_serves(caller, upstream)


async def test_a_head_that_never_ends_is_431(
    narrow: RunningGateway, caller: Caller, upstream: ScriptedUpstream
) -> None:
    start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-much: "
    answer = await on_the_wire(narrow, start, b"x" * (MAX_HEADER_BYTES + 1))
    head, _, told = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert_error(told, "headers_too_large")
    await assert_still_serves(caller, upstream)


async def test_a_body_that_does_not_arrive_in_time_is_400(
    narrow: RunningGateway, caller: Caller, upstream: ScriptedUpstream
) -> None:
    start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 90\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", narrow.port)
    writer.write(start + b'{"model"')
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        told = await reader.readexactly(length)
    writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "did not arrive" in assert_error(told, "invalid_request")
    await assert_still_serves(caller, upstream)


# How much at once.


async def test_more_requests_at_once_than_allowed_are_429_and_those_under_way_are_answered(
    narrow: RunningGateway, caller: Caller, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    reply = json.dumps(chat_completion("Hello")).encode()
    upstream.on(CHAT, raw(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(reply), gate, reply))
    under_way = []
    for number in range(MAX_CONCURRENT):
        under_way.append(asyncio.create_task(caller.http.post(CHAT, json=asking())))
        await upstream.arrived(number + 1)
    refused = await caller.http.post(CHAT, json=asking())
    assert_told(refused, 429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    for path in ("/healthz", "/readyz", "/metrics"):  # seen from outside when it matters
        assert (await caller.http.get(f"{narrow.url}{path}")).status_code == 200
    assert len(upstream.requests) == MAX_CONCURRENT
    gate.open()
    assert [answer.status_code for answer in await asyncio.gather(*under_way)] == [200] * MAX_CONCURRENT
    await assert_still_serves(caller, upstream)


async def test_a_full_screening_queue_is_429_and_lets_nothing_through(
    caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello")))
    texts = [f"What is word {n} of the dictionary?" for n in range(MAX_QUEUE_WINDOWS + 1)]
    asked = asking(messages=[{"role": "user", "content": text} for text in texts])
    refused = await caller.http.post(CHAT, json=asked)
    assert_told(refused, 429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert upstream.requests == []
    # A burst of inputs that fit one by one: the first ones fill the queue, the last ones meet it full.
    assert_told(await caller.http.post("/moderations", json={"input": texts}), 429, "overloaded")
    await assert_still_serves(caller, upstream)


async def test_in_a_burst_whatever_is_not_screened_is_refused(caller: Caller, upstream: ScriptedUpstream) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello")))
    burst = [caller.http.post(CHAT, json=asking(BAD_REQUEST + " " * n)) for n in range(60)]
    replies = await asyncio.gather(*burst)
    outcomes = {(reply.status_code, reply.json()["error"]["code"]) for reply in replies}
    assert outcomes <= {(400, "content_filter"), (429, "overloaded")}
    assert upstream.requests == []
    await assert_still_serves(caller, upstream)


# Without client keys: who may ask at all.

STRANGERS: Final[dict[str, tuple[Mapping[str, str], int, str]]] = {
    "a host name resolved to us": ({"host": "evil.example"}, 403, "forbidden"),
    "a host name with our port": ({"host": "evil.example:8080"}, 403, "forbidden"),
    "a page of another site": ({"origin": "https://evil.example"}, 403, "forbidden"),
    "half an address": ({"origin": "http://[::1"}, 403, "forbidden"),
    "a client key": ({"authorization": "Bearer agk_0123456789abcdef_secret"}, 401, "invalid_api_key"),
}


@pytest.mark.parametrize(("headers", "status", "code"), [*STRANGERS.values()], ids=[*STRANGERS])
async def test_without_keys_strangers_are_refused(
    headers: Mapping[str, str], status: int, code: str, caller: Caller, upstream: ScriptedUpstream
) -> None:
    assert_told(await caller.http.post(CHAT, json=asking(), headers=headers), status, code)
    assert upstream.requests == []


@pytest.mark.parametrize("headers", [{"host": "localhost:8080"}, {"origin": "http://localhost:3000"}, {}], ids=str)
async def test_without_keys_this_machine_is_served_and_its_credentials_go_upstream(
    headers: Mapping[str, str], caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello")))
    assert (await caller.http.post(CHAT, json=asking(), headers=headers)).status_code == 200
    assert upstream.last.headers["authorization"] == "Bearer sk-the-callers-own"
