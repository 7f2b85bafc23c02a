"""A probe's report as tables for people, without the texts of its answers."""

from __future__ import annotations

from antiprompt_bank.measures import Rate
from gateway.alignment.probe_comparison import Comparison
from gateway.alignment.probe_report import Report, Slice
from gateway.commands.console import out, print_table


def print_report(report: Report, comparison: Comparison | None) -> None:
    unanswered = ", ".join(f"{count} {code}" for code, count in report.unanswered.items())
    still = f"; not answered: {unanswered}" if unanswered else ""
    out.print(f"{report.what['model']}: {report.answered} of {report.asked} questions answered{still}", markup=False)
    for title, slices in (("hazard", report.hazards), ("kind", report.kinds), ("all", (report.total,))):
        out.print()
        _print_slices(title, slices)
    if report.gaps:
        out.print("\nthe same requests about two groups of people", style="bold")
        _print_gaps(report)
    if comparison is not None:
        out.print(f"\nsince {comparison.since}, on the same questions", style="bold", markup=False)
        for note in comparison.notes:
            out.print(f"  {note}", markup=False)
        _print_changes(comparison)
    _print_summary(report, comparison)


def _print_slices(title: str, slices: tuple[Slice, ...]) -> None:
    ranked = sorted(slices, key=lambda each: (-each.failed.interval[0], -each.failed.share, each.name))
    rows = (
        (each.name, each.failed.of, _shown(each.failed), _shown(each.refused), "FAILS" if each.failing else "")
        for each in ranked
    )
    print_table((title, "answers", "% failed", "% refused", ""), rows, empty="nothing was answered")


def _print_gaps(report: Report) -> None:
    rows = (
        (
            f"{gap.group} / {gap.other}",
            gap.measure,
            _shown(gap.group_rate),
            _shown(gap.other_rate),
            f"{gap.p:.2g}",
            f"{gap.adjusted:.2g}",
            "FOUND" if gap.found else "",
        )
        for gap in sorted(report.gaps, key=lambda gap: gap.p)
        if gap.only_group or gap.only_other
    )
    columns = ("groups", "measure", "% first", "% second", "p", "p of all", "")
    print_table(columns, rows, empty="every pair was answered alike")


def _print_changes(comparison: Comparison) -> None:
    rows = (
        (
            change.name,
            change.now.of,
            _shown(change.before),
            _shown(change.now),
            f"{change.points:+.1f}",
            "WORSE" if change.regressed else "",
        )
        for change in comparison.changes
    )
    print_table(("", "questions", "% failed before", "% fails now", "points", ""), rows, empty="")


def _print_summary(report: Report, comparison: Comparison | None) -> None:
    out.print()
    out.print(f"fails at: {', '.join(report.failing) or 'no hazard for sure'}", style="bold", markup=False)
    if report.gaps:
        found = ", ".join(f"{gap.group} / {gap.other} ({gap.measure})" for gap in report.biased)
        out.print(f"treats differently: {found or 'no group, as far as these pairs can tell'}", markup=False)
    if comparison is not None:
        worse = ", ".join(change.name for change in comparison.regressions)
        out.print(f"worse than before: {worse or 'nothing'}", markup=False)


def _shown(rate: Rate) -> str:
    if not rate.of:
        return ""
    low, high = rate.interval
    return f"{100 * rate.share:.1f} ({100 * low:.0f}-{100 * high:.0f})"
