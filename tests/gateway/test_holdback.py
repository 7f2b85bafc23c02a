"""Nothing leaves before it was screened; everything leaves, in order, once it was."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.holdback import JOINED, MAX_CHANNELS, Channel, HoldBack, Portion, TooManyChannels
from gateway.streaming import Delta, Event, EventParser
from gateway.wire import SURFACES
from gateway.wire.surface import ReplyStream
from tests.transcripts import COMMENT, ToolCall, chat_stream, completion_stream, rechunk, response_stream

SAID: Channel = (0, "content")


def holdback(
    *, first: int = 8, window: int = 16, overlap: int = 6, hold_ms: int = 1000, whole: bool = False, kept: int = 10_000
) -> HoldBack:
    return HoldBack(
        hold="whole" if whole else "window",
        first_chars=first,
        window_chars=window,
        overlap_chars=overlap,
        max_hold_ms=hold_ms,
        max_kept_chars=kept,
    )


def event(number: int = 0) -> Event:
    return Event(b"%d\n" % number)


def said(*pieces: str, hold: HoldBack, now_s: float = 0.0, channel: Channel = SAID) -> None:
    for piece in pieces:
        hold.feed(event(), [Delta(channel, piece)], now_s)


@dataclass
class Witness:
    """Keeps its own books on what was screened, from the portions alone."""

    overlap: int
    received: dict[Channel, str] = field(default_factory=dict)
    screened: dict[Channel, int] = field(default_factory=dict)

    def hears(self, deltas: list[Delta]) -> list[tuple[Channel, int]]:
        """Where each delta ends."""
        for delta in deltas:
            self.received[delta.channel] = self.received.get(delta.channel, "") + delta.text
        return [(delta.channel, len(self.received[delta.channel])) for delta in deltas]

    def passes(self, portion: Portion) -> None:
        if portion.channel == JOINED:
            return
        before = self.screened.get(portion.channel, 0)
        start = portion.upto - len(portion.text)
        assert portion.text == self.received[portion.channel][start : portion.upto]
        assert start == max(before - self.overlap, 0), "the overlap is there, and nothing is left out"
        assert portion.upto > before, "every portion brings something new"
        self.screened[portion.channel] = portion.upto

    def allows(self, ends: list[tuple[Channel, int]]) -> bool:
        return all(self.screened.get(channel, 0) >= end for channel, end in ends)


CHANNELS: list[Channel] = [SAID, (1, "content"), (0, "tool_calls", 0, "arguments"), ("reply", "citations")]
DELTAS = st.lists(st.builds(Delta, st.sampled_from(CHANNELS), st.text("ab \n", min_size=1, max_size=30)), max_size=3)
STEPS = st.lists(st.tuples(DELTAS, st.floats(0, 0.8), st.booleans(), st.booleans()), max_size=25)


@given(STEPS, st.integers(1, 40), st.integers(16, 60), st.integers(0, 30), st.booleans())
def test_no_event_leaves_before_all_its_text_was_screened(
    steps: list[tuple[list[Delta], float, bool, bool]], first: int, window: int, overlap: int, whole: bool
):
    hold = holdback(first=first, window=window, overlap=overlap, whole=whole)
    witness = Witness(10**6 if whole else overlap)
    ends: dict[int, list[tuple[Channel, int]]] = {}
    out: list[Portion] = []
    left: list[Event] = []
    now_s = 0.0
    for number, (deltas, waited_s, asks, answers) in enumerate(steps):
        now_s += waited_s
        ends[number] = witness.hears(deltas)
        hold.feed(event(number), deltas, now_s)
        if asks:
            out += hold.due(now_s)
        if answers and out:
            portion = out.pop(0)
            witness.passes(portion)
            hold.passed(portion)
        released = hold.release()
        assert all(witness.allows(ends[int(each.raw)]) for each in released)
        left += released
    while out or (out := hold.due(now_s, force=True)):
        portion = out.pop(0)
        witness.passes(portion)
        hold.passed(portion)
    left += hold.release()
    assert [int(each.raw) for each in left] == list(range(len(steps)))
    assert {channel: hold.text(channel) for channel in hold.channels()} == witness.received
    assert (hold.held, hold.held_bytes, hold.next_due_s) == (0, 0, None)


@given(st.lists(st.tuples(st.text("ab ", min_size=1, max_size=5), st.floats(0, 0.7)), min_size=1, max_size=30))
def test_no_character_waits_longer_than_allowed_for_its_window(pieces: list[tuple[str, float]]):
    hold = holdback(first=12, window=40, hold_ms=1000)
    now_s = 0.0
    for piece, waited_s in pieces:
        while (due_s := hold.next_due_s) is not None and due_s <= now_s + waited_s:
            portions = hold.due(due_s)
            assert portions, "at the time that was named, something is due"
            for portion in portions:
                hold.passed(portion)
        now_s += waited_s
        hold.feed(event(), [Delta(SAID, piece)], now_s)
        for portion in hold.due(now_s):
            hold.passed(portion)
    if hold.next_due_s is not None:
        assert now_s < hold.next_due_s <= now_s + 1.0


CALL = ToolCall("look_up", json.dumps({"place": "Köln 😀 🙂", "note": "x" * 30}))
TRANSCRIPTS = {
    "two choices": ("/chat/completions", chat_stream("First we do this. " * 3, "And then that, or so. " * 2)),
    "tool call": ("/chat/completions", chat_stream("A word. ", tool_calls=[CALL, CALL], reasoning="Let me think. ")),
    "crlf, usage": ("/chat/completions", chat_stream("Some words, 文字. " * 3, newline="\r\n", usage="chunk")),
    "no [DONE]": ("/chat/completions", chat_stream("Some words. " * 3, usage="finish", done=False)),
    "comments": ("/chat/completions", [COMMENT, *chat_stream("Some words. " * 3), COMMENT]),
    "completions": ("/completions", completion_stream("One text, then. " * 3, "Another text. ")),
    "responses": ("/responses", response_stream("Some words. " * 4, reasoning="Hm, well. ", tool_calls=[CALL])),
}


def relay(received: list[bytes], reply: ReplyStream, hold: HoldBack) -> tuple[bytes, dict[Channel, int]]:
    """Everything passes. What leaves is checked against what was screened; the channels' screened lengths come back."""
    parser = EventParser(max_event_bytes=1 << 20)
    screened: dict[Channel, int] = {}
    streamed: dict[Channel, int] = {}
    needs: dict[int, list[tuple[Channel, int]]] = {}
    sent = b""
    for now, chunk in enumerate([*received, None]):
        for each in parser.finish() if chunk is None else parser.feed(chunk):
            payload = json.loads(each.data) if each.data and each.data != "[DONE]" else None
            deltas = reply.read(each.name, payload) if payload is not None else ()
            for delta in deltas:
                before = 0 if delta.whole else streamed.get(delta.channel, 0)
                streamed[delta.channel] = before + len(delta.text)
                needs.setdefault(id(each), []).append((delta.channel, streamed[delta.channel]))
            hold.feed(each, deltas, float(now))
        for portion in hold.due(float(now), force=chunk is None or reply.ended):
            screened[portion.channel] = portion.upto
            hold.passed(portion)
        for each in hold.release():
            assert all(screened[channel] >= upto for channel, upto in needs.pop(id(each), ()))
            sent += each.raw
    return sent, screened


@pytest.mark.parametrize("whole", [False, True], ids=["window", "whole"])
@pytest.mark.parametrize(("path", "transcript"), TRANSCRIPTS.values(), ids=TRANSCRIPTS)
@pytest.mark.parametrize("size", [1, 2, 5, 33, 10_000])
def test_what_passes_leaves_byte_for_byte_however_it_was_cut(
    path: str, transcript: list[bytes], size: int, whole: bool
):
    hold = holdback(hold_ms=10**6, whole=whole)
    reply = SURFACES[path].reply_stream({"n": 2 if "choices" in path else 1})
    sent, screened = relay(rechunk(transcript, size), reply, hold)
    assert sent == b"".join(transcript)
    screened.pop(JOINED, None)
    assert screened == {channel: len(hold.text(channel)) for channel in hold.channels()}


def test_a_first_window_is_due_sooner_than_later_ones():
    hold = holdback(first=8, window=16, overlap=6)
    said("1234567", hold=hold)
    assert hold.due(0.0) == []
    said("8", hold=hold)
    (portion,) = hold.due(0.0)
    assert portion == Portion(SAID, "12345678", 8)
    hold.passed(portion)
    said("x" * 15, hold=hold)
    assert hold.due(0.0) == []
    said("y", hold=hold)
    assert hold.due(0.0) == [Portion(SAID, "345678" + "x" * 15 + "y", 24)]


def test_a_window_ends_at_a_word_unless_that_would_leave_most_of_it():
    hold = holdback(first=8)
    said("drink wat", hold=hold)
    assert [portion.text for portion in hold.due(0.0)] == ["drink "]
    hold = holdback(first=8)
    said("to unbelievab", hold=hold)
    assert [portion.text for portion in hold.due(0.0)] == ["to unbelievab"]


def test_the_end_takes_half_words_too():
    hold = holdback()
    said("drink wat", hold=hold)
    assert [portion.text for portion in hold.due(0.0, force=True)] == ["drink wat"]


def test_a_waiting_text_falls_due_at_the_time_that_is_named():
    hold = holdback(hold_ms=500)
    said("a", hold=hold, now_s=10.0)
    said("b", hold=hold, now_s=10.4)
    assert hold.next_due_s == 10.5
    assert hold.due(10.49) == []
    assert [portion.text for portion in hold.due(10.5)] == ["ab"]
    assert hold.next_due_s is None, "what is out is waited for by whoever screens it"


def test_one_portion_of_a_channel_is_out_at_a_time():
    hold = holdback()
    said("one two three ", hold=hold)
    (portion,) = hold.due(0.0)
    said("four five six seven ", hold=hold)
    assert hold.due(0.0, force=True) == []
    hold.passed(portion)
    (following,) = hold.due(0.0)
    assert following.text == "three " + "four five six seven "
    with pytest.raises(ValueError, match="not the one"):
        hold.passed(portion)


def test_very_much_text_in_one_event_is_one_portion():
    hold = holdback()
    said("x" * 100_000, hold=hold)
    assert [len(portion.text) for portion in hold.due(0.0)] == [100_000]


def test_events_without_text_keep_their_place_behind_held_ones():
    hold = holdback()
    hold.feed(event(1), [], 0.0)
    hold.feed(event(2), [Delta(SAID, "held text")], 0.0)
    hold.feed(event(3), [], 0.0)
    assert hold.release() == [event(1)]
    assert (hold.held, hold.held_bytes) == (2, 4)
    for portion in hold.due(0.0, force=True):
        hold.passed(portion)
    assert hold.release() == [event(2), event(3)]


def test_an_event_waits_for_each_of_its_channels():
    hold = holdback()
    hold.feed(event(1), [Delta((0, "content"), "long enough"), Delta((1, "content"), "short")], 0.0)
    (portion,) = hold.due(0.0)
    hold.passed(portion)
    rest = hold.due(0.0, force=True)
    assert hold.release() == []
    for portion in rest:
        hold.passed(portion)
    assert hold.release() == [event(1)]


def words(hold: HoldBack, *each: str) -> list[Event]:
    events = [event(n) for n in range(len(each))]
    for n, word in enumerate(each):
        hold.feed(events[n], [Delta((0, "tool_calls", n, "arguments"), word)], 0.0)
    return events


def test_a_text_cut_over_many_channels_is_screened_joined_as_well():
    hold = holdback()
    words(hold, "how", "to", "make", "it")
    portions = hold.due(0.0, force=True)
    assert [portion.text for portion in portions] == ["how", "to", "make", "it", "how\nto\nmake\nit\n"]
    assert portions[-1].channel == JOINED
    for portion in portions[:-1]:
        hold.passed(portion)
    assert len(hold.release()) == 1, "the first says nothing that was not screened alone"
    hold.passed(portions[-1])
    assert len(hold.release()) == 3
    assert JOINED not in hold.channels()


def test_short_texts_that_end_one_after_another_are_joined_with_those_before():
    hold = holdback(overlap=7, hold_ms=1000)
    for n, word in enumerate(["how", "to", "make", "it"]):
        hold.feed(event(n), [Delta((0, "tool_calls", n, "arguments"), word)], float(n))
        portions = hold.due(n + 1.0)
        for portion in portions:
            hold.passed(portion)
        assert len(hold.release()) == 1
    assert [portion.text for portion in portions] == ["it", "o\nmake\nit\n"]
    assert hold.next_due_s is None


def test_a_text_of_a_window_or_more_is_joined_with_nothing():
    hold = holdback(first=8)
    words(hold, "long enough to tell", "so is this one", "short")
    assert len(hold.due(0.0, force=True)) == 3


def test_text_after_the_end_is_screened_like_any_other():
    hold = holdback()
    said("the end", hold=hold)
    (portion,) = hold.due(0.0, force=True)
    hold.passed(portion)
    assert hold.release()
    said(" or not", hold=hold)
    assert hold.release() == []
    assert [portion.text for portion in hold.due(0.0, force=True)] == ["he end or not"]


def test_a_whole_reply_is_one_portion_a_channel_and_only_at_the_end():
    hold = holdback(whole=True)
    said("word " * 100, hold=hold)
    said("other " * 100, hold=hold, channel=(1, "content"))
    assert (hold.due(1e9), hold.next_due_s) == ([], None)
    assert [portion.text for portion in hold.due(0.0, force=True)] == ["word " * 100, "other " * 100]


def test_a_repeat_of_the_whole_text_needs_no_screening_of_its_own():
    hold = holdback()
    said("all that was said", hold=hold)
    hold.feed(event(2), [Delta(SAID, "all that was said", whole=True)], 0.0)
    (portion,) = hold.due(0.0, force=True)
    assert portion.text == "all that was said"
    hold.passed(portion)
    assert len(hold.release()) == 2
    assert hold.text(SAID) == "all that was said"


def test_a_repeat_that_says_more_has_the_rest_screened():
    hold = holdback(overlap=4)
    said("all that", hold=hold)
    hold.passed(hold.due(0.0, force=True)[0])
    hold.feed(event(2), [Delta(SAID, "all that was hidden", whole=True)], 0.0)
    assert [portion.text for portion in hold.due(0.0, force=True)] == ["that was hidden"]


def test_a_repeat_that_says_something_else_is_screened_in_full():
    hold = holdback()
    said("all that was said", hold=hold)
    hold.passed(hold.due(0.0, force=True)[0])
    for _ in range(3):
        hold.feed(event(2), [Delta(SAID, "something else", whole=True)], 0.0)
    assert [portion.text for portion in hold.due(0.0, force=True)] == ["something else"]
    assert len(hold.release()) == 1


def test_a_repeat_of_nothing_is_new_text():
    hold = holdback()
    hold.feed(event(1), [Delta(SAID, "never streamed", whole=True)], 0.0)
    assert [portion.text for portion in hold.due(0.0, force=True)] == ["never streamed"]


def test_where_too_much_was_said_to_be_kept_a_repeat_is_screened_again():
    hold = holdback(kept=10)
    said("12345678", "90abc", hold=hold)
    hold.feed(event(2), [Delta(SAID, "1234567890abc", whole=True)], 0.0)
    assert [portion.text for portion in hold.due(0.0, force=True)] == ["1234567890abc", "1234567890abc"]
    assert hold.text(SAID) == "12345678"


def test_text_spread_over_more_channels_than_any_reply_has_is_an_error():
    hold = holdback()
    with pytest.raises(TooManyChannels):
        hold.feed(event(), [Delta((n, "content"), "x") for n in range(MAX_CHANNELS + 1)], 0.0)


def test_an_unknown_channel_has_no_text():
    assert holdback().text(SAID) == ""
