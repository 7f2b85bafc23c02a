"""What a chat request and its reply hold, whole and streamed, and how the gateway answers in that shape."""

import copy
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, completion_create_params

from gateway.errors import BadRequest
from gateway.wire.chat import Chat
from gateway.wire.places import read, replace
from gateway.wire.surface import JSON, Answer, Extracted, Json, Role
from tests.gateway.wire.samples import markers, samples
from tests.transcripts import ToolCall, chat_completion

SURFACE = Chat()

REQUEST: Json = {
    "model": "not read: model",
    "user": "not read: user",
    "stop": ["not read: stop"],
    "metadata": {"topic": "not read: metadata"},
    "tool_choice": {"type": "function", "function": {"name": "not read: choice"}},
    "messages": [
        {"role": "system", "content": "read: system"},
        {"role": "developer", "content": [{"type": "text", "text": "read: developer"}]},
        {
            "role": "user",
            "name": "read: name",
            "content": [
                "read: bare part",
                {"type": "text", "text": "read: text part"},
                {"type": "input_text", "text": "read: input part"},
                {"type": "image_url", "image_url": {"url": "not read: image"}},
                {"type": "input_audio", "input_audio": {"data": "not read: audio", "format": "wav"}},
                {"type": "file", "file": {"file_data": "not read: file"}},
                {"type": "novel", "id": "part_1", "deep": {"inside": "read: unknown part"}},
                {"text": "read: part without type"},
            ],
        },
        {
            "role": "assistant",
            "content": "read: said",
            "refusal": "read: refusal",
            "reasoning_content": "read: reasoning",
            "reasoning_details": [{"type": "reasoning.text", "text": "read: detail", "signature": "bm90cmVhZA=="}],
            "audio": {"id": "audio_1", "transcript": "read: transcript"},
            "novel": ["read: unknown field"],
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "read: called", "arguments": '{"to": "read: argument", "n": 3}'},
                },
                {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": "read: broken {"}},
                {"id": "call_3", "type": "custom", "custom": {"name": "read: custom", "input": "read: input"}},
            ],
            "function_call": {"name": "read: legacy", "arguments": '["read: legacy argument"]'},
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "read: tool"},
        {"role": "function", "name": "read: function name", "content": "read: function result"},
        {"role": "stranger", "content": "read: stranger"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "read: tool name",
                "description": "read: tool description",
                "strict": True,
                "parameters": {
                    "type": "object",
                    "title": "read: title",
                    "properties": {
                        "city": {"type": "string", "enum": ["read: choice"], "default": "read: default"},
                        "read: a key that says something": {"type": "integer", "description": "read: parameter"},
                    },
                    "required": ["city"],
                },
            },
        },
        {"type": "custom", "custom": {"name": "read: custom tool", "format": {"definition": "read: rule"}}},
    ],
    "functions": [{"name": "read: legacy name", "description": "read: legacy description"}],
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "read: schema", "description": "read: schema text", "schema": {"type": "object"}},
    },
    "prediction": {"type": "content", "content": [{"type": "text", "text": "read: prediction"}]},
    "web_search_options": {"user_location": {"approximate": {"city": "read: city"}}},
    "documents": [{"text": "read: document"}],
    "chat_template": "read: template",
    "guided_choice": ["read: guided"],
}


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for key, child in value.items() for text in [key, *strings(child)]]
    if isinstance(value, list):
        return [text for child in value for text in strings(child)]
    return [value] if isinstance(value, str) else []


def by_text(extracted: Extracted) -> dict[str, Any]:
    return {text.text: text for text in extracted.texts}


def test_every_text_the_model_reads_is_found_and_nothing_else():
    found = set(by_text(SURFACE.read_request(REQUEST)))
    marked = {text for text in strings(REQUEST) if text.startswith("read: ")}
    inside = {"read: argument", "read: legacy argument"}
    assert found - {"f"} == marked | inside


def test_each_text_stands_where_it_was_found():
    found = SURFACE.read_request(REQUEST).texts
    assert all(read(REQUEST, text.place) == text.text for text in found)
    assert len({text.place for text in found}) == len(found)


@pytest.mark.parametrize(
    ("text", "role", "turn"),
    [
        ("read: tool description", Role.DEFINITION, -1),
        ("read: document", Role.TOOL, -1),
        ("read: template", Role.SYSTEM, -1),
        ("read: prediction", Role.ASSISTANT, -1),
        ("read: system", Role.SYSTEM, 0),
        ("read: developer", Role.SYSTEM, 1),
        ("read: name", Role.DEFINITION, -1),
        ("read: text part", Role.USER, 2),
        ("read: reasoning", Role.ASSISTANT, 3),
        ("read: argument", Role.ASSISTANT, 3),
        ("read: tool", Role.TOOL, 4),
        ("read: function result", Role.TOOL, 5),
        ("read: stranger", Role.USER, 6),
    ],
)
def test_each_text_has_its_speaker_and_turn(text: str, role: Role, turn: int):
    found = by_text(SURFACE.read_request(REQUEST))[text]
    assert (found.role, found.turn) == (role, turn)


def test_definitions_come_before_the_messages_as_the_model_reads_them():
    turns = [text.turn for text in SURFACE.read_request(REQUEST).texts if text.role is not Role.DEFINITION]
    assert turns == sorted(turns)


def test_parts_without_text_are_named():
    unreadable = SURFACE.read_request(REQUEST).unreadable
    assert [(each.place, each.kind) for each in unreadable] == [
        (("messages", 2, "content", 3), "image"),
        (("messages", 2, "content", 4), "audio"),
        (("messages", 2, "content", 5), "file"),
        (("messages", 2, "content", 6), "other"),
        (("messages", 3, "audio"), "audio"),
    ]


def test_an_image_part_cannot_carry_a_text_past_the_screener():
    part = {"type": "image_url", "image_url": {"url": "u"}, "text": "beside"}
    found = SURFACE.read_request({"messages": [{"role": "user", "content": [part]}]})
    assert ([text.text for text in found.texts], len(found.unreadable)) == (["beside"], 1)


def test_every_parameter_of_the_openai_package_is_known():
    """A parameter that a later version adds is screened as text until someone says that the model never reads it."""
    words = dict.fromkeys(completion_create_params.CompletionCreateParamsBase.__annotations__, "some words")
    found = SURFACE.read_request({**words, "messages": []})
    assert {text.place[0] for text in found.texts} == {
        "functions",
        "prediction",
        "response_format",
        "tools",
        "web_search_options",
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], None),
        ({}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "refusal": []}]}, "messages[0].refusal"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": ["x"]}]}, "messages[0].tool_calls[0]"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": "x"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"messages": [{"role": "assistant", "audio": "x"}]}, "messages[0].audio"),
        ({"messages": [{"role": "assistant", "function_call": "x"}]}, "messages[0].function_call"),
        ({"messages": [], "tools": [{JSON: "x"}]}, "tools"),
    ],
)
def test_a_wrong_type_is_a_bad_request_that_names_it(body: Any, param: str | None):
    with pytest.raises(BadRequest) as caught:
        SURFACE.read_request(body)
    assert caught.value.param == param


FIELDS = ["role", "content", "name", "refusal", "audio", "tool_calls", "function_call", "function", "custom"]
FIELDS += ["arguments", "type", "text", "index", "choices", "message", "messages", "delta", "logprobs", "token"]
KEYS = st.sampled_from(FIELDS) | st.text(max_size=6)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.floats() | st.text(max_size=50) | st.sampled_from(["user", "{"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=30,
)


MESSAGES = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": ANY_JSON, "tool_calls": ANY_JSON}))


@given(ANY_JSON, MESSAGES)
def test_any_request_is_read_or_refused_and_texts_that_replace_themselves_change_nothing(rest: Any, messages: Any):
    for body in (rest, {"messages": messages, "more": rest}, {"messages": [rest]}):
        before = copy.deepcopy(body)
        try:
            found = SURFACE.read_request(body)
        except BadRequest:
            continue
        assert replace(body, {text.place: text.text for text in found.texts}) is body
        edits = {text.place: f"{text.text} [x]" for text in found.texts if "\x00key" not in text.place}
        again = {text.text for text in SURFACE.read_request(replace(body, edits)).texts}
        assert again >= set(edits.values())
        assert repr(body) == repr(before)


@given(ANY_JSON)
def test_any_reply_or_chunk_is_read_or_is_a_value_error(body: Any):
    for choices in (body, [body], [{"index": 0, "message": body, "logprobs": body}]):
        with suppress(ValueError):
            SURFACE.read_reply({"id": "x", "choices": choices})
        with suppress(ValueError):
            SURFACE.reply_stream({}).read(None, {"id": "x", "choices": choices})
        with suppress(ValueError):
            SURFACE.reply_stream({}).read(None, {"id": "x", "choices": [{"delta": body, "more": body}]})


def test_hosted_tools_are_named_once_each():
    tools = [{"type": "function"}, {"type": "custom"}, {"type": "web_search"}, {"type": "browse"}, {"type": "browse"}]
    references = SURFACE.references({"tools": tools, "web_search_options": {}})
    assert references.hosted_tools == ("web_search", "browse")
    assert SURFACE.references({"messages": []}).hosted_tools == ()


@pytest.mark.parametrize("tools", [5, ["x"], [{}], [{"type": ["x"]}]])
def test_tools_that_make_no_sense_ask_for_nothing(tools: Any):
    assert SURFACE.references({"tools": tools}).hosted_tools == ()


@pytest.mark.parametrize("reply", samples(ChatCompletion))
def test_every_text_of_a_reply_of_the_openai_package_is_found(reply: Json):
    found = [text.text for text in SURFACE.read_reply(reply).texts]
    choices = markers(reply["choices"], without=["data", "logprobs"])
    assert set(choices) <= set(found)


def test_all_choices_are_read_with_their_numbers():
    reply = chat_completion("first", "second")
    reply["choices"].reverse()
    assert [(text.text, text.choice, text.place) for text in SURFACE.read_reply(reply).texts] == [
        ("second", 1, ("choices", 0, "message", "content")),
        ("first", 0, ("choices", 1, "message", "content")),
    ]


def test_arguments_and_json_are_structured_and_words_are_not():
    call = ToolCall("look_up", '{"place": "Oslo"}')
    reply = chat_completion('{"a": "b"}', "words", tool_calls=[call])
    structured = {text.text: text.structured for text in SURFACE.read_reply(reply).texts}
    assert structured == {'{"a": "b"}': True, "words": False, "look_up": False, "Oslo": True}


def test_escapes_hide_nothing_in_structured_output():
    found = SURFACE.read_reply(chat_completion('{"answer": "\\u0062omb"}')).texts
    assert [(text.text, text.place[-2:]) for text in found] == [("bomb", (JSON, "answer"))]


def with_logprobs(content: str, *tokens: str) -> Json:
    reply = chat_completion(content)
    entries = [{"token": token, "logprob": -0.1, "bytes": None, "top_logprobs": []} for token in tokens]
    reply["choices"][0]["logprobs"] = {"content": entries, "refusal": None}
    return reply


def test_log_probabilities_that_spell_the_content_are_no_text_of_their_own():
    assert len(SURFACE.read_reply(with_logprobs("two words", "two", " words")).texts) == 1


def test_log_probabilities_that_spell_something_else_are_read_and_dropped_with_an_edit():
    reply = with_logprobs("harmless", "harm", "ful")
    found = SURFACE.read_reply(reply).texts
    assert [text.text for text in found] == ["harmless", "harmful"]
    for text in found:
        assert replace(reply, {text.place: "new"})["choices"][0]["logprobs"] is None


def test_texts_outside_the_choices_are_read_too():
    reply = {**chat_completion("words"), "citations": ["https://example.org"], "service_tier": "default"}
    assert [text.text for text in SURFACE.read_reply(reply).texts] == ["words", "https://example.org"]


def test_sound_in_a_reply_is_named_and_its_transcript_read():
    reply = chat_completion("")
    reply["choices"][0]["message"]["audio"] = {"id": "audio_1", "data": "bm90IHJlYWQ=", "transcript": "spoken words"}
    found = SURFACE.read_reply(reply)
    assert [text.text for text in found.texts] == ["spoken words"]
    assert [each.kind for each in found.unreadable] == ["audio"]


@pytest.mark.parametrize(
    "reply",
    [{}, {"choices": None}, {"choices": ["x"]}, {"choices": [{"index": "0", "message": {}}]}, {"choices": [{}]}],
)
def test_an_unreadable_reply_is_a_value_error(reply: Json):
    with pytest.raises(ValueError):
        SURFACE.read_reply(reply)


@pytest.mark.parametrize(("given", "role"), [("system", "system"), ("developer", "developer"), ("user", "system")])
def test_an_instruction_comes_before_all_messages_in_the_role_the_request_uses(given: str, role: str):
    body = {"model": "m", "messages": [{"role": given, "content": "x"}]}
    instructed = SURFACE.instruct(body, "Be careful.")
    assert instructed["messages"] == [{"role": role, "content": "Be careful."}, *body["messages"]]
    assert len(body["messages"]) == 1


def answer(*texts: str, include_usage: bool = False) -> Answer:
    return Answer(
        texts=texts,
        finish="content_filter",
        model="m",
        reply_id="chatcmpl-x",
        created_at=7,
        include_usage=include_usage,
    )


def test_an_answer_is_a_completion_to_the_openai_package():
    completion = ChatCompletion.model_validate(SURFACE.answer(answer("No.", "Neither.")))
    assert [(c.index, c.message.content, c.finish_reason) for c in completion.choices] == [
        (0, "No.", "content_filter"),
        (1, "Neither.", "content_filter"),
    ]
    assert (completion.id, completion.created, completion.model) == ("chatcmpl-x", 7, "m")
    assert completion.usage is not None
    assert completion.usage.total_tokens == 0


@pytest.mark.parametrize("kind", [["text"], {"a": 1}, 3, True])
def test_a_content_part_whose_type_is_no_name_is_read_and_named_unreadable(kind: object) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": kind, "text": "read me"}]}]}
    found = Chat().read_request(body)
    assert "read me" in [text.text for text in found.texts]
    assert [part.kind for part in found.unreadable] == ["other"]
