"""``antiprompt moderators``: the people who may use the dashboard. There is no account to begin with."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from gateway.accounts import AccountStore
from gateway.commands.console import AsJson, connected, fail, out, print_json, print_table, run
from gateway.roles import Role
from gateway.settings import Settings

T = TypeVar("T")

app = typer.Typer(help="People who review: accounts of the dashboard at /review.", no_args_is_help=True)

FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Log-in name, in lower-case letters.")],
    role: Annotated[Role, typer.Option(help="What the person may do.")] = Role.MODERATOR,
    password_stdin: FromStdin = False,
    outside: Annotated[bool, typer.Option(help="No password: the identity provider of the settings vouches.")] = False,
) -> None:
    """Make an account. The password is asked for, or read from stdin; it is kept only as a hash."""
    password = None if outside else _password(from_stdin=password_stdin)
    made = _with_accounts(lambda accounts: accounts.create(name, role, password))
    out.print(f"created {made.name} ({made.role})", markup=False)


@app.command("list")
def list_accounts(as_json: AsJson = False) -> None:
    """List accounts, disabled ones too."""
    accounts = _with_accounts(lambda accounts: accounts.list())
    if as_json:
        shown = ("name", "role", "outside", "created_at", "disabled_at")
        print_json([{name: asdict(account)[name] for name in shown} for account in accounts])
        return
    rows = (
        (a.name, a.role, _when(a.created_at), "" if a.disabled_at is None else _when(a.disabled_at)) for a in accounts
    )
    print_table(
        ("name", "role", "created", "disabled"), rows, empty="no account yet; `antiprompt moderators create NAME`"
    )


@app.command()
def passwd(name: str, password_stdin: FromStdin = False) -> None:
    """Change a password; every session of the account ends."""
    password = _password(from_stdin=password_stdin)
    _with_accounts(lambda accounts: accounts.set_password(name, password))
    out.print(f"changed the password of {name}", markup=False)


@app.command("role")
def set_role(name: str, role: Role) -> None:
    """Change what a person may do, from their next click on."""
    _with_accounts(lambda accounts: accounts.set_role(name, role))
    out.print(f"{name} is {role} now", markup=False)


@app.command()
def disable(name: str) -> None:
    """Close an account; every session of it ends. What it decided keeps its name."""
    _with_accounts(lambda accounts: accounts.disable(name))
    out.print(f"disabled {name}", markup=False)


@app.command()
def enable(name: str) -> None:
    """Open a disabled account again."""
    _with_accounts(lambda accounts: accounts.enable(name))
    out.print(f"enabled {name}", markup=False)


def _with_accounts(work: Callable[[AccountStore], Awaitable[T]]) -> T:
    """Do something with the accounts of the settings' Redis."""

    async def connect(settings: Settings) -> T:
        async with connected(settings) as redis:
            return await work(AccountStore(redis))

    return run(connect)


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        fail("there is nobody to ask for a password; give it on stdin with --password-stdin")
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
