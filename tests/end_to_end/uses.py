"""What a user does with the official client, as data: the call, and what the model server answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from tests.end_to_end.dialects import DIALECTS
from tests.end_to_end.exemplars import GOOD_REPLY, GOOD_REQUEST
from tests.end_to_end.official import Official
from tests.fakes import Script, stream, whole
from tests.transcripts import (
    ToolCall,
    chat_completion,
    chat_stream,
    completion,
    completion_stream,
    embeddings,
    response,
    response_stream,
)

MESSAGES: Final = [{"role": "user", "content": GOOD_REQUEST}]
CHAT: Final = {"model": "m", "messages": MESSAGES}
WEATHER: Final = ToolCall("weather", '{"city": "Zürich", "days": 3}')
WEATHER_FUNCTION: Final = {
    "name": "weather",
    "description": "Tells the weather of the coming days.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
TOOL: Final = {"type": "function", "function": WEATHER_FUNCTION}
RESPONSES_TOOL: Final = {"type": "function", **WEATHER_FUNCTION}
TOOL_TURNS: Final = [
    *MESSAGES,
    {"role": "assistant", "content": None, "tool_calls": [WEATHER.whole()]},
    {"role": "tool", "tool_call_id": WEATHER.id, "content": "Sunny, 24 °C"},
]
UPSTREAM_HEADERS: Final = {
    "x-request-id": "req_0123",
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-remaining-tokens": "149984",
    "openai-processing-ms": "17",
    "openai-version": "2020-10-01",
    "x-something-new": "häger",
}


class Loaf(BaseModel):
    """What a structured reply is parsed into."""

    name: str
    minutes: int


LOAF: Final = Loaf(name="Zopf", minutes=45)


@dataclass(frozen=True, slots=True)
class Use:
    """One thing that a user does with the client, and what the model server answers."""

    path: str
    script: Script
    call: Callable[[Official], Awaitable[Any]]


USES: Final = {
    "chat": Use(
        "/chat/completions",
        whole(chat_completion(GOOD_REPLY), headers=UPSTREAM_HEADERS),
        lambda one: one.ask(lambda client: client.chat.completions.create(**CHAT)),
    ),
    "chat, every common parameter": Use(
        "/chat/completions",
        whole(chat_completion(GOOD_REPLY)),
        lambda one: one.ask(
            lambda client: client.chat.completions.create(
                **CHAT,
                temperature=0.7,
                top_p=1.0,
                max_completion_tokens=64,
                seed=7,
                stop=["\n\n", "END"],
                logit_bias={"50256": -100},
                metadata={"ticket": "1"},
                reasoning_effort="low",
                safety_identifier="somebody",
                store=False,
                extra_body={
                    "top_k": 40,
                    "chat_template_kwargs": {"enable_thinking": False},
                    "naïve": ["ü", "🙂", None],
                },
                extra_headers={"x-tracing": "trace-1", "OpenAI-Beta": "assistants=v9"},
                extra_query={"api-version": "2026-01-01", "note": "a b&c"},
            )
        ),
    ),
    "chat with several choices": Use(
        "/chat/completions",
        whole(chat_completion(GOOD_REPLY, "Bread is baked in an oven.", "Ask a baker.")),
        lambda one: one.ask(lambda client: client.chat.completions.create(**CHAT, n=3)),
    ),
    "chat with reasoning and a refusal": Use(
        "/chat/completions",
        whole(chat_completion("", reasoning="The user wants bread.", refusal="I do not bake.")),
        lambda one: one.ask(lambda client: client.chat.completions.create(**CHAT)),
    ),
    "chat stream": Use(
        "/chat/completions",
        stream(*chat_stream(GOOD_REPLY, usage="chunk"), headers=UPSTREAM_HEADERS),
        lambda one: one.read(
            lambda client: client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
        ),
    ),
    "chat stream with several choices and reasoning": Use(
        "/chat/completions",
        stream(*chat_stream(GOOD_REPLY, "Ask a baker.", reasoning="The user wants bread.")),
        lambda one: one.read(lambda client: client.chat.completions.create(**CHAT, n=2, stream=True)),
    ),
    "chat stream without [DONE], usage in its last chunk": Use(
        "/chat/completions",
        stream(*chat_stream(GOOD_REPLY, done=False, usage="finish", newline="\r\n")),
        lambda one: one.read(lambda client: client.chat.completions.create(**CHAT, stream=True)),
    ),
    "tool call": Use(
        "/chat/completions",
        whole(chat_completion(tool_calls=[WEATHER])),
        lambda one: one.ask(
            lambda client: client.chat.completions.create(**CHAT, tools=[TOOL], tool_choice="required")
        ),
    ),
    "tool result": Use(
        "/chat/completions",
        whole(chat_completion("It will be sunny.")),
        lambda one: one.ask(
            lambda client: client.chat.completions.create(model="m", messages=TOOL_TURNS, tools=[TOOL])
        ),
    ),
    "tool call stream": Use(
        "/chat/completions",
        stream(*chat_stream(tool_calls=[WEATHER, ToolCall("weather", '{"city": "Basel", "days": 1}', "call_2")])),
        lambda one: one.read(lambda client: client.chat.completions.create(**CHAT, tools=[TOOL], stream=True)),
    ),
    "tool call stream helper": Use(
        "/chat/completions",
        stream(*chat_stream("Let me look.", tool_calls=[WEATHER])),
        lambda one: one.follow(
            lambda client: client.chat.completions.stream(**CHAT, tools=[TOOL]), "get_final_completion"
        ),
    ),
    "structured output": Use(
        "/chat/completions",
        whole(chat_completion(LOAF.model_dump_json())),
        lambda one: one.ask(lambda client: client.chat.completions.parse(**CHAT, response_format=Loaf)),
    ),
    "structured output stream": Use(
        "/chat/completions",
        stream(*chat_stream(LOAF.model_dump_json())),
        lambda one: one.follow(
            lambda client: client.chat.completions.stream(**CHAT, response_format=Loaf), "get_final_completion"
        ),
    ),
    "completion": Use(
        "/completions",
        whole(completion(GOOD_REPLY, "Ask a baker.")),
        lambda one: one.ask(
            lambda client: client.completions.create(model="m", prompt=GOOD_REQUEST, n=2, best_of=3, suffix="Bye.")
        ),
    ),
    "completion stream": Use(
        "/completions",
        stream(*completion_stream(GOOD_REPLY, "Ask a baker.")),
        lambda one: one.read(
            lambda client: client.completions.create(model="m", prompt=[GOOD_REQUEST, "Bread?"], stream=True)
        ),
    ),
    "response": Use(
        "/responses",
        whole(response(GOOD_REPLY, reasoning="The user wants bread."), headers=UPSTREAM_HEADERS),
        lambda one: one.ask(
            lambda client: client.responses.create(
                model="m", input=MESSAGES, instructions="Be brief.", max_output_tokens=99, extra_body={"novel": 1.50}
            )
        ),
    ),
    "response with a tool call": Use(
        "/responses",
        whole(response(tool_calls=[WEATHER])),
        lambda one: one.ask(
            lambda client: client.responses.create(model="m", input=GOOD_REQUEST, tools=[RESPONSES_TOOL])
        ),
    ),
    "structured response": Use(
        "/responses",
        whole(response(LOAF.model_dump_json())),
        lambda one: one.ask(lambda client: client.responses.parse(model="m", input=GOOD_REQUEST, text_format=Loaf)),
    ),
    "response stream": Use(
        "/responses",
        stream(*response_stream(GOOD_REPLY, reasoning="The user wants bread.", tool_calls=[WEATHER])),
        lambda one: one.read(lambda client: client.responses.create(model="m", input=GOOD_REQUEST, stream=True)),
    ),
    "response stream helper": Use(
        "/responses",
        stream(*response_stream(GOOD_REPLY, tool_calls=[WEATHER])),
        lambda one: one.follow(
            lambda client: client.responses.stream(model="m", input=GOOD_REQUEST), "get_final_response"
        ),
    ),
    "structured response stream helper": Use(
        "/responses",
        stream(*response_stream(LOAF.model_dump_json())),
        lambda one: one.follow(
            lambda client: client.responses.stream(model="m", input=GOOD_REQUEST, text_format=Loaf),
            "get_final_response",
        ),
    ),
    "embeddings, numbers": Use(
        "/embeddings",
        whole(embeddings([0.25, -0.5], [1e-7, 3.0])),
        lambda one: one.ask(
            lambda client: client.embeddings.create(model="m", input=["a", "b"], encoding_format="float", dimensions=2)
        ),
    ),
    "embeddings, base64": Use(
        "/embeddings",
        whole({**embeddings(), "data": [{"object": "embedding", "index": 0, "embedding": "AACAPgAAAL8="}]}),
        lambda one: one.ask(lambda client: client.embeddings.create(model="m", input="bread")),
    ),
    "image": Use(
        "/images/generations",
        whole(DIALECTS["images"].reply("A loaf of bread on a table.")),
        lambda one: one.ask(
            lambda client: client.images.generate(model="m", prompt="a loaf of bread", size="1024x1024")
        ),
    ),
    "image stream": Use(
        "/images/generations",
        stream(*DIALECTS["images"].events("A loaf of bread on a table.", size=9)),
        lambda one: one.read(
            lambda client: client.images.generate(model="m", prompt="a loaf", stream=True, partial_images=1)
        ),
    ),
    "speech": Use(
        "/audio/speech",
        whole(bytes(range(256)), headers={"Content-Type": "audio/mpeg"}),
        lambda one: one.ask(
            lambda client: client.audio.speech.create(model="m", voice="alloy", input=GOOD_REPLY, instructions="Calm.")
        ),
    ),
    "models": Use(
        "/models",
        whole({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "us"}]}),
        lambda one: one.read(lambda client: client.models.list()),
    ),
    "model": Use(
        "/models/m",
        whole({"id": "m", "object": "model", "created": 1, "owned_by": "us"}),
        lambda one: one.ask(lambda client: client.models.retrieve("m")),
    ),
    "model with a slash in its name": Use(
        "/models/org%2Fm",
        whole({"id": "org/m", "object": "model", "created": 1, "owned_by": "us"}),
        lambda one: one.ask(lambda client: client.models.retrieve("org/m")),
    ),
}
