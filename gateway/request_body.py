"""Request bodies: read within their limits, parsed strictly, every fault a clear error.

What goes upstream is always written anew from what was parsed here, never the caller's own bytes: a duplicate key or
an odd encoding that another parser reads differently cannot smuggle a text past the screener.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect, Request

from gateway.errors import BadRequest, TooLarge
from gateway.settings import LimitSettings

_LONG_NUMBER: Final = re.compile(rb"\d{19}")


async def read_json(request: Request, limits: LimitSettings) -> dict[str, Any]:
    """The request's body as a JSON object. Raises ``BadRequest`` or ``TooLarge``."""
    return parse_object(await read_body(request, limits), limits.max_json_depth)


async def read_body(request: Request, limits: LimitSettings) -> bytes:
    """The request's body. Raises ``TooLarge`` as soon as it is known to pass ``max_body_bytes``, ``BadRequest`` for a
    content encoding or a body that does not come in time."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise BadRequest(f"content-encoding {encoding[:20]!r} is not supported; send the body as it is")
    _check_length(request.headers, limits.max_body_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.max_body_bytes:
                    raise _too_large(limits.max_body_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise BadRequest(f"the body did not arrive within {limits.body_timeout_s:g} s") from None
    except ClientDisconnect:
        raise BadRequest("the connection closed before the body had arrived") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_length(headers: Mapping[str, str], max_body_bytes: int) -> None:
    stated = headers.get("content-length")
    if stated is not None and stated.isascii() and stated.isdigit() and int(stated[:20]) > max_body_bytes:
        raise _too_large(max_body_bytes)


def _too_large(max_body_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than {max_body_bytes} bytes")


def parse_object(raw: bytes, max_depth: int, *, goes_upstream: bool = True) -> dict[str, Any]:
    """Parse one JSON object. Raises ``BadRequest`` where it is none, ``TooLarge`` where it nests too deeply.

    A body that ``goes_upstream`` may hold no number that would arrive there as another one.
    """
    if not raw:
        raise BadRequest("the body is empty; send a JSON object")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # The parser's message can quote the input; its position cannot.
        raise BadRequest(f"the body is not valid JSON (line {error.lineno}, column {error.colno})") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    # Counting brackets is cheap, and most bodies have fewer than the limit allows to nest.
    if raw.count(b"{") + raw.count(b"[") > max_depth and _depth_over(value, max_depth):
        raise TooLarge(f"the body nests deeper than {max_depth} levels")
    if goes_upstream and _LONG_NUMBER.search(raw) and _has_long_integer(raw):
        # orjson reads it as a float, and what goes upstream would be another number than what came.
        raise BadRequest("the body holds an integer of more than 64 bits; send it as a string")
    return value


def _has_long_integer(raw: bytes) -> bool:
    found = False

    def integer(digits: str) -> int:
        nonlocal found
        found = found or len(digits) > 20 or not -(2**63) <= int(digits) < 2**64
        return 0

    json.loads(raw, parse_int=integer)
    return found


def _depth_over(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, (dict, list)))
            elif isinstance(item, list):
                inner.extend(v for v in item if isinstance(v, (dict, list)))
        if not inner:
            return False
        level = inner
    return True
