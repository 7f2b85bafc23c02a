"""``antiprompt worker``: learns from reviews, and makes new versions of the bank when they are due."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated, Final

import typer

from gateway.commands.console import FAILURES, connected, fail, settings_or_fail
from gateway.heartbeat import beating
from gateway.retraining import Worker
from gateway.settings import Settings
from gateway.telemetry import configure_logs

ALIVE: Final = "worker.alive"
"""The file in data_dir that a probe looks at: it is touched every few seconds."""


def worker(
    name: Annotated[str | None, typer.Option(help="A name of its own. Unset: host and process.")] = None,
) -> None:
    """Learn from reviews until stopped. Any number may run, on any host that sees Redis and the bank's folder."""
    settings = settings_or_fail()
    configure_logs(format=settings.log_format, level=settings.log_level)
    try:
        asyncio.run(_work(settings, name))
    except FAILURES as error:
        fail(str(error))


async def _work(settings: Settings, name: str | None) -> None:
    async with connected(settings) as redis, beating(settings.data_dir / ALIVE):
        working = Worker(redis, settings, name=name)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # The first one lets what is under way end; after it the signal does what it always does.
            loop.add_signal_handler(number, _stop, loop, working, number)
        await working.run()


def _stop(loop: asyncio.AbstractEventLoop, working: Worker, number: signal.Signals) -> None:
    working.stop()
    loop.remove_signal_handler(number)
