"""A listener: uvicorn as every process here has it, with a bound on a request's head and an orderly end."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final, Literal

import orjson
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import HeadTooLarge
from gateway.settings import Settings

_HEAD_TOO_LARGE: Final = HeadTooLarge("the request's headers are larger than this gateway takes")
_HEAD_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s"
)


def listening(
    app: Starlette, settings: Settings, host: str, port: int, *, lifespan: Literal["on", "off"]
) -> uvicorn.Config:
    """How ``app`` is served at ``host`` and ``port``; ``lifespan`` is on for the application that starts the parts."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_protocol(settings.limits.max_header_bytes),
        loop="uvloop",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=lifespan == "on",  # the clock of the other listener is not wound
        timeout_graceful_shutdown=int(settings.drain_s),
        backlog=4096,
    )


class Server(uvicorn.Server):
    """uvicorn, for which a SIGTERM that was obeyed is no failure."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn raises a signal anew after the drain; a SIGTERM that was obeyed is no failure, so it ends with 0."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def _protocol(max_head_bytes: int) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with a bound on a request's head, which httptools does not have."""

    class BoundedHead(HttpToolsProtocol):
        _head_bytes = 0
        _in_head = True

        def on_message_begin(self) -> None:
            self._in_head, self._head_bytes = True, 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._in_head:
                self._head_bytes += len(data)
                if self._head_bytes > max_head_bytes:
                    body = orjson.dumps(_HEAD_TOO_LARGE.body())
                    self.transport.write(_HEAD_REFUSAL % (len(body), body))
                    self.transport.close()

    return BoundedHead
