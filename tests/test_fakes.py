"""The scripted model server and its transcripts are what the real ``openai`` client takes for a model."""

from collections.abc import AsyncIterator

import openai
import pytest

from tests.fakes import CUT, Pause, ScriptedUpstream, error, stream, whole
from tests.transcripts import (
    COMMENT,
    ToolCall,
    chat_completion,
    chat_stream,
    completion,
    completion_stream,
    embeddings,
    rechunk,
    response,
    response_stream,
)

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
WEATHER = ToolCall("weather", '{"city": "Zürich"}')


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0) as made:
        yield made


async def test_whole_chat_replies_have_choices_tools_and_usage(upstream, client):
    upstream.on("/chat/completions", whole(chat_completion("one", "two", tool_calls=[WEATHER], reasoning="why")))
    reply = await client.chat.completions.create(**ASK)
    assert [choice.message.content for choice in reply.choices] == ["one", "two"]
    assert reply.choices[0].message.tool_calls[0].function.arguments == WEATHER.arguments
    assert reply.choices[0].message.reasoning_content == "why"
    assert reply.usage.total_tokens == 12


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [None, 1, 13, 100_000])
async def test_chat_streams_are_understood_however_they_are_cut(upstream, client, size, newline):
    events = [COMMENT, *chat_stream("Guten Tag", "Grüezi", tool_calls=[WEATHER], usage="chunk", newline=newline)]
    upstream.on("/chat/completions", stream(*(rechunk(events, size) if size else events)))
    texts, arguments, usage = ["", ""], "", None
    async for chunk in await client.chat.completions.create(**ASK, stream=True):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            arguments += "".join(call.function.arguments for call in choice.delta.tool_calls or ())
    assert (texts, arguments, usage.total_tokens) == (["Guten Tag", "Grüezi"], WEATHER.arguments, 12)


async def test_a_stream_without_done_and_with_usage_in_its_last_chunk_is_understood(upstream, client):
    upstream.on("/chat/completions", stream(*chat_stream("Hello", usage="finish", done=False)))
    chunks = [chunk async for chunk in await client.chat.completions.create(**ASK, stream=True)]
    assert chunks[-1].usage.total_tokens == 12
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_legacy_completions_are_understood_whole_and_streamed(upstream, client):
    upstream.on("/completions", whole(completion("a", "b")), stream(*completion_stream("Hello")))
    reply = await client.completions.create(model="m", prompt="p")
    assert [choice.text for choice in reply.choices] == ["a", "b"]
    streamed = await client.completions.create(model="m", prompt="p", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in streamed]) == "Hello"


async def test_responses_are_understood_whole_and_streamed(upstream, client):
    parts = {"text": "Guten Tag", "tool_calls": [WEATHER], "reasoning": "because"}
    upstream.on("/responses", whole(response(**parts)), stream(*response_stream(**parts)))
    reply = await client.responses.create(model="m", input="hi")
    assert reply.output_text == "Guten Tag"
    async with client.responses.stream(model="m", input="hi") as streamed:
        events = [event async for event in streamed]
        final = await streamed.get_final_response()
    assert final.output_text == "Guten Tag"
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_embeddings_are_understood(upstream, client):
    upstream.on("/embeddings", whole(embeddings([0.0, 1.0], [1.0, 0.0])))
    reply = await client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
    assert [item.embedding for item in reply.data] == [[0.0, 1.0], [1.0, 0.0]]


async def test_errors_faults_and_their_order_are_as_scripted(upstream, client):
    upstream.on(
        "/chat/completions",
        error(429, "slow down", code="rate", headers={"Retry-After": "3"}),
        stream(*chat_stream("Hel")[:2], Pause(), CUT),
        lambda request: whole(chat_completion(request.json["messages"][0]["content"])),
    )
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**ASK)
    assert caught.value.response.headers["retry-after"] == "3"
    broken = await client.chat.completions.create(**ASK, stream=True)
    with pytest.raises(openai.APIConnectionError):
        [chunk async for chunk in broken]
    for _ in range(2):
        echoed = await client.chat.completions.create(**ASK)
        assert echoed.choices[0].message.content == "hi"
    assert len(upstream.requests) == 4


async def test_a_path_without_a_script_is_told(client):
    with pytest.raises(openai.NotFoundError, match="no script"):
        await client.models.list()
