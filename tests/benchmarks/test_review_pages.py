"""The benchmark of the dashboard: that it fills, serves, files and measures what it says, on a small queue."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import review_pages
from tests.benchmarks.review_pages import AIM_MS, PAGES, Sizes, main


def test_every_page_is_measured_while_flags_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(review_pages, "QUICK", Sizes(waiting=60, decided=4, rounds=1))
    assert main(["--quick", "--json", str(tmp_path / "run.json")]) == 0
    run = json.loads((tmp_path / "run.json").read_text())
    medians = {figure["name"]: figure for figure in run["figures"] if figure["name"].endswith("median")}
    assert set(medians) == {f"{name}: median" for name in PAGES}
    assert all(figure["value"] > 0 and figure["aim"] == AIM_MS for figure in medians.values())
    assert (run["sizes"]["waiting"], run["flags_per_s"]) == (60, 200)
    assert "60 flags waiting" in capsys.readouterr().out
