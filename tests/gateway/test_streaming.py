"""Server-sent events survive any cut; escapes of streamed JSON are read as what a program will read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.streaming import DONE, Event, EventParser, EventTooLarge, JsonText, encode
from tests.transcripts import COMMENT, chat_stream, rechunk, response_stream, sse

TRANSCRIPTS = {
    "plain": chat_stream("naïve 文字 😀", usage="chunk"),
    "crlf": chat_stream("naïve 文字 😀", newline="\r\n"),
    "cr": chat_stream("naïve 文字 😀", newline="\r"),
    "comments": [COMMENT, *chat_stream("one two"), COMMENT],
    "no [DONE]": chat_stream("one two", usage="finish", done=False),
    "named events": response_stream("one two"),
    "mixed line ends": [b"data: a\r\n\n", b"data: b\n\r\n", b"data: c\r\r", b"data: d\n\n"],
}


def parse(*received: bytes, finish: bool = True) -> list[Event]:
    parser = EventParser(max_event_bytes=1 << 20)
    events = [event for chunk in received for event in parser.feed(chunk)]
    return events + parser.finish() if finish else events


def said(events: list[Event]) -> list[tuple[str | None, str | None]]:
    """What the events say; a line end that came after its event was complete says nothing."""
    return [(event.name, event.data) for event in events if event.raw.strip()]


@pytest.mark.parametrize("transcript", TRANSCRIPTS.values(), ids=TRANSCRIPTS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_events_are_the_same_however_the_bytes_are_cut(transcript: list[bytes], size: int):
    received = b"".join(transcript)
    events = parse(*rechunk(transcript, size))
    assert said(events) == said(parse(received))
    assert len(said(events)) == len(transcript)
    assert b"".join(event.raw for event in events) == received


@pytest.mark.parametrize("transcript", TRANSCRIPTS.values(), ids=TRANSCRIPTS)
def test_one_cut_anywhere_changes_nothing(transcript: list[bytes]):
    received = b"".join(transcript)
    uncut = said(parse(received))
    assert all(said(parse(received[:at], received[at:])) == uncut for at in range(len(received)))


@given(st.lists(st.sampled_from([b"data", b": x", b"\r", b"\n", b"\r\n", b":", b"event: e", b"\xef\xbb\xbf", b"\xff"])))
def test_no_byte_is_lost_or_added_and_every_event_but_the_last_is_complete(pieces: list[bytes]):
    received = b"".join(pieces)
    events = parse(*pieces, finish=False)
    raw = b"".join(event.raw for event in events)
    assert received.startswith(raw)
    assert all(event.raw.endswith((b"\n", b"\r")) for event in events)
    rest = b"".join(event.raw for event in parse(*pieces)).removeprefix(raw)
    assert rest in (received[len(raw) :], received[len(raw) :] + b"\n\n")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_an_event_leaves_the_parser_with_the_last_byte_of_its_blank_line(line_end: str):
    event = sse({"a": 1}, newline=line_end)
    parser = EventParser(max_event_bytes=1000)
    first = [parser.feed(event[i : i + 1]) for i in range(len(event))]
    arrived = [n for n, events in enumerate(first) if events]
    # A CR that ends the blank line already ends the event; its LF may never come.
    assert arrived == [len(event) - (2 if line_end == "\r\n" else 1)]


def test_several_data_lines_are_joined_and_the_last_name_counts():
    (event,) = parse(b"event: a\nevent: b\ndata: one\ndata:two\ndata\nid: 7\nretry: 5\n\n")
    assert (event.name, event.data) == ("b", "one\ntwo\n")


def test_only_one_space_after_the_colon_is_dropped():
    assert said(parse(b"data:  x \n\n")) == [(None, " x ")]


def test_a_comment_is_an_event_without_data():
    assert [(event.name, event.data) for event in parse(b": ping\n\n")] == [(None, None)]


def test_a_byte_order_mark_is_dropped_at_the_start_only():
    events = parse(b"\xef\xbb", b"\xbfdata: a\n\n", b"\xef\xbb\xbfdata: b\n\n")
    assert [event.data for event in events] == ["a", None]
    assert events[0].raw == b"\xef\xbb\xbfdata: a\n\n"


def test_bytes_that_are_not_utf_8_read_as_replacement_characters_and_stay_as_they_are():
    (event,) = parse(b"data: \xff\xc3\n\n")
    assert (event.data, event.raw) == ("\ufffd\ufffd", b"data: \xff\xc3\n\n")


@pytest.mark.parametrize("tail", [b"data: x", b"data: x\n", b"data: x\r", b"data: x\r\n"])
def test_a_last_event_without_blank_line_is_completed(tail: bytes):
    (event,) = parse(tail)
    assert event.data == "x"
    assert said(parse(event.raw, DONE)) == [(None, "x"), (None, "[DONE]")]


def test_nothing_is_left_to_finish_after_a_blank_line():
    assert len(parse(b"data: x\n\n")) == 1


def test_an_endless_event_is_an_error_as_soon_as_it_is_too_large():
    parser = EventParser(max_event_bytes=10)
    assert parser.feed(b"data: 1234") == []
    with pytest.raises(EventTooLarge, match="10 bytes"):
        parser.feed(b"5")


def test_a_complete_event_that_is_too_large_is_an_error():
    with pytest.raises(EventTooLarge):
        EventParser(max_event_bytes=10).feed(b"data: 123456789\n\n")


def test_several_events_together_may_be_larger_than_one_may_be():
    assert len(EventParser(max_event_bytes=10).feed(b"data: 1\n\n" * 50)) == 50


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9)), st.sampled_from([None, "response.created"]))
def test_what_is_encoded_is_parsed_as_one_event(payload: dict[str, str], name: str | None):
    (event,) = parse(encode(name, payload), finish=False)
    assert event.name == name
    assert json.loads(event.data or "") == payload


VALUES = st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


@given(VALUES, st.booleans(), st.lists(st.integers(1, 5)))
def test_escapes_are_undone_however_they_are_cut(value: object, ascii_only: bool, sizes: list[int]):
    encoded = json.dumps(value, ensure_ascii=ascii_only)
    text, cut, at = JsonText(), "", 0
    for size in [*sizes, len(encoded)]:
        cut += text.feed(encoded[at : at + size])
        at += size
    assert cut == JsonText().feed(encoded)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_json_string_reads_as_its_value_between_quotes(value: str):
    assert JsonText().feed(json.dumps(value)) == f'"{value}"'


@pytest.mark.parametrize(
    ("encoded", "read"),
    [
        (r"\u0062omb", "bomb"),
        (r"\\u0062omb", r"\u0062omb"),
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\ude00 \ud83dx", "\ufffd \ufffdx"),
        (r"\q \uzzzz", r"\q \uzzzz"),
        (r"cut \ud83d\ude0", "cut "),
        ("cut \\", "cut "),
    ],
)
def test_escapes_read_as(encoded: str, read: str):
    assert JsonText().feed(encoded) == read
