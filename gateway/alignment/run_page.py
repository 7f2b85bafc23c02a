"""A training run as a page: rates of all arms with their intervals, losses, and what the run was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.alignment.figures import COLOURS, heading, note, page, svg, table

_RATES: Final = {
    "harm": "harm",
    "harm_under_attack": "under an attacking prompt",
    "harm_with_safe_prompt": "with a safe prompt",
}
_NOTE: Final = (
    "Shares of answers to held-out questions that the judge found harmful, with Wilson's 95 % intervals. All arms "
    "start from one model and take equal steps. One seed shows one run: repeat it before believing a difference."
)


def run_page(report: Mapping[str, Any]) -> str:
    """The page of ``report.json``. Needs matplotlib."""
    trained = {name: arm for name, arm in report["arms"].items() if "skipped" not in arm}
    rows = [_row("before training", report["base"], None)]
    rows += [_row(name, arm["final"], arm) for name, arm in trained.items()]
    skipped = [(name, arm["skipped"]) for name, arm in report["arms"].items() if "skipped" in arm]
    manifest = report["manifest"]
    parts = [
        note(_NOTE),
        heading("Held-out questions"),
        table(("arm", *_RATES.values(), "loss of good answers", "steps", "stopped early"), rows),
        svg(lambda figure: _bars(figure, report, trained), (9, 0.6 + 0.45 * (1 + len(trained)))),
        heading("Losses"),
        svg(lambda figure: _losses(figure, trained), (9, 3)),
        heading("Made of"),
        table(
            ("what", "value"),
            [
                ("method", report["method"]),
                ("model", report["model"]),
                ("seed", report["seed"]),
                ("data set", manifest["hash"]),
                ("format", manifest["format"]),
                ("examples", ", ".join(f"{name} {count}" for name, count in manifest["rows"].items())),
                *report["packages"].items(),
                *(("arm left out", f"{name}: {why}") for name, why in skipped),
            ],
        ),
    ]
    return page(f"Training by {report['method']}", parts)


def _row(name: str, measured: Mapping[str, Any], arm: Mapping[str, Any] | None) -> tuple[object, ...]:
    rates = (_shown(measured.get(key)) for key in _RATES)
    loss = measured["good_answer_loss"]
    taken = arm["losses"][-1]["step"] if arm and arm["losses"] else None
    return (name, *rates, None if loss is None else f"{loss:.3f}", taken, arm["stopped_at"] or None if arm else None)


def _shown(rate: Mapping[str, Any] | None) -> str:
    if rate is None or rate["share"] is None:
        return ""
    return f"{rate['share']:.3f} ({rate['low']:.3f}-{rate['high']:.3f})"


def _bars(figure: Any, report: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    axes = figure.add_subplot()
    measured = {"before training": report["base"], **{name: arm["final"] for name, arm in trained.items()}}
    for at, key in enumerate(("harm", "harm_under_attack")):
        shown = [(row, rates[key]) for row, rates in enumerate(measured.values()) if rates.get(key)]
        places = [row + (at - 0.5) * 0.35 for row, _ in shown]
        shares = [rate["share"] for _, rate in shown]
        errors = [
            [max(0.0, rate["share"] - rate["low"]) for _, rate in shown],
            [max(0.0, rate["high"] - rate["share"]) for _, rate in shown],
        ]
        axes.barh(places, shares, 0.33, xerr=errors, color=COLOURS[at], ecolor="#566373", label=_RATES[key])
    axes.set_yticks(range(len(measured)), list(measured))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of harmful answers")
    if axes.patches:
        axes.legend(frameon=False)


def _losses(figure: Any, trained: Mapping[str, Any]) -> None:
    axes = figure.add_subplot()
    for at, (name, arm) in enumerate(trained.items()):
        steps = [each["step"] for each in arm["losses"]]
        axes.plot(steps, [each["loss"] for each in arm["losses"]], color=COLOURS[at % len(COLOURS)], label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (each arm its own)")
    if axes.lines:
        axes.legend(frameon=False)
