"""``antiprompt bank init``: the first version in a folder of versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from antiprompt_bank import Bank, BankNotFound, BankStore
from gateway.chosen_bank import load_seed_bank
from gateway.commands.console import FAILURES, AsJson, fail, out, print_json, settings_or_fail
from gateway.settings import Settings


def init(
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder of versions to begin with. Unset: the seed bank.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a bank into the folder that bank.path names, and publish it there if nothing is published yet.

    Again it changes nothing, so it may run before every start. Needs no Redis.
    """
    settings = settings_or_fail()
    if settings.bank.path is None:
        fail("set bank.path (ANTIPROMPT_BANK__PATH) to the folder that gateways and workers share")
    try:
        version, published = put_first(settings, BankStore(settings.bank.path), source)
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json({"version": version, "published": published})
    else:
        out.print(f"{version} is there" + ("" if version == published else f"; {published} is published"))


def put_first(settings: Settings, store: BankStore, source: Path | None) -> tuple[str, str]:
    """The version that was put into ``store``, and the one that is published there.

    A version that is there already is not read again. Raises what ``antiprompt_bank.load`` raises, and ``OSError``.
    """
    given = BankStore(source) if source is not None else None
    version = given.current() if given is not None else None
    if version is None or version not in store.versions():
        bank: Bank = given.load(device="cpu") if given is not None else load_seed_bank(settings)
        version = store.save(bank)
    try:
        return version, store.current()
    except BankNotFound:
        store.publish(version)
        return version, version
