"""One HTML file that shows a report: tables, and plots as inline SVG. Needs matplotlib (the ``train`` extra)."""

from __future__ import annotations

import html
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from antiprompt_bank.errors import BankError
from antiprompt_bank.marks import evasion_means, marks, role_means
from antiprompt_bank.measures import Rate
from antiprompt_bank.report import BANK, CARRIED, FoldReport, Report, mean_share

_COLOURS: Final = ("#1f5fa8", "#b9bec6", "#8f98a5", "#e0a458", "#c7693d", "#6a9a5b")
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2530; max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #e3e7ec; text-align: right }
th:first-child, td:first-child { text-align: left }
th { color: #566373; font-weight: 600 } svg { max-width: 100%; height: auto }
.note { color: #566373; max-width: 46rem } .scroll { overflow-x: auto }
.yes { color: #2c7a4b } .no { color: #b3402a } .warning { background: #fff4dc; padding: .4rem .7rem; max-width: 46rem }
"""
_RC: Final = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "svg.fonttype": "path",
    "svg.hashsalt": "antiprompt",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}
_NOTE: Final = (
    "Thresholds are set on each fold's left-out everyday sources at 1 % false positives (responses: 2 % on left-out "
    "safe replies). Intervals are Wilson's, 95 %. block-all has no threshold: it hits everything, harmless or not."
)


def page(report: Report) -> str:
    """The whole page, without a reference to anything outside it. Raises ``BankError`` without matplotlib."""
    parts = [
        f"<h1>Detection, {html.escape(report.protocol)}</h1>",
        _notes(report),
        "<h2>Marks</h2>",
        _marks(report),
        "<h2>Means over the left-out sources</h2>",
        _means(report),
        "<h2>Harm found at 1 % false positives</h2>",
        _svg(lambda figure: _bars(figure, report, True), (10.5, _height(report, True))),
        "<h2>Harmless text hit at the same threshold</h2>",
        _svg(lambda figure: _bars(figure, report, False), (10.5, _height(report, False))),
        "<h2>The threshold carried over from the training side</h2>",
        _carried(report),
        "<h2>Scores</h2>",
        _svg(lambda figure: _histograms(figure, report), (10.5, 2.6 * ((len(report.folds) + 1) // 2))),
    ]
    if any(fold.growth for fold in report.folds):
        parts += [
            "<h2>Recall and the size of the bank</h2>",
            _svg(lambda figure: _growth(figure, report), (10.5, 2.8 * ((len(report.folds) + 1) // 2))),
        ]
    if any(fold.evasions for fold in report.folds):
        parts += ["<h2>What evasions cost</h2>", _svg(lambda figure: _evasions(figure, report), (10.5, 5))]
    if any(fold.adapted for fold in report.folds):
        parts += [
            "<h2>One exemplar of an unseen attack</h2>",
            _svg(lambda figure: _adaptation(figure, report), (10.5, 3)),
        ]
    parts += [_timings(report), "<h2>By hazard and by language</h2>", _slices(report), _how(report)]
    body = "\n".join(part for part in parts if part)
    title = f"Detection, {html.escape(report.protocol)}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>{body}</body></html>\n'


def _notes(report: Report) -> str:
    warnings = dict.fromkeys(note for fold in report.folds for note in fold.notes)
    said = "".join(f'<p class="warning">{html.escape(note)}</p>' for note in warnings)
    return f'<p class="note">{_NOTE}</p>{said}'


def _marks(report: Report) -> str:
    rows = []
    for mark in marks(report):
        reached = {True: "yes", False: "no", None: ""}[mark.reached]
        bound = "" if mark.mark is None else f"{'≤' if mark.at_most else '≥'} {mark.mark:g}"
        aim = "" if mark.aim is None else f"{mark.aim:g}"
        rows.append((mark.name, f"{mark.value:.1f}", bound, aim, _Raw(f'<span class="{reached}">{reached}</span>')))
    return _table(("figure of the bank", "value", "mark", "aim", "reached"), rows)


def _means(report: Report) -> str:
    means = {method: role_means(report, method) for method in report.methods}
    keys = dict.fromkeys(key for found in means.values() for key in found)
    rows = []
    for role, harmful in keys:
        found = [means[method].get((role, harmful)) for method in report.methods]
        count = next((item[1] for item in found if item), 0)
        shown = ["" if item is None else f"{100 * item[0]:.1f}" for item in found]
        rows.append((role, "harmful" if harmful else "safe", count, *shown))
    return _table(("role", "rows are", "sources", *(f"{method}, %" for method in report.methods)), rows)


def _by_source(report: Report, harmful: bool) -> dict[str, dict[str, Rate]]:
    """For each fold and source the rate of each method."""
    found: dict[str, dict[str, Rate]] = defaultdict(dict)
    for method in report.methods:
        for fold, cell in report.headlines(method):
            if cell.harmful is harmful:
                name = cell.name if len(report.folds) == 1 else f"{cell.name} ({fold.name})"
                found[f"{cell.role}\n{name}"][method] = cell.rate
    return dict(sorted(found.items()))


def _height(report: Report, harmful: bool) -> float:
    return max(2.0, 0.45 * len(_by_source(report, harmful)) + 1)


def _bars(figure: Any, report: Report, harmful: bool) -> None:
    axes = figure.subplots()
    found = _by_source(report, harmful)
    # block-all is a line at 100, not a bar.
    methods = [method for method in report.methods if method != "block-all"]
    step = 0.84 / max(1, len(methods))
    for number, method in enumerate(methods):
        places, shares, below, above = [], [], [], []
        for place, rates in enumerate(found.values()):
            if method in rates:
                low, high = rates[method].interval
                share = rates[method].share
                places.append(place + (number - (len(methods) - 1) / 2) * step)
                shares.append(100 * share)
                below.append(max(0.0, 100 * (share - low)))
                above.append(max(0.0, 100 * (high - share)))
        if not places:
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        error = {"elinewidth": 0.7, "ecolor": "#39424e"}
        axes.barh(places, shares, step * 0.92, xerr=(below, above), color=colour, label=method, error_kw=error)
    axes.set_yticks(range(len(found)), [label.replace("\n", ": ") for label in found])
    axes.invert_yaxis()
    axes.margins(y=0.01)
    bounds = [rates[method].interval[1] for rates in found.values() for method in methods if method in rates]
    highest = max(bounds, default=1.0)
    axes.set_xlim(0, 100 if harmful else min(100, 110 * highest))
    axes.set_xlabel("% found" if harmful else "% hit")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=6, frameon=False)


def _carried(report: Report) -> str:
    rows = []
    for fold in report.folds:
        for name, method in fold.methods.items():
            for cell in method.points[CARRIED].find("role", role="everyday") if CARRIED in method.points else ():
                if not cell.harmful:
                    recall = [found.rate for found in method.points[CARRIED].find("source", role="harmful")]
                    rows.append((fold.name, name, _percent(cell.rate), _share(mean_share(recall))))
    if not rows:
        return '<p class="note">Nothing was held back, so that no threshold is carried over.</p>'
    columns = ("fold", "method", "left-out everyday texts really hit, %", "harmful requests found, mean %")
    return _table(columns, rows)


def _histograms(figure: Any, report: Report) -> None:
    for axes, fold in _panels(figure, report.folds):
        if fold.histogram is None:
            continue
        width = 1 / len(fold.histogram.everyday)
        edges = [at * width for at in range(len(fold.histogram.everyday) + 1)]
        for kind, colour in (("everyday", "#6a9a5b"), ("lookalike", "#e0a458"), ("harmful", "#b3402a")):
            counts = getattr(fold.histogram, kind)
            if sum(counts):
                axes.stairs([count / sum(counts) for count in counts], edges, color=colour, label=kind, linewidth=1.4)
        axes.set_yscale("log")
        point = fold.methods[BANK].headline
        if point is not None and "request" in point.thresholds:
            axes.axvline(point.thresholds["request"], color="#39424e", linewidth=0.8, linestyle=":")
        axes.set_title(f"{fold.name}: requests; dotted: the headline threshold")
        axes.set_xlabel("risk")
        axes.set_ylabel("share of texts")
        axes.legend(frameon=False)


def _growth(figure: Any, report: Report) -> None:
    for axes, fold in _panels(figure, report.folds):
        series: dict[str, list[tuple[int, Rate]]] = defaultdict(list)
        for item in fold.growth:
            series[item.series].append((item.size, item.recall))
        for number, (name, found) in enumerate(series.items()):
            sizes = [size for size, _ in found]
            colour = (_COLOURS[0], _COLOURS[3], _COLOURS[2])[number % 3]
            bounds = [rate.interval for _, rate in found]
            axes.plot(
                sizes, [100 * rate.share for _, rate in found], marker="o", markersize=3, color=colour, label=name
            )
            lows, highs = [100 * low for low, _ in bounds], [100 * high for _, high in bounds]
            axes.fill_between(sizes, lows, highs, color=colour, alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        axes.set_ylim(0, 100)
        axes.set_title(f"{fold.name}: recall at 1 %, %")
        axes.set_xlabel("exemplars")
        axes.legend(frameon=False)


def _evasions(figure: Any, report: Report) -> None:
    axes = figure.subplots()
    shown = (
        ("with views", evasion_means(report, lambda item: item.cost), _COLOURS[0]),
        ("without views", evasion_means(report, lambda item: item.cost_without_views), _COLOURS[1]),
    )
    names = list(shown[0][1])
    for number, (label, costs, colour) in enumerate(shown):
        places = [at + 0.4 * (number - 0.5) for at in range(len(names))]
        axes.barh(places, [costs[name] for name in names], 0.36, color=colour, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="#39424e", linewidth=0.8)
    plain = mean_share([fold.evasions[0].plain for fold in report.folds if fold.evasions])
    axes.set_xlabel(f"points of recall lost (of {_share(plain)} found as plain text), mean of the folds")
    axes.legend(frameon=False)


def _adaptation(figure: Any, report: Report) -> None:
    families = [family for fold in report.folds for family in fold.adapted]
    caught, hits = figure.subplots(1, 2)
    shares = [
        [100 * Rate(getattr(family, when), family.relatives).share for family in families]
        for when in ("caught_before", "caught_after")
    ]
    caught.hist(shares, bins=[10 * at for at in range(11)], color=[_COLOURS[1], _COLOURS[0]], label=["before", "after"])
    caught.set_title(f"relatives caught, of {len(families)} families")
    caught.set_xlabel("% of a family")
    caught.set_ylabel("families")
    caught.legend(frameon=False)
    new = [family.new_hits for family in families]
    hits.hist(new, bins=[at - 0.5 for at in range(max([*new, 5]) + 2)], color=_COLOURS[4])
    compared = max(fold.everyday_compared for fold in report.folds)
    hits.set_title(f"new hits in up to {compared:,} everyday texts")
    hits.set_xlabel("texts hit that were not before")


def _timings(report: Report) -> str:
    rows = [
        (fold.name, item.method, item.texts, f"{item.median_ms:.2f}", f"{item.p95_ms:.2f}", f"{item.batched_ms:.2f}")
        for fold in report.folds
        for item in fold.timings
    ]
    if not rows:
        return ""
    columns = ("fold", "method", "texts", "median, ms", "95 %, ms", "in batches, ms")
    return "<h2>Time for a text</h2>" + _table(columns, rows)


def _slices(report: Report) -> str:
    parts = []
    for by, harmful, title in (
        ("hazard", True, "hazard (harm found)"),
        ("language", True, "language (harm found)"),
        ("language", False, "language (harmless text hit)"),
    ):
        rows = [
            (cell.name, cell.role, fold.name, cell.rate.of, _percent(cell.rate))
            for fold, cell in report.headlines(BANK, by)  # type: ignore[arg-type]
            if cell.harmful is harmful
        ]
        if rows:
            parts.append(_table((title, "role", "fold", "rows", "%"), sorted(rows)))
    return "\n".join(parts)


def _how(report: Report) -> str:
    rows = [(fold.name, fold.records, sum(fold.trained_on.values()), sum(fold.near_copies.values()), fold.held_back,
             sum(fold.measured.values()), fold.encoder) for fold in report.folds]  # fmt: skip
    columns = ("fold", "exemplars", "training side", "near copies dropped", "held back", "measured", "encoder")
    run = [*report.versions.items(), *((name, str(value)) for name, value in report.options.items())]
    return "<h2>How it was run</h2>" + _table(columns, rows) + _table(("", ""), run)


def _panels(figure: Any, folds: Sequence[FoldReport]) -> Iterable[tuple[Any, FoldReport]]:
    grid = figure.subplots((len(folds) + 1) // 2, 2 if len(folds) > 1 else 1, squeeze=False)
    for unused in grid.flat[len(folds) :]:
        unused.set_visible(False)
    return zip(grid.flat, folds, strict=False)


def _svg(draw: Any, size: tuple[float, float]) -> str:
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BankError("the page's plots need matplotlib: pip install 'antiprompt-gateway[train]'") from error
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        made = io.StringIO()
        figure.savefig(made, format="svg", metadata={"Date": None})
    text = made.getvalue()
    return f'<div class="scroll">{text[text.index("<svg") :]}</div>'


class _Raw(str):
    """Markup that is not escaped."""


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = ("".join(f"<td>{_cell(value)}</td>" for value in row) for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _cell(value: object) -> str:
    return value if isinstance(value, _Raw) else html.escape(str(value))


def _percent(rate: Rate) -> str:
    low, high = rate.interval
    return f"{100 * rate.share:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
