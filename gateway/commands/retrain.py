"""``antiprompt retrain``: one attempt at a new version by hand, and what came of earlier ones."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.progress import Progress as ProgressBar

from gateway.commands.console import AsJson, connected, err, fail, out, print_json, print_table, run
from gateway.errors import Conflict
from gateway.retraining import NotDue, Retraining, quiet
from gateway.retraining_candidate import Tell
from gateway.retraining_queue import Run
from gateway.settings import Settings


def retrain(
    once: Annotated[bool, typer.Option("--once", help="Build, measure and, if it is no worse, publish now.")] = False,
    if_any: Annotated[
        bool, typer.Option("--if-any", help="Nothing to build from, or another build under way, is no failure.")
    ] = False,
    by: Annotated[str | None, typer.Option(help="Who does this; stands in the history. Unset: you.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new version from all that was decided; without --once, say what came of earlier attempts.

    Exit status 1 where the new version was refused.
    """
    if not once:
        _show_runs(run(_runs), as_json)
        return

    async def work(settings: Settings) -> Run | str:
        async with connected(settings) as redis:
            with _progress() as tell:
                try:
                    return await Retraining(redis, settings).once(by=by or getpass.getuser(), tell=tell)
                except (Conflict, NotDue) as nothing:
                    if if_any:
                        return str(nothing)
                    raise

    try:
        done = run(work)
    except NotDue as nothing:
        fail(str(nothing))
    if isinstance(done, str):
        err.print(done, markup=False)
        return
    if as_json:
        print_json(asdict(done))
    else:
        _show(done)
    if done.outcome != "published":
        raise typer.Exit(1)


async def _runs(settings: Settings) -> list[Run]:
    async with connected(settings) as redis:
        return list(await Retraining(redis, settings).queue.runs())


def _show_runs(runs: list[Run], as_json: bool) -> None:
    if as_json:
        print_json([asdict(each) for each in runs])
        return
    rows = (
        (datetime.fromtimestamp(each.at, UTC).strftime("%Y-%m-%d %H:%M:%S"), each.outcome, each.candidate, _why(each))
        for each in runs
    )
    print_table(("when", "outcome", "version", "why"), rows, empty="no version was retrained yet")


def _show(done: Run) -> None:
    scores = done.scores or {}
    for name, what in (("recall", "harmful held-out texts found"), ("false_positives", "harmless ones hit")):
        paired: dict[str, Any] = scores[name]
        out.print(f"{what}: {paired['after']} of {paired['texts']}, by the version in force {paired['before']}")
    out.print(f"confirmed exemplars: {scores['confirmed']}, of which lost: {len(scores['confirmed_lost'])}")
    if done.outcome == "published":
        out.print(f"published {done.candidate}", markup=False)
        return
    err.print(f"{done.candidate} was refused; {done.base} stays in force", style="red", markup=False)
    for why in done.why:
        err.print(f"  {why}", markup=False)


def _why(each: Run) -> str:
    return "; ".join(each.why).replace("[", "\\[")


@contextmanager
def _progress() -> Iterator[Tell]:
    if not sys.stderr.isatty():
        yield quiet
        return
    with ProgressBar(console=err, transient=True) as bar:
        task = bar.add_task("beginning", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
