"""``antiprompt policy``: check, publish, roll back, and break-glass."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from gateway.commands.console import FAILURES, AsJson, connected, fail, out, print_json, print_table, run
from gateway.policy import Policy
from gateway.policy_store import PolicyStore
from gateway.settings import Settings

T = TypeVar("T")

app = typer.Typer(help="What is done with what was found.", no_args_is_help=True)

Author = Annotated[str, typer.Option(help="Who does this; stands in the history.", default_factory=getpass.getuser)]
Note = Annotated[str, typer.Option(help="Why; stands in the history.")]


def _with_store(work: Callable[[PolicyStore], Awaitable[T]]) -> T:
    async def connected_work(settings: Settings) -> T:
        async with connected(settings) as redis:
            store = PolicyStore(redis, settings.policy_file)
            await store.attach()
            return await work(store)

    return run(connected_work)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, ValueError) as error:
        fail(str(error))


@app.command()
def check(file: Path) -> None:
    """Check a policy file, without publishing it."""
    try:
        policy = Policy.from_yaml(_read(file))
    except FAILURES as error:
        fail(str(error))
    out.print(f"valid; version {policy.version}")


@app.command()
def show(version: Annotated[str | None, typer.Argument(help="Unset: the one in force.")] = None) -> None:
    """Print a policy."""
    out.print(_with_store(lambda store: store.text(version)), markup=False, soft_wrap=True)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say which policy is in force, who put it there, and whether the glass is broken."""

    async def work(store: PolicyStore) -> dict[str, Any]:
        return asdict(store.status)

    found = _with_store(work)
    if as_json:
        print_json(found)
        return
    print_table(("what", "value"), ((name, value) for name, value in found.items() if value is not None), empty="")


@app.command()
def publish(file: Path, note: Note, author: Author) -> None:
    """Put a policy file in force on every gateway."""
    text = _read(file)
    out.print(_with_store(lambda store: store.publish(text, author=author, note=note)))


@app.command()
def rollback(
    version: Annotated[str, typer.Argument(help="An earlier version; `antiprompt policy history` lists them.")],
    note: Note,
    author: Author,
) -> None:
    """Put an earlier version in force again."""
    out.print(_with_store(lambda store: store.rollback(version, author=author, note=note)))


@app.command()
def history(as_json: AsJson = False) -> None:
    """Say what was done to the policy: by whom, when and why; break-glass too."""
    entries = _with_store(lambda store: store.audit())
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    rows = ((_when(entry.at), entry.event, entry.version, entry.author, entry.note) for entry in entries)
    print_table(("when", "what", "version", "who", "why"), rows, empty="nothing was published yet")


@app.command("break-glass")
def break_glass(
    minutes: Annotated[float, typer.Option(help="How long nothing is enforced; a day at most.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the history.")],
    author: Author,
) -> None:
    """Put everything into shadow for a while: decided and recorded, not enforced."""
    lifetime = timedelta(minutes=minutes)
    broken = _with_store(lambda store: store.break_glass(lifetime, author=author, reason=reason))
    out.print(f"nothing is enforced until {_when(broken.until)} UTC; `antiprompt policy restore` ends it")


@app.command()
def restore(note: Note, author: Author) -> None:
    """End break-glass before its time."""
    ended = _with_store(lambda store: store.restore(author=author, note=note))
    out.print("the policy is enforced again" if ended else "the glass was not broken")


def _when(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")
