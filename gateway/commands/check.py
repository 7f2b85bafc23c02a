"""``antiprompt check``: what the bank and the policy say of one text, without a gateway, an upstream or Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from antiprompt_bank import Bank, Score
from gateway.calibration import CalibrationInForce, calibration_for
from gateway.chosen_bank import load_chosen_bank
from gateway.commands.console import FAILURES, AsJson, fail, out, print_json, print_table, settings_or_fail
from gateway.policy import Action, Decision, Finding, Policy
from gateway.policy_file import DEFAULT_POLICY_FILE
from gateway.wire.surface import Role

NOT_ALLOWED = 3
"""Exit status where policy would do anything but allow."""


def check(
    text: Annotated[str, typer.Argument(help="The text; - reads it from standard input.")],
    side: Annotated[Literal["request", "response"], typer.Option(help="Which way it travels.")] = "request",
    prompt: Annotated[str | None, typer.Option(help="What a response answers.")] = None,
    policy_file: Annotated[Path | None, typer.Option("--policy", help="Policy YAML. Unset: the one in force.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what would be done with a text, and which exemplars are behind it. Exit status 0: allow, 3: anything else."""
    settings = settings_or_fail()
    if prompt is not None and side == "request":
        fail("--prompt is what a response answers; add --side response")
    if text == "-":
        text = typer.get_text_stream("stdin").read()
    try:
        policy = Policy.from_yaml((policy_file or settings.policy_file or DEFAULT_POLICY_FILE).read_text("utf-8"))
        bank = load_chosen_bank(settings)
        calibration = calibration_for(settings, bank)
        score = bank.score([text], side=side, prompts=None if prompt is None else [prompt])[0]
        score = calibration.applied(score, side)
    except FAILURES as error:
        fail(str(error))
    role = Role.USER if side == "request" else Role.ASSISTANT
    decision = (policy.recording() if calibration.in_shadow else policy).decide([Finding(score, side, role, 0)])
    result = _result(bank, calibration, score, decision)
    if as_json:
        print_json(result)
    else:
        _show(result)
    if decision.action is not Action.ALLOW:
        raise typer.Exit(NOT_ALLOWED)


def _result(bank: Bank, calibration: CalibrationInForce, score: Score, decision: Decision) -> dict[str, Any]:
    return {
        "action": str(decision.action),
        "rule": decision.rule,
        "hazard": score.hazard,
        "risk": round(score.risk, 4),
        "risks": {hazard: round(risk, 4) for hazard, risk in score.risks.items()},
        "view": score.view,
        "start": score.start,
        "end": score.end,
        "token_start": score.token_start,
        "token_end": score.token_end,
        "windows": score.windows,
        "bank": bank.version,
        "calibration": calibration.status,
        "stale": calibration.reason,
        "nearest": [
            {
                "id": neighbour.id,
                "similarity": round(neighbour.similarity, 4),
                "verbatim": neighbour.verbatim and round(neighbour.verbatim, 4),
                "harmful": neighbour.harmful,
                "hazard": neighbour.hazard,
                "text": bank.record(neighbour.id).text,
            }
            for neighbour in score.nearest
        ],
    }


def _show(result: dict[str, Any]) -> None:
    rule = f" (rule {result['rule']})" if result["rule"] else ""
    if result["stale"]:
        what = "NOTHING IS ENFORCED" if result["calibration"] == "stale_in_shadow" else "YOUR CALIBRATION IS NOT USED"
        out.print(f"{what}: {result['stale']}\n", style="red", markup=False)
    out.print(f"{result['action']}{rule}", style="bold", markup=False)
    out.print(
        f"risk {result['risk']:.2f}, hazard {result['hazard'] or 'none'}, read as {result['view']}, "
        f"tokens {result['token_start']} to {result['token_end']}\n",
        markup=False,
    )
    rows = [
        (_likeness(n), "harmful" if n["harmful"] else "benign", n["hazard"] or "", _short(n["text"]))
        for n in result["nearest"]
    ]
    print_table(("similarity", "label", "hazard", "exemplar"), rows, empty="no exemplar is near")


def _likeness(neighbour: dict[str, Any]) -> str:
    """How an exemplar is like the text: how much of it stands there word for word, or the likeness of the vectors."""
    verbatim = neighbour["verbatim"]
    return f"{neighbour['similarity']:.2f}" if verbatim is None else f"{verbatim:.0%} verbatim"


def _short(text: str, length: int = 70) -> str:
    line = " ".join(text.split()).replace("[", "\\[")
    return line if len(line) <= length else line[: length - 1] + "…"
