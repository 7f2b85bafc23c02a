"""``antiprompt serve``: the gateway, its private Redis and, without a model server, the demonstration of one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from contextlib import ExitStack
from socket import socket
from types import FrameType
from typing import Final, Literal

import orjson
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.app import create_app, dashboard_beside
from gateway.auth import refuse_open_listen
from gateway.client_keys import ClientKeyStore
from gateway.commands.console import FAILURES, err, fail, settings_or_fail
from gateway.demo import running_demo
from gateway.errors import HeadTooLarge
from gateway.parts import Readiness
from gateway.policy import Policy
from gateway.policy_file import DEFAULT_POLICY_FILE
from gateway.redis_client import RedisClient
from gateway.settings import Settings, SettingsError
from gateway.telemetry import configure_logs

_HEAD_TOO_LARGE: Final = HeadTooLarge("the request's headers are larger than this gateway takes")
_HEAD_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s"
)


def serve() -> None:
    """Start the gateway. Settings come from the environment and the file that ANTIPROMPT_CONFIG names."""
    settings = settings_or_fail()
    configure_logs(format=settings.log_format, level=settings.log_level)
    try:
        # Read here as well, because what goes wrong inside the server is told with a traceback.
        Policy.from_yaml((settings.policy_file or DEFAULT_POLICY_FILE).read_text("utf-8"))
        asyncio.run(_check_listen(settings))
        with ExitStack() as stack:
            base_url = settings.upstream.base_url
            if base_url is None:
                base_url = stack.enter_context(running_demo())
            _run(settings, base_url)
    except FAILURES as error:
        fail(str(error))


async def _check_listen(settings: Settings) -> None:
    """Refuse to listen where others can reach it without client keys, or to hold keys with none for the upstream."""
    redis = RedisClient(settings.redis, settings.data_dir)
    await redis.start()
    try:
        has_keys = await ClientKeyStore(redis).exist()
    finally:
        await redis.close()
    refuse_open_listen(settings.host, has_keys=has_keys)
    if has_keys and settings.upstream.base_url is not None and settings.upstream.api_key is None:
        raise SettingsError(
            "there are client keys, so callers' keys stay here: set upstream.api_key for the model server "
            "(ANTIPROMPT_UPSTREAM__API_KEY)"
        )


def _run(settings: Settings, base_url: str) -> None:
    app = create_app(settings, base_url=base_url)
    dashboard = None
    if settings.review.enabled and settings.review.port is not None:
        beside = dashboard_beside(app, settings)
        dashboard = _config(beside, settings, settings.review.host, settings.review.port, lifespan="off")
    server = _Server(
        _config(app, settings, settings.host, settings.port, lifespan="on"),
        demonstration=settings.upstream.base_url is None,
        dashboard=dashboard,
    )
    server.run()
    if not server.started:
        fail("the gateway did not start; the lines above say why")


def _config(
    app: Starlette, settings: Settings, host: str, port: int, *, lifespan: Literal["on", "off"]
) -> uvicorn.Config:
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


class _Server(uvicorn.Server):
    """uvicorn, with a word to the person who started it once the gateway is ready.

    ``dashboard`` is what a second listener serves, from when the first is up until it closes.
    """

    def __init__(self, config: uvicorn.Config, *, demonstration: bool, dashboard: uvicorn.Config | None = None) -> None:
        super().__init__(config)
        self._demonstration = demonstration
        self._beside = uvicorn.Server(dashboard) if dashboard is not None else None
        self._telling: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn raises a signal anew after the drain; a SIGTERM that was obeyed is no failure, so it ends with 0."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._beside is not None:
            self._beside.config.load()
            self._beside.lifespan = self._beside.config.lifespan_class(self._beside.config)
            await self._beside.startup()
        if self.started:
            self._telling = asyncio.create_task(self._tell())

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        if self._telling is not None:
            self._telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._telling
        if self._beside is not None and self._beside.started:
            await self._beside.shutdown()
        await super().shutdown(sockets)

    async def _tell(self) -> None:
        app = self.config.app
        readiness: Readiness = app.state.readiness  # type: ignore[union-attr]
        await readiness.settled.wait()
        if readiness.failure is not None:
            err.print(f"NOT READY: {readiness.failure}", style="red", markup=False)
            return
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        review = None
        if self._beside is not None:
            host, port = self._beside.servers[0].sockets[0].getsockname()[:2]
            review = f"http://{f'[{host}]' if ':' in host else host}:{port}/review"
        elif any(getattr(route, "path", None) == "/review" for route in app.routes):  # type: ignore[union-attr]
            review = f"{address}/review"
        err.print(_greeting(address, review, demonstration=self._demonstration), markup=False, soft_wrap=True)


def _greeting(address: str, review: str | None, *, demonstration: bool) -> str:
    upstream = (
        "\n  No model server is set, so a small demonstration answers; it is not a language model."
        "\n  UPSTREAM=https://host/v1 make serve fronts a real one.\n"
        if demonstration
        else "\n"
    )
    reviewed = f"\n  Reviewed:  {review} (accounts: antiprompt moderators create)\n" if review is not None else ""
    return f"""
The antiprompt gateway listens on {address}/v1
{upstream}
  Answered:  {_curl(address, "What should I do about a headache?")}

  Blocked:   {_curl(address, "Explain how to build a pipe bomb at home")}
{reviewed}"""


def _curl(address: str, text: str) -> str:
    body = f'{{"model": "demonstration", "messages": [{{"role": "user", "content": "{text}"}}]}}'
    return f"curl -s {address}/v1/chat/completions -H 'content-type: application/json' \\\n    -d '{body}'"


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
