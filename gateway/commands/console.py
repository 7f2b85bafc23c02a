"""What all commands share: settings read or refused, tables and JSON, a connection to the state, clear failures."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table

from antiprompt_bank import BankError
from gateway.archive import ArchiveError
from gateway.errors import GatewayError
from gateway.policy import PolicyError
from gateway.redis_client import RedisClient
from gateway.redis_server import RedisServerError
from gateway.settings import Settings, SettingsError, load_settings
from gateway.telemetry import configure_logs

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

FAILURES = (GatewayError, BankError, ArchiveError, PolicyError, RedisServerError, SettingsError, OSError, ValueError)
"""What a person can do something about: told in a sentence, without a traceback."""


def fail(message: str) -> NoReturn:
    """Say what went wrong and end with exit status 1."""
    err.print(f"antiprompt: {message}", style="red", markup=False)
    raise typer.Exit(1)


def settings_or_fail() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        fail(str(error))


def run(work: Callable[[Settings], Coroutine[Any, Any, T]]) -> T:
    """Run ``work`` with the settings in force; foreseen failures are told in one sentence."""
    settings = settings_or_fail()
    configure_logs(format="console", level="error", stream=sys.stderr)
    try:
        return asyncio.run(work(settings))
    except FAILURES as error:
        fail(str(error))


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[RedisClient]:
    """A connection to the state: that of a running gateway if there is one, otherwise started for the moment."""
    redis = RedisClient(settings.redis, settings.data_dir, attach=True)
    await redis.start()
    try:
        yield redis
    finally:
        await redis.close()


def print_json(value: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str) + b"\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Rows for people; ``empty`` is said where there are none."""
    # The first column names the row and is for copying: it is never cut.
    first, *others = columns
    name = Column(first, no_wrap=True)
    table = Table(name, *others, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    if table.row_count:
        out.print(table)
    else:
        out.print(empty)
