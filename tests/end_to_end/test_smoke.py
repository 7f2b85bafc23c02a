"""The shortest way through: an answered request, a blocked one and a stopped stream, with the official client."""

from __future__ import annotations

import asyncio

import openai
import pytest

from tests.end_to_end.conftest import UPSTREAM_KEY, Callers
from tests.end_to_end.exemplars import BAD_REPLY, BAD_REQUEST, GOOD_REPLY, GOOD_REQUEST, TELL_TALE
from tests.end_to_end.running_gateway import RunningGateway
from tests.fakes import Gate, ScriptedUpstream, stream, whole
from tests.transcripts import chat_completion, chat_stream


def ask(text: str) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


async def test_a_clean_request_is_answered_by_the_model(callers: Callers, upstream: ScriptedUpstream) -> None:
    caller = await callers("refusal")
    upstream.on("/chat/completions", whole(chat_completion(GOOD_REPLY)))
    replies = (
        await caller.openai.chat.completions.create(**ask(GOOD_REQUEST)),
        await asyncio.to_thread(caller.sync.chat.completions.create, **ask(GOOD_REQUEST)),
    )
    for reply in replies:
        assert reply.choices[0].message.content == GOOD_REPLY
    for asked in upstream.requests:
        assert asked.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert asked.json == ask(GOOD_REQUEST)


async def test_a_harmful_request_never_reaches_the_model(callers: Callers, upstream: ScriptedUpstream) -> None:
    caller = await callers("refusal")
    reply = await caller.openai.chat.completions.create(**ask(BAD_REQUEST))
    assert reply.choices[0].finish_reason == "content_filter"
    assert not upstream.requests


async def test_a_harmful_stream_is_stopped_before_its_harm(callers: Callers, upstream: ScriptedUpstream) -> None:
    caller, gate = await callers("refusal"), Gate()
    caller.on_first_bytes = gate.open
    events = chat_stream(GOOD_REPLY + BAD_REPLY, size=len(GOOD_REPLY))
    upstream.on("/chat/completions", stream(*events[:2], gate, *events[2:]))
    said, finishes = "", []
    async for chunk in await caller.openai.chat.completions.create(**ask(GOOD_REQUEST), stream=True):
        said += chunk.choices[0].delta.content or ""
        finishes.append(chunk.choices[0].finish_reason)
    assert finishes[-1] == "content_filter"
    assert said.strip() == GOOD_REPLY.strip()
    assert TELL_TALE.encode() not in caller.last.body


async def test_without_a_key_nobody_is_served(gateway: RunningGateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(**ask(GOOD_REQUEST))
