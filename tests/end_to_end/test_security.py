"""What an attacker does to the wire itself: two lengths, headers within headers."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import Callers
from tests.end_to_end.exemplars import GOOD_REPLY, GOOD_REQUEST
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, whole
from tests.transcripts import chat_completion

PATIENCE_S = 60.0
HIDDEN = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture
async def caller(callers: Callers, upstream: ScriptedUpstream) -> Caller:
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))
    return await callers("refusal")


async def on_the_wire(gateway: RunningGateway, sent: bytes) -> bytes:
    """Send these bytes, say no more, and read until the gateway closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(sent)
            await writer.drain()
            writer.write_eof()
            return await reader.read(-1)
    finally:
        writer.close()


def head(caller: Caller, *lines: str) -> bytes:
    start = ("POST /v1/chat/completions HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {caller.token}")
    return "\r\n".join((*start, "content-type: application/json", "connection: close", *lines, "", "")).encode()


@pytest.mark.parametrize("order", ["length first", "pieces first"])
async def test_a_request_of_two_lengths_is_one_request_at_most(
    order: str, gateway: RunningGateway, caller: Caller, upstream: ScriptedUpstream
) -> None:
    """What comes behind the end that one of the lengths names must not be a request of its own."""
    lengths = [f"content-length: {len(HIDDEN) + 5}", "transfer-encoding: chunked"]
    if order == "pieces first":
        lengths.reverse()
    answer = await on_the_wire(gateway, head(caller, *lengths) + b"0\r\n\r\n" + HIDDEN)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert upstream.requests == []


@pytest.mark.parametrize("lengths", [("5", "50"), ("-1",), ("5, 5",), ("0x10",)])
async def test_lengths_that_are_none_are_refused(
    lengths: tuple[str, ...], gateway: RunningGateway, caller: Caller, upstream: ScriptedUpstream
) -> None:
    answer = await on_the_wire(gateway, head(caller, *(f"content-length: {length}" for length in lengths)) + b"{}   ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert upstream.requests == []


async def test_a_header_cannot_carry_another_to_the_model_server(
    gateway: RunningGateway, caller: Caller, upstream: ScriptedUpstream
) -> None:
    """A line end alone, and a folded line, are no way to a header of one's own."""
    body = json.dumps(asking(GOOD_REQUEST)).encode()
    for smuggled in ("x-note: a\nx-antiprompt-action: allow", "x-note: a\rx-antiprompt-action: allow"):
        answer = await on_the_wire(gateway, head(caller, smuggled, f"content-length: {len(body)}") + body)
        assert answer.count(b"HTTP/1.1 ") == 1
    for request in upstream.requests:
        assert not [name for name in request.headers if name.lower().startswith("x-antiprompt")]
