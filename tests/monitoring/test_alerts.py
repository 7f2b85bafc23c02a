"""The alert rules: promtool finds them good, each fires when it should and is quiet before; each is explained."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FILES = Path(__file__).parents[2] / "helm" / "antiprompt" / "files"
UNIT_TESTS = Path(__file__).with_name("alerts_test.yaml")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here; tests/prometheus.sh brings it"
)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)


@needs_promtool
def test_promtool_finds_the_rules_well_formed():
    done = promtool("check", "rules", FILES / "alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_each_alert_is_quiet_until_its_time_and_then_fires(tmp_path: Path):
    plain = [{name: value for name, value in rule.items() if name != "annotations"} for rule in rules()]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": plain}]}))
    shutil.copy(UNIT_TESTS, tmp_path)
    done = promtool("test", "rules", tmp_path / UNIT_TESTS.name)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_what_an_alert_says_can_be_said(tmp_path: Path):
    """promtool shows what it got beside what the unit tests, which name no words, expect."""
    for file in (FILES / "alerts.yaml", UNIT_TESTS):
        shutil.copy(file, tmp_path)
    shown = promtool("test", "rules", tmp_path / UNIT_TESTS.name).stderr
    assert shown.count("Annotations:{description=") >= len(rules())
    assert "error expanding" not in shown
    assert "<no value>" not in shown


def test_each_alert_has_a_unit_test_with_a_quiet_moment_and_one_in_which_it_fires():
    tested: dict[str, list[bool]] = {}
    for each in yaml.safe_load(UNIT_TESTS.read_text("utf-8"))["tests"]:
        for moment in each["alert_rule_test"]:
            tested.setdefault(moment["alertname"], []).append("exp_alerts" in moment)
    assert tested.keys() == {rule["alert"] for rule in rules()}
    assert all({True, False} <= set(moments) for moments in tested.values())


def test_each_alert_says_how_urgent_it_is_what_it_means_and_what_to_do():
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert all(text.strip() for text in rule["annotations"].values())


def test_the_runbook_has_a_part_for_each_alert_in_their_order():
    parts = re.findall(r"^## (\w+)\n(.+)$", (FILES / "RUNBOOK.md").read_text("utf-8"), re.MULTILINE)
    assert [name for name, _ in parts] == [rule["alert"] for rule in rules()]
