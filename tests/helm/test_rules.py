"""That each rule can be broken: a good release with one thing spoiled, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, Final

import pytest

from tests.helm.rendering import CHART, Manifest, Release, example
from tests.helm.rules import RULES, broken
from tests.helm.schemas import VERSIONS, errors

Spoil = Callable[[Release], Any]


@pytest.fixture(scope="module")
def good() -> Release:
    return example(CHART / "examples" / "production.yaml")


@pytest.fixture
def release(good: Release) -> Release:
    """A release of one's own, to be spoiled."""
    return replace(good, manifests=deepcopy(good.manifests))


def gateway(release: Release) -> Manifest:
    pod: Manifest = release.one("StatefulSet", "-gateway")["spec"]["template"]["spec"]
    return pod


def container(release: Release) -> Manifest:
    first: Manifest = gateway(release)["containers"][0]
    return first


def scaled(release: Release) -> Manifest:
    target: Manifest = release.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    return target


def drop(release: Release, kind: str, suffix: str = "") -> None:
    release.manifests.remove(release.one(kind, suffix))  # type: ignore[attr-defined]


def first_path(release: Release) -> Manifest:
    path: Manifest = release.one("Ingress", "-gateway")["spec"]["rules"][0]["http"]["paths"][0]
    return path


SPOILED: Final[tuple[tuple[str, str, Spoil], ...]] = (
    ("no_root", "as root", lambda r: gateway(r)["securityContext"].update(runAsUser=0)),
    ("no_root", "as root", lambda r: gateway(r)["securityContext"].pop("runAsNonRoot")),
    ("no_root", "as root", lambda r: container(r)["securityContext"].update(runAsUser=0)),
    ("no_root", "seccomp", lambda r: gateway(r)["securityContext"].pop("seccompProfile")),
    ("no_root", "node's network", lambda r: gateway(r).update(hostNetwork=True)),
    ("no_root", "be of the node", lambda r: gateway(r)["volumes"].append({"name": "host", "hostPath": {"path": "/"}})),
    ("no_root", "privileges", lambda r: container(r)["securityContext"].update(privileged=True)),
    ("no_root", "privileges", lambda r: container(r)["securityContext"].pop("allowPrivilegeEscalation")),
    ("no_root", "capabilities", lambda r: container(r)["securityContext"]["capabilities"].update(add=["NET_ADMIN"])),
    ("read_only_root", "write to its root", lambda r: container(r)["securityContext"].pop("readOnlyRootFilesystem")),
    ("read_only_root", "to write to it", lambda r: container(r)["volumeMounts"][0].pop("readOnly")),
    ("read_only_root", "does not have", lambda r: gateway(r)["volumes"].clear()),
    ("limits_set", "no limits of memory", lambda r: container(r)["resources"]["limits"].pop("memory")),
    ("limits_set", "no requests of cpu", lambda r: gateway(r)["initContainers"][0]["resources"].pop("requests")),
    ("no_latest_tag", "tomorrow", lambda r: container(r).update(image="antiprompt-gateway:latest")),
    ("no_latest_tag", "tomorrow", lambda r: container(r).update(image="host:5000/antiprompt-gateway")),
    ("probes_there", "no livenessProbe", lambda r: container(r).pop("livenessProbe")),
    ("no_token", "token of the cluster", lambda r: gateway(r).pop("automountServiceAccountToken")),
    ("no_token", "hands out", lambda r: r.one("ServiceAccount").pop("automountServiceAccountToken")),
    ("no_token", "own account", lambda r: gateway(r).pop("serviceAccountName")),
    ("no_token", "read as settings", lambda r: gateway(r).pop("enableServiceLinks")),
    ("policy_for_each_workload", "both directions", lambda r: drop(r, "NetworkPolicy", "-worker")),
    (
        "policy_for_each_workload",
        "both directions",
        lambda r: r.one("NetworkPolicy", "-calibration")["spec"].update(policyTypes=["Ingress"]),
    ),
    (
        "policy_for_each_workload",
        "opens egress",
        lambda r: r.one("NetworkPolicy", "-gateway")["spec"]["egress"].append({"to": [{"podSelector": {}}]}),
    ),
    (
        "policy_for_each_workload",
        "opens ingress",
        lambda r: r.one("NetworkPolicy", "-gateway")["spec"]["ingress"].append({"ports": [{"port": 8080}]}),
    ),
    ("what_is_named_is_there", "antiprompt-config", lambda r: drop(r, "ConfigMap", "-config")),
    ("what_is_named_is_there", "antiprompt-bank", lambda r: drop(r, "PersistentVolumeClaim", "-bank")),
    ("what_is_named_is_there", "ServiceAccount antiprompt", lambda r: drop(r, "ServiceAccount")),
    ("what_is_named_is_there", "Service antiprompt-gateway-pods", lambda r: drop(r, "Service", "-gateway-pods")),
    ("selectors_meet", "selects 0 workloads", lambda r: r.one("Service", "-review")["spec"]["selector"].update(x="y")),
    ("selectors_meet", "no pod's port", lambda r: container(r)["ports"][0].update(name="web")),
    (
        "selectors_meet",
        "its own pods",
        lambda r: r.one("Deployment", "-worker")["spec"]["selector"].update(matchLabels={"a": "b"}),
    ),
    (
        "selectors_meet",
        "budget",
        lambda r: r.one("PodDisruptionBudget")["spec"]["selector"].update(matchLabels={"a": "b"}),
    ),
    ("selectors_meet", "scaler", lambda r: scaled(r).update(kind="Deployment")),
    ("selectors_meet", "scaler", lambda r: r.one("StatefulSet", "-gateway")["spec"].update(replicas=1)),
    ("selectors_meet", "leads nowhere", lambda r: first_path(r)["backend"]["service"].update(name="other")),
    ("selectors_meet", "shows everything", lambda r: first_path(r).update(path="/")),
    ("selectors_meet", "scrapes nothing", lambda r: r.one("ServiceMonitor")["spec"]["endpoints"][0].update(port="web")),
    ("no_secret_inside", "makes Secret", lambda r: r.one("ConfigMap", "-config").update(kind="Secret")),
    (
        "no_secret_inside",
        "holds ANTIPROMPT_UPSTREAM__API_KEY",
        lambda r: container(r)["env"].append({"name": "ANTIPROMPT_UPSTREAM__API_KEY", "value": "sk-1"}),
    ),
    ("names_fit", "there are 2", lambda r: r.manifests.append(r.manifests[0])),  # type: ignore[attr-defined]
    ("names_fit", "too long", lambda r: r.one("CronJob")["metadata"].update(name="x" * 53)),
    ("names_fit", "no label", lambda r: r.one("CronJob")["metadata"]["labels"].clear()),
    ("names_fit", "no namespace", lambda r: r.one("CronJob")["metadata"].pop("namespace")),
)


@pytest.mark.parametrize(("rule", "words", "spoil"), SPOILED, ids=[f"{rule}: {words}" for rule, words, _ in SPOILED])
def test_what_is_spoiled_is_found(rule: str, words: str, spoil: Spoil, release: Release) -> None:
    assert list(RULES[rule](release)) == []
    spoil(release)
    complaints = list(RULES[rule](release))
    assert any(words in complaint for complaint in complaints), complaints


def test_every_rule_is_shown_to_break(good: Release) -> None:
    assert {rule for rule, _, _ in SPOILED} == set(RULES)
    assert broken(good) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_find_unknown_fields_wrong_types_and_wrong_values(version: str, release: Release) -> None:
    service, scaler = release.one("Service", "-review"), release.one("HorizontalPodAutoscaler")
    service["spec"]["port"] = 80
    scaler["spec"]["minReplicas"] = "three"
    container(release)["ports"] = {}
    for each in (service, scaler, release.one("StatefulSet", "-gateway")):
        assert errors(each, version), each["kind"]


def test_the_schemas_of_the_operators_kinds_are_closed_too(release: Release) -> None:
    monitor, rule = release.one("ServiceMonitor"), release.one("PrometheusRule")
    monitor["spec"]["endpoints"][0]["interval"] = "often"
    rule["spec"]["groups"][-1]["rules"][0]["alert"] = "Both"
    assert errors(monitor, VERSIONS[0])
    assert errors(rule, VERSIONS[0])


def test_a_kind_that_nobody_knows_is_no_pass(release: Release) -> None:
    service = release.one("Service", "-review")
    service["apiVersion"] = "v9"
    with pytest.raises(KeyError):
        errors(service, VERSIONS[0])
