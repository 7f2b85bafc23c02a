"""Which texts each chunk of a streamed chat reply brings, and how the stream can be closed at any point."""

import json
from collections.abc import Sequence

import pytest
from openai import ContentFilterFinishReasonError
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDelta

from gateway.streaming import Delta
from gateway.wire.chat import Chat
from gateway.wire.surface import Answer, Json, Place, ReplyStream
from tests.gateway.wire.samples import markers, samples
from tests.transcripts import ToolCall, chat_stream

SURFACE = Chat()


def said(deltas: Sequence[Delta]) -> dict[Place, str]:
    texts: dict[Place, str] = {}
    for delta in deltas:
        texts[delta.channel] = texts.get(delta.channel, "") + delta.text
    return texts


def payloads(transcript: list[bytes]) -> list[Json]:
    data = [event.decode().strip().removeprefix("data: ") for event in transcript]
    return [json.loads(each) for each in data if each != "[DONE]"]


def read_all(stream: ReplyStream, chunks: Sequence[Json]) -> list[Delta]:
    return [delta for payload in chunks for delta in stream.read(None, payload)]


CALLS = [ToolCall("look_up", '{"place": "K\\u00f6ln"}'), ToolCall("add", '{"n": 1}', id="call_2")]


@pytest.mark.parametrize("size", [1, 3, 50])
def test_a_stream_brings_every_text_on_a_channel_of_its_own(size: int):
    stream = SURFACE.reply_stream({"n": 2})
    transcript = chat_stream("first words", "second words", reasoning="thought", tool_calls=CALLS, size=size)
    chunks = payloads(transcript)
    assert said(read_all(stream, chunks[:-1])) == {
        (0, "content"): "first words",
        (1, "content"): "second words",
        (0, "reasoning_content"): "thought",
        (1, "reasoning_content"): "thought",
        (0, "tool_calls", 0, "name"): "look_up",
        (0, "tool_calls", 0, "arguments"): '{"place": "Köln"}',
        (0, "tool_calls", 1, "name"): "add",
        (0, "tool_calls", 1, "arguments"): '{"n": 1}',
    }
    assert not stream.ended
    stream.read(None, chunks[-1])
    assert stream.ended
    assert stream.close() == []


@pytest.mark.parametrize("chunk", samples(ChatCompletionChunk))
def test_every_text_of_a_chunk_of_the_openai_package_is_found(chunk: Json):
    found = "\n".join(delta.text for delta in SURFACE.reply_stream({}).read(None, chunk))
    assert all(text in found for text in markers(chunk["choices"], without=["data", "top_logprobs"]))


def test_the_deltas_of_the_openai_package_have_no_other_fields():
    """A new one is screened as text; this says to look whether it is read in the right way."""
    fields = {"content", "function_call", "refusal", "role", "tool_calls", "audio", "id", "obfuscation"}
    assert set(ChoiceDelta.model_fields) <= fields


def delta(index: int = 0, finish: str | None = None, **fields: object) -> Json:
    return {"id": "c", "choices": [{"index": index, "delta": fields, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"refusal": "I won't"}, {(0, "refusal"): "I won't"}),
        ({"novel": "unknown field"}, {(0, "novel"): "unknown field"}),
        ({"novel": {"deep": ["unknown", "fields"]}}, {(0, "novel"): "unknown\nfields"}),
        ({"content": [{"type": "text", "text": "part"}]}, {(0, "content"): "part"}),
        ({"audio": {"id": "a", "transcript": "spoken", "data": "bm8="}}, {(0, "audio", "transcript"): "spoken"}),
        ({"function_call": {"name": "f", "arguments": "{"}}, {
            (0, "function_call", "name"): "f",
            (0, "function_call", "arguments"): "{",
        }),
        ({"tool_calls": [{"function": {"name": "no index"}}]}, {(0, "tool_calls", 0, "name"): "no index"}),
        ({"tool_calls": [{"index": 4, "custom": {"input": "x y"}}]}, {(0, "tool_calls", 4, "input"): "x y"}),
        ({"tool_calls": [{"id": "an id that talks"}]}, {(0, "tool_calls", 0, "id"): "an id that talks"}),
        ({"role": "assistant", "content": None, "tool_calls": None, "audio": None}, {}),
    ],
)  # fmt: skip
def test_a_delta_brings(fields: Json, texts: dict[Place, str]):
    assert said(SURFACE.reply_stream({}).read(None, delta(**fields))) == texts


def test_a_message_inside_a_chunk_repeats_the_whole():
    stream = SURFACE.reply_stream({})
    message = {"role": "assistant", "content": "all", "function_call": {"arguments": "\\u0061"}}
    chunk = {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    assert stream.read(None, chunk) == [
        Delta((0, "content"), "all", whole=True),
        Delta((0, "function_call", "arguments"), "a", whole=True),
    ]


def test_tokens_count_where_they_spell_something_else_than_the_delta():
    stream = SURFACE.reply_stream({})
    chunk = delta(content="word")
    chunk["choices"][0]["logprobs"] = {"content": [{"token": "word"}], "refusal": None}
    assert len(stream.read(None, chunk)) == 1
    chunk["choices"][0]["logprobs"] = {"content": [{"token": "other"}]}
    assert said(stream.read(None, chunk)) == {(0, "content"): "word", (0, "logprobs"): "other"}


def test_what_every_chunk_repeats_beside_the_choices_is_whole():
    stream = SURFACE.reply_stream({})
    chunk = {**delta(content="a"), "citations": ["https://example.org/a b"], "usage": {"note": "not read"}}
    assert stream.read(None, chunk)[1:] == [Delta(("reply", "citations"), "https://example.org/a b", whole=True)]


def test_text_after_the_finish_is_still_read():
    stream = SURFACE.reply_stream({})
    stream.read(None, delta(finish="stop"))
    assert said(stream.read(None, delta(content="more"))) == {(0, "content"): "more"}


def test_errors_and_pings_pass_without_text():
    stream = SURFACE.reply_stream({})
    assert stream.read(None, {"error": {"message": "the server is overloaded"}}) == []
    assert stream.read("ping", {}) == []
    assert not stream.ended


@pytest.mark.parametrize(
    "payload",
    [
        {"choices": 5},
        {"choices": ["x"]},
        {"choices": [{"index": "0", "delta": {}}]},
        {"choices": [{"index": True, "delta": {}}]},
        {"choices": [{"index": 0, "delta": "x"}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": "x"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": ["x"]}}]},
        {"choices": [{"index": 0, "logprobs": {"content": [5]}}]},
        {"choices": [{"index": index, "delta": {}} for index in range(1, 200)]},
    ],
)
def test_a_chunk_that_cannot_be_read_is_a_value_error(payload: Json):
    with pytest.raises(ValueError):
        SURFACE.reply_stream({}).read(None, payload)


def test_only_a_choices_content_is_what_it_says():
    stream = SURFACE.reply_stream({})
    assert stream.spoken((2, "content")) == 2
    others: list[Place] = [(0, "refusal"), (0, "tool_calls", 0, "name"), ("reply", "content")]
    assert [stream.spoken(channel) for channel in others] == [None] * 3


@pytest.mark.parametrize("n", [None, 0, -1, "2", 2.0, 10**9])
def test_a_strange_number_of_choices_does_no_harm(n: object):
    assert 1 <= len(SURFACE.reply_stream({"n": n}).close()) <= 128


@pytest.mark.parametrize("stop_after", range(len(chat_stream("some words", "other words", tool_calls=CALLS)) - 1))
def test_a_stream_can_be_closed_after_any_chunk(stop_after: int):
    chunks = payloads(chat_stream("some words", "other words", tool_calls=CALLS))
    stream, state = SURFACE.reply_stream({"n": 2, "model": "m"}), ChatCompletionStreamState()
    for payload in chunks[:stop_after]:
        stream.read(None, payload)
        state.handle_chunk(ChatCompletionChunk.model_validate(payload))
    for _, payload in stream.close():
        closing = ChatCompletionChunk.model_validate(payload)
        assert closing.choices[0].delta == ChoiceDelta()
        assert stop_after == 0 or closing.id == "chatcmpl-1"
        state.handle_chunk(closing)
        stream.read(None, payload)
    assert stream.ended
    finished = [choice.finish_reason for choice in state.current_completion_snapshot.choices]
    assert set(finished) <= {"content_filter", "tool_calls"}
    if "content_filter" in finished:
        with pytest.raises(ContentFilterFinishReasonError):
            state.get_final_completion()


def test_the_head_of_a_closing_chunk_is_that_of_the_reply_even_behind_azures_blank_one():
    stream = SURFACE.reply_stream({"model": "asked"})
    stream.read(None, {"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": [{"x": "safe"}]})
    stream.read(None, {**delta(content="a"), "model": "m", "created": 5, "system_fingerprint": "fp"})
    ((_, payload),) = stream.close()
    assert payload == {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "content_filter"}],
    }


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_streamed_answer_adds_up_to_the_same_text_in_the_openai_package(include_usage: bool):
    answer = Answer(
        texts=("No.", "Neither."),
        finish="content_filter",
        model="m",
        reply_id="chatcmpl-x",
        created_at=7,
        include_usage=include_usage,
    )
    state = ChatCompletionStreamState()
    chunks = [payload for _, payload in SURFACE.answer_events(answer)]
    for payload in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(payload))
    completion = state.current_completion_snapshot
    assert [(c.message.content, c.finish_reason) for c in completion.choices] == [
        ("No.", "content_filter"),
        ("Neither.", "content_filter"),
    ]
    assert (completion.usage is not None) is include_usage
    assert said(read_all(SURFACE.reply_stream({"n": 2}), chunks)) == {(0, "content"): "No.", (1, "content"): "Neither."}
