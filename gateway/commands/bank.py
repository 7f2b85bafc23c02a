"""``antiprompt bank``: what is in a bank, and its versions."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from antiprompt_bank import HAZARDS, Antiprompt, Bank, BankNotFound, BankStore
from antiprompt_bank.signed import private_key
from gateway.chosen_bank import load_chosen_bank, versions_folder
from gateway.commands.bank_exchange import exported
from gateway.commands.console import FAILURES, AsJson, fail, out, print_json, print_table, settings_or_fail

app = typer.Typer(help="What is in the bank, and its versions.", no_args_is_help=True)

Version = Annotated[str | None, typer.Option(help="A version. Unset: the published one.")]


def open_bank(version: str | None) -> Bank:
    settings = settings_or_fail()
    try:
        return load_chosen_bank(settings, version=version)
    except FAILURES as error:
        fail(str(error))


@app.command()
def stats(version: Version = None, as_json: AsJson = False) -> None:
    """Count exemplars by hazard, side, label, language, state, source and licence."""
    bank = open_bank(version)
    hazards: Counter[tuple[str, str, str]] = Counter(
        (record.hazard or "everyday", record.side, str(record.label)) for record in bank.records
    )
    result: dict[str, Any] = {
        "version": bank.version,
        "encoder": bank.encoder.id,
        "records": len(bank.records),
        "rows": len(bank.vectors),
        "languages": dict(Counter(record.language for record in bank.records).most_common()),
        "states": dict(Counter(str(record.state) for record in bank.records)),
        "kinds": dict(Counter(str(record.kind) for record in bank.records if record.kind)),
        "sources": dict(Counter(record.source for record in bank.records).most_common()),
        "licences": dict(Counter(record.licence for record in bank.records).most_common()),
        "families": len({record.family for record in bank.records if record.family}),
        "hazards": [
            {"hazard": name, **{f"{side}_{label}": hazards[name, side, label] for side, label in _COLUMNS}}
            for name in (*HAZARDS, "everyday")
        ],
    }
    if as_json:
        print_json(result)
        return
    out.print(f"{result['version']}: {result['records']} exemplars in {result['rows']} rows, {result['encoder']}\n")
    rows = [tuple(row.values()) for row in result["hazards"]]
    print_table(("hazard", *(f"{side} {label}" for side, label in _COLUMNS)), rows, empty="")
    out.print()
    for what in ("languages", "states", "sources", "licences"):
        counts = ", ".join(f"{name} {count}" for name, count in result[what].items())
        out.print(f"{what}: {counts}", markup=False)
    out.print(f"families: {result['families']}")


_COLUMNS = tuple((side, label) for side in ("request", "response") for label in ("harmful", "benign"))


@app.command("list")
def list_records(
    hazard: Annotated[str | None, typer.Option(help="Only this hazard.")] = None,
    side: Annotated[str | None, typer.Option(help="request or response.")] = None,
    label: Annotated[str | None, typer.Option(help="harmful or benign.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most to list.")] = 50,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """List exemplars."""
    if hazard is not None and hazard not in HAZARDS:
        fail(f"there is no hazard {hazard!r}; there are {', '.join(HAZARDS)}")
    found = [record for record in open_bank(version).records if _matches(record, hazard, side, label)]
    if as_json:
        print_json([record.to_json() for record in found[:limit]])
        return
    rows = ((r.id, r.hazard, r.side, r.label, r.language, r.text[:80].replace("[", "\\[")) for r in found[:limit])
    print_table(("id", "hazard", "side", "label", "language", "text"), rows, empty="no exemplar matches")
    if len(found) > limit:
        out.print(f"... and {len(found) - limit} more; --limit shows them")


def _matches(record: Antiprompt, hazard: str | None, side: str | None, label: str | None) -> bool:
    return hazard in (None, record.hazard) and side in (None, record.side) and label in (None, str(record.label))


@app.command()
def export(
    to: Annotated[Path | None, typer.Argument(help="File to write. Unset: standard output.")] = None,
    version: Version = None,
    signed: Annotated[
        Path | None, typer.Option(help="Ed25519 key (PEM): a signed file of the live exemplars, for others.")
    ] = None,
    origin: Annotated[str, typer.Option(help="With --signed: who gives the exemplars out.")] = "",
    vectors: Annotated[bool, typer.Option("--vectors", help="With --signed: vectors only, no text.")] = False,
    licence: Annotated[list[str] | None, typer.Option(help="With --signed: only these; repeat. Unset: all.")] = None,
) -> None:
    """Write all exemplars as JSON lines, or the live ones signed, for `import --trust` elsewhere."""
    try:
        sign = None if signed is None else private_key(signed)
        if sign is None and (vectors or licence or origin):
            raise ValueError("--origin, --vectors and --licence belong to --signed KEY")
        if sign is not None and not origin.strip():
            raise ValueError("say who gives the exemplars out: --origin NAME")
        bank = open_bank(version)  # seconds: after what is told at once
        if sign is None:
            lines = b"".join(orjson.dumps(record.to_json()) + b"\n" for record in bank.records)
        else:
            lines = exported(bank, sign, origin=origin, vectors=vectors, licences=licence or ())
    except FAILURES as error:
        fail(str(error))
    if to is None:
        sys.stdout.buffer.write(lines)
        sys.stdout.flush()
        return
    try:
        to.write_bytes(lines)
    except OSError as error:
        fail(str(error))


def open_store() -> BankStore:
    settings = settings_or_fail()
    path = versions_folder(settings)
    if settings.bank.path is None and not path.is_dir():  # nothing was made from the seed bank yet
        fail("the seed bank has one version; set bank.path (ANTIPROMPT_BANK__PATH) to a folder of versions")
    return BankStore(path)


@app.command()
def versions(as_json: AsJson = False) -> None:
    """List the versions of the folder that bank.path names."""
    store = open_store()
    try:
        names = store.versions()
        current = store.current()
    except BankNotFound:
        current = None  # none is published yet
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json({"versions": names, "current": current})
        return
    rows = ((name, "published" if name == current else "") for name in names)
    print_table(("version", ""), rows, empty="no version yet")


@app.command()
def diff(old: str, new: str, as_json: AsJson = False) -> None:
    """Say what NEW has beside OLD."""
    try:
        found = open_store().diff(old, new)
    except FAILURES as error:
        fail(str(error))
    changes = [
        (kind, record)
        for kind, records in (("added", found.added), ("removed", found.removed), ("changed", found.changed))
        for record in records
    ]
    if as_json:
        print_json([{"change": kind, **record.to_json()} for kind, record in changes])
        return
    rows = ((kind, r.id, r.hazard, r.label, r.text[:80].replace("[", "\\[")) for kind, r in changes)
    print_table(("change", "id", "hazard", "label", "text"), rows, empty="no difference")
