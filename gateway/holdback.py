"""HoldBack: what of a streamed reply may be sent on. A pure state machine; time comes in as seconds.

Received events wait in one queue, in their order. Each brings pieces of text for some channels (``Delta``). A channel's
text is screened in portions: some of what has been screened already, then everything new. An event leaves when it is
the first of the queue and every character that it brings lies in a portion that has passed. Texts too short to tell
anything alone (a word in each of many tool calls) are screened a second time, joined in the order in which they ended::

    for event in parser.feed(received):
        holdback.feed(event, reply.read(...), now_s)
    for portion in holdback.due(now_s):
        ...  # screen it; where policy lets it through:
        holdback.passed(portion)
    for event in holdback.release():
        ...  # send event.raw
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.streaming import Delta, Event

Channel = tuple[str | int, ...]

MAX_CHANNELS = 1024
"""More texts side by side than any reply has: 128 choices, each with content, reasoning and some tool calls."""

JOINED: Channel = ("joined",)
"""The channel of portions that join short texts of other channels; no text of the reply is its own."""


class TooManyChannels(ValueError):
    """A reply spreads its text over more channels than any real one has."""


@dataclass(frozen=True, slots=True)
class Portion:
    """The next text to screen for one channel.

    ``text`` begins with what was screened before (the overlap). Once it has passed, the channel's first ``upto``
    characters are screened.
    """

    channel: Channel
    text: str
    upto: int


class _Text:
    """The state of one channel; offsets count characters from the channel's start."""

    __slots__ = (
        "arrivals",
        "channel",
        "complete",
        "joined_upto",
        "kept",
        "limit",
        "new",
        "out",
        "overlap",
        "received",
        "screened",
    )

    def __init__(self, channel: Channel, limit: float) -> None:
        self.channel = channel
        self.limit = limit  # new characters that make a portion due
        self.received = 0
        self.screened = 0
        self.joined_upto = 0  # how far the joined short texts must be screened before this one may leave
        self.overlap = ""  # the end of what has been screened
        self.new: list[str] = []  # what no portion has taken yet
        self.out: tuple[Portion, str] | None = None  # the portion being screened, and what of it is new
        self.arrivals: deque[tuple[int, float]] = deque()  # (offset of its end, when it came) of what is unscreened
        self.kept: list[str] = []
        self.complete = True  # whether ``kept`` holds all that was received


class HoldBack:
    """Holds the events of one stream until their text has been screened.

    Sizes are in characters, ``max_hold_ms`` in milliseconds; ``now_s`` may count from anywhere but never goes back.
    Of each channel at most one portion is out at a time. With ``hold="whole"`` nothing is due until ``due`` is forced,
    and a portion is then the channel's full text. At most ``max_kept_chars`` of text are kept for ``text()``, over
    all channels; what is held unscreened is bounded by the caller, who watches ``held_bytes``.
    """

    def __init__(
        self,
        *,
        hold: Literal["window", "whole"] = "window",
        first_chars: int,
        window_chars: int,
        overlap_chars: int,
        max_hold_ms: int,
        max_kept_chars: int = 2_000_000,
    ) -> None:
        whole = hold == "whole"
        self._first_chars = math.inf if whole else first_chars
        self._window_chars = math.inf if whole else window_chars
        self._short_chars = first_chars
        self._overlap_chars = sys.maxsize if whole else overlap_chars
        self._max_hold_s = math.inf if whole else max_hold_ms / 1000
        self._keepable = max_kept_chars
        self._texts: dict[Channel, _Text] = {}
        self._joined = _Text(JOINED, 0)
        self._waiting: dict[Channel, _Text] = {}  # those with text that no portion has taken
        self._queue: deque[tuple[Event, tuple[tuple[_Text, int], ...]]] = deque()
        self.held_bytes = 0

    def feed(self, event: Event, deltas: Iterable[Delta], now_s: float) -> None:
        """Take one received event and the texts it brings. Raises ``TooManyChannels``."""
        needs = tuple([self._take(delta, now_s) for delta in deltas if delta.text])
        self._queue.append((event, needs))
        self.held_bytes += len(event.raw)

    def due(self, now_s: float, *, force: bool = False) -> list[Portion]:
        """The portions to screen now.

        A channel is due when enough new text has come, when its oldest unscreened character has waited long enough,
        or by ``force`` (the reply has ended). A channel whose last portion is still out waits for it to pass.
        """
        if not self._waiting:
            return []
        portions: list[Portion] = []
        for text in list(self._waiting.values()):
            if text.out is None:
                everything = force or text.arrivals[0][1] + self._max_hold_s <= now_s
                if everything or text.received - text.screened >= text.limit:
                    if everything and text.received < self._short_chars and text is not self._joined:
                        self._join(text, now_s)
                    portions.append(self._portion(text, everything=everything))
        if JOINED in self._waiting and self._joined.out is None:
            portions.append(self._portion(self._joined, everything=True))
        return portions

    def passed(self, portion: Portion) -> None:
        """Note that ``portion`` was screened and may be read. Raises ``ValueError`` if it is not the one out."""
        text = self._joined if portion.channel == JOINED else self._texts.get(portion.channel)
        if text is None or text.out is None or text.out[0] is not portion:
            raise ValueError("this portion is not the one that is out for its channel")
        _, new = text.out
        text.out = None
        text.screened = portion.upto
        text.overlap = (text.overlap + new)[-self._overlap_chars :] if self._overlap_chars else ""
        text.limit = self._window_chars
        while text.arrivals and text.arrivals[0][0] <= text.screened:
            text.arrivals.popleft()

    def release(self) -> list[Event]:
        """The events that may be sent now, in the order in which they came."""
        queue, joined = self._queue, self._joined
        released: list[Event] = []
        while queue:
            event, needs = queue[0]
            for text, upto in needs:
                if text.screened < upto or joined.screened < text.joined_upto:
                    return released
            queue.popleft()
            self.held_bytes -= len(event.raw)
            released.append(event)
        return released

    @property
    def next_due_s(self) -> float | None:
        """When the next channel falls due for having waited; None if only more text or an end can make one due."""
        waits = [text.arrivals[0][1] for text in self._waiting.values() if text.out is None]
        return min(waits) + self._max_hold_s if waits and self._max_hold_s < math.inf else None

    @property
    def held(self) -> int:
        """Events that have not been released."""
        return len(self._queue)

    @property
    def waiting(self) -> Sequence[Event]:
        """The events that have not been released, oldest first."""
        return [event for event, _ in self._queue]

    def channels(self) -> Sequence[Channel]:
        """The channels that have brought text, in the order of their first."""
        return tuple(self._texts)

    def text(self, channel: Channel) -> str:
        """All that a channel has brought, screened or not; its beginning only if ``max_kept_chars`` ran out."""
        text = self._texts.get(channel)
        return "".join(text.kept) if text else ""

    def _take(self, delta: Delta, now_s: float) -> tuple[_Text, int]:
        """Add a delta to its channel; the channel and how far it must be screened before the delta may leave."""
        text = self._texts.get(delta.channel) or self._open(delta.channel)
        if delta.whole:
            return self._repeat(text, delta.text, now_s)
        self._append(text, delta.text, now_s)
        return text, text.received

    def _open(self, channel: Channel) -> _Text:
        if len(self._texts) >= MAX_CHANNELS:
            raise TooManyChannels(f"a streamed reply has more than {MAX_CHANNELS} texts side by side")
        text = self._texts[channel] = _Text(channel, self._first_chars)
        return text

    def _append(self, text: _Text, piece: str, now_s: float) -> None:
        text.new.append(piece)
        text.received += len(piece)
        text.arrivals.append((text.received, now_s))
        self._waiting[text.channel] = text
        if self._keepable >= len(piece):
            self._keepable -= len(piece)
            text.kept.append(piece)
        else:
            self._keepable = 0
            text.complete = False

    def _join(self, text: _Text, now_s: float) -> None:
        """Add a short text that has ended, or waited long, to the joined ones; alone it needs no joining."""
        joined = self._joined
        piece = "".join(text.new) + "\n"
        if joined.received:
            self._waiting[JOINED] = joined
            text.joined_upto = joined.received + len(piece)
        joined.new.append(piece)
        joined.received += len(piece)
        joined.arrivals.append((joined.received, now_s))

    def _repeat(self, text: _Text, whole: str, now_s: float) -> tuple[_Text, int]:
        """A text that claims to be the channel's full text: whatever of it did not come before is new.

        If it contradicts what came before, all of it is new, and stands in a channel of its own beside this one.
        """
        before = "".join(text.kept)
        if text.complete and whole.startswith(before):
            if len(whole) > len(before):
                self._append(text, whole[len(before) :], now_s)
            return text, text.received
        channel = (*text.channel, "repeated")
        beside = self._texts.get(channel) or self._open(channel)
        if not (beside.complete and whole == "".join(beside.kept)):
            self._append(beside, whole, now_s)
        return beside, beside.received

    def _portion(self, text: _Text, *, everything: bool) -> Portion:
        """Take a channel's new text, all of it or up to its last word end, for screening."""
        new = "".join(text.new)
        end = len(new) if everything else _last_word_end(new)
        text.new = [new[end:]] if end < len(new) else []
        if not text.new:
            del self._waiting[text.channel]
        portion = Portion(text.channel, text.overlap + new[:end], text.screened + end)
        text.out = (portion, new[:end])
        return portion


def _last_word_end(text: str) -> int:
    """Where to cut so that no word is torn: behind the last space or line feed, unless that leaves over half."""
    end = max(text.rfind(" "), text.rfind("\n")) + 1
    return end if end * 2 >= len(text) else len(text)
