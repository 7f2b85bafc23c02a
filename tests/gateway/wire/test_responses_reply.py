"""Replies of our own in the form of the responses API, as the ``openai`` package reads them."""

import itertools
from typing import get_args

import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from gateway.streaming import encode
from gateway.wire.responses import Responses
from gateway.wire.responses_reply import wants_structure
from gateway.wire.surface import Answer
from tests.fakes import ScriptedUpstream, stream, whole

SURFACE = Responses()
EVENTS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}
STRUCTURED = {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}}


class Cake(BaseModel):
    eggs: int


def answer(*texts: str, finish: str = "content_filter", request: dict | None = None) -> Answer:
    return Answer(
        texts=texts, finish=finish, model="m", reply_id="resp_1", created_at=7, request=request or {"model": "m"}
    )


def test_a_refusal_is_an_incomplete_response_whose_text_clients_show():
    reply = Response.model_validate(SURFACE.answer(answer("I cannot help with that.")), strict=True)
    assert reply.status == "incomplete"
    assert reply.incomplete_details.reason == "content_filter"
    assert reply.output_text == "I cannot help with that."
    assert reply.output[0].status == "incomplete"
    assert reply.usage.total_tokens == 0


def test_a_safe_answer_is_a_completed_response():
    reply = Response.model_validate(SURFACE.answer(answer("Rinse your mouth.", finish="stop")), strict=True)
    assert (reply.status, reply.incomplete_details, reply.completed_at) == ("completed", None, 7)
    assert reply.output_text == "Rinse your mouth."


def test_a_refusal_where_json_was_asked_for_is_a_refusal_part():
    reply = Response.model_validate(SURFACE.answer(answer("No.", request=STRUCTURED)), strict=True)
    assert reply.output_text == ""
    assert reply.output[0].content[0].refusal == "No."


def test_several_texts_are_several_messages_with_ids_of_their_own():
    reply = Response.model_validate(SURFACE.answer(answer("one", "two", finish="stop")), strict=True)
    assert [item.content[0].text for item in reply.output] == ["one", "two"]
    assert len({item.id for item in reply.output}) == 2


def test_settings_of_the_request_are_repeated_and_its_texts_are_not():
    request = {
        "metadata": {"a": "b"},
        "temperature": 0,
        "max_output_tokens": True,
        "top_p": "hot",
        "instructions": "secret",
        "input": "secret",
        "tools": [{"type": "function", "name": "secret"}],
    }
    reply = SURFACE.answer(answer("No.", request=request))
    Response.model_validate(reply, strict=True)
    assert (reply["metadata"], reply["temperature"]) == ({"a": "b"}, 0)
    assert (reply["max_output_tokens"], reply["top_p"]) == (None, None)
    assert "secret" not in str(reply)


@pytest.mark.parametrize("finish", ["stop", "content_filter"])
@pytest.mark.parametrize("request_body", [{}, STRUCTURED], ids=["plain", "structured"])
def test_every_event_of_an_answer_is_valid_and_numbered(finish, request_body):
    events = SURFACE.answer_events(answer("one", "two", finish=finish, request=request_body))
    for number, (name, event) in enumerate(events):
        parsed = EVENTS[name].model_validate(event, strict=True)
        assert (parsed.type, parsed.sequence_number) == (name, number)


def test_the_events_of_an_answer_are_the_full_sequence_of_the_api():
    assert [name for name, _ in SURFACE.answer_events(answer("No."))] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]


@pytest.mark.parametrize("request_body", [{}, STRUCTURED], ids=["plain", "structured"])
def test_an_answer_says_the_same_whole_and_as_a_stream(request_body):
    made = answer("one", "two", request=request_body)
    events = SURFACE.answer_events(made)
    assert events[-1][1]["response"] == SURFACE.answer(made)
    reader = SURFACE.reply_stream(request_body)
    said = [delta for name, event in events for delta in reader.read(name, event)]
    assert "".join(delta.text for delta in said if not delta.whole) == "onetwo"
    assert {delta.text for delta in said if delta.whole} == {"one", "two"}
    assert reader.ended


def test_only_a_format_in_json_wants_structure():
    assert wants_structure(STRUCTURED)
    assert wants_structure({"text": {"format": {"type": "json_object"}}})
    for body in ({}, {"text": None}, {"text": {"format": {"type": "text"}}}, {"text": {"format": "json_object"}}):
        assert not wants_structure(body)


async def test_the_openai_client_streams_an_answer():
    events = SURFACE.answer_events(answer("Rinse your mouth.", finish="stop"))
    async with ScriptedUpstream() as server, AsyncOpenAI(base_url=server.base_url, api_key="k") as client:
        server.on("/responses", stream(*itertools.starmap(encode, events)))
        async with client.responses.stream(model="m", input="hi") as received:
            assert [event.type async for event in received] == [name for name, _ in events]
            assert (await received.get_final_response()).output_text == "Rinse your mouth."


async def test_the_openai_client_parses_a_refusal_where_it_wanted_json():
    refused = answer("I cannot help with that.", request=STRUCTURED)
    async with ScriptedUpstream() as server, AsyncOpenAI(base_url=server.base_url, api_key="k") as client:
        server.on("/responses", whole(SURFACE.answer(refused)))
        reply = await client.responses.parse(model="m", input="hi", text_format=Cake)
        assert reply.output_parsed is None
        assert reply.output[0].content[0].refusal == "I cannot help with that."
        server.on("/responses", stream(*itertools.starmap(encode, SURFACE.answer_events(refused))))
        async with client.responses.stream(model="m", input="hi", text_format=Cake) as events:
            assert [event.type async for event in events][-1] == "response.incomplete"
