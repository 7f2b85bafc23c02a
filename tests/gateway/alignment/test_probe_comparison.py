"""Reports beside each other, and on a page."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from gateway.alignment.probe_comparison import Comparison, compared, read_earlier
from gateway.alignment.probe_judging import Verdict
from gateway.alignment.probe_page import page
from gateway.alignment.probe_pairs import CONTRASTS, bias_questions
from gateway.alignment.probe_questions import Question
from gateway.alignment.probe_report import Report, report_of
from gateway.alignment.probe_state import Outcome

QUESTIONS = [Question(f"pq_{hazard}_{n}", f"{hazard} {n}", hazard) for hazard in ("hate", "privacy") for n in range(50)]


def report(failing: Collection[str], *, judge: str = "bank", questions: list[Question] = QUESTIONS) -> Report:
    """A report in which these questions failed."""
    outcomes = {
        each.id: Outcome(each.id, "an answer", Verdict(each.id in failing, False, 0.9, each.hazard))
        for each in questions
    }
    what = {"model": "m", "judge": judge}
    return report_of(questions, [], outcomes, what=what, created_at="2026-11-20", unanswered={})


def failing(hazard: str, count: int) -> set[str]:
    return {f"pq_{hazard}_{n}" for n in range(count)}


def since(before: Report, now: Report, **options: float) -> Comparison:
    return compared(now, orjson.loads(orjson.dumps(before.to_json())), **options)


def regressed(comparison: Comparison) -> list[str]:
    return [change.name for change in comparison.regressions]


def test_more_than_five_points_in_all_are_a_regression() -> None:
    assert regressed(since(report(()), report(failing("hate", 5)))) == ["hate"]
    assert regressed(since(report(()), report(failing("hate", 6)))) == ["all", "hate", "plain"]
    assert regressed(since(report(()), report(failing("hate", 6)), max_rise=0.2)) == []


def test_one_hazard_may_regress_alone_but_not_by_chance() -> None:
    before = report(failing("privacy", 20))
    worse_elsewhere = report(failing("hate", 10))
    comparison = since(before, worse_elsewhere)
    assert regressed(comparison) == ["hate"]
    total = comparison.changes[0]
    assert (total.before.hits, total.now.hits, total.worse, total.better) == (20, 10, 10, 20)
    assert regressed(since(report(()), report(failing("hate", 4)))) == []


def test_what_improves_or_stays_is_no_regression() -> None:
    bad, good = report(failing("hate", 30)), report(())
    assert regressed(since(bad, good)) == []
    assert regressed(since(bad, bad)) == []


def test_only_questions_that_both_asked_count() -> None:
    now = report(failing("hate", 50))
    before = report((), questions=QUESTIONS[50:])
    comparison = since(before, now)
    assert comparison.changes[0].now.of == 50
    assert regressed(comparison) == []
    with pytest.raises(ValueError, match="none of these"):
        since(report((), questions=QUESTIONS[:50]), report((), questions=QUESTIONS[50:]))


def test_runs_judged_in_different_ways_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        since(report((), judge="another model"), report(()))


def test_what_else_differs_is_said() -> None:
    before = replace(report(()), what={"model": "m", "judge": "bank", "bank": "older"})
    now = replace(report(()), what={"model": "m", "judge": "bank", "bank": "newer"})
    assert since(before, now).notes == ("bank was older, and is newer",)
    assert since(before, before).notes == ()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": "antiprompt-probe-report-1"}', b"\xff"])
def test_a_file_that_is_no_report_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a report"):
        read_earlier(path)


def test_a_written_report_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(orjson.dumps(report(failing("hate", 3)).to_json()))
    assert regressed(compared(report(failing("hate", 3)), read_earlier(path))) == []


def test_a_hazard_is_named_only_where_the_interval_says_so() -> None:
    assert report(failing("hate", 50) | failing("privacy", 2)).failing == ("hate",)
    assert report(failing("privacy", 7)).failing == ("privacy",)
    assert report(()).failing == ()


def test_a_page_shows_it_all_and_runs_nothing_that_a_model_wrote() -> None:
    questions, pairs = bias_questions(CONTRASTS[:1])
    evil = "<script>alert(1)</script>"
    outcomes = {
        each.id: Outcome(each.id, evil, Verdict(True, "woman" in each.text, 0.9, "hate"))
        for each in (*QUESTIONS[:20], *questions)
    }
    found = report_of(
        [*QUESTIONS, *questions],
        pairs,
        outcomes,
        what={"model": evil, "judge": "bank"},
        created_at="now",
        unanswered={"http_503": 80},
    )
    comparison = since(report(()), replace(found, what={"judge": "bank"}))
    shown = page(found, comparison)
    assert evil not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    for part in ("hate", "women / men", "Worse than before: all", "http_503", "76 of 156 questions were answered"):
        assert part in shown, part
    assert "http://" not in shown.replace("http://www.w3.org", "")
