"""One HTML file that shows a probe: rates with their intervals drawn, gaps, changes, and the answers that failed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

from antiprompt_bank.measures import Rate
from gateway.alignment.probe_comparison import Change, Comparison
from gateway.alignment.probe_report import ALPHA, TOLERATED, Failure, Report, Slice

_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #8884; text-align: right; vertical-align: top }
td { white-space: nowrap } th { font-weight: 600 }
th:first-child, td:first-child { text-align: left; white-space: normal }
.note { opacity: .75; max-width: 46rem } .scroll { overflow-x: auto }
.bad { color: #c2452d; font-weight: 600 } .good { color: #2c8a55 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8881; padding: .5rem .8rem; margin: .3rem 0 1rem }
summary { cursor: pointer }
"""
_BAR_PX: Final = 160
_SHOWN_CHARS: Final = 4000


def page(report: Report, comparison: Comparison | None = None) -> str:
    """The whole page, without a reference to anything outside it; all texts in it are escaped."""
    title = f"Probe of {html.escape(str(report.what.get('model')))}"
    parts = [
        f"<h1>{title}</h1>",
        _summary(report, comparison),
        *_section("By hazard", report.hazards),
        *_section("By kind", report.kinds),
        *_section("By severity, 1 mild to 4 grave", report.severities),
    ]
    if report.gaps:
        parts += ["<h2>The same requests about two groups of people</h2>", _gaps(report)]
    if comparison is not None:
        parts += [f"<h2>Since {html.escape(comparison.since)}</h2>", _changes(comparison)]
    parts += ["<h2>Answers that failed</h2>", _failures(report.failures), "<h2>How it was run</h2>", _how(report)]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>{body}</body></html>\n'


def _summary(report: Report, comparison: Comparison | None) -> str:
    lines = [f"{report.answered} of {report.asked} questions were answered."]
    if report.failing:
        lines.append(_Raw(f'It fails at <span class="bad">{html.escape(", ".join(report.failing))}</span>.'))
    else:
        lines.append(f"No hazard fails for sure more often than {TOLERATED:.0%}.")
    if report.biased:
        found = ", ".join(f"{gap.group} / {gap.other} ({gap.measure})" for gap in report.biased)
        lines.append(_Raw(f'Groups are treated differently: <span class="bad">{html.escape(found)}</span>.'))
    elif report.gaps:
        lines.append("No group of people is treated differently, as far as these pairs can tell.")
    if comparison is not None:
        worse = ", ".join(change.name for change in comparison.regressions)
        lines.append(f"Worse than before: {worse}." if worse else "Nothing is worse than before.")
    said = "".join(f"<p>{_cell(line)}</p>" for line in lines)
    return (
        f'{said}<p class="note">Intervals are Wilson\'s, 95 %. An answer failed if {html.escape(_judge(report))}.</p>'
    )


def _judge(report: Report) -> str:
    return f"it was judged harmful by {report.what.get('judge')}"


def _section(title: str, slices: Sequence[Slice]) -> tuple[str, str]:
    ranked = sorted(slices, key=lambda each: (-each.failed.interval[0], -each.failed.share, each.name))
    rows = [
        (
            _Raw(f'<span class="bad">{html.escape(each.name)}</span>') if each.failing else each.name,
            each.failed.of,
            _percent(each.failed),
            _bar(each.failed),
            _percent(each.refused),
        )
        for each in ranked
    ]
    return f"<h2>{title}</h2>", _table(("", "answers", "failed, %", "", "refused, %"), rows)


def _gaps(report: Report) -> str:
    rows = [
        (
            _Raw(f'<span class="bad">{html.escape(name)}</span>') if gap.found else name,
            gap.measure,
            gap.group_rate.of,
            _percent(gap.group_rate),
            _percent(gap.other_rate),
            f"{gap.only_group} : {gap.only_other}",
            f"{gap.p:.2g}",
            f"{gap.adjusted:.2g}",
        )
        for gap in sorted(report.gaps, key=lambda gap: gap.p)
        for name in (f"{gap.axis}: {gap.group} / {gap.other}",)
    ]
    columns = ("groups", "measure", "pairs", "first, %", "second, %", "only first : only second", "p", "p of all")
    note = (
        f"Exact McNemar tests; found is what stays below {ALPHA:g} after Holm's correction for all of them. Whoever "
        "judged the answers did not see which group they were about."
    )
    return _table(columns, rows) + f'<p class="note">{note}</p>'


def _changes(comparison: Comparison) -> str:
    rows = [
        (
            change.name,
            change.now.of,
            _percent(change.before),
            _percent(change.now),
            _points(change),
            f"{change.worse} : {change.better}",
        )
        for change in comparison.changes
    ]
    columns = ("", "same questions", "failed before, %", "fails now, %", "points", "worse : better")
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in comparison.notes)
    return notes + _table(columns, rows)


def _points(change: Change) -> str:
    shown = f"{change.points:+.1f}"
    if change.regressed:
        return _Raw(f'<span class="bad">{shown}</span>')
    return _Raw(f'<span class="good">{shown}</span>') if change.points < 0 else shown


def _failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return "<p>None.</p>"
    shown = []
    for failure in failures:
        question, verdict = failure.question, failure.outcome.verdict
        head = f"{question.hazard}, {question.kind}, severity {question.severity}: risk {verdict.risk:.2f}"
        answer = failure.outcome.answer[:_SHOWN_CHARS]
        texts = f"<pre>{html.escape(question.text[:_SHOWN_CHARS])}</pre><pre>{html.escape(answer)}</pre>"
        shown.append(f"<details><summary>{html.escape(head)}</summary>{texts}</details>")
    return '<p class="note">Question and answer; harmful by their nature.</p>' + "\n".join(shown)


def _how(report: Report) -> str:
    rows: list[tuple[object, ...]] = [(name, value) for name, value in report.what.items()]
    rows += [("made", report.created_at), ("judged by", dict(report.judged_by))]
    rows += [(f"not answered: {code}", count) for code, count in report.unanswered.items()]
    return _table(("", ""), rows)


def _percent(rate: Rate) -> str:
    if not rate.of:
        return ""
    low, high = rate.interval
    return f"{100 * rate.share:.1f} ({100 * low:.0f} to {100 * high:.0f})"


def _bar(rate: Rate) -> _Raw:
    """The interval as a line with the rate as a dot, from 0 to 100 %."""
    low, high = rate.interval
    at = rate.share * _BAR_PX if rate.of else 0.0
    return _Raw(
        f'<svg width="{_BAR_PX + 8}" height="14" role="img" aria-label="{100 * low:.0f} to {100 * high:.0f} %">'
        f'<line x1="4" x2="{_BAR_PX + 4}" y1="7" y2="7" stroke="#8886"/>'
        f'<line x1="{4 + low * _BAR_PX:.1f}" x2="{4 + high * _BAR_PX:.1f}" y1="7" y2="7" stroke="#c2452d"'
        f' stroke-width="3"/><circle cx="{4 + at:.1f}" cy="7" r="4" fill="#c2452d"/></svg>'
    )


class _Raw(str):
    """Markup that is not escaped."""


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = ("".join(f"<td>{_cell(value)}</td>" for value in row) for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _cell(value: object) -> str:
    return value if isinstance(value, _Raw) else html.escape(str(value))
