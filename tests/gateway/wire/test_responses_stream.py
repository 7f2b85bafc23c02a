"""Which text each event of the responses API brings, and how a stream is ended before its time."""

import itertools
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.types.responses import (
    ResponseIncompleteEvent,
    ResponseShellCallOutputContentDeltaEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)

from gateway.holdback import HoldBack
from gateway.streaming import Event, encode
from gateway.wire.responses_stream import ResponsesStream
from tests.fakes import ScriptedUpstream, stream
from tests.gateway.wire.samples import markers, samples
from tests.transcripts import ToolCall, response_stream, sse

EVENTS = get_args(get_args(ResponseStreamEvent)[0])
FRAME = ("item_id", "obfuscation", "logprobs", "authorization", "headers")
"""Identifiers, padding, repetitions of the text beside them, and secrets of MCP servers."""

CALL = ToolCall("look_up", '{"query": "caf\\u00e9 \\ud83c\\udf70 \\"x\\""}')
RECORDED = [
    json.loads(event.split(b"data: ", 1)[1])
    for event in response_stream("Hello, how are you?", tool_calls=[CALL], reasoning="Let me think.")
]


def texts(events: list[dict], request: dict | None = None) -> dict[tuple, str]:
    """The text of every channel once all events are read, as the hold-back puts it together."""
    reader = ResponsesStream(request or {})
    hold = HoldBack(first_chars=1, window_chars=1, overlap_chars=0, max_hold_ms=1)
    for event in events:
        hold.feed(Event(b"", None, ""), reader.read(None, event), 0.0)
    return {channel: hold.text(channel) for channel in hold.channels()}


# Reading.


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_string_of_every_type_of_event_is_read_or_reported_as_unreadable(kind):
    for event in samples(kind):
        reader = ResponsesStream({})
        said = "".join(delta.text for delta in reader.read(None, event))
        missed = {marker for marker in markers(event, (*FRAME, "encrypted_content")) if marker not in said}
        assert not missed or reader.unreadable, event
        if kind.__name__ not in ("ResponseAudioDeltaEvent", "ResponseImageGenCallPartialImageEvent"):
            opaque = ("encrypted_content", "result", "image_url", "data", "file_data", "file_url", "file_id", "url")
            assert all(marker in said for marker in markers(event, (*FRAME, *opaque))), event


def test_fragments_and_repetitions_of_a_text_share_a_channel():
    assert texts(RECORDED) == {
        ("output", 0, "summary", 0, "text"): "Let me think.",
        ("output", 1, "content", 0, "text"): "Hello, how are you?",
        ("output", 2, "arguments"): '{"query": "caf\u00e9 \U0001f370 "x""}',
        ("rest", "assistant"): "look_up\n",
    }


def test_escapes_in_arguments_are_decoded_however_the_events_cut_them():
    encoded = json.dumps({"a": "b\u00f6mb \U0001f4a3 \\ \n"})
    for size in range(1, 14):
        pieces = [encoded[i : i + size] for i in range(0, len(encoded), size)]
        events = [
            {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": piece} for piece in pieces
        ]
        done = {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": encoded}
        assert texts([*events, done]) == {("output", 0, "arguments"): '{"a": "b\u00f6mb \U0001f4a3 \\ \n"}'}


def test_escapes_in_an_answer_that_is_json_are_decoded():
    events = [json.loads(event.split(b"data: ", 1)[1]) for event in response_stream('{"a": "b\\u00f6se"}', size=3)]
    request = {"text": {"format": {"type": "json_object"}}}
    assert texts(events, request) == {("output", 0, "content", 0, "text"): '{"a": "b\u00f6se"}'}
    reader = ResponsesStream(request)
    for event in events:
        reader.read(None, event)
    assert reader.spoken(("output", 0, "content", 0, "text")) is None


def test_the_words_of_messages_are_told_from_reasoning_and_calls():
    reader = ResponsesStream({})
    for event in RECORDED:
        reader.read(None, event)
    assert [channel for channel in texts(RECORDED) if reader.spoken(channel) is not None] == [
        ("output", 1, "content", 0, "text")
    ]
    assert reader.spoken(("output", 1, "content", 0, "text")) == 0


def test_what_a_shell_prints_is_one_text_for_each_stream():
    frame = {"item_id": "sh_1", "output_index": 0, "command_index": 0, "sequence_number": 0}
    kind = "response.shell_call_output_content"
    outputs = [{"stdout": "one", "stderr": ""}, {"stdout": " two", "stderr": "oh"}]
    events = [
        {"type": f"{kind}.delta", **frame, "delta": {"stdout": "one "}},
        {"type": f"{kind}.delta", **frame, "delta": {"stdout": "two", "stderr": "oh"}},
        {"type": f"{kind}.done", **frame, "output": outputs},
    ]
    ResponseShellCallOutputContentDeltaEvent.model_validate(events[0])
    assert texts(events) == {
        ("output", 0, "output", 0, "stdout"): "one two",
        ("output", 0, "output", 0, "stderr"): "oh",
    }


def test_many_citations_share_a_channel_and_are_read_once():
    added = [
        {
            "type": "response.output_text.annotation.added",
            "output_index": 0,
            "content_index": 0,
            "annotation_index": number,
            "annotation": {"type": "url_citation", "title": f"Title {number}", "url": "https://example.org/page"},
        }
        for number in range(2000)
    ]
    (text,) = texts([*added, *added]).values()
    assert text.count("https://example.org/page\n") == 1
    assert [line for line in text.split("\n") if "Title" in line] == [f"Title {number}" for number in range(2000)]


def test_an_event_of_an_unknown_type_is_read_as_fragments_of_its_own():
    events = [
        {"type": "response.dream.delta", "item_id": "a b", "delta": {"image": piece}} for piece in ("of ", "sheep")
    ]
    assert texts(events)[("event", "response.dream.delta", "delta", "image")] == "of sheep"
    assert texts(events)[("event", "response.dream.delta", "item_id")] == "a ba b"


def test_a_field_that_a_known_event_does_not_have_is_read():
    event = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a", "note": "b c"}
    assert texts([event]) == {("output", 0, "content", 0, "text"): "a", ("rest", "assistant"): "b c\n"}


def test_the_name_of_an_event_stands_in_for_a_type_that_is_left_out():
    reader = ResponsesStream({})
    (delta,) = reader.read("response.output_text.delta", {"output_index": 0, "content_index": 0, "delta": "a"})
    assert delta.channel == ("output", 0, "content", 0, "text")


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 7},
        {"type": "response.output_text.delta"},
        {"type": "response.output_text.delta", "delta": 7},
        {"type": "response.output_item.done", "item": 7},
        {"type": "response.shell_call_output_content.delta", "delta": "a"},
        {"type": "response.completed", "response": {"output": "a"}},
    ],
)
def test_an_event_that_cannot_be_read_is_a_value_error(event):
    with pytest.raises(ValueError):
        ResponsesStream({}).read(None, event)


JSON_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
FIELDS = ("delta", "text", "item", "part", "response", "output", "output_index", "annotation", "sequence_number")


@given(
    st.sampled_from([get_args(kind.model_fields["type"].annotation)[0] for kind in EVENTS]),
    st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES),
)
def test_any_event_is_read_or_is_a_value_error(kind, fields):
    reader = ResponsesStream({})
    try:
        reader.read(None, {**fields, "type": kind})
    except ValueError:
        return
    reader.close()


@pytest.mark.parametrize("last", ["response.completed", "response.incomplete", "response.failed", "error"])
def test_a_stream_has_ended_with_its_last_event_and_not_before(last):
    reader = ResponsesStream({})
    for event in RECORDED[:-1]:
        reader.read(None, event)
        assert not reader.ended
    reader.read(None, {"type": last})
    assert reader.ended


# Closing.


def cut_after(count: int) -> tuple[list[dict], list[tuple]]:
    reader = ResponsesStream({"model": "m"})
    for event in RECORDED[:count]:
        reader.read(None, event)
    return RECORDED[:count], list(reader.close())


@pytest.mark.parametrize("count", range(len(RECORDED) + 1))
def test_a_stream_cut_anywhere_ends_with_one_valid_incomplete_event(count):
    before, closing = cut_after(count)
    name, event = closing[-1]
    assert name == event["type"] == "response.incomplete"
    assert [name for name, _ in closing[:-1]] == ([] if before else ["response.created"])
    parsed = ResponseIncompleteEvent.model_validate(event, strict=True)
    assert parsed.response.status == "incomplete"
    assert parsed.response.incomplete_details.reason == "content_filter"
    assert parsed.response.output == []
    numbers = [each["sequence_number"] for each in [*before, *(event for _, event in closing)]]
    assert numbers == list(range(len(numbers)))


async def test_the_openai_client_reads_a_stream_that_was_cut_anywhere_to_its_end():
    async with ScriptedUpstream() as server, AsyncOpenAI(base_url=server.base_url, api_key="k") as client:
        for count in range(len(RECORDED)):
            before, closing = cut_after(count)
            server.on("/responses", stream(*map(sse, before), *itertools.starmap(encode, closing)))
            async with client.responses.stream(model="m", input="hi") as events:
                received = [event async for event in events]
            assert received[-1].type == "response.incomplete"
            assert received[-1].response.incomplete_details.reason == "content_filter"
            assert len(received) == len(before) + len(closing)


def test_the_response_of_the_closing_event_is_the_one_that_was_opened():
    opened = {**RECORDED[0]["response"], "id": "resp_x", "metadata": {"a": "b"}}
    reader = ResponsesStream({})
    reader.read(None, {"type": "response.created", "response": opened, "sequence_number": 41})
    ((_, event),) = reader.close()
    assert event["sequence_number"] == 42
    assert event["response"]["id"] == "resp_x"
    assert event["response"]["metadata"] == {"a": "b"}


def test_a_created_event_that_brought_text_may_be_held_so_it_is_sent_without_it():
    reader = ResponsesStream({"model": "m"})
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "bad"}]}
    reader.read(None, {"type": "response.created", "response": {"id": "resp_1", "output": [item]}})
    events = reader.close()
    assert [name for name, _ in events] == ["response.created", "response.incomplete"]
    assert "bad" not in json.dumps(events)


def test_a_reply_whose_last_event_was_read_but_is_held_can_still_be_closed():
    before, closing = cut_after(len(RECORDED))
    assert [name for name, _ in closing] == ["response.incomplete"]
    assert closing[0][1]["sequence_number"] == len(before)
    assert closing[0][1]["response"]["output"] == []


def test_recorded_events_are_what_the_api_sends():
    text = next(event for event in RECORDED if event["type"] == "response.output_text.delta")
    ResponseTextDeltaEvent.model_validate(text, strict=True)
