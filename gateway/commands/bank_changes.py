"""``antiprompt bank import``, ``dedupe``, ``reembed``: new versions of a bank.

A change never touches a version: it makes a new one in the folder that bank.path names, whose parent is the published
one. Gateways load it once it is published, which ``--publish`` or ``bank publish`` does.
"""

from __future__ import annotations

import getpass
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import Progress as ProgressBar

from antiprompt_bank import Antiprompt, Bank, BankNotFound, BankStore, Label, State
from antiprompt_bank.additions import Progress
from antiprompt_bank.dedupe import Vectors, conflicts
from antiprompt_bank.dedupe import dedupe as without_duplicates
from antiprompt_bank.encoder import Encoder, export_encoder, open_encoder
from antiprompt_bank.importers import FORMATS, Given, Report, import_file
from antiprompt_bank.reading import MAX_ROWS
from antiprompt_bank.seeding import calibration_records
from antiprompt_bank.signed import is_signed
from antiprompt_bank.withheld import Given as GivenVectors
from antiprompt_bank.withheld import build_with_withheld
from gateway.chosen_bank import load_seed_bank
from gateway.commands.bank import open_store
from gateway.commands.bank_exchange import imported, received
from gateway.commands.bank_versions import put_in_force
from gateway.commands.console import FAILURES, AsJson, err, fail, out, print_json, print_table, settings_or_fail

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Publish = Annotated[bool, typer.Option("--publish", help="Publish the new version at once.")]
SideOption = Annotated[Literal["request", "response"] | None, typer.Option(help="request or response.")]

_SHOWN = 20


def import_files(
    files: Annotated[list[Path], typer.Argument(help="JSONL, JSON, CSV or plain lines; .gz too.")],
    format: Annotated[str, typer.Option(help=" | ".join(FORMATS))] = "auto",
    licence: Annotated[str | None, typer.Option(help="Licence (SPDX) of rows that name none.")] = None,
    source: Annotated[str | None, typer.Option(help="Where rows come from that do not say it.")] = None,
    hazard: Annotated[str | None, typer.Option(help="Hazard of harmful rows whose category maps to none.")] = None,
    side: SideOption = None,
    label: Annotated[Label | None, typer.Option(help="Label of rows that have none.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of rows that name none. Unset: en.")] = None,
    state: Annotated[
        Literal["quarantine", "shadow", "live", "retired", "keep"], typer.Option(help="Every row's; keep: its own.")
    ] = "quarantine",
    column: Annotated[list[str] | None, typer.Option(help="A column's meaning, as text=goal; may be repeated.")] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Most rows of a file.")] = MAX_ROWS,
    strict: Annotated[bool, typer.Option("--strict", help="Fail at the first bad row.")] = False,
    trust: Annotated[
        list[Path] | None, typer.Option(help="Public key (PEM) whose signed files are taken, and no others; repeat.")
    ] = None,
    dry_run: DryRun = False,
    publish: Publish = False,
    as_json: AsJson = False,
) -> None:
    """Read local files of exemplars into a new version of the bank. Imported rows start in quarantine."""
    if trust or any(path.is_file() and is_signed(path) for path in files):
        import_signed(files, trust or [], dry_run, publish, as_json)
        return
    if format not in FORMATS:
        fail(f"there is no format {format!r}; there are {', '.join(FORMATS)}")
    store = None if dry_run and settings_or_fail().bank.path is None else open_store()
    reports: dict[str, Report] = {str(file): Report() for file in files}
    try:
        given = Given(
            label=label,
            side=side,
            hazard=hazard,
            language=language,
            licence=licence,
            source=source,
            state=None if state == "keep" else State(state),
            columns=dict(_pair(one) for one in column or ()),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        read: dict[str, Antiprompt] = {}
        for file in files:
            report = reports[str(file)]
            for record in import_file(file, given, format=format, report=report, strict=strict, max_rows=max_rows):
                read.setdefault(record.id, record)
        base, parent = (None, None) if store is None else _base(store)
        known = base.records if base else ()
        there = {record.id for record in known}
        new = [record for id, record in read.items() if id not in there]
        result: dict[str, Any] = {
            "files": [
                {"file": name, **asdict(report), "counts": dict(report.counts)} for name, report in reports.items()
            ],
            "new": len(new),
            "already_there": len(read) - len(new),
            "conflicts": _ids(conflicts([*known, *new])),
            "version": None,
        }
        if base is not None and store is not None and new and not dry_run:
            result |= _write(store, [*known, *new], base.encoder, parent, publish, base=base)
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json(result)
        return
    _show_reports(reports)
    out.print(f"{result['new']} new exemplars, {result['already_there']} are there already", markup=False)
    _show_version(result, dry_run)


def import_signed(files: Sequence[Path], trust: Sequence[Path], dry_run: bool, publish: bool, as_json: bool) -> None:
    """Read files that ``export --signed`` wrote elsewhere into a new version, all in quarantine."""
    if not trust:
        fail("this file is signed: name the key whose files you trust, with --trust PUBLIC_KEY")
    store = open_store()
    try:
        came = received(files, trust)
        base, parent = _base(store)
        read: dict[str, Antiprompt] = {}
        given: dict[str, Any] = {}
        heads = []
        for file in came:
            taken = imported(file, base)
            read |= {record.id: record for record in taken.records}
            given |= taken.given
            told = {"file": str(file.path), "taken": len(taken.records), "refused": taken.refused}
            heads.append({**told, **asdict(file.head)})
        there = {record.id for record in base.records}
        new = [record for id, record in read.items() if id not in there]
        result: dict[str, Any] = {
            "files": heads,
            "new": len(new),
            "already_there": len(read) - len(new),
            "conflicts": _ids(conflicts([*base.records, *new])),
            "version": None,
        }
        if new and not dry_run:
            result |= _write(store, [*base.records, *new], base.encoder, parent, publish, base=base, given=given)
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json(result)
        return
    for each in heads:
        out.print(f"{each['file']}: {each['taken']} exemplars ({each['contents']}) by {each['origin']}", markup=False)
    out.print(f"{result['new']} new exemplars, {result['already_there']} are there already", markup=False)
    _show_version(result, dry_run)


def dedupe(dry_run: DryRun = False, publish: Publish = False, as_json: AsJson = False) -> None:
    """Drop exemplars that are near copies of others of their label and side, by characters or by vectors."""
    store = open_store()
    try:
        base, parent = _base(store)
        made = without_duplicates(base.records, Vectors(base.rows, base.vectors, base.calibration.background))
        result: dict[str, Any] = {
            "dropped": [
                {"id": one.record.id, "kept": one.kept, "reason": one.reason, "likeness": round(one.likeness, 4)}
                for one in made.dropped
            ],
            "conflicts": _ids(made.conflicts),
            "version": None,
        }
        if made.dropped and not dry_run:
            result |= _write(store, made.records, base.encoder, parent, publish, base=base)
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json(result)
        return
    rows = [
        (one.record.id, one.kept, one.reason, f"{one.likeness:.2f}", one.record.text[:60].replace("[", "\\["))
        for one in made.dropped
    ]
    print_table(("dropped", "for", "reason", "likeness", "text"), rows, empty="no duplicates")
    _show_version(result, dry_run)


def reembed(
    model: Annotated[str, typer.Option(help="A sentence-transformers model: its name, or a folder.")],
    publish: Publish = False,
    as_json: AsJson = False,
) -> None:
    """Make the bank anew with another encoder: all vectors, and a calibration fitted to them."""
    store = open_store()
    try:
        base, parent = _base(store)
        # Exported anew each time, since a folder's weights may have changed; beside the versions, to be linked there.
        store.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".encoder-", dir=store.root) as folder:
            exported = export_encoder(Path(folder) / "encoder", model)
            encoder = open_encoder(exported, device=settings_or_fail().bank.device)
            result = {"encoder": encoder.id, **_write(store, base.records, encoder, parent, publish, base=base)}
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json(result)
        return
    out.print(f"{len(base.records)} exemplars by {result['encoder']}", markup=False)
    _show_version(result, dry_run=False)


def _pair(column: str) -> tuple[str, str]:
    what, equals, name = column.partition("=")
    if not equals or not name:
        raise ValueError(f"--column is {column!r}, not of the form text=goal")
    return what, name


def _base(store: BankStore) -> tuple[Bank, str | None]:
    """What a new version is made from: the published version, or the seed bank where there is none yet."""
    settings = settings_or_fail()
    try:
        parent = store.current()
    except BankNotFound as error:
        if store.versions():
            raise BankNotFound(f"{error}; first choose one: antiprompt bank publish VERSION") from None
        err.print("no version yet: starting from the seed bank", markup=False)
        return load_seed_bank(settings), None
    return store.load(parent, device=settings.bank.device), parent


def _write(
    store: BankStore,
    records: Sequence[Antiprompt],
    encoder: Encoder,
    parent: str | None,
    publish: bool,
    *,
    base: Bank,
    given: GivenVectors | None = None,
) -> dict[str, Any]:
    with _progress() as told:
        bank = build_with_withheld(
            records, encoder, base=base, given=given, progress=told, harmless=calibration_records()
        )
    version = store.save(bank, parent=parent)
    if publish:
        put_in_force(version, by=getpass.getuser(), note="published as it was made")
    return {"version": version, "parent": parent, "published": publish, "records": len(bank.records)}


@contextmanager
def _progress() -> Iterator[Progress | None]:
    if not sys.stderr.isatty():
        yield None
        return
    with ProgressBar(console=err, transient=True) as bar:
        task = bar.add_task("Encoding the exemplars", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _ids(pairs: Sequence[tuple[Antiprompt, Antiprompt]]) -> list[dict[str, str]]:
    return [{"harmful": harmful.id, "benign": benign.id} for harmful, benign in pairs]


def _show_reports(reports: dict[str, Report]) -> None:
    rows = [
        (name, report.format, report.read, report.taken, len(report.bad), report.refused)
        for name, report in reports.items()
    ]
    print_table(("file", "format", "rows", "taken", "bad", "refused"), rows, empty="no file")
    for name, report in reports.items():
        for note in (*report.notes, *(f"{times} {what}" for what, times in report.counts.items())):
            out.print(f"{name}: {note}", markup=False)
        for bad in report.bad[:_SHOWN]:
            err.print(f"{bad.file}, line {bad.line}: {bad.reason}", style="yellow", markup=False)
        if len(report.bad) > _SHOWN:
            err.print(f"... and {len(report.bad) - _SHOWN} more bad rows; --json has them all", style="yellow")
        if report.refused:
            out.print(f"{name}: {report.refused} rows may be about the sexual exploitation of children: never stored")


def _show_version(result: dict[str, Any], dry_run: bool) -> None:
    for pair in result.get("conflicts", ()):
        err.print(f"harmful {pair['harmful']} and benign {pair['benign']} have the same text", style="yellow")
    if result["version"] is None:
        out.print("nothing was changed" + (" (dry run)" if dry_run else ""))
        return
    done = "published" if result["published"] else "to use it: antiprompt bank publish " + result["version"]
    out.print(f"version {result['version']} with {result['records']} exemplars; {done}", markup=False)
