"""``antiprompt serve``: the gateway, its private Redis and, without a model server, the demonstration of one."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack
from socket import socket

import uvicorn

from gateway.app import create_app, dashboard_beside
from gateway.auth import refuse_open_listen
from gateway.client_keys import ClientKeyStore
from gateway.commands.console import FAILURES, err, fail, settings_or_fail
from gateway.commands.listener import Server, listening
from gateway.demo import running_demo
from gateway.parts import Readiness
from gateway.policy import Policy
from gateway.policy_file import DEFAULT_POLICY_FILE
from gateway.redis_client import RedisClient
from gateway.settings import Settings, SettingsError
from gateway.telemetry import configure_logs


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
        dashboard = listening(beside, settings, settings.review.host, settings.review.port, lifespan="off")
    server = _Server(
        listening(app, settings, settings.host, settings.port, lifespan="on"),
        demonstration=settings.upstream.base_url is None,
        dashboard=dashboard,
    )
    server.run()
    if not server.started:
        fail("the gateway did not start; the lines above say why")


class _Server(Server):
    """uvicorn, with a word to the person who started it once the gateway is ready.

    ``dashboard`` is what a second listener serves, from when the first is up until it closes.
    """

    def __init__(self, config: uvicorn.Config, *, demonstration: bool, dashboard: uvicorn.Config | None = None) -> None:
        super().__init__(config)
        self._demonstration = demonstration
        self._beside = uvicorn.Server(dashboard) if dashboard is not None else None
        self._telling: asyncio.Task[None] | None = None

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
