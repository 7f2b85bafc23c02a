"""The matrix: every example, and values that hypothesis makes up, held against all that is known of good manifests."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import Chart, lint, package
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from yamllint import linter
from yamllint.config import YamlLintConfig

from gateway import __version__
from tests.helm.rendering import CHART, EXAMPLES, NAMESPACE, example, rendered
from tests.helm.rules import broken
from tests.helm.schemas import VERSIONS, errors

RENDERED = YamlLintConfig("{rules: {key-duplicates: enable, new-lines: enable}}")
WRITTEN = YamlLintConfig(
    "{extends: default, rules: {document-start: disable, braces: disable, "
    "line-length: {max: 120, allow-non-breakable-inline-mappings: true}}}"
)

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def test_the_examples_are_those_that_are_promised() -> None:
    assert {"minimal", "production", "gpu", "redis-cluster", "redis-url"} <= {path.stem for path in EXAMPLES}


@each_example
@pytest.mark.parametrize("version", VERSIONS)
def test_helm_finds_nothing_to_say(path: Path, version: str) -> None:
    report = lint(CHART, yaml.safe_load(path.read_text("utf-8")), strict=True, kube_version=f"v{version}")
    assert (report["messages"], report["errors"]) == ([], [])


@each_example
def test_three_versions_of_kubernetes_take_every_manifest(path: Path) -> None:
    release = example(path)
    assert [error for version in VERSIONS for each in release.manifests for error in errors(each, version)] == []


@each_example
def test_no_rule_of_our_own_is_broken(path: Path) -> None:
    release = example(path)
    assert release.workload("gateway").containers
    assert broken(release) == []


@each_example
def test_what_is_rendered_is_plain_yaml_without_a_key_twice(path: Path) -> None:
    texts = example(path).texts
    files = {name: text for name, text in texts.items() if name.endswith(".yaml")}
    problems = [(name, str(each)) for name, text in files.items() for each in linter.run(text, RENDERED)]
    assert problems == []
    assert "<no value>" not in "".join(texts.values())


@pytest.mark.parametrize("path", [CHART / "Chart.yaml", CHART / "values.yaml", *EXAMPLES], ids=lambda path: path.name)
def test_what_is_written_by_hand_is_tidy(path: Path) -> None:
    assert [str(each) for each in linter.run(path.read_text("utf-8"), WRITTEN)] == []


on = st.booleans()


@st.composite
def any_values(draw: st.DrawFn) -> dict[str, object]:
    """Values that fit together."""
    store = draw(st.sampled_from(["image", "volume", "object"]))
    addresses = ["one.example:7001", "two.example:7002"]
    rules = draw(on)
    return {
        "upstream": {"baseUrl": draw(st.sampled_from(["", "http://vllm.models.svc:8000/v1", "https://host/v1"]))},
        "bank": {
            "store": store,
            "volume": {"existingClaim": draw(st.sampled_from(["", "b"]))},
            "object": {"url": "s3://b/bank", "secret": draw(st.sampled_from(["", "s3"]))},
        },
        "clientKey": {"secret": draw(st.sampled_from(["", "keys"]))},
        "policy": draw(st.sampled_from(["", "mode: shadow\nrules: []\n"])),
        "calibration": {
            "enabled": store == "volume" and draw(on),
            "texts": {"persistentVolumeClaim": {"claimName": "texts"}},
        },
        "worker": {"enabled": store != "image" and draw(on), "trains": draw(on)},
        "retraining": {
            "schedule": draw(st.sampled_from(["", "0 3 * * *"])) if store != "image" else "",
            "trains": draw(on),
        },
        "review": {
            "enabled": draw(on),
            "publicUrl": "https://review.example",
            "oidc": {"issuer": draw(st.sampled_from(["", "https://login.example"])), "clientId": "me"},
            "ingress": {"enabled": draw(on), "host": "review.example"},
        },
        "gateway": {
            "spool": {"persistent": draw(on)},
            "gpu": {"enabled": draw(on)},
            "ingress": {"enabled": draw(on), "host": "ai.example", "tlsSecret": draw(st.sampled_from(["", "tls"]))},
            "autoscaling": {"enabled": draw(on), "metric": draw(st.sampled_from(["cpu", "queue"])) if rules else "cpu"},
        },
        "redis": {
            "mode": draw(st.sampled_from(["bundled", "url", "sentinel", "cluster"])),
            "sentinel": {"addresses": addresses},
            "cluster": {"nodes": addresses},
        },
        "networkPolicy": {"enabled": draw(on), "scrapers": draw(st.sampled_from([[], [{"podSelector": {}}]]))},
        "monitoring": {"serviceMonitor": draw(on), "rules": rules, "dashboard": draw(on)},
        "serviceAccount": {"name": draw(st.sampled_from(["", "shared"]))},
    }


@given(any_values(), st.sampled_from(["antiprompt", "a", "prod-antiprompt-eu", "x" * 53]))
@hypothesis_settings(max_examples=40, deadline=None)
def test_whatever_fits_together_renders_to_good_manifests(values: dict[str, object], name: str) -> None:
    release = rendered(values, name=name)
    assert broken(release) == []
    assert [error for each in release.manifests for error in errors(each, VERSIONS[-1])] == []


def test_an_older_kubernetes_is_told_so() -> None:
    allowed = re.fullmatch(r">=1\.(\d+)\.0-0", chart_file()["kubeVersion"])
    assert allowed is not None
    assert VERSIONS[0] == f"1.{allowed[1]}.0"


# What is carried along for others.


def chart_file() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    return found


def test_the_chart_starts_images_of_this_version() -> None:
    assert chart_file()["appVersion"] == __version__


def test_a_packaged_chart_renders_to_the_same(tmp_path: Path) -> None:
    path = CHART / "examples" / "production.yaml"
    packed = package(CHART, destination=tmp_path)
    with tarfile.open(packed) as archive:
        names = set(archive.getnames())
    assert {"antiprompt/values.schema.json", "antiprompt/README.md", "antiprompt/files/alerts.yaml"} <= names
    assert not any("examples" in name for name in names)
    with Chart.load(packed) as chart:
        values = yaml.safe_load(path.read_text("utf-8"))
        assert chart.render(values, name="antiprompt", namespace=NAMESPACE) == example(path).texts


def test_the_alerts_and_the_dashboard_arrive_whole() -> None:
    release = example(CHART / "examples" / "production.yaml")
    groups = release.one("PrometheusRule")["spec"]["groups"]
    assert groups[:-1] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text("utf-8"))["groups"]
    carried = json.loads(release.one("ConfigMap", "-dashboard")["data"]["antiprompt.json"])
    assert carried == json.loads((CHART / "files" / "dashboard.json").read_text("utf-8"))
