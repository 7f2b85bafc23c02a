"""A report as tables for people: each fold by source, the means, the thresholds carried over, the marks."""

from __future__ import annotations

from antiprompt_bank.marks import marks, role_means
from antiprompt_bank.measures import Rate
from antiprompt_bank.report import BANK, CARRIED, FoldReport, Report
from gateway.commands.console import out, print_table


def print_report(report: Report) -> None:
    for fold in report.folds:
        _print_fold(fold, report.methods)
    _print_means(report)
    _print_carried(report)
    _print_marks(report)


def _print_fold(fold: FoldReport, methods: tuple[str, ...]) -> None:
    texts = sum(fold.measured.values())
    out.print(f"\n{fold.name}: {fold.records} exemplars, encoder {fold.encoder}, {texts} texts", style="bold")
    for note in fold.notes:
        out.print(f"  {note}", markup=False)
    rates: dict[tuple[str, str, bool], dict[str, Rate]] = {}
    for method in methods:
        point = fold.methods[method].headline if method in fold.methods else None
        for cell in point.find("source") if point else ():
            rates.setdefault((cell.role, cell.name, cell.harmful), {})[method] = cell.rate
    rows = (
        (
            source,
            role,
            _kind(harmful),
            next(iter(found.values())).of,
            *(_shown(found.get(method), method == BANK) for method in methods),
        )
        for (role, source, harmful), found in rates.items()
    )
    print_table(("% hit at 1 %", "role", "rows are", "rows", *methods), rows, empty="nothing was measured")


def _print_means(report: Report) -> None:
    out.print("\nMeans over the left-out sources, % hit at 1 % false positives (responses: 2 %)", style="bold")
    means = {method: role_means(report, method) for method in report.methods}
    rows = []
    for key in dict.fromkeys(key for found in means.values() for key in found):
        role, harmful = key
        found = [means[method].get(key) for method in report.methods]
        sources = next((item[1] for item in found if item), 0)
        rows.append((role, _kind(harmful), sources, *(f"{100 * item[0]:.1f}" if item else "" for item in found)))
    print_table(("role", "rows are", "sources", *report.methods), rows, empty="nothing was measured")


def _print_carried(report: Report) -> None:
    rows = [
        (fold.name, name, _shown(cell.rate, True))
        for fold in report.folds
        for name, method in fold.methods.items()
        if CARRIED in method.points
        for cell in method.points[CARRIED].find("role", role="everyday", harmful=False)
    ]
    if rows:
        out.print("\n% of left-out everyday texts really hit at the threshold carried over for 1 %", style="bold")
        print_table(("fold", "method", "% hit"), rows, empty="")


def _print_marks(report: Report) -> None:
    out.print("\nMarks", style="bold")
    rows = (
        (
            mark.name,
            f"{mark.value:.1f}",
            None if mark.mark is None else f"{'<=' if mark.at_most else '>='} {mark.mark:g}",
            None if mark.aim is None else f"{mark.aim:g}",
            {True: "yes", False: "no", None: ""}[mark.reached],
        )
        for mark in marks(report)
    )
    empty = "none of the sources that have marks was measured"
    print_table(("figure of the bank", "value", "mark", "aim", "reached"), rows, empty=empty)


def _kind(harmful: bool) -> str:
    return "harmful" if harmful else "safe"


def _shown(rate: Rate | None, with_interval: bool) -> str:
    if rate is None:
        return ""
    low, high = rate.interval
    share = f"{100 * rate.share:.1f}"
    return f"{share} ({100 * low:.0f}-{100 * high:.0f})" if with_interval else share
