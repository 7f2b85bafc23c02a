"""``antiprompt bank push``, ``pull``, ``remote``: versions in the object store that ``bank.remote`` names.

Publishing a version pushes it, and a gateway fetches what it lacks; these do it by hand.
"""

from __future__ import annotations

from typing import Annotated

import typer

from antiprompt_bank import BankStore
from antiprompt_bank.remote import RemoteVersions
from gateway.chosen_bank import remote_versions, versions_folder
from gateway.commands.bank import open_store
from gateway.commands.console import FAILURES, AsJson, fail, out, print_json, print_table, settings_or_fail

Version = Annotated[str | None, typer.Argument(help="A version. Unset: the one that the folder publishes.")]


def push(version: Version = None, as_json: AsJson = False) -> None:
    """Put a version of the folder into the object store; what is there is never overwritten."""
    remote, store = _remote(), open_store()
    try:
        name = version or store.current()
        done = remote.push(store, name)
    except FAILURES as error:
        fail(str(error))
    _show(name, done, as_json, "is there already")


def pull(version: Annotated[str, typer.Argument(help="A version.")], as_json: AsJson = False) -> None:
    """Bring a version from the object store into the folder; every file's hash is checked."""
    remote, store = _remote(), BankStore(versions_folder(settings_or_fail()))
    try:
        done = remote.pull(version, store)
    except FAILURES as error:
        fail(str(error))
    _show(version, done, as_json, "is here already")


def remote(as_json: AsJson = False) -> None:
    """List the versions in the object store."""
    there = _remote()
    here = BankStore(versions_folder(settings_or_fail())).versions()
    try:
        names = there.versions()
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json([{"version": name, "here": name in here} for name in names])
        return
    rows = ((name, "here too" if name in here else "") for name in names)
    print_table(("version", ""), rows, empty="no version yet: antiprompt bank push")


def _remote() -> RemoteVersions:
    try:
        found = remote_versions(settings_or_fail())
    except FAILURES as error:
        fail(str(error))
    if found is None:
        fail("bank.remote is not set: name a place, as ANTIPROMPT_BANK__REMOTE=s3://bucket/bank")
    return found


def _show(version: str, done: bool, as_json: bool, otherwise: str) -> None:
    if as_json:
        print_json({"version": version, "changed": done})
    else:
        out.print(version if done else f"{version} {otherwise}", markup=False)
