"""``antiprompt bank publish``, ``rollback``, ``history``, ``replicas``: which version every gateway decides with."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from gateway.bank_versions import BankVersions, Published
from gateway.chosen_bank import remote_versions, versions_folder
from gateway.commands.console import AsJson, connected, out, print_json, print_table, run
from gateway.overlay_entries import EntryStore
from gateway.redis_client import RedisClient
from gateway.settings import Settings

T = TypeVar("T")

By = Annotated[str, typer.Option(help="Who does this; stands in the history.", default_factory=getpass.getuser)]
Note = Annotated[str, typer.Option(help="Why; stands in the history.")]


def publish(version: str, by: By, note: Note = "by command", as_json: AsJson = False) -> None:
    """Put a version in force on every gateway that runs, and on those that start later."""
    _show(put_in_force(version, by=by, note=note), as_json)


def rollback(
    by: By,
    version: Annotated[str | None, typer.Argument(help="Unset: the one before the current one.")] = None,
    note: Note = "by command",
    as_json: AsJson = False,
) -> None:
    """Put an earlier version in force again on every gateway."""
    _show(_with_versions(lambda versions: versions.rollback(version=version, by=by, note=note)), as_json)


def history(as_json: AsJson = False) -> None:
    """Say which versions were put in force, by whom, when and why."""
    found = _with_versions(lambda versions: versions.history())
    if as_json:
        print_json([asdict(each) for each in found])
        return
    rows = ((_when(each.at), each.action, each.version, each.by, each.note) for each in found)
    print_table(("when", "what", "version", "who", "why"), rows, empty="nothing was published yet")


def replicas(as_json: AsJson = False) -> None:
    """Say which bank each running gateway decides with, and what keeps one from the version in force."""

    async def work(redis: RedisClient, settings: Settings) -> list[dict[str, object]]:
        return [asdict(replica) for replica in await EntryStore(redis).replicas()]

    found = _connected(work)
    if as_json:
        print_json(found)
        return
    rows = ((each["name"], each["bank"], each["problem"] or "") for each in found)
    print_table(("gateway", "bank", "problem"), rows, empty="no gateway has said anything lately")


def put_in_force(version: str, *, by: str, note: str) -> Published:
    """What ``publish`` does, for commands that make a version and publish it at once."""
    return _with_versions(lambda versions: versions.publish(version, by=by, note=note))


def _with_versions(work: Callable[[BankVersions], Awaitable[T]]) -> T:
    async def with_redis(redis: RedisClient, settings: Settings) -> T:
        return await work(
            BankVersions(
                redis, versions_folder(settings), pinned=settings.bank.version, remote=remote_versions(settings)
            )
        )

    return _connected(with_redis)


def _connected(work: Callable[[RedisClient, Settings], Awaitable[T]]) -> T:
    async def connected_work(settings: Settings) -> T:
        async with connected(settings) as redis:
            return await work(redis, settings)

    return run(connected_work)


def _show(published: Published, as_json: bool) -> None:
    if as_json:
        print_json(asdict(published))
    else:
        out.print(published.version)


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
