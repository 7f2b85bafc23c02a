"""What OpenAI-compatible servers say: whole bodies and streams of the chat, completions and responses surfaces.

A stream is a list of ``bytes``, one event each, as ``tests.fakes.stream`` takes them; ``rechunk`` cuts it elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"

_CHAT_USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
_RESPONSE_USAGE = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool; ``arguments`` is JSON as text."""

    name: str
    arguments: str
    id: str = "call_1"

    def whole(self) -> Json:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def sse(payload: object, *, event: str | None = None, newline: str = "\n") -> bytes:
    """One event. ``payload`` is sent as JSON unless it is a string."""
    data = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    lines = [f"event: {event}"] if event else []
    return newline.join([*lines, f"data: {data}", "", ""]).encode()


def pieces(text: str, size: int = 4) -> list[str]:
    """The text in pieces of ``size`` characters, as tokens would bring it."""
    return [text[i : i + size] for i in range(0, len(text), size)]


def rechunk(events: Iterable[bytes], size: int) -> list[bytes]:
    """The same bytes cut every ``size`` bytes, wherever that falls."""
    data = b"".join(events)
    return [data[i : i + size] for i in range(0, len(data), size)]


def chat_completion(
    *texts: str,
    tool_calls: Sequence[ToolCall] = (),
    reasoning: str | None = None,
    refusal: str | None = None,
    finish: str | None = None,
    id: str = "chatcmpl-1",
    model: str = "m",
) -> Json:
    """A whole chat reply with one choice a text; ``tool_calls``, ``reasoning`` and ``refusal`` stand in each."""
    extra: Json = {"refusal": refusal}
    if tool_calls:
        extra["tool_calls"] = [call.whole() for call in tool_calls]
    if reasoning is not None:
        extra["reasoning_content"] = reasoning
    finish = finish or ("tool_calls" if tool_calls else "stop")
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text, **extra}, "finish_reason": finish}
        for i, text in enumerate(texts or ("",))
    ]
    return {
        "id": id,
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": choices,
        "usage": _CHAT_USAGE,
    }


def chat_stream(
    *texts: str,
    size: int = 4,
    tool_calls: Sequence[ToolCall] = (),
    reasoning: str | None = None,
    finish: str | None = None,
    usage: str | None = None,
    done: bool = True,
    newline: str = "\n",
    id: str = "chatcmpl-1",
    model: str = "m",
) -> list[bytes]:
    """A streamed chat reply; several texts are choices whose pieces take turns.

    ``usage`` is "chunk" (a last chunk without choices, as OpenAI sends it), "finish" (in the chunk that finishes, as
    others do) or None.
    """
    base = {"id": id, "object": "chat.completion.chunk", "created": 1, "model": model}

    def chunk(index: int, delta: Json, finish: str | None = None, **more: object) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return sse({**base, "choices": [choice], **more}, newline=newline)

    indexes = range(len(texts) or 1)
    events = [chunk(i, {"role": "assistant", "content": ""}) for i in indexes]
    events += [chunk(i, {"reasoning_content": piece}) for i in indexes for piece in pieces(reasoning or "", size)]
    cut = [pieces(text, size) for text in texts]
    for turn in range(max(map(len, cut), default=0)):
        events += [chunk(i, {"content": cut[i][turn]}) for i in indexes if turn < len(cut[i])]
    for number, call in enumerate(tool_calls):
        first = {"index": number, **call.whole(), "function": {"name": call.name, "arguments": ""}}
        events.append(chunk(0, {"tool_calls": [first]}))
        events += [
            chunk(0, {"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
            for piece in pieces(call.arguments, size)
        ]
    finish = finish or ("tool_calls" if tool_calls else "stop")
    more = {"usage": _CHAT_USAGE} if usage == "finish" else {}
    events += [chunk(i, {}, finish, **more) for i in indexes]
    if usage == "chunk":
        events.append(sse({**base, "choices": [], "usage": _CHAT_USAGE}, newline=newline))
    return [*events, sse("[DONE]", newline=newline)] if done else events


def completion(*texts: str, finish: str = "stop", id: str = "cmpl-1", model: str = "m") -> Json:
    """A whole reply of the legacy completions surface."""
    choices = [
        {"index": i, "text": text, "logprobs": None, "finish_reason": finish} for i, text in enumerate(texts or ("",))
    ]
    return {
        "id": id,
        "object": "text_completion",
        "created": 1,
        "model": model,
        "choices": choices,
        "usage": _CHAT_USAGE,
    }


def completion_stream(
    *texts: str, size: int = 4, done: bool = True, id: str = "cmpl-1", model: str = "m"
) -> list[bytes]:
    """A streamed reply of the legacy completions surface."""
    base = {"id": id, "object": "text_completion", "created": 1, "model": model}

    def chunk(index: int, text: str, finish: str | None) -> bytes:
        return sse({**base, "choices": [{"index": index, "text": text, "logprobs": None, "finish_reason": finish}]})

    events = [chunk(i, piece, None) for i, text in enumerate(texts) for piece in pieces(text, size)]
    events += [chunk(i, "", "stop") for i in range(len(texts))]
    return [*events, DONE] if done else events


def response(
    text: str = "",
    *,
    tool_calls: Sequence[ToolCall] = (),
    reasoning: str | None = None,
    id: str = "resp_1",
    model: str = "m",
    status: str = "completed",
) -> Json:
    """A whole reply of the responses surface: reasoning, then a message, then calls of functions."""
    done = status == "completed"
    return {
        "id": id,
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": model,
        "output": _response_items(text, tool_calls, reasoning) if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "usage": _RESPONSE_USAGE if done else None,
    }


def response_stream(
    text: str = "",
    *,
    size: int = 4,
    tool_calls: Sequence[ToolCall] = (),
    reasoning: str | None = None,
    id: str = "resp_1",
    model: str = "m",
) -> list[bytes]:
    """A streamed reply of the responses surface, with its ``*.done`` events that repeat the text."""
    events: list[Json] = []
    started = response(id=id, model=model, status="in_progress")
    events += [{"type": f"response.{name}", "response": started} for name in ("created", "in_progress")]
    for index, item in enumerate(_response_items(text, tool_calls, reasoning)):
        events += _item_events(item, index, size)
    whole = response(text, tool_calls=tool_calls, reasoning=reasoning, id=id, model=model)
    events.append({"type": "response.completed", "response": whole})
    return [sse({**event, "sequence_number": n}, event=event["type"]) for n, event in enumerate(events)]


def _response_items(text: str, tool_calls: Sequence[ToolCall], reasoning: str | None) -> list[Json]:
    items: list[Json] = []
    if reasoning is not None:
        items.append({"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": reasoning}]})
    if text or not tool_calls:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        items.append({"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]})
    for number, call in enumerate(tool_calls, start=1):
        items.append(
            {
                "id": f"fc_{number}",
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }
        )
    return items


def _item_events(item: Json, index: int, size: int) -> list[Json]:
    at = {"item_id": item["id"], "output_index": index}
    added, done = ({"type": f"response.output_item.{name}", "output_index": index} for name in ("added", "done"))
    match item["type"]:
        case "message":
            part, at = item["content"][0], {**at, "content_index": 0}
            empty = {**item, "status": "in_progress", "content": []}
            inner = [
                {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
                *_text_events("response.output_text", "text", part["text"], {**at, "logprobs": []}, size),
                {"type": "response.content_part.done", **at, "part": part},
            ]
        case "reasoning":
            part, at = item["summary"][0], {**at, "summary_index": 0}
            empty = {**item, "summary": []}
            inner = [
                {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}},
                *_text_events("response.reasoning_summary_text", "text", part["text"], at, size),
                {"type": "response.reasoning_summary_part.done", **at, "part": part},
            ]
        case _:
            empty = {**item, "status": "in_progress", "arguments": ""}
            named = {**at, "name": item["name"]}
            inner = _text_events("response.function_call_arguments", "arguments", item["arguments"], named, size)
    return [{**added, "item": empty}, *inner, {**done, "item": item}]


def _text_events(kind: str, key: str, text: str, at: Json, size: int) -> list[Json]:
    deltas = [{"type": f"{kind}.delta", **at, "delta": piece} for piece in pieces(text, size)]
    return [*deltas, {"type": f"{kind}.done", **at, key: text}]


def embeddings(*vectors: Sequence[float], model: str = "m") -> Json:
    """A whole reply of the embeddings surface."""
    data = [{"object": "embedding", "index": i, "embedding": list(vector)} for i, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
