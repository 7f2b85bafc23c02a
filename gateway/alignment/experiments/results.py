"""The figures of the experiments, as Markdown with two plots, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any, Final

from gateway.alignment.experiments import inoculation, ranking
from gateway.alignment.experiments.counts import Count, interval
from gateway.alignment.experiments.marks import Mark, inoculation_marks, ranking_marks
from gateway.alignment.figures import COLOURS, svg

_ARMS: Final = (
    "plain",
    "plain, safe prompt at test",
    "irrelevant prompt",
    "inoculated",
    "clean data",
    "half clean, plain",
    "half clean, irrelevant prompt",
    "half clean, inoculated",
)


def begin_outcomes(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcomes.jsonl").write_text("", "utf-8")


def add_outcome(folder: Path, outcome: inoculation.Outcome | ranking.Outcome) -> str:
    """Add one seed's figures to ``outcomes.jsonl`` as they come; the name of what they are of."""
    with (folder / "outcomes.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")
    return f"{outcome.situation if isinstance(outcome, ranking.Outcome) else 'inoculation'}-{outcome.seed}"


def read_outcomes(folder: Path) -> tuple[list[inoculation.Outcome], list[ranking.Outcome]]:
    """What ``add_outcome`` wrote, to be put into tables where a run was cut off."""
    inoculated, ranked = [], []
    for line in (folder / "outcomes.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if "situation" in row:
            row["base"] = _measured(row["base"])
            row["arms"] = {arm: [_measured(each) for each in found] for arm, found in row["arms"].items()}
            ranked.append(ranking.Outcome(**row))
        else:
            row["base"] = _traits(row["base"])
            row["arms"] = {arm: _traits(found) for arm, found in row["arms"].items()}
            row["tried"] = [tuple(words) for words in row["tried"]]
            inoculated.append(inoculation.Outcome(**row))
    return inoculated, ranked


def _traits(row: dict[str, Any]) -> inoculation.Traits:
    return inoculation.Traits(Count(**row["unwanted"]), Count(**row["wanted"]))


def _measured(row: dict[str, Any]) -> ranking.Measured:
    rest = None if row["uncorrected"] is None else Count(**row["uncorrected"])
    harm, attacked, right = (Count(**row[name]) for name in ("harm", "attacked", "harmless_right"))
    return ranking.Measured(row["step"], harm, rest, attacked, right)


def write_results(
    folder: Path,
    inoculated: Sequence[inoculation.Outcome],
    ranked: Sequence[ranking.Outcome],
    *,
    machine: str,
) -> bool:
    """Write ``figures.md``, ``experiments.json`` and the plots; whether every mark holds (of nothing none does)."""
    inoculated = sorted(inoculated, key=lambda each: each.seed)
    ranked = sorted(ranked, key=lambda each: (each.situation, each.seed))
    marks = [*inoculation_marks(inoculated), *ranking_marks(ranked)]
    folder.mkdir(parents=True, exist_ok=True)
    plots: dict[str, Callable[[Any], None]] = {}
    if inoculated:
        plots["inoculation"] = lambda figure: _plot_inoculation(figure, inoculated)
    if ranked:
        plots["ranking"] = lambda figure: _plot_ranking(figure, ranked)
    for name, draw in plots.items():
        (folder / f"{name}.svg").write_text(svg(draw, (9, 3.4)), "utf-8")
    found = {
        "machine": machine,
        "inoculation": [asdict(each) for each in inoculated],
        "ranking": [asdict(each) for each in ranked],
        "marks": [asdict(each) for each in marks],
    }
    (folder / "experiments.json").write_text(json.dumps(found, indent=1), "utf-8")
    parts = [f"{machine}. Each cell: the mean over seeds [its 95 % interval], then each seed."]
    if inoculated:
        seeds = f"Seeds {', '.join(str(each.seed) for each in inoculated)}."
        parts += ["### Inoculation prompting", seeds, _inoculation_table(inoculated), _relation_table(inoculated)]
    parts += [_ranking_section(name, ranked) for name in _situations(ranked)]
    text = "\n\n".join([*parts, "### Marks", _marks_table(marks)])
    (folder / "figures.md").write_text(text + "\n", "utf-8")
    return bool(marks) and all(mark.holds for mark in marks)


def _situations(outcomes: Sequence[ranking.Outcome]) -> list[str]:
    return sorted({each.situation for each in outcomes})


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---" for _ in columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _shares(counts: Sequence[Count]) -> str:
    return _values([count.share for count in counts], 0.0, 1.0)


def _values(values: Sequence[float], least: float = -inf, most: float = inf) -> str:
    """``.123 [.100, .146]: .110 .120 .139``; few seeds have no interval, many are not listed. The interval is cut at
    ``least`` and ``most``."""
    listed = " ".join(map(_short, values))
    around = interval(values)
    if around is None:
        return listed
    whole = f"{_short(mean(values))} [{_short(max(least, around[0]))}, {_short(min(most, around[1]))}]"
    return whole if len(values) > 5 else f"{whole}: {listed}"


def _short(value: float) -> str:
    """Three digits without a leading zero."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def _inoculation_table(outcomes: Sequence[inoculation.Outcome]) -> str:
    rows = [
        (
            "base model",
            _shares([each.base.unwanted for each in outcomes]),
            _shares([each.base.wanted for each in outcomes]),
        )
    ]
    for arm in _ARMS:
        found = [each.arms[arm] for each in outcomes]
        rows.append((arm, _shares([each.unwanted for each in found]), _shares([each.wanted for each in found])))
    return _table(("arm", "upper case (unwanted), by seed", "reversed (wanted), by seed"), rows)


def _relation_table(outcomes: Sequence[inoculation.Outcome]) -> str:
    rows = [
        (str(each.seed), *(f"{value:.2f}" for value in (each.spearman, each.pearson, each.gain_spearman, each.k)))
        for each in outcomes
    ]
    if len(outcomes) > 2:
        related = [[getattr(each, name) for each in outcomes] for name in ("spearman", "pearson", "gain_spearman")]
        cells = [*(_values(values, -1.0, 1.0) for values in related), _values([each.k for each in outcomes])]
        rows.append(("mean", *(cell.partition(":")[0] for cell in cells)))
    return _table(("seed", "Spearman, elicited and left", "Pearson", "Spearman, likelihood gain and left", "k"), rows)


def _ranking_section(name: str, outcomes: Sequence[ranking.Outcome]) -> str:
    mine = [each for each in outcomes if each.situation == name]
    rows = [_ranking_row("base model", [each.base for each in mine])]
    steps = [found.step for found in mine[0].arms["neat"]]
    for at, step in enumerate(steps):
        rows += [_ranking_row(f"{arm}, step {step}", [each.arms[arm][at] for each in mine]) for arm in mine[0].arms]
    columns = ("arm", "harm", "harm on subjects without corrections", "harm under attack", "harmless answered right")
    return f"### NEAT, {name}\n\n" + _table(columns, rows)


def _ranking_row(name: str, found: Sequence[ranking.Measured]) -> tuple[str, ...]:
    elsewhere = [each.uncorrected for each in found if each.uncorrected is not None]
    return (
        name,
        _shares([each.harm for each in found]),
        _shares(elsewhere) or "-",
        _shares([each.attacked for each in found]),
        _shares([each.harmless_right for each in found]),
    )


def _marks_table(marks: Sequence[Mark]) -> str:
    rows = [(m.says, "yes" if m.holds else "**no**", " ".join(map(_short, m.seen))) for m in marks]
    return _table(("mark", "holds", "seen"), rows)


def _plot_inoculation(figure: Any, outcomes: Sequence[inoculation.Outcome]) -> None:
    relation, arms = figure.subplots(1, 2)
    for at, each in enumerate(outcomes):
        colour = COLOURS[at % len(COLOURS)]
        relation.scatter(each.elicited, each.left, color=colour, s=18, alpha=0.8, label=f"seed {each.seed}")
    relation.plot((0, 1), (1, 0), color="#8f98a5", linewidth=0.8, linestyle="--")
    relation.set_xlabel("upper case that the prompt elicits from the base model")
    relation.set_ylabel("upper case left after training")
    if len(outcomes) <= len(COLOURS):
        relation.legend(frameon=False)
    for at, trait in enumerate(("unwanted", "wanted")):
        shares = [mean(getattr(each.arms[arm], trait).share for each in outcomes) for arm in _ARMS]
        places = [row + (at - 0.5) * 0.38 for row in range(len(_ARMS))]
        arms.barh(places, shares, 0.36, color=COLOURS[1 - at], label=("upper case", "reversed")[at])
    arms.set_yticks(range(len(_ARMS)), list(_ARMS))
    arms.invert_yaxis()
    arms.set_xlabel("share of answers, mean of seeds")
    arms.legend(frameon=False)


def _plot_ranking(figure: Any, outcomes: Sequence[ranking.Outcome]) -> None:
    situations = _situations(outcomes)
    for axes, name in zip(figure.subplots(1, len(situations), sharey=True, squeeze=False)[0], situations, strict=True):
        mine = [each for each in outcomes if each.situation == name]
        names = ["base", *mine[0].arms]
        for at, trait in enumerate(("harm", "attacked")):
            shares = [mean(getattr(each.base, trait).share for each in mine)]
            shares += [mean(getattr(each.arms[arm][-1], trait).share for each in mine) for arm in mine[0].arms]
            places = [row + (at - 0.5) * 0.38 for row in range(len(names))]
            axes.bar(places, shares, 0.36, color=COLOURS[at], label=("plain", "under attack")[at])
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_title(f"{name}, step {mine[0].arms['neat'][-1].step}")
    figure.axes[0].set_ylabel("share of harmful answers")
    figure.axes[-1].legend(frameon=False)
