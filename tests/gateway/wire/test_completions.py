"""What a legacy completion request, its reply and its stream hold, and how the gateway answers in that shape."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion, completion_create_params

from gateway.errors import BadRequest
from gateway.streaming import Delta
from gateway.wire.completions import Completions
from gateway.wire.places import read, replace
from gateway.wire.surface import Answer, Json, References, Role
from tests.gateway.wire.samples import markers, samples
from tests.transcripts import completion, completion_stream

SURFACE = Completions()


def texts(body: Any) -> list[str]:
    return [text.text for text in SURFACE.read_request(body).texts]


def payloads(transcript: list[bytes]) -> list[Json]:
    return [json.loads(event.removeprefix(b"data: ")) for event in transcript if b"[DONE]" not in event]


@pytest.mark.parametrize(
    ("body", "found", "unreadable"),
    [
        ({"prompt": "one"}, ["one"], []),
        ({"prompt": ["one", "", "two"]}, ["one", "two"], []),
        ({"prompt": "one", "suffix": "end"}, ["one", "end"], []),
        ({"prompt": [1, 2, 3]}, [], [("prompt",)]),
        ({"prompt": [[1, 2], "one", [3]]}, ["one"], [("prompt", 0), ("prompt", 2)]),
        ({"prompt": []}, [], []),
        ({"prompt": None}, [], []),
        ({"model": "m m", "user": "u u", "stop": ["s s"], "logit_bias": {"b b": 1}}, [], []),
        ({"prompt": "one", "guided_choice": ["read this"]}, ["read this", "one"], []),
    ],
)
def test_a_request_holds(body: Json, found: list[str], unreadable: list[tuple[str | int, ...]]):
    extracted = SURFACE.read_request(body)
    assert [text.text for text in extracted.texts] == found
    assert [each.place for each in extracted.unreadable] == unreadable
    assert {each.kind for each in extracted.unreadable} <= {"tokens"}
    assert all(read(body, text.place) == text.text for text in extracted.texts)


def test_no_prompt_of_several_is_older_than_another():
    extracted = SURFACE.read_request({"prompt": ["one", "two"], "suffix": "end"})
    assert {(text.role, text.turn) for text in extracted.texts} == {(Role.USER, 0)}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], None),
        ({"prompt": 5}, "prompt"),
        ({"prompt": {"text": "x"}}, "prompt"),
        ({"prompt": ["one", 5]}, "prompt[1]"),
        ({"prompt": ["one", ["two"]]}, "prompt[1]"),
        ({"prompt": "one", "suffix": 5}, "suffix"),
    ],
)
def test_a_wrong_type_is_a_bad_request_that_names_it(body: Any, param: str | None):
    with pytest.raises(BadRequest) as caught:
        SURFACE.read_request(body)
    assert caught.value.param == param


def test_every_parameter_of_the_openai_package_is_known():
    words = dict.fromkeys(completion_create_params.CompletionCreateParamsBase.__annotations__, "some words")
    assert {text.place[0] for text in SURFACE.read_request(words).texts} == {"prompt", "suffix"}


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "index", "tokens"]), inner),
    max_leaves=20,
)


@given(ANY_JSON, ANY_JSON)
def test_any_request_is_read_or_refused_and_texts_that_replace_themselves_change_nothing(prompt: Any, more: Any):
    for body in (prompt, {"prompt": prompt, "suffix": more}, {"prompt": [prompt, more], "more": more}):
        with suppress(BadRequest):
            found = SURFACE.read_request(body).texts
            assert replace(body, {text.place: text.text for text in found}) is body
            edits = {text.place: f"{text.text}!" for text in found}
            assert texts(replace(body, edits)) == list(edits.values())


@given(ANY_JSON)
def test_any_reply_or_chunk_is_read_or_is_a_value_error(choices: Any):
    for body in ({"choices": choices}, {"choices": [choices], "more": choices}):
        with suppress(ValueError):
            SURFACE.read_reply(body)
        with suppress(ValueError):
            SURFACE.reply_stream({}).read(None, body)


def test_nothing_in_the_format_stands_for_text_kept_elsewhere():
    assert SURFACE.references({"prompt": "x"}) == References()


@pytest.mark.parametrize("reply", samples(Completion))
def test_every_text_of_a_reply_of_the_openai_package_is_found(reply: Json):
    expected = set(markers(reply["choices"], without=["top_logprobs"]))
    found = {text.text for text in SURFACE.read_reply(reply).texts}
    streamed = {delta.text for delta in SURFACE.reply_stream({}).read(None, reply)}
    assert found == streamed == expected


def test_all_choices_are_read_with_their_numbers():
    reply = completion("first", "second")
    reply["choices"].reverse()
    assert [(text.text, text.choice) for text in SURFACE.read_reply(reply).texts] == [("second", 1), ("first", 0)]


def test_tokens_that_spell_the_text_are_no_text_of_their_own_and_go_with_an_edit():
    reply = completion("two words")
    reply["choices"][0]["logprobs"] = {"tokens": ["two", " words"], "token_logprobs": [-0.1, -0.2]}
    (text,) = SURFACE.read_reply(reply).texts
    edited = replace(reply, {text.place: "new"})
    assert (edited["choices"][0]["text"], edited["choices"][0]["logprobs"]) == ("new", None)


@pytest.mark.parametrize("reply", [{}, {"choices": {}}, {"choices": [5]}, {"choices": [{"text": 5}]}])
def test_an_unreadable_reply_is_a_value_error(reply: Json):
    with pytest.raises(ValueError):
        SURFACE.read_reply(reply)


@pytest.mark.parametrize(
    ("prompt", "instructed"),
    [
        ("one", "Be careful.\n\none"),
        (["one", "two"], ["Be careful.\n\none", "Be careful.\n\ntwo"]),
        ([[1, 2], "one"], [[1, 2], "Be careful.\n\none"]),
        (None, None),
    ],
)
def test_an_instruction_comes_before_each_prompt(prompt: object, instructed: object):
    body = {"model": "m", "prompt": prompt}
    assert SURFACE.instruct(body, "Be careful.") == {"model": "m", "prompt": instructed}
    assert body["prompt"] is prompt


def answer(*said: str, include_usage: bool = False) -> Answer:
    return Answer(
        texts=said, finish="content_filter", model="m", reply_id="cmpl-x", created_at=7, include_usage=include_usage
    )


def test_an_answer_is_a_completion_to_the_openai_package():
    body = Completion.model_validate(SURFACE.answer(answer("No.", "Neither.")))
    assert [(choice.index, choice.text, choice.finish_reason) for choice in body.choices] == [
        (0, "No.", "content_filter"),
        (1, "Neither.", "content_filter"),
    ]
    assert (body.id, body.created, body.model) == ("cmpl-x", 7, "m")


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_streamed_answer_says_each_text_and_ends_each_choice(include_usage: bool):
    chunks = [payload for _, payload in SURFACE.answer_events(answer("No.", "Neither.", include_usage=include_usage))]
    stream = SURFACE.reply_stream({"n": 2})
    deltas = [delta for payload in chunks for delta in stream.read(None, payload)]
    assert deltas == [Delta((0, "text"), "No."), Delta((1, "text"), "Neither.")]
    assert stream.ended
    ends = [chunk for chunk in chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    assert [Completion.model_validate(chunk).choices[0].index for chunk in ends] == [0, 1]
    assert bool(chunks[-1].get("usage")) is include_usage


@pytest.mark.parametrize("size", [1, 3, 50])
def test_a_stream_brings_each_choices_text(size: int):
    stream = SURFACE.reply_stream({"n": 2})
    said: dict[tuple[str | int, ...], str] = {}
    for payload in payloads(completion_stream("first words", "second words", size=size)):
        assert not stream.ended
        for delta in stream.read(None, payload):
            said[delta.channel] = said.get(delta.channel, "") + delta.text
    assert said == {(0, "text"): "first words", (1, "text"): "second words"}
    assert stream.ended


@pytest.mark.parametrize("stop_after", range(8))
def test_a_stream_can_be_closed_after_any_chunk(stop_after: int):
    stream = SURFACE.reply_stream({"prompt": ["one", "two"], "model": "m"})
    chunks = payloads(completion_stream("first", "second", size=3))
    for payload in chunks[:stop_after]:
        stream.read(None, payload)
    finished = {c["index"] for chunk in chunks[:stop_after] for c in chunk["choices"] if c["finish_reason"]}
    closing = [Completion.model_validate(payload) for _, payload in stream.close()]
    assert {body.choices[0].index for body in closing} == {0, 1} - finished
    assert all((c.text, c.finish_reason) == ("", "content_filter") for body in closing for c in body.choices)
    assert all(body.id == "cmpl-1" for body in closing if stop_after)


@pytest.mark.parametrize(
    ("request_body", "choices"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1], [2]]}, 2),
        ({"prompt": []}, 1),
        ({"n": 10**9}, 1024),
        ({"n": "3"}, 1),
    ],
)
def test_as_many_choices_are_open_as_were_asked_for(request_body: Json, choices: int):
    assert len(SURFACE.reply_stream(request_body).close()) == choices


def test_only_a_choices_text_is_what_it_says():
    stream = SURFACE.reply_stream({})
    assert [stream.spoken((1, "text")), stream.spoken((1, "logprobs")), stream.spoken(("reply", "text"))] == [
        1,
        None,
        None,
    ]


def test_unknown_fields_of_a_chunk_are_text():
    chunk = {"id": "c", "choices": [{"index": 0, "text": "", "novel": "said here"}], "notes": "and there, too"}
    assert SURFACE.reply_stream({}).read(None, chunk) == [
        Delta((0, "novel"), "said here"),
        Delta(("reply", "notes"), "and there, too", whole=True),
    ]
