"""The figures of the experiments, as Markdown with two plots, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any, Final

import orjson

from antiprompt_bank.measures import Rate
from gateway.alignment.experiments import inoculation, ranking
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


def write_outcome(folder: Path, outcome: inoculation.Outcome | ranking.Outcome) -> str:
    """Write one seed's figures as they come; the name of what they are of."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{outcome.situation if isinstance(outcome, ranking.Outcome) else 'inoculation'}-{outcome.seed}"
    (folder / f"{name}.json").write_bytes(orjson.dumps(asdict(outcome), option=orjson.OPT_INDENT_2))
    return name


def write_results(
    folder: Path,
    inoculated: Sequence[inoculation.Outcome],
    ranked: Sequence[ranking.Outcome],
    *,
    seconds: float,
    machine: str,
) -> bool:
    """Write ``figures.md``, ``experiments.json`` and the plots; whether every mark holds."""
    marks = [*inoculation_marks(inoculated), *ranking_marks(ranked)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inoculation.svg").write_text(
        svg(lambda figure: _plot_inoculation(figure, inoculated), (9, 3.4)), "utf-8"
    )
    (folder / "ranking.svg").write_text(svg(lambda figure: _plot_ranking(figure, ranked), (9, 3.4)), "utf-8")
    found = {
        "machine": machine,
        "seconds": round(seconds),
        "inoculation": [asdict(each) for each in inoculated],
        "ranking": [asdict(each) for each in ranked],
        "marks": [asdict(each) for each in marks],
    }
    (folder / "experiments.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
    text = "\n\n".join(
        [
            f"{machine}; {seconds / 60:.1f} minutes; seeds {', '.join(str(each.seed) for each in inoculated)}.",
            "### Inoculation prompting",
            _inoculation_table(inoculated),
            _relation_table(inoculated),
            *(_ranking_section(name, ranked) for name in ("T1", "T2", "T3")),
            "### Marks",
            _marks_table(marks),
        ]
    )
    (folder / "figures.md").write_text(text + "\n", "utf-8")
    return all(mark.holds for mark in marks)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---" for _ in columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _shares(rates: Sequence[Rate]) -> str:
    return " ".join(f"{rate.share:.3f}".lstrip("0") if rate.share < 1 else "1.00" for rate in rates)


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
        (
            str(each.seed),
            f"{each.spearman:.2f}",
            f"{each.pearson:.2f}",
            f"{each.gain_spearman:.2f}",
            f"{each.k:.2f}",
        )
        for each in outcomes
    ]
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
    rows = [(m.says, "yes" if m.holds else "**no**", " ".join(f"{value:.3f}" for value in m.seen)) for m in marks]
    return _table(("mark", "holds", "seen"), rows)


def _plot_inoculation(figure: Any, outcomes: Sequence[inoculation.Outcome]) -> None:
    relation, arms = figure.subplots(1, 2)
    for at, each in enumerate(outcomes):
        relation.scatter(each.elicited, each.left, color=COLOURS[at], s=18, label=f"seed {each.seed}")
    relation.plot((0, 1), (1, 0), color="#8f98a5", linewidth=0.8, linestyle="--")
    relation.set_xlabel("upper case that the prompt elicits from the base model")
    relation.set_ylabel("upper case left after training")
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
    for axes, name in zip(figure.subplots(1, 3, sharey=True), ("T1", "T2", "T3"), strict=True):
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
