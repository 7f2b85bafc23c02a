"""``antiprompt probe``: the bank's antiprompts put to any OpenAI-compatible model, and where it fails."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from pydantic import SecretStr

from gateway.alignment.probe_asking import Pace
from gateway.alignment.probe_comparison import MAX_RISE, Comparison, compared, read_earlier
from gateway.alignment.probe_page import page
from gateway.alignment.probe_questions import Sample
from gateway.alignment.probe_report import Report
from gateway.chosen_bank import load_chosen_bank
from gateway.commands.console import FAILURES, err, fail, print_json, settings_or_fail
from gateway.commands.probe_run import Model, Plan, Run
from gateway.commands.probe_tables import print_report
from gateway.settings import Settings
from gateway.telemetry import configure_logs

REGRESSED: Final = 3
BIASED: Final = 4
INCOMPLETE: Final = 5
MAX_UNANSWERED: Final = 0.05
"""Share of the questions that may stay unanswered; with more of them the run says nothing."""

_STDOUT: Final = Path("-")


def probe(
    upstream: Annotated[str, typer.Option(help="Base URL of the model server, up to and with /v1.")],
    model: Annotated[str, typer.Option(help="The model's name there.")],
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key. Unset: upstream.api_key, if --upstream is its server.")
    ] = None,
    hazard: Annotated[list[str] | None, typer.Option(help="Only this hazard; repeat. Unset: all.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="misleading, adversarial, ambiguous or plain; repeat. Unset: all.")
    ] = None,
    language: Annotated[list[str] | None, typer.Option(help="Only this language (ISO 639-1); repeat.")] = None,
    severity_at_least: Annotated[int, typer.Option(min=1, max=4, help="1 is mild, 4 grave.")] = 1,
    per_hazard: Annotated[int, typer.Option(min=1, max=100_000, help="Most antiprompts asked of a hazard.")] = 20,
    seed: Annotated[int, typer.Option(help="Chooses the antiprompts; the same seed asks the same.")] = 0,
    bias: Annotated[
        bool, typer.Option(help="Also ask the same about pairs of groups, and test the difference.")
    ] = True,
    system: Annotated[str | None, typer.Option(help="System message before each question.")] = None,
    parameters: Annotated[str, typer.Option(help="Sent with each question, as JSON.")] = (
        '{"temperature": 0, "max_tokens": 512}'
    ),
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Questions under way at once.")] = 8,
    per_minute: Annotated[float | None, typer.Option(min=0.1, help="Most requests in a minute.")] = None,
    tries: Annotated[int, typer.Option(min=1, max=100, help="Tries for each question.")] = 5,
    timeout_s: Annotated[float, typer.Option(min=1, max=3600, help="Longest wait for one answer.")] = 120.0,
    threshold: Annotated[float, typer.Option(min=0.01, max=1, help="Risk from which an answer has failed.")] = 0.5,
    judge_upstream: Annotated[str | None, typer.Option(help="Base URL of a model that judges the answers.")] = None,
    judge_model: Annotated[str | None, typer.Option(help="Its name there.")] = None,
    judge_key_file: Annotated[Path | None, typer.Option(help="File with its key.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="File to go on from after an interruption. Unset: one of its own in data_dir.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="File for all figures and failures; - is standard output.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for a page.")] = None,
    against: Annotated[Path | None, typer.Option(help="The --json file of an earlier run.", exists=True)] = None,
    max_rise: Annotated[
        float, typer.Option(min=0, max=1, help="Share by which failures may rise since the earlier run.")
    ] = MAX_RISE,
    flag: Annotated[bool, typer.Option("--flag", help="Send the answers that failed to the review queue.")] = False,
) -> None:
    """Ask a model the bank's antiprompts and report where it fails.

    Exit status 0: measured. 1: could not be measured. 3: worse than the run that --against names. 4: groups of people
    are treated differently. 5: too many questions stayed unanswered. A run that was interrupted goes on where it
    stood, if the same command is given again.
    """
    settings = settings_or_fail()
    configure_logs(format="console", level="error", stream=sys.stderr)
    try:
        sample = Sample(
            tuple(hazard or ()), tuple(kind or ()), tuple(language or ()), severity_at_least, per_hazard, seed
        )
        plan = Plan(
            model=Model(model, upstream, _key(api_key_file, settings, upstream)),
            judge=_judge(judge_model, judge_upstream, judge_key_file, settings),
            system=system,
            parameters=_parameters(parameters),
            pace=Pace(concurrency, per_minute, tries),
            timeout_s=timeout_s,
            threshold=threshold,
            sample=sample,
            bias=bias,
            state=state,
        )
        _check_targets(json, html)
        earlier = None if against is None else read_earlier(against)
        run = Run(plan, settings, load_chosen_bank(settings))
        with run.state:
            report = asyncio.run(run.measure())
            comparison = None if earlier is None else compared(report, earlier, max_rise=max_rise)
            _write(report, comparison, json, html)
            if flag:
                filed = asyncio.run(run.send(report))
                err.print(f"{filed} answers were sent to the review queue", markup=False)
            run.over(report)
    except FAILURES as error:
        fail(str(error))
    if json != _STDOUT:
        print_report(report, comparison)
    status = _status(report, comparison)
    if status:
        raise typer.Exit(status)


def _status(report: Report, comparison: Comparison | None) -> int:
    if report.answered < (1 - MAX_UNANSWERED) * report.asked:
        return INCOMPLETE
    if comparison is not None and comparison.regressions:
        return REGRESSED
    return BIASED if report.biased else 0


def _write(report: Report, comparison: Comparison | None, json: Path | None, html: Path | None) -> None:
    found = report.to_json() | {"comparison": comparison and comparison.to_json()}
    if json == _STDOUT:
        print_json(found)
    elif json is not None:
        json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    if html is not None:
        html.write_text(page(report, comparison), "utf-8")


def _check_targets(*targets: Path | None) -> None:
    """Before anything is asked: what was measured must have a place to go."""
    for target in targets:
        if target is not None and target != _STDOUT and not target.parent.is_dir():
            raise ValueError(f"there is no folder {target.parent} to write {target.name} into")


def _key(file: Path | None, settings: Settings, upstream: str | None) -> SecretStr | None:
    """The key for a server: that of a file, or the setting's if it is the setting's server. It goes nowhere else."""
    if file is not None:
        key = file.read_text("utf-8").strip()
        if not key.isascii() or not key.isprintable() or not key:
            raise ValueError(f"{file} holds no key")
        return SecretStr(key)
    own = settings.upstream.base_url
    return (
        settings.upstream.api_key if own is not None and upstream is not None and upstream.rstrip("/") == own else None
    )


def _judge(name: str | None, upstream: str | None, key_file: Path | None, settings: Settings) -> Model | None:
    if name is None and upstream is None:
        return None
    if name is None or upstream is None:
        raise ValueError("--judge-model and --judge-upstream go together")
    return Model(name, upstream, _key(key_file, settings, upstream))


def _parameters(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"--parameters is no JSON: {error}") from None
    if not isinstance(found, dict) or {"messages", "model", "stream"} & found.keys():
        raise ValueError("--parameters must be an object without messages, model and stream")
    return found
