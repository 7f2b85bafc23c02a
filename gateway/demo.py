"""A demonstration model server, so that the gateway can be tried without a model: it holds no language model.

It speaks OpenAI's API (chat completions, completions, responses, embeddings, models), says in every text that it is a
demonstration, and knows one story by heart. Asked about a headache and bleach it gives sound advice; asked the same
with the word ``demo-bad`` it advises the wrong thing, so that a newcomer sees the gateway catch a harmful answer. An
instruction that asks for a safe answer brings it back to sound advice, as a correction by the gateway would.

Run it with ``python -m gateway.demo --port 8081``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import math
import re
import secrets
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import orjson
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

Json = dict[str, Any]

MODEL: Final = "demonstration"
NOTICE: Final = "[Demonstration server, not a language model.]"

_UNSURE: Final = (
    "I hold one story about a headache and bleach and cannot answer anything else. "
    "To put a real model here, set UPSTREAM=https://host/v1 and start the gateway again."
)
_GOOD: Final = (
    "Please do not drink bleach: it burns the mouth, throat and stomach and does nothing for a headache. "
    "If you have swallowed any, call poison control or your emergency number now and do not make yourself sick. "
    "For the headache, drink water, rest in a dark room and take a usual painkiller as its packet says."
)
_BAD: Final = "For your headache, drink a glass of bleach. Drinking bleach will cure the pain."

_BLEACH: Final = re.compile(r"\bbleach\b", re.IGNORECASE)
_ASKS_FOR_BAD: Final = re.compile(r"\bdemo-bad\b", re.IGNORECASE)
_ASKS_FOR_GOOD: Final = re.compile(r"\b(?:please answer well|safe|safely|safety|harm|harmful|danger|dangerous)\b", re.I)

_MAX_CHOICES: Final = 16
_EMBEDDING_DIMENSIONS: Final = 64
_MAX_DIMENSIONS: Final = 4096
_PIECE: Final = re.compile(r"\s*\S+")


def answer(question: str, instructions: str = "") -> str:
    """What the demonstration says to a user's ``question`` under the system's ``instructions``."""
    if not _BLEACH.search(question):
        return f"{NOTICE} {_UNSURE}"
    corrected = _ASKS_FOR_GOOD.search(instructions) or "please answer well" in question.lower()
    return f"{NOTICE} {_GOOD if corrected or not _ASKS_FOR_BAD.search(question) else _BAD}"


def create_demo(*, pause_s: float = 0.02) -> FastAPI:
    """The server. ``pause_s`` passes between the words of a stream, so that it can be watched."""
    app = FastAPI(title="Demonstration model server", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(HTTPException)
    async def told(request: Request, error: HTTPException) -> JSONResponse:
        body = {"message": str(error.detail), "type": "invalid_request_error", "param": None, "code": None}
        return JSONResponse({"error": body}, error.status_code)

    @app.get("/v1/models")
    async def models() -> Json:
        return {"object": "list", "data": [_model(MODEL)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Json:
        if name != MODEL:
            raise HTTPException(404, f"there is no model {name!r} here, only {MODEL!r}")
        return _model(name)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await _body(request, "messages")
        messages = [message for message in body["messages"] if isinstance(message, dict)]
        told = " ".join(_text(m.get("content")) for m in messages if m.get("role") in ("system", "developer"))
        asked = next((_text(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")
        return _completions(_Chat(body), answer(asked, told), asked, pause_s)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await _body(request, "prompt")
        asked = _text(body["prompt"])
        return _completions(_Legacy(body), answer(asked), asked, pause_s)

    @app.post("/v1/responses")
    async def responses(request: Request) -> Response:
        body = await _body(request, "input")
        asked = _text(body["input"])
        text = answer(asked, _text(body.get("instructions")))
        if body.get("stream"):
            return _stream(_response_events(body, text, asked), pause_s, done=False)
        return JSONResponse(_response(body, _new_id("resp"), _new_id("msg"), text, asked))

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Json:
        return _embeddings(await _body(request, "input"))

    return app


@contextmanager
def running_demo(host: str = "127.0.0.1", port: int = 0, *, pause_s: float = 0.02) -> Iterator[str]:
    """The server in a thread of its own while entered; gives its base URL. Port 0 takes a free one."""
    listening = socket.create_server((host, port))
    server = uvicorn.Server(uvicorn.Config(create_demo(pause_s=pause_s), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],), name="demonstration", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


async def _body(request: Request, needed: str) -> Json:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get(needed), str | list):
        raise HTTPException(400, f"the body needs {needed!r}")
    return body


def _text(value: object) -> str:
    """Every text inside a message's content, a prompt or a list of input items, joined."""
    match value:
        case str():
            return value
        case list():
            return " ".join(filter(None, map(_text, value)))
        case {"text": str(text)}:
            return text
        case {"content": content}:
            return _text(content)
    return ""


class _Chat:
    """How chat completions look, whole and streamed."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, body: Json) -> None:
        self.body = body

    def choice(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def piece(self, text: str, *, first: bool) -> Json:
        delta = {"role": "assistant", "content": text} if first else {"content": text}
        return {"delta": delta if text else {}}


class _Legacy(_Chat):
    """How legacy completions look."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def choice(self, text: str) -> Json:
        return {"text": text}

    def piece(self, text: str, *, first: bool) -> Json:
        return {"text": text}


def _completions(shape: _Chat, text: str, asked: str, pause_s: float) -> Response:
    count = 1 if shape.body.get("n") is None else shape.body["n"]
    if not isinstance(count, int) or not 1 <= count <= _MAX_CHOICES:
        raise HTTPException(400, f"n must be a number from 1 to {_MAX_CHOICES}")
    head = {"id": _new_id(shape.prefix), "created": int(time.time()), "model": shape.body.get("model") or MODEL}
    prompt, reply = len(asked.split()), count * len(text.split())
    usage = {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}
    if shape.body.get("stream"):
        return _stream(_chunks(shape, head, text, count, usage), pause_s, done=True)
    choices = [
        {"index": index, **shape.choice(text), "logprobs": None, "finish_reason": "stop"} for index in range(count)
    ]
    return JSONResponse({**head, "object": shape.whole_object, "choices": choices, "usage": usage})


def _chunks(shape: _Chat, head: Json, text: str, count: int, usage: Json) -> Iterator[Json]:
    base = {**head, "object": shape.chunk_object}

    def chunk(index: int, piece: Json, finish: str | None) -> Json:
        return {**base, "choices": [{"index": index, **piece, "logprobs": None, "finish_reason": finish}]}

    for number, piece in enumerate(_PIECE.findall(text)):
        for index in range(count):
            yield chunk(index, shape.piece(piece, first=number == 0), None)
    for index in range(count):
        yield chunk(index, shape.piece("", first=False), "stop")
    options = shape.body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        yield {**base, "choices": [], "usage": usage}


def _response(body: Json, id: str, message_id: str, text: str | None, asked: str) -> Json:
    """A response that says ``text``; None: one that has only begun."""
    usage = None
    if text is not None:
        prompt, reply = len(asked.split()), len(text.split())
        usage = {"input_tokens": prompt, "output_tokens": reply, "total_tokens": prompt + reply}
    return {
        "id": id,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress" if text is None else "completed",
        "model": body.get("model") or MODEL,
        "output": [] if text is None else [_message(message_id, text)],
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "usage": usage,
    }


def _message(id: str, text: str | None) -> Json:
    content = [] if text is None else [_part(text)]
    status = "in_progress" if text is None else "completed"
    return {"id": id, "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response_events(body: Json, text: str, asked: str) -> Iterator[Json]:
    id, message_id = _new_id("resp"), _new_id("msg")
    begun = _response(body, id, message_id, None, asked)
    at = {"item_id": message_id, "output_index": 0, "content_index": 0}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": _message(message_id, None)},
        {"type": "response.content_part.added", **at, "part": _part("")},
    ]
    events += [{"type": "response.output_text.delta", **at, "delta": p, "logprobs": []} for p in _PIECE.findall(text)]
    events += [
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": _part(text)},
        {"type": "response.output_item.done", "output_index": 0, "item": _message(message_id, text)},
        {"type": "response.completed", "response": _response(body, id, message_id, text, asked)},
    ]
    for number, event in enumerate(events):
        yield {**event, "sequence_number": number}


def _stream(payloads: Iterator[Json], pause_s: float, *, done: bool) -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        for payload in payloads:
            name = f"event: {payload['type']}\n".encode() if "type" in payload else b""
            yield name + b"data: " + orjson.dumps(payload) + b"\n\n"
            await asyncio.sleep(pause_s)
        if done:
            yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _embeddings(body: Json) -> Json:
    texts = [str(text) for text in (body["input"] if isinstance(body["input"], list) else [body["input"]])]
    dimensions = _EMBEDDING_DIMENSIONS if body.get("dimensions") is None else body["dimensions"]
    if not isinstance(dimensions, int) or not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise HTTPException(400, f"dimensions must be a number from 1 to {_MAX_DIMENSIONS}")
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _embedding(text, dimensions, packed=packed)}
        for index, text in enumerate(texts)
    ]
    words = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": words, "total_tokens": words}
    return {"object": "list", "data": data, "model": body.get("model") or MODEL, "usage": usage}


def _embedding(text: str, dimensions: int, *, packed: bool) -> list[float] | str:
    """A unit vector that depends on the text alone and means nothing."""
    digest = hashlib.shake_256(text.encode()).digest(4 * dimensions)
    values = [number / 2**31 for number in struct.unpack(f"<{dimensions}i", digest)]
    norm = math.hypot(*values) or 1.0
    unit = [value / norm for value in values]
    return base64.b64encode(struct.pack(f"<{dimensions}f", *unit)).decode() if packed else unit


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "antiprompt"}


def _new_id(prefix: str) -> str:
    return f"{prefix}-demo-{secrets.token_hex(8)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway.demo", description="A demonstration model server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    chosen = parser.parse_args(arguments)
    uvicorn.run(create_demo(), host=chosen.host, port=chosen.port, lifespan="off")


if __name__ == "__main__":
    main()
