"""A model server that costs next to nothing: canned chat completions, whole or streamed at a steady pace.

``max_tokens`` of a streamed request says how many chunks, ``seed`` which text, ``chunks_per_s`` how fast (0: at once).
Each chunk with text carries ``sent_s``, the monotonic clock when it was sent, which all processes here share.
Run by ``processes``; prints its port.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import cast

import orjson
import uvloop

from tests.benchmarks.texts import pieces

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAMS = re.compile(rb'"stream": ?true')

_BASE = {"id": "chatcmpl-fake", "created": 1, "model": "m"}
_MESSAGE = {"role": "assistant", "content": "There are twelve of them, all in good order, as far as anyone knows."}
_WHOLE = orjson.dumps(
    {
        **_BASE,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 15, "total_tokens": 75},
    }
)
_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_WHOLE), _WHOLE)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class FakeModel(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = b""
        self._player: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def connection_lost(self, exc: Exception | None) -> None:
        if self._player is not None:
            self._player.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (head_end := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, head_end)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < end:
                return
            body, self._received = self._received[head_end + 4 : end], self._received[end:]
            if _STREAMS.search(body):
                self._player = asyncio.get_running_loop().create_task(self._play(orjson.loads(body)))
            else:
                self.transport.write(_REPLY)

    async def _play(self, request: dict[str, float]) -> None:
        texts = pieces(int(request["seed"]), int(request["max_tokens"]))
        rate = request["chunks_per_s"]
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        self.transport.write(_STREAM_HEAD + _chunk({"role": "assistant", "content": ""}))
        for number, text in enumerate(texts):
            await asyncio.sleep(max(start_s + number / rate - loop.time(), 0) if rate else 0)
            self.transport.write(_chunk({"content": text}, sent_s=time.monotonic()))
        self.transport.write(_chunk({}, finish="stop") + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def _chunk(delta: dict[str, str], finish: str | None = None, **more: float) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    payload = {**_BASE, "object": "chat.completion.chunk", "choices": [choice], **more}
    return _framed(b"data: " + orjson.dumps(payload) + b"\n\n")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(FakeModel, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
