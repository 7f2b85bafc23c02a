"""What a request and a reply of the responses API hold, and what stands for text kept upstream."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Tool

from gateway.errors import BadRequest
from gateway.wire.places import Malformed, read, replace
from gateway.wire.responses import Responses
from gateway.wire.surface import JSON, References, Role
from tests.gateway.wire.samples import markers, samples
from tests.transcripts import ToolCall, response

SURFACE = Responses()

REQUEST = {
    "model": "not read: model",
    "user": "not read: user",
    "metadata": {"topic": "not read: metadata"},
    "include": ["reasoning.encrypted_content"],
    "instructions": "read: instructions",
    "tools": [
        {
            "type": "function",
            "name": "read: tool name",
            "description": "read: tool description",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "read: parameter", "enum": ["read: choice"]},
                    "read: a key that says something": {"type": "string"},
                },
            },
        },
        {
            "type": "mcp",
            "server_label": "read: label",
            "server_url": "read: server",
            "server_description": "read: server description",
            "authorization": "not read: secret",
            "headers": {"x": "not read: header"},
        },
        {
            "type": "custom",
            "name": "read: custom",
            "format": {"type": "grammar", "syntax": "lark", "definition": "read: grammar"},
        },
    ],
    "text": {
        "format": {"type": "json_schema", "name": "read: schema", "schema": {"title": "read: title", "type": "object"}}
    },
    "prompt": {
        "id": "pmpt_1",
        "variables": {
            "a": "read: variable",
            "b": {"type": "input_text", "text": "read: typed variable"},
            "c": {"type": "input_file", "file_id": "file_1"},
        },
    },
    "input": [
        {"role": "system", "content": "read: system"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "read: user"},
                {"type": "input_image", "image_url": "not read: image"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "read: summary"}],
            "content": [{"type": "reasoning_text", "text": "read: reasoning"}],
            "encrypted_content": "not read: encrypted",
        },
        {"type": "function_call", "call_id": "c", "name": "read: call", "arguments": '{"a": ["read: argument"]}'},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "read: output"}]},
        {"type": "custom_tool_call", "call_id": "d", "name": "read: own", "input": "read: own input"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "read: own output"},
        {"type": "shell_call", "call_id": "e", "action": {"commands": ["read: command"]}},
        {"type": "shell_call_output", "call_id": "e", "output": [{"stdout": "read: out", "stderr": "read: err"}]},
        {"type": "apply_patch_call", "call_id": "f", "operation": {"type": "update_file", "diff": "read: diff"}},
        {"type": "mcp_approval_response", "approval_request_id": "g", "approve": False, "reason": "read: reason"},
        {"type": "item_reference", "id": "msg_1"},
    ],
}

REPLY = {
    **response(),
    "instructions": "not read: repeated",
    "metadata": {"a": "not read: metadata"},
    "output_text": "read: convenience",
    "error": {"code": "server_error", "message": "read: failure"},
    "output_messages": [{"author": "read: a field of another server"}],
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": "read: text",
                    "annotations": [
                        {"type": "url_citation", "title": "read: title", "url": "read: url", "start_index": 0},
                        {"type": "file_citation", "file_id": "file_1", "filename": "read: file name", "index": 0},
                    ],
                    "logprobs": [{"token": "not read: token", "bytes": [], "logprob": 0.0, "top_logprobs": []}],
                },
                {"type": "refusal", "refusal": "read: refusal"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "read: summary"}]},
        {"type": "function_call", "call_id": "c", "name": "read: name", "arguments": '{"x": {"y": "read: argument"}}'},
        {
            "type": "code_interpreter_call",
            "id": "ci_1",
            "code": "read: code",
            "container_id": "cntr_1",
            "outputs": [{"type": "logs", "logs": "read: logs"}, {"type": "image", "url": "not read: image"}],
        },
        {"type": "image_generation_call", "id": "ig_1", "result": "not read: image", "revised_prompt": "read: revised"},
        {
            "type": "file_search_call",
            "id": "fs_1",
            "queries": ["read: query"],
            "results": [{"filename": "read: found in", "text": "read: found", "attributes": {"id": "read: attribute"}}],
        },
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "queries": ["read: searched"]}},
        {"type": "mcp_call", "name": "read: mcp", "arguments": "read: no json", "output": "read: mcp output"},
    ],
}


def strings(value: object, start: str) -> set[str]:
    """Every string in a body, keys and JSON inside strings included, that begins so."""
    if isinstance(value, dict):
        found = {s for pair in value.items() for each in pair for s in strings(each, start)}
    elif isinstance(value, list):
        found = {s for each in value for s in strings(each, start)}
    elif isinstance(value, str) and value.startswith("{"):
        found = strings(json.loads(value), start)
    else:
        found = {value} if isinstance(value, str) else set()
    return {s for s in found if s.startswith(start)}


# Requests.


def test_every_string_of_a_request_that_the_model_reads_is_found_and_no_other():
    found = SURFACE.read_request(REQUEST)
    texts = [text.text for text in found.texts]
    assert set(texts) == strings(REQUEST, "read: ") | {"lark"}
    assert [(part.place, part.kind) for part in found.unreadable] == [
        (("prompt", "variables", "c"), "file"),
        (("input", 1, "content", 1), "image"),
        (("input", 2, "encrypted_content"), "other"),
        (("input", 11), "other"),
    ]


def test_the_texts_of_a_request_stand_where_their_places_say():
    found = SURFACE.read_request(REQUEST)
    assert all(read(REQUEST, text.place) == text.text for text in found.texts)
    edited = replace(REQUEST, {text.place: f"new {text.text}" for text in found.texts})
    assert [text.text for text in SURFACE.read_request(edited).texts] == [f"new {text.text}" for text in found.texts]


def test_turns_number_the_items_and_roles_say_who_speaks():
    by_text = {text.text: (text.role, text.turn) for text in SURFACE.read_request(REQUEST).texts}
    assert by_text["read: instructions"] == (Role.SYSTEM, -1)
    assert by_text["read: tool description"] == (Role.DEFINITION, -1)
    assert by_text["read: title"] == (Role.DEFINITION, -1)
    assert by_text["read: variable"] == (Role.USER, -1)
    assert by_text["read: system"] == (Role.SYSTEM, 0)
    assert by_text["read: user"] == (Role.USER, 1)
    assert by_text["read: argument"] == (Role.ASSISTANT, 3)
    assert by_text["read: output"] == (Role.TOOL, 4)
    assert by_text["read: reason"] == (Role.USER, 10)


def test_a_plain_string_is_one_user_turn():
    (text,) = SURFACE.read_request({"input": "hello"}).texts
    assert (text.place, text.role, text.turn) == (("input",), Role.USER, 0)


def test_every_string_of_every_tool_is_read_but_for_secrets_and_opaque_data():
    for tool in samples(Tool):
        found = SURFACE.read_request({"tools": [tool]})
        opaque = ("authorization", "headers", "data", "image_url")
        assert set(markers(tool, opaque)) <= {text.text for text in found.texts}, tool


@pytest.mark.parametrize(
    ("tool", "kind"),
    [
        ({"type": "image_generation", "input_image_mask": {"image_url": "data:image/png;base64,AA=="}}, "image"),
        ({"type": "shell", "environment": {"skills": [{"source": {"type": "base64", "data": "AA=="}}]}}, "file"),
    ],
)
def test_opaque_data_in_a_tool_is_reported(tool, kind):
    found = SURFACE.read_request({"tools": [tool]})
    assert not found.texts
    assert [part.kind for part in found.unreadable] == [kind]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 7}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"instructions": ["a"]}, "instructions"),
        ({"tools": {}}, "tools"),
        ({"tools": ["a"]}, "tools[0]"),
        ({"tools": [{"name": "f"}]}, "tools[0].type"),
        ({"tools": [{"type": "namespace", "tools": [7]}]}, "tools[0].tools[0]"),
        ({"text": "a"}, "text"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"prompt": "a"}, "prompt"),
        ({"prompt": {"variables": {}}}, "prompt.id"),
        ({"prompt": {"id": "a", "variables": []}}, "prompt.variables"),
        ({"prompt": {"id": "a", "variables": {"b": 7}}}, "prompt.variables.b"),
        ({"previous_response_id": 7}, "previous_response_id"),
        ({"conversation": 7}, "conversation"),
        ({"conversation": {}}, "conversation.id"),
        ({"background": "yes"}, "background"),
        ({"include": "a"}, "include"),
        ({"include": [7]}, "include[0]"),
    ],
)
def test_a_wrong_type_is_a_bad_request_that_names_the_parameter(body, param):
    with pytest.raises(BadRequest) as caught:
        SURFACE.read_request(body)
    assert caught.value.param == param


NAMES = st.sampled_from(
    """input instructions tools text format prompt variables id conversation background include type role content
    arguments output summary error result results name parameters file_id image_url encrypted_content action""".split()  # noqa: SIM905
)
KINDS = st.sampled_from(
    """message input_text output_text refusal input_image input_file reasoning function_call function_call_output
    mcp_call item_reference additional_tools namespace shell user system assistant""".split()  # noqa: SIM905
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | KINDS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
@settings(deadline=None)
def test_any_body_is_read_or_is_a_bad_request(body):
    try:
        found = SURFACE.read_request(body)
        SURFACE.references(body)
    except BadRequest:
        return
    assert all(read(body, text.place) == text.text for text in found.texts)
    assert replace(body, {text.place: text.text for text in found.texts}) == body


@given(st.dictionaries(NAMES, VALUES, max_size=6))
@settings(deadline=None)
def test_any_reply_is_read_or_is_malformed(body):
    try:
        found = SURFACE.read_reply(body)
    except Malformed:
        return
    assert all(read(body, text.place) == text.text for text in found.texts)


# References.


def test_a_request_without_references_has_none():
    tools = [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}, {"type": "local_shell"}]
    assert SURFACE.references({"input": "hello", "tools": tools}) == References()


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
def test_ids_that_stand_for_text_kept_upstream_are_listed(conversation):
    body = {
        "previous_response_id": "resp_1",
        "conversation": conversation,
        "prompt": {"id": "pmpt_1"},
        "background": True,
    }
    assert SURFACE.references(body) == References(("resp_1",), ("conv_1",), ("pmpt_1",), (), True)


def test_tools_that_run_upstream_are_listed_once_by_type_wherever_they_are_defined():
    body = {
        "tools": [
            {"type": "mcp", "server_label": "a"},
            {"type": "mcp", "server_label": "b"},
            {"type": "namespace", "name": "n", "tools": [{"type": "function"}, {"type": "mind_reading"}]},
            {"type": "shell", "environment": {"type": "local"}},
            {"type": "shell", "environment": {"type": "container_auto"}},
            {"type": "tool_search", "execution": "client"},
        ],
        "input": [{"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]}],
    }
    assert set(SURFACE.references(body).hosted_tools) == {"mcp", "mind_reading", "shell", "web_search"}
    assert len(SURFACE.references(body).hosted_tools) == 4


# Replies.


def test_every_string_of_a_reply_that_a_user_reads_is_found_and_no_other():
    found = SURFACE.read_reply(REPLY)
    assert {text.text for text in found.texts} == strings(REPLY, "read: ") | {"server_error"}
    assert [(part.place, part.kind) for part in found.unreadable] == [
        (("output", 3, "outputs", 1), "image"),
        (("output", 4, "result"), "image"),
    ]


def test_tool_calls_of_a_reply_are_structured_and_its_prose_is_not():
    structured = {text.text: text.structured for text in SURFACE.read_reply(REPLY).texts}
    assert structured["read: argument"]
    assert structured["read: code"]
    assert not structured["read: text"]
    assert not structured["read: summary"]
    assert not structured["read: logs"]


def test_the_text_of_a_reply_that_answers_in_json_is_structured():
    reply = {**response('{"a": "b"}'), "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}
    assert [text.structured for text in SURFACE.read_reply(reply).texts] == [True]


def test_words_that_an_answer_in_json_spells_in_escapes_are_read():
    answer = json.dumps({"step": "\u0431\u043e\u043c\u0431\u0430"})
    assert "\\u" in answer
    (text,) = SURFACE.read_reply(response(answer)).texts
    assert (text.text, text.structured) == ("\u0431\u043e\u043c\u0431\u0430", True)
    assert text.place == ("output", 0, "content", 0, "text", JSON, "step")


def test_encrypted_reasoning_is_reported_in_a_request_and_not_in_a_reply():
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AAAA"}
    assert not SURFACE.read_reply({**response(), "output": [item]}).unreadable
    assert len(SURFACE.read_request({"input": [item]}).unreadable) == 1


def test_a_stored_response_and_a_list_of_its_items_are_read():
    call = ToolCall("f", '{"a": "b c"}')
    _, argument = SURFACE.read_reply(response(tool_calls=[call])).texts
    assert argument.place == ("output", 0, "arguments", JSON, "a")
    listed = {"object": "list", "data": [{"type": "message", "role": "user", "content": "asked"}]}
    assert [text.place for text in SURFACE.read_reply(listed).texts] == [("data", 0, "content")]


@pytest.mark.parametrize(
    "body", [{}, {"output": "a"}, {"output": [7]}, {"object": "list"}, {"object": "list", "data": [1]}]
)
def test_an_unreadable_reply_is_a_value_error(body):
    with pytest.raises(ValueError):
        SURFACE.read_reply(body)


# Instructions.


def test_an_instruction_comes_before_the_callers_own():
    assert SURFACE.instruct({"input": "a", "instructions": "b"}, "safe") == {"input": "a", "instructions": "safe\n\nb"}
    assert SURFACE.instruct({"input": "a"}, "safe") == {"input": "a", "instructions": "safe"}


@pytest.mark.parametrize("asked", ["a", [{"role": "user", "content": "a"}]])
def test_an_instruction_leaves_those_of_a_stored_prompt_in_force(asked):
    body = {"prompt": {"id": "pmpt_1"}, "input": asked}
    instructed = SURFACE.instruct(body, "safe")
    assert "instructions" not in instructed
    assert [text.text for text in SURFACE.read_request(instructed).texts] == ["safe", "a"]
    assert body == {"prompt": {"id": "pmpt_1"}, "input": asked}
