"""What scaling by the queue looks at: recorded from what gateways expose, for each pod, and right by promtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.telemetry import Metrics
from tests.helm.rendering import CHART, NAMESPACE, Release, example

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here; tests/prometheus.sh brings it"
)


@pytest.fixture(scope="module")
def release() -> Release:
    return example(CHART / "examples" / "production.yaml")


def rules_of(release: Release) -> dict[str, Any]:
    rules: dict[str, Any] = release.one("PrometheusRule")["spec"]
    return rules


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_recorded_from_what_gateways_expose_under_the_name_that_the_scaler_asks_for(release: Release) -> None:
    (rule,) = rules_of(release)["groups"][-1]["rules"]
    (metric,) = release.one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["record"]
    assert f"seriesQuery: {rule['record']}{{" in (CHART / "README.md").read_text("utf-8")
    exposed = Metrics().exposition().decode()
    for name in ("antiprompt_queue_seconds", "antiprompt_queue_windows"):
        assert name in rule["expr"]
        assert f"# TYPE {name} " in exposed


@needs_promtool
def test_promtool_takes_all_rules_of_a_release(release: Release, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules_of(release)), encoding="utf-8")
    promtool("check", "rules", tmp_path / "rules.yaml")


@needs_promtool
def test_a_pods_wait_is_its_own_and_an_idle_pod_waits_for_nothing(release: Release, tmp_path: Path) -> None:
    def waits(pod: str, le: str, a_minute: int, namespace: str = NAMESPACE) -> dict[str, str]:
        series = f'antiprompt_queue_seconds_bucket{{namespace="{namespace}",pod="{pod}",le="{le}"}}'
        return {"series": series, "values": f"0+{a_minute}x10"}

    queues = [
        {"series": f'antiprompt_queue_windows{{namespace="{NAMESPACE}",pod="{pod}"}}', "values": "7x10"}
        for pod in ("busy", "idle")
    ]
    buckets = [
        waits(pod, le, count)
        for pod, counts in (("busy", (0, 60, 60)), ("idle", (0, 0, 0)))
        for le, count in zip(("0.01", "0.11", "+Inf"), counts, strict=True)
    ]
    elsewhere = [waits("other", le, 60, namespace="elsewhere") for le in ("0.01", "+Inf")]
    unit_test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [*queues, *buckets, *elsewhere],
                "promql_expr_test": [
                    {
                        "expr": "round(antiprompt_queue_p90_seconds, 0.001)",
                        "eval_time": "5m",
                        "exp_samples": [
                            {"labels": f'{{namespace="{NAMESPACE}",pod="busy"}}', "value": 0.1},
                            {"labels": f'{{namespace="{NAMESPACE}",pod="idle"}}', "value": 0},
                        ],
                    }
                ],
            }
        ],
    }
    for name, content in (("rules.yaml", rules_of(release)), ("test.yaml", unit_test)):
        (tmp_path / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    promtool("test", "rules", tmp_path / "test.yaml")
