"""Replies of the responses API: their texts, and replies of the gateway's own making, whole and as a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.wire.places import expected
from gateway.wire.response_items import Reading
from gateway.wire.surface import Answer, Json, Named, Role

_SILENT: Final = frozenset(
    """id object status model created_at completed_at background instructions metadata parallel_tool_calls
    temperature tool_choice tools top_p conversation image input_transformations max_output_tokens max_tool_calls
    moderation previous_response_id prompt prompt_cache_diagnostics prompt_cache_key prompt_cache_options
    prompt_cache_retention reasoning safety_identifier service_tier text tool_usage top_logprobs truncation usage user
    store billing access_programs incomplete_details frequency_penalty presence_penalty output""".split()  # noqa: SIM905 - a block of words reads better
)
"""Fields of a response that repeat the request, which was screened as a request, or hold no text."""

_ECHOED: Final[dict[str, type | tuple[type, ...]]] = {
    "max_output_tokens": int,
    "metadata": dict,
    "parallel_tool_calls": bool,
    "previous_response_id": str,
    "temperature": (int, float),
    "top_p": (int, float),
    "user": str,
}
"""Fields of the request that a reply of our own repeats. Not its texts: they may be what was refused."""

STRUCTURED: Final = ("json_schema", "json_object")


def read_response(response: object, reading: Reading) -> Reading:
    """Read a response object: what each output item says, ``output_text``, errors, and any field not known.

    Places start at the response. Items are numbered as turns. Raises ``Malformed`` (a ``ValueError``) where it
    cannot be read.
    """
    response = expected(response, dict, ())
    reading.json_answer = wants_structure(response)
    output = response.get("output")
    for index, item in enumerate(() if output is None else expected(output, list, ("output",))):
        reading.item(item, ("output", index), turn=index, stranger=Role.ASSISTANT)
    for name, value in response.items():
        if name not in _SILENT:
            reading.value(value, (name,), Role.ASSISTANT, turn=-1, how="free")
    return reading


def wants_structure(body: Json) -> bool:
    """Whether a request, or the response that repeats it, asks for an answer in JSON: a sentence would not parse."""
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    return isinstance(form, dict) and form.get("type") in STRUCTURED


def blank_response(request: Json, *, reply_id: str, model: str, created_at: int) -> Json:
    """A response object with every field the API always sends, in progress and with nothing said."""
    echoed = {
        name: request[name]
        for name, kind in _ECHOED.items()
        if isinstance(request.get(name), kind) and not (kind is not bool and isinstance(request[name], bool))
    }
    return {
        "id": reply_id,
        "object": "response",
        "created_at": created_at,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
        **echoed,
    }


def whole_answer(answer: Answer) -> Json:
    """A response that says ``answer.texts``, one message each.

    A refusal is an ``incomplete`` response for the reason ``content_filter``, the API's own word for it. It is said
    as ``output_text``, since that is what programs show (``response.output_text`` leaves out ``refusal`` parts). Only
    where the request asks for JSON is it a ``refusal`` part, which the client's parser leaves alone.
    """
    filtered = answer.finish == "content_filter"
    response = _opened(answer)
    response["status"] = "incomplete" if filtered else "completed"
    response["incomplete_details"] = {"reason": "content_filter"} if filtered else None
    response["completed_at"] = None if filtered else answer.created_at
    response["output"] = [_message(answer, index) for index in range(len(answer.texts))]
    response["usage"] = {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }
    return response


def answer_events(answer: Answer) -> Sequence[Named]:
    """The same as the full sequence of stream events, numbered from 0."""
    final = whole_answer(answer)
    events: list[Json] = [
        {"type": "response.created", "response": _opened(answer)},
        {"type": "response.in_progress", "response": _opened(answer)},
    ]
    for index, item in enumerate(final["output"]):
        events += _message_events(item, index)
    events.append({"type": f"response.{final['status']}", "response": final})
    return [(event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)]


def _opened(answer: Answer) -> Json:
    return blank_response(
        dict(answer.request), reply_id=answer.reply_id, model=answer.model, created_at=answer.created_at
    )


def _message(answer: Answer, index: int) -> Json:
    filtered = answer.finish == "content_filter"
    said = answer.texts[index]
    part: Json = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    if filtered and wants_structure(dict(answer.request)):
        part = {"type": "refusal", "refusal": said}
    return {
        "id": f"msg_{answer.reply_id.removeprefix('resp_')}_{index}",
        "type": "message",
        "role": "assistant",
        "status": "incomplete" if filtered else "completed",
        "content": [part],
    }


def _message_events(item: Json, index: int) -> list[Json]:
    """Everything that the API sends about one message with one part."""
    part: Json = item["content"][0]
    field = "text" if part["type"] == "output_text" else "refusal"
    extra: dict[str, Any] = {"logprobs": []} if field == "text" else {}
    there = {"item_id": item["id"], "output_index": index, "content_index": 0}
    kind = f"response.{part['type']}"
    return [
        {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **there, "part": {**part, field: ""}},
        {"type": f"{kind}.delta", **there, "delta": part[field], **extra},
        {"type": f"{kind}.done", **there, field: part[field], **extra},
        {"type": "response.content_part.done", **there, "part": part},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]
