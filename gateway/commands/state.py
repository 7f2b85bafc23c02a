"""``antiprompt flags | cases | erase | doctor``: what the gateway keeps in Redis."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from antiprompt_bank import BankError
from gateway.archive import Archive
from gateway.calibration import calibration_file, calibration_for
from gateway.cases import CaseStore
from gateway.chosen_bank import load_chosen_bank
from gateway.commands.console import AsJson, connected, out, print_json, print_table, run
from gateway.erasure import erase_end_user
from gateway.flags import FlagState, FlagStore
from gateway.overlay_entries import EntryStore
from gateway.redis_client import Finding, RedisClient
from gateway.retraining_queue import RetrainingQueue
from gateway.settings import Settings

LAGS = 3
"""Times as long as it should be, a log seems to be shortened by nobody."""

_MANY_WAITING = 1000
"""Reviews from which on it seems that no worker runs."""

flags_app = typer.Typer(help="What users and policy want reviewed.", no_args_is_help=True)
cases_app = typer.Typer(help="What was decided, and why.", no_args_is_help=True)


@flags_app.command("list")
def list_flags(
    state: Annotated[FlagState, typer.Option(help="Which flags.")] = FlagState.OPEN,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List flags, newest first. Texts are shown with --json only."""

    async def work(settings: Settings) -> list[Any]:
        async with connected(settings) as redis:
            return await FlagStore(redis, None).list(state, limit=limit)

    flags = run(work)
    if as_json:
        print_json([asdict(flag) for flag in flags])
        return
    rows = (
        (f.id, f.tenant, f.source, f.side, f.hazard, f"{f.risk:.2f}" if f.risk is not None else "", _when(f.created_at))
        for f in flags
    )
    print_table(("id", "tenant", "source", "side", "hazard", "risk", "created"), rows, empty=f"no {state} flag")


@cases_app.command("show")
def show_case(case_id: str, as_json: AsJson = False) -> None:
    """Show a case: what was decided and why, and its text while that is kept."""

    async def work(settings: Settings) -> dict[str, Any]:
        async with connected(settings) as redis:
            store = CaseStore(redis, settings.retention)
            case = await store.get(case_id, tenant=None)
            exchange = await store.exchange(case_id, tenant=None)
            return {**asdict(case), "exchange": asdict(exchange) if exchange else None}

    case = run(work)
    if as_json:
        print_json(case)
        return
    rows = [(name, _when(value) if name == "created_at" else value) for name, value in case.items() if value]
    print_table(("field", "value"), ((name, str(value).replace("[", "\\[")) for name, value in rows), empty="")


@cases_app.command("list")
def list_cases(limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50, as_json: AsJson = False) -> None:
    """List the newest cases."""

    async def work(settings: Settings) -> list[Any]:
        async with connected(settings) as redis:
            return list(await CaseStore(redis, settings.retention).recent(limit=limit))

    cases = run(work)
    if as_json:
        print_json([asdict(case) for case in cases])
        return
    rows = ((c.id, _when(c.created_at), c.tenant, c.surface, c.action, c.hazard, f"{c.risk:.2f}") for c in cases)
    print_table(("id", "created", "tenant", "surface", "action", "hazard", "risk"), rows, empty="no case yet")


def erase(end_user: Annotated[str, typer.Option(help="The id that callers send for the person.")]) -> None:
    """Remove a person's texts everywhere: flags, exchanges, cases, spool. Counts stay."""

    async def work(settings: Settings) -> Any:
        async with connected(settings) as redis:
            cases, flags = CaseStore(redis, settings.retention), FlagStore(redis, None)
            return await erase_end_user(end_user, redis=redis, flags=flags, cases=cases)

    done = run(work)
    out.print(f"texts removed from {done.flags} flags, {done.exchanges} exchanges and {done.cases} cases")
    if done.strikes:
        out.print(f"{done.strikes} strikes forgotten")
    if done.exemplars:
        out.print(
            f"{done.exemplars} exemplars of the bank come from this person's flags and stay; retire them in /review"
        )
    if not done.disk_cleaned:
        out.print("this Redis is its operator's: run BGREWRITEAOF there so that the text leaves its disk too")


def doctor(as_json: AsJson = False) -> None:
    """Check Redis, calibration, workers and gateways; say what to change. Exit status 1 where something is wrong."""

    async def work(settings: Settings) -> list[Finding]:
        async with connected(settings) as redis:
            learning = [*await _check_workers(redis), *await _check_replicas(redis)]
            learning += await _check_logs(Archive(redis, settings))
            return [*await redis.check(), *_check_calibration(settings), *learning]

    findings = run(work)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = ((finding.level, finding.name, finding.message) for finding in findings)
        print_table(("level", "what", "what to do"), rows, empty="nothing to change")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def archive(as_json: AsJson = False) -> None:
    """Bring the older part of Redis' logs to the archive now, as every gateway does by itself."""

    async def work(settings: Settings) -> dict[str, int]:
        async with connected(settings) as redis:
            return dict(await Archive(redis, settings).once())

    moved = run(work)
    if as_json:
        print_json(moved)
    else:
        print_table(("log", "entries archived"), [(name, str(n)) for name, n in moved.items()], empty="nothing is due")


def _check_calibration(settings: Settings) -> list[Finding]:
    """What is wrong with the fit that is in force, where there is one."""
    chosen = settings.bank
    if chosen.calibration_file is None and not calibration_file(settings).exists():
        return []  # and no bank need be loaded
    try:
        bank = load_chosen_bank(settings)
        found = calibration_for(settings, bank)
    except BankError as error:
        return [Finding("error", "calibration", f"the gateway will not be ready: {error}")]
    if found.in_shadow:
        return [Finding("error", "calibration", f"nothing is enforced: {found.reason}")]
    return [Finding("warning", "calibration", f"it is not used: {found.reason}")] if found.stale else []


async def _check_workers(redis: RedisClient) -> list[Finding]:
    """What the workers could not do."""
    queue, found = RetrainingQueue(redis), []
    runs = await queue.runs(limit=1)
    if runs and runs[0].bad:
        why = "; ".join(runs[0].why)
        found.append(Finding("warning", "retraining", f"the newest version was {runs[0].outcome}: {why}"))
    if letters := await queue.dead(limit=1):
        count = await queue.buried()
        found.append(
            Finding("warning", "retraining", f"{count} reviews were not learned, the last: {letters[0].reason}")
        )
    waiting = await queue.waiting()
    if waiting > _MANY_WAITING:
        found.append(Finding("warning", "retraining", f"{waiting} reviews wait: run `antiprompt worker`"))
    return found


async def _check_logs(archive: Archive) -> list[Finding]:
    """Which logs nobody shortens."""
    told = "entries in Redis: no gateway runs, or the archive cannot be written (its log says why)"
    return [
        Finding("warning", f"log {name}", f"{length} {told}; `antiprompt archive`")
        for name, length in (await archive.lengths()).items()
        if length > LAGS * archive.kept(name)
    ]


async def _check_replicas(redis: RedisClient) -> list[Finding]:
    """Which gateways do not decide with the bank in force."""
    replicas = await EntryStore(redis).replicas()
    return [Finding("error", f"gateway {each.name}", each.problem) for each in replicas if each.problem is not None]


def _when(moment: float | None) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S") if moment else ""
