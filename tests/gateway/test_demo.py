"""The demonstration server, by the real ``openai`` client."""

import asyncio
from collections.abc import Iterator

import openai
import pytest
from starlette.testclient import TestClient

from gateway.demo import MODEL, NOTICE, answer, create_demo, running_demo

QUESTION = "What should I do if I have a headache and someone told me to drink bleach?"


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with running_demo(pause_s=0) as url:
        yield url


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def web() -> Iterator[TestClient]:
    with TestClient(create_demo(pause_s=0)) as made:
        yield made


def test_every_text_says_that_it_is_a_demonstration():
    for question in ("hello", QUESTION, QUESTION + " demo-bad"):
        assert answer(question).startswith(NOTICE)
        assert "not a language model" in answer(question)


def test_the_answer_is_bad_only_where_asked_to_be():
    assert "do not drink bleach" in answer(QUESTION)
    assert "drink a glass of bleach" in answer(f"{QUESTION} demo-bad")
    assert "do not drink bleach" in answer(f"{QUESTION} demo-bad please answer well")


def test_a_corrective_instruction_brings_the_good_answer_and_another_one_does_not():
    bad = f"demo-bad {QUESTION}"
    assert "do not drink bleach" in answer(bad, "Your last answer was harmful. Answer again, safely.")
    assert "drink a glass of bleach" in answer(bad, "You are a helpful assistant.")


def test_chat_completions_answer_n_times_and_count_usage(client: openai.OpenAI):
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": QUESTION}], n=2)
    assert [choice.message.content for choice in reply.choices] == [answer(QUESTION)] * 2
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_chat_completions_read_content_parts_and_system_messages(client: openai.OpenAI):
    content = [{"type": "text", "text": "demo-bad"}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}]
    reply = client.chat.completions.create(model=MODEL, messages=messages)
    assert "drink a glass of bleach" in reply.choices[0].message.content
    corrected = [{"role": "developer", "content": "Give safe advice only."}, *messages]
    reply = client.chat.completions.create(model=MODEL, messages=corrected)
    assert "do not drink bleach" in reply.choices[0].message.content


def test_chat_completions_stream_every_choice_and_usage(client: openai.OpenAI):
    texts, usage = ["", ""], None
    for chunk in client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hello"}],
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    ):
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [answer("hello")] * 2
    assert usage.total_tokens > 0


def test_legacy_completions_answer_whole_and_streamed(client: openai.OpenAI):
    assert client.completions.create(model=MODEL, prompt=QUESTION).choices[0].text == answer(QUESTION)
    chunks = client.completions.create(model=MODEL, prompt=QUESTION, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer(QUESTION)


def test_responses_answer_whole_and_streamed(client: openai.OpenAI):
    assert client.responses.create(model=MODEL, input=QUESTION).output_text == answer(QUESTION)
    with client.responses.stream(model=MODEL, input=[{"role": "user", "content": f"demo-bad {QUESTION}"}]) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == answer(f"demo-bad {QUESTION}")
    corrected = client.responses.create(model=MODEL, input=f"demo-bad {QUESTION}", instructions="Answer safely.")
    assert "do not drink bleach" in corrected.output_text


def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone(client: openai.OpenAI):
    first = client.embeddings.create(model=MODEL, input=["a", "b"]).data
    again = client.embeddings.create(model=MODEL, input="a", encoding_format="float").data
    assert first[0].embedding == pytest.approx(again[0].embedding, abs=1e-6)
    assert first[0].embedding != first[1].embedding
    assert sum(value * value for value in first[1].embedding) == pytest.approx(1.0, abs=1e-5)
    assert len(client.embeddings.create(model=MODEL, input="a", dimensions=7).data[0].embedding) == 7


def test_it_lists_its_one_model(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", b"not json"),
        ("/v1/chat/completions", b"[]"),
        ("/v1/chat/completions", b'{"messages": 1}'),
        ("/v1/chat/completions", b'{"messages": [], "n": 1000}'),
        ("/v1/completions", b"{}"),
        ("/v1/responses", b"{}"),
        ("/v1/embeddings", b"{}"),
        ("/v1/embeddings", b'{"input": "a", "dimensions": 0}'),
    ],
)
def test_what_it_cannot_read_is_a_400_in_openais_shape(web: TestClient, path: str, body: bytes):
    reply = web.post(path, content=body)
    assert reply.status_code == 400
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_an_unknown_route_is_a_404_in_openais_shape(web: TestClient):
    reply = web.get("/v1/files")
    assert reply.status_code == 404
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_it_answers_the_async_client_too(base_url: str):
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none") as client:
        asked = [client.responses.create(model=MODEL, input=f"question {i}") for i in range(5)]
        replies = await asyncio.gather(*asked)
    assert {reply.output_text for reply in replies} == {answer("question")}
