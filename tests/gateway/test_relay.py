"""Nothing of a streamed reply leaves before a window that holds it has passed, however the network cuts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiprompt_bank import Score
from gateway.conversation import Part
from gateway.errors import ScreeningUnavailable, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.holdback import Portion
from gateway.judgement import Judgement
from gateway.policy import Action, Decision, Hit
from gateway.relay import Judge, Relay
from gateway.screening import Subject
from gateway.settings import StreamSettings
from gateway.telemetry import Metrics
from gateway.wire import SURFACES
from gateway.wire.surface import Role
from tests.transcripts import COMMENT, DONE, ToolCall, chat_stream, completion_stream, rechunk, response_stream, sse

TEXT = "The lighthouse keeper rose at dawn, lit the lamp and wrote three lines about the weather into the book."
WINDOWS = StreamSettings(first_chars=12, window_chars=24, overlap_chars=8, max_hold_ms=60_000)


class Bytes:
    """An upstream's reply in given pieces; a callable among them is called when its turn comes."""

    def __init__(self, chunks: Iterable[bytes | Callable[[], object]]) -> None:
        self._chunks = iter(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            if not callable(chunk):
                return chunk
            result = chunk()
            if asyncio.iscoroutine(result):
                await result
        raise StopAsyncIteration


class Recorder:
    """A judge that lets everything pass but what holds ``stops_at``, and remembers what it has seen."""

    def __init__(self, stops_at: str | None = None) -> None:
        self.stops_at = stops_at
        self.portions: list[Portion] = []

    async def __call__(self, portions: Sequence[Portion]) -> Judgement:
        self.portions += portions
        hit = next((n for n, p in enumerate(portions) if self.stops_at and self.stops_at in p.text), None)
        parts = [Part(Subject(p.text, "response"), (n,), Role.ASSISTANT) for n, p in enumerate(portions)]
        scores = [Score(0.0, None, {}, (), "raw", 0, len(p.text), 1) for p in portions]
        if hit is None:
            return Judgement(Decision(Action.ALLOW), parts, scores)
        found = Hit("rule", Action.BLOCK, "violent_crimes", 0.95, hit)
        return Judgement(Decision(Action.BLOCK, "rule", finding=hit, enforced=True, hits=(found,)), parts, scores)

    def saw(self, text: str) -> bool:
        return any(text in portion.text for portion in self.portions)


def relay_of(
    chunks: Iterable[bytes | Callable[[], object]],
    judge: Judge,
    *,
    path: str = "/chat/completions",
    windows: StreamSettings = WINDOWS,
    whole: bool = False,
    read_timeout_s: float = 5.0,
    request: dict[str, object] | None = None,
) -> Relay:
    return Relay(
        Bytes(chunks),
        SURFACES[path].reply_stream({"model": "m", "stream": True, **(request or {})}),
        judge,
        settings=windows,
        hold_whole=whole,
        max_event_bytes=1 << 20,
        read_timeout_s=read_timeout_s,
        metrics=Metrics(),
    )


async def released(relay: Relay) -> bytes:
    return b"".join([chunk async for chunk in relay.released()])


async def collect(relay: Relay, out: list[bytes]) -> None:
    async for chunk in relay.released():
        out += [chunk]


def content_of(data: bytes) -> str:
    """What the deltas of a chat stream say, all choices joined."""
    said = ""
    for line in data.decode().splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                said += choice["delta"].get("content") or ""
    return said


TRANSCRIPTS = {
    "chat": ("/chat/completions", chat_stream(TEXT)),
    "chat of two choices": ("/chat/completions", chat_stream(TEXT, TEXT[::-1])),
    "chat with tool calls": ("/chat/completions", chat_stream("", tool_calls=[ToolCall("look", '{"q": "weather"}')])),
    "chat with reasoning": ("/chat/completions", chat_stream(TEXT, reasoning="First the lamp, then the book.")),
    "completions": ("/completions", completion_stream(TEXT)),
    "responses": ("/responses", response_stream(TEXT)),
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
async def test_a_reply_cut_at_any_byte_arrives_as_it_was_sent(name: str) -> None:
    path, events = TRANSCRIPTS[name]
    sent = b"".join(events)
    for size in (1, 2, 3, 7, 64, 1000, len(sent)):
        relay = relay_of(rechunk(events, size), Recorder(), path=path, request={"n": 2})
        assert await released(relay) == sent
        assert relay.hit is None


@pytest.mark.parametrize("name", TRANSCRIPTS)
async def test_no_character_leaves_before_a_window_that_holds_it_was_screened(name: str) -> None:
    path, events = TRANSCRIPTS[name]
    sent = b"".join(events)
    for cut in range(1, len(sent), 5):
        judge = Recorder()
        relay = relay_of([sent[:cut], sent[cut:]], judge, path=path, request={"n": 2})
        out = b""
        async for chunk in relay.released():
            out += chunk
            screened: dict[object, int] = {}
            for portion in judge.portions:
                screened[portion.channel] = max(portion.upto, screened.get(portion.channel, 0))
            reader = SURFACES[path].reply_stream({"model": "m", "n": 2})
            told: dict[object, int] = {}
            for line in out.decode().splitlines():
                if line.startswith("data: {"):
                    for delta in reader.read(None, json.loads(line[6:])):
                        before = 0 if delta.whole else told.get(delta.channel, 0)
                        told[delta.channel] = max(before + len(delta.text), told.get(delta.channel, 0))
            assert all(length <= screened.get(channel, 0) for channel, length in told.items())
        assert out == sent


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
    size=st.integers(1, 50),
    first=st.integers(1, 40),
    window=st.integers(16, 60),
    overlap=st.integers(0, 30),
)
async def test_any_text_in_any_pieces_passes_unchanged(
    text: str, size: int, first: int, window: int, overlap: int
) -> None:
    windows = StreamSettings(first_chars=first, window_chars=window, overlap_chars=overlap, max_hold_ms=60_000)
    judge = Recorder()
    events = chat_stream(text)
    assert await released(relay_of(rechunk(events, size), judge, windows=windows)) == b"".join(events)


@pytest.mark.parametrize("place", range(0, len(TEXT) - 8, 9))
async def test_a_hit_stops_the_reply_before_any_of_it_leaves(place: int) -> None:
    bad = TEXT[place : place + 8]
    relay = relay_of(chat_stream(TEXT), judge := Recorder(bad))
    said = content_of(await released(relay))
    assert relay.hit is not None
    assert bad not in said
    assert TEXT.startswith(said)
    assert judge.saw(bad)


async def test_a_hit_that_two_windows_share_is_found_through_the_overlap() -> None:
    relay = relay_of(chat_stream(TEXT), Recorder("at dawn"))  # 12 characters in: cut by the first window
    assert "at dawn" not in content_of(await released(relay))
    assert relay.hit is not None


async def test_a_hit_is_closed_with_one_valid_event_for_each_open_choice() -> None:
    relay = relay_of(chat_stream(TEXT, TEXT), Recorder("lamp"), request={"n": 2})
    await released(relay)
    closed = [payload["choices"][0] for _, payload in relay.close()]
    assert [(choice["index"], choice["finish_reason"]) for choice in closed] == [
        (0, "content_filter"),
        (1, "content_filter"),
    ]


async def test_a_choice_whose_end_is_held_with_the_hit_is_closed_for_the_client() -> None:
    events = chat_stream(TEXT, TEXT, size=24)
    relay = relay_of([b"".join(events[:6]), b"".join(events[6:])], Recorder("lines"), request={"n": 2})
    assert b'"finish_reason": "stop"' not in await released(relay)
    assert [payload["choices"][0]["index"] for _, payload in relay.close()] == [0, 1]


async def test_a_choice_whose_end_has_left_is_not_closed_again() -> None:
    short, long = chat_stream("Hello there, hello. ", size=24), chat_stream("", TEXT, size=24)
    events = [short[1], short[2], *(event for event in long if b'"index": 1' in event)]
    relay = relay_of([b"".join(events[:4]), b"".join(events[4:])], Recorder("lines"), request={"n": 2})
    assert b'"finish_reason": "stop"' in await released(relay)
    assert [payload["choices"][0]["index"] for _, payload in relay.close()] == [1]


async def test_nothing_leaves_before_the_first_text_may() -> None:
    role, *rest = chat_stream(TEXT)
    relay = relay_of([COMMENT, role, *rest], Recorder(TEXT[:10]))
    assert await released(relay) == b""
    assert not relay.started


async def test_a_reply_held_whole_leaves_only_when_all_of_it_has_passed() -> None:
    judge = Recorder()
    relay = relay_of(chat_stream(TEXT), judge, whole=True)
    chunks = [chunk async for chunk in relay.released()]
    assert b"".join(chunks) == b"".join(chat_stream(TEXT))
    assert [portion.text for portion in judge.portions] == [TEXT]


async def test_text_that_waits_too_long_is_screened_before_its_window_is_full() -> None:
    judge = Recorder()

    first, *rest = chat_stream("Hi. " + TEXT)
    windows = StreamSettings(first_chars=1000, window_chars=1000, overlap_chars=8, max_hold_ms=1)
    relay = relay_of([first, rest[0], lambda: asyncio.sleep(0.05), *rest[1:]], judge, windows=windows)
    await released(relay)
    assert judge.portions[0].text == "Hi. "


async def test_comments_carriage_returns_and_a_missing_done_change_nothing() -> None:
    events = [COMMENT, *(event.replace(b"\n", b"\r\n") for event in chat_stream(TEXT) if event != DONE)]
    sent = b"".join(events)
    assert await released(relay_of([sent], Recorder())) == sent


@pytest.mark.parametrize(
    "data", [b"data: {broken\n\n", b"data: [1, 2]\n\n", b'data: {"choices": "no list"}\n\n', b"data: \xff\xfe\n\n"]
)
async def test_an_event_that_cannot_be_read_does_not_leave(data: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        await released(relay_of([data], Recorder()))


async def test_an_event_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(UpstreamInvalid):
        await released(relay_of([b"data: " + b"x" * (2 << 20)], Recorder()))


async def test_more_than_may_be_held_is_refused() -> None:
    windows = StreamSettings(max_held_bytes=1024)
    with pytest.raises(UpstreamInvalid):
        await released(relay_of(chat_stream(TEXT * 40), Recorder(), whole=True, windows=windows))


async def test_an_upstream_that_falls_silent_is_a_time_out() -> None:
    with pytest.raises(UpstreamTimeout):
        await released(relay_of([lambda: asyncio.sleep(5)], Recorder(), read_timeout_s=0.01))


async def test_an_upstream_that_breaks_off_keeps_back_what_was_not_screened() -> None:
    def cut() -> None:
        raise UpstreamUnreachable("broken off")

    first, second, *_ = chat_stream("Hello")
    relay = relay_of([first, second, cut], judge := Recorder())
    out: list[bytes] = []
    with pytest.raises(UpstreamUnreachable):
        await collect(relay, out)
    assert content_of(b"".join(out)) == ""
    assert not judge.portions


async def test_what_cannot_be_screened_does_not_leave() -> None:
    async def unavailable(portions: Sequence[Portion]) -> Judgement:
        raise ScreeningUnavailable("no encoder")

    relay = relay_of(chat_stream(TEXT), unavailable)
    out: list[bytes] = []
    with pytest.raises(ScreeningUnavailable):
        await collect(relay, out)
    assert content_of(b"".join(out)) == ""


async def test_text_after_the_end_of_its_choice_is_screened_too() -> None:
    late = sse({"id": "c", "choices": [{"index": 0, "delta": {"content": "late and bad"}, "finish_reason": None}]})
    events = chat_stream(TEXT)
    relay = relay_of([*events[:-1], late, events[-1]], Recorder("bad"))
    assert b"late" not in await released(relay)
    assert relay.hit is not None
