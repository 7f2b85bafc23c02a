"""Bodies are read within their limits and parsed strictly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from gateway.errors import BadRequest, TooLarge
from gateway.request_body import parse_object, read_body
from gateway.settings import LimitSettings

LIMITS = LimitSettings(max_body_bytes=2048, body_timeout_s=0.05)


def request_of(chunks: Iterable[bytes], **headers: str) -> Request:
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


async def test_a_body_in_pieces_is_read_whole() -> None:
    assert await read_body(request_of([b'{"a"', b": 1}"]), LIMITS) == b'{"a": 1}'


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge):
        await read_body(request_of([], content_length="99999999"), LIMITS)


async def test_a_body_that_lies_about_its_length_is_refused_when_it_passes_the_limit() -> None:
    with pytest.raises(TooLarge):
        await read_body(request_of([b"x" * 1500] * 3, content_length="3"), LIMITS)


async def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(BadRequest, match="content-encoding"):
        await read_body(request_of([b"x"], content_encoding="gzip"), LIMITS)


async def test_a_body_that_stalls_is_refused() -> None:
    async def receive() -> Message:
        import asyncio

        await asyncio.sleep(10)
        raise AssertionError("not reached")

    with pytest.raises(BadRequest, match="did not arrive"):
        await read_body(Request({"type": "http", "method": "POST", "headers": []}, receive), LIMITS)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"[" * 100_000,
        b'{"a":1}x',
        b'{"seed": 123456789012345678901234}',
        b'{"seed": -9223372036854775809}',
    ],
)
def test_what_is_no_json_object_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_object(raw, 64)


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(("levels", "limit"), [(64, 64), (1, 4)])
def test_nesting_up_to_the_limit_is_taken(levels: int, limit: int) -> None:
    assert parse_object(nested(levels), limit)


@pytest.mark.parametrize("raw", [nested(65), b'{"a":' + b"[" * 64 + b"]" * 64 + b"}"])
def test_nesting_over_the_limit_is_too_large(raw: bytes) -> None:
    with pytest.raises(TooLarge):
        parse_object(raw, 64)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 12345678901234567890])
def test_integers_of_64_bits_and_long_digits_in_texts_are_taken(number: int) -> None:
    raw = b'{"seed": %d, "text": "99999999999999999999999999"}' % number
    assert parse_object(raw, 64)["seed"] == number


def test_what_stays_here_may_hold_any_number() -> None:
    raw = b'{"input": "a text", "extra": 999999999999999999999999999}'
    assert parse_object(raw, 64, goes_upstream=False)["input"] == "a text"
    with pytest.raises(BadRequest, match="64 bits"):
        parse_object(raw, 64)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_gateway_error(raw: bytes) -> None:
    with contextlib.suppress(BadRequest, TooLarge):
        assert isinstance(parse_object(raw, 8), dict)
