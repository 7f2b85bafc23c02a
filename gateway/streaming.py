"""Server-sent events: bytes to events and back, however the network cuts them. Pure: no I/O, no clock.

What the events say is held back by ``gateway.holdback`` until it has been screened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"
"""How a stream of chat completions or completions ends. ``Event.data`` of it is ``"[DONE]"``."""

_BOM = b"\xef\xbb\xbf"
# Atomic groups: a CR LF is one line end and may never be taken for two.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")

_HIGH, _LOW = "[dD][89abAB][0-9a-fA-F]{2}", "[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(
    rf"((?:\\u{_HIGH})?\\(?:u[0-9a-fA-F]{{0,3}})?\Z|\\u{_HIGH}\Z)"  # cut short
    rf"|\\u({_HIGH})\\u({_LOW})"
    r"|\\u([0-9a-fA-F]{4})"
    r"|\\([^u])",
    re.DOTALL,
)
_SHORT_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of streamed text.

    ``channel`` names the text it continues: the choice, the field and, for tool calls, the call. ``whole`` says that
    ``text`` repeats the channel's full text (the ``*.done`` events of the responses API) instead of continuing it.
    """

    channel: tuple[str | int, ...]
    text: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event.

    ``raw`` holds the bytes as they came, with the blank line that ends it. ``data`` is None where the event has no
    data field (a comment, a ping); several data lines are joined with line feeds. Bytes that are not UTF-8 read as
    U+FFFD in ``name`` and ``data``, as the standard has it.
    """

    raw: bytes
    name: str | None = None
    data: str | None = None


class EventTooLarge(ValueError):
    """An event is larger than the parser was told to take."""


class EventParser:
    """Finds the events in a stream of bytes (WHATWG HTML, 9.2.6: event stream interpretation).

    Lines may end in CR LF, LF or CR, and the bytes may be cut anywhere. The ``raw`` of all events joined are the
    bytes that were fed. ``id`` and ``retry`` fields are not read, only passed on in ``raw``.
    """

    def __init__(self, *, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._started = False

    def feed(self, received: bytes) -> list[Event]:
        """The events that ``received`` completes. Raises ``EventTooLarge``; the parser is of no use after that."""
        buffer = self._buffer
        buffer += received
        events: list[Event] = []
        start = 0
        # A blank line is at most four bytes, so up to three of them may have been there before.
        found = _BLANK_LINE.search(buffer, max(self._searched - 3, 0))
        while found:
            end = found.end()
            events.append(self._event(bytes(buffer[start:end])))
            start = end
            found = _BLANK_LINE.search(buffer, start)
        if start:
            del buffer[:start]
        self._searched = len(buffer)
        if len(buffer) > self._max_event_bytes:
            raise EventTooLarge(f"a stream event is larger than {self._max_event_bytes} bytes")
        return events

    def finish(self) -> list[Event]:
        """The last event where the stream ended without a blank line; one is added to its ``raw``, so that whatever
        is sent after it stands on its own."""
        raw = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        if not raw:
            return []
        return [self._event(raw + b"\n\n" if raw.strip() else raw)]

    def _event(self, raw: bytes) -> Event:
        if len(raw) > self._max_event_bytes:
            raise EventTooLarge(f"a stream event is larger than {self._max_event_bytes} bytes")
        body = raw
        if not self._started:
            self._started = True
            body = raw.removeprefix(_BOM)
        name: str | None = None
        data: list[bytes] = []
        for line in body.splitlines():
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ").decode("utf-8", "replace") or None
        if not data:
            return Event(raw, name)
        return Event(raw, name, b"\n".join(data).decode("utf-8", "replace"))


class JsonText:
    """Decodes the escapes in streamed JSON, so that ``\\u0062omb`` is screened as the word a program will read.

    Only escapes change: quotes and braces stay, and what is no valid escape stays as it is. An escape that is cut
    short, or the first half of a surrogate pair, waits for the rest; half a pair alone becomes U+FFFD.
    """

    __slots__ = ("_cut",)

    def __init__(self) -> None:
        self._cut = ""

    def feed(self, encoded: str) -> str:
        """What ``encoded``, the next piece, makes readable."""
        if "\\" not in encoded and not self._cut:
            return encoded
        encoded = self._cut + encoded
        self._cut = ""
        return _ESCAPE.sub(self._decoded, encoded)

    def _decoded(self, found: re.Match[str]) -> str:
        cut, high, low, unit, short = found.groups()
        if cut is not None:
            self._cut = cut
            return ""
        if high:
            return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
        if unit:
            code = int(unit, 16)
            return "\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)
        return _SHORT_ESCAPES.get(short, found[0])


def encode(name: str | None, payload: Mapping[str, Any]) -> bytes:
    """An event of our own: its name, if it has one, and its payload as JSON on one line."""
    data = b"data: " + orjson.dumps(payload) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data
