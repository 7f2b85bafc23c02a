"""Relay: a streamed reply on its way through the gateway. Nothing leaves before a window that holds it was screened.

It reads whole events however the network cut them, hands their texts to ``HoldBack``, screens what falls due and
yields the bytes of the events that may leave. It stops at the first hit, and says so in ``hit``; how a hit is told to
the client is the proxy's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import orjson

from gateway.errors import UpstreamInvalid, UpstreamTimeout
from gateway.holdback import HoldBack, Portion, TooManyChannels
from gateway.judgement import Judgement
from gateway.settings import StreamSettings
from gateway.streaming import Delta, Event, EventParser, EventTooLarge
from gateway.telemetry import Metrics
from gateway.tracing import current
from gateway.wire.surface import Json, Named, ReplyStream

Judge = Callable[[Sequence[Portion]], Awaitable[Judgement]]
"""Screens portions of a reply and decides; the judgement's findings are numbered as the portions are."""

_END: Final = "[DONE]"


class Relay:
    """One streamed reply. Iterate over ``released()``; afterwards ``hit`` holds what ended it early, if anything."""

    def __init__(
        self,
        stream: AsyncIterator[bytes],
        reply: ReplyStream,
        judge: Judge,
        *,
        settings: StreamSettings,
        hold_whole: bool,
        max_event_bytes: int,
        read_timeout_s: float,
        metrics: Metrics,
    ) -> None:
        self._stream = stream
        self._reply = reply
        self._judge = judge
        self._settings = settings
        self._metrics = metrics
        self._read_timeout_s = read_timeout_s
        self._parser = EventParser(max_event_bytes=max_event_bytes)
        self._hold = HoldBack(
            hold="whole" if hold_whole else "window",
            first_chars=settings.first_chars,
            window_chars=settings.window_chars,
            overlap_chars=settings.overlap_chars,
            max_hold_ms=settings.max_hold_ms,
        )
        self._held_since_s: float | None = None
        self._held_s = 0.0
        self._releases = 0
        self._first_held_s: float | None = None
        self._passed = False
        self.held_whole = hold_whole
        self.hit: Judgement | None = None
        self.hit_portion: Portion | None = None
        self.started = False
        self.first_payload: Json | None = None
        self.last_usage: Json | None = None

    @property
    def texts(self) -> Sequence[str]:
        """What the reply said, channel by channel, screened or not: for the case's record."""
        return [self._hold.text(channel) for channel in self._hold.channels()]

    def spoken(self) -> list[str] | None:
        """What each choice says, in order; None where the reply holds more than that (tool calls, reasoning)."""
        texts: list[str] = []
        for choice, channel in enumerate(self._hold.channels()):
            if self._reply.spoken(channel) != choice:
                return None
            texts.append(self._hold.text(channel))
        return texts

    def close(self) -> Sequence[Named]:
        """The events that validly end what is still open to the client."""
        held = [event.data for event in self._hold.waiting if event.data is not None and event.data.strip() != _END]
        return self._reply.close([orjson.loads(data) for data in held])

    async def released(self) -> AsyncGenerator[bytes, None]:
        """The bytes that may leave, as they may. Ends at a hit or at the end of the reply.

        Raises ``UpstreamUnreachable`` or ``UpstreamTimeout`` where the upstream broke off, ``UpstreamInvalid`` for
        what cannot be read, ``ScreeningUnavailable`` or ``Overloaded`` for what could not be screened.
        """
        ended = False
        try:
            while not ended:
                ended = await self._receive()
                portions = self._hold.due(time.monotonic(), force=ended or self._reply.ended)
                if portions and not await self._pass(portions):
                    return
                if not (self._passed or ended or self._reply.ended):
                    continue  # until its first text may leave, a reply can be answered in full by something else
                events = self._hold.release()
                if events:
                    self._observe_hold()
                    self.started = True
                    yield b"".join([event.raw for event in events])
        finally:
            self._trace_hold()

    async def _receive(self) -> bool:
        """Take what the network brings next, or wake when a held text is due. Says whether the reply has ended."""
        now_s = time.monotonic()
        due_s = self._hold.next_due_s
        wait_s = self._read_timeout_s if due_s is None else min(self._read_timeout_s, max(due_s - now_s, 0.0))
        try:
            async with asyncio.timeout(wait_s):
                chunk = await anext(self._stream)
        except TimeoutError:
            if due_s is None:
                raise UpstreamTimeout("the model server fell silent in the middle of its reply") from None
            return False
        except StopAsyncIteration:
            self._take(self._parse(None))
            return True
        self._take(self._parse(chunk))
        return False

    def _parse(self, chunk: bytes | None) -> list[Event]:
        try:
            return self._parser.finish() if chunk is None else self._parser.feed(chunk)
        except EventTooLarge as error:
            raise UpstreamInvalid(f"the model server's stream cannot be read: {error}") from None

    def _take(self, events: Sequence[Event]) -> None:
        now_s = time.monotonic()
        for event in events:
            try:
                self._hold.feed(event, self._read(event), now_s)
            except TooManyChannels as error:
                raise UpstreamInvalid(f"the model server's stream cannot be read: {error}") from None
        if self._hold.held and self._held_since_s is None:
            self._held_since_s = now_s
            if self._first_held_s is None:
                self._first_held_s = time.perf_counter()
        if self._hold.held_bytes > self._settings.max_held_bytes:
            raise UpstreamInvalid("the model server's reply is longer than may be held back")

    def _read(self, event: Event) -> Sequence[Delta]:
        if event.data is None or event.data.strip() == _END:
            return ()
        try:
            if "\ufffd" in event.data:
                event.raw.decode("utf-8")  # clients disagree about what bytes that are not UTF-8 say
            payload = orjson.loads(event.data)
            if not isinstance(payload, dict):
                raise ValueError("an event holds no object")
            if self.first_payload is None:
                self.first_payload = payload
            if payload.get("usage") or "response" in payload:
                self.last_usage = payload
            return self._reply.read(event.name, payload)
        except ValueError:
            # What cannot be read cannot be screened, so it does not leave.
            raise UpstreamInvalid("the model server sent a stream event that cannot be read") from None

    async def _pass(self, portions: Sequence[Portion]) -> bool:
        """Screen what is due. Says whether the reply may go on."""
        judgement = await self._judge(portions)
        if judgement.stops:
            self.hit = judgement
            finding = judgement.decision.finding
            self.hit_portion = None if finding is None else portions[finding]
            return False
        for portion in portions:
            self._hold.passed(portion)
        self._passed = True
        return True

    def _observe_hold(self) -> None:
        now_s = time.monotonic()
        if self._held_since_s is not None:
            held_s = now_s - self._held_since_s
            self._metrics.held.observe(held_s)
            self._held_s += held_s
            self._releases += 1
        self._held_since_s = now_s if self._hold.held else None

    def _trace_hold(self) -> None:
        if (trace := current()) is not None and self._first_held_s is not None:
            ms = round(self._held_s * 1000, 3)
            now_s = time.perf_counter()
            trace.add(
                "hold-back", self._first_held_s, now_s, held_ms=ms, releases=self._releases, whole=self.held_whole
            )
