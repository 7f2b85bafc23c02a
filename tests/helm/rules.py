"""Rules of this project's own for what the chart renders. Each gives a sentence for everything that breaks it.

A rule is a function of a release; ``RULES`` names all; ``tests/helm/test_rules.py`` shows of each that it can break.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from tests.helm.network import selects
from tests.helm.rendering import Manifest, Release, Workload

Rule = Callable[[Release], Iterator[str]]

PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")
_LABELS: Final = ("name", "instance", "component", "version", "managed-by")
_LONGEST: Final = {"CronJob": 52, "StatefulSet": 52}  # what their pods and Jobs are called is longer by eleven
# What Kubernetes' own standard "restricted" allows; the rest of no_root is that standard, too.
_VOLUMES: Final = frozenset(
    ["name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"]
)
_IMAGE: Final = re.compile(r"(?P<name>\S+?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?")


def _containers(release: Release) -> Iterator[tuple[str, Workload, Mapping[str, Any]]]:
    for workload in release.workloads():
        for container in workload.containers:
            yield f"{workload.kind} {workload.name}, {container['name']}", workload, container


def no_root(release: Release) -> Iterator[str]:
    for workload in release.workloads():
        name, pod = f"{workload.kind} {workload.name}", workload.pod
        security = pod.get("securityContext", {})
        if not (
            security.get("runAsNonRoot") and security.get("runAsUser", 0) > 0 and security.get("runAsGroup", 0) > 0
        ):
            yield f"{name} may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name} has no seccomp profile"
        if any(pod.get(shared) for shared in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{name} shares the node's network or processes"
        for volume, source in workload.volumes.items():
            if not source.keys() <= _VOLUMES:
                yield f"{name} mounts {volume}, which may be of the node"
    for name, _, container in _containers(release):
        security = container.get("securityContext", {})
        if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
            yield f"{name} may gain privileges"
        if security.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name} keeps capabilities"
        if security.get("runAsUser", 1) == 0 or security.get("runAsNonRoot") is not True:
            yield f"{name} may run as root"


def read_only_root(release: Release) -> Iterator[str]:
    for name, workload, container in _containers(release):
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{name} may write to its root"
        for mount in container.get("volumeMounts", ()):
            volume = workload.volumes.get(mount["name"])
            if volume is None:
                yield f"{name} mounts {mount['name']}, which the pod does not have"
            elif not mount.get("readOnly") and not {"emptyDir", "persistentVolumeClaim"} & volume.keys():
                yield f"{name} mounts {mount['name']} to write to it"


def limits_set(release: Release) -> Iterator[str]:
    for name, _, container in _containers(release):
        for bound in ("requests", "limits"):
            missing = {"cpu", "memory"} - container.get("resources", {}).get(bound, {}).keys()
            yield from (f"{name} has no {bound} of {what}" for what in sorted(missing))


def no_latest_tag(release: Release) -> Iterator[str]:
    for name, _, container in _containers(release):
        found = _IMAGE.fullmatch(container["image"])
        if found is None or not (found["digest"] or found["tag"]) or found["tag"] == "latest":
            yield f"{name} runs {container['image']}, which may be anything tomorrow"


def probes_there(release: Release) -> Iterator[str]:
    for workload in release.workloads():
        for container in workload.pod["containers"] if workload.serves else ():
            yield from (
                f"{workload.name}, {container['name']} has no {each}" for each in PROBES if each not in container
            )


def no_token(release: Release) -> Iterator[str]:
    for workload in release.workloads():
        if workload.pod.get("automountServiceAccountToken") is not False:
            yield f"{workload.name} is given a token of the cluster"
        if workload.pod.get("serviceAccountName") in (None, "default"):
            yield f"{workload.name} runs under the namespace's own account"
        if workload.pod.get("enableServiceLinks") is not False:
            yield f"{workload.name} is given variables of Services, which may read as settings"
    for account in release.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{account['metadata']['name']} hands out its token"


def policy_for_each_workload(release: Release) -> Iterator[str]:
    if not release.values["networkPolicy"]["enabled"]:
        return
    policies = release.of("NetworkPolicy")
    for workload in release.workloads():
        mine = [each for each in policies if selects(each["spec"]["podSelector"], workload.labels)]
        if {"Ingress", "Egress"} - {kind for each in mine for kind in each["spec"].get("policyTypes", ())}:
            yield f"{workload.name} has no network policy for both directions"
    for policy in policies:
        for way, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(way) or ():
                if not rule.get(peers) or not rule.get("ports"):
                    yield f"network policy {policy['metadata']['name']} opens {way} to everybody or on every port"


def what_is_named_is_there(release: Release) -> Iterator[str]:
    """Claims, ConfigMaps, accounts and Services; what values name is the cluster's own."""
    values = release.values
    outside = {each.get(kind, {}).get(key) for each in values["extraVolumes"] for kind, key in _REFERENCES.values()}
    outside |= {values["calibration"]["texts"].get("persistentVolumeClaim", {}).get("claimName")}
    outside |= {values["bank"]["volume"]["existingClaim"], values["serviceAccount"]["name"]}
    for workload in release.workloads():
        named = [("ServiceAccount", workload.pod["serviceAccountName"])]
        for volume in workload.volumes.values():
            named += [(kind, volume.get(field, {}).get(key)) for kind, (field, key) in _REFERENCES.items()]
        if workload.kind == "StatefulSet":
            named.append(("Service", workload.owner["spec"]["serviceName"]))
        for kind, name in named:
            if name is not None and name not in release.names(kind) | outside:
                yield f"{workload.name} needs {kind} {name}, which is not there"


_REFERENCES: Final = {
    "ConfigMap": ("configMap", "name"),
    "PersistentVolumeClaim": ("persistentVolumeClaim", "claimName"),
}


def selectors_meet(release: Release) -> Iterator[str]:
    workloads = [each for each in release.workloads() if each.serves]
    for each in workloads:
        if not selects(each.owner["spec"]["selector"], each.labels):
            yield f"{each.name} does not select its own pods"
    for service in release.of("Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        met = [each for each in workloads if selects({"matchLabels": spec["selector"]}, each.labels)]
        if len(met) != 1:
            yield f"Service {name} selects {len(met)} workloads"
            continue
        offered = {port["name"] for container in met[0].pod["containers"] for port in container.get("ports", ())}
        yield from (f"Service {name} has no pod's port {port}" for port in _targets(service) - offered)
    for budget in release.of("PodDisruptionBudget"):
        if not any(selects(budget["spec"]["selector"], each.labels) for each in workloads):
            yield f"budget {budget['metadata']['name']} selects nothing"
    for scaler in release.of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        owners = [each.owner for each in workloads if (each.kind, each.name) == (target["kind"], target["name"])]
        if not owners or any("replicas" in owner["spec"] for owner in owners):
            yield f"scaler {scaler['metadata']['name']} has no target, or one whose replicas are set"
    yield from _from_outside(release)


def _targets(service: Manifest) -> set[str]:
    return {port["targetPort"] for port in service["spec"].get("ports", ())}


def _from_outside(release: Release) -> Iterator[str]:
    """Ingresses and scrapes end at a Service that is there."""
    ports = {
        each["metadata"]["name"]: {p["name"] for p in each["spec"].get("ports", ())} for each in release.of("Service")
    }
    for ingress in release.of("Ingress"):
        for path in (path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]):
            service = path["backend"]["service"]
            if service["port"]["name"] not in ports.get(service["name"], ()):
                yield f"Ingress {ingress['metadata']['name']} leads nowhere"
            if path["path"] == "/":
                yield f"Ingress {ingress['metadata']['name']} shows everything, metrics too"
    for monitor in release.of("ServiceMonitor"):
        met = [
            each for each in release.of("Service") if selects(monitor["spec"]["selector"], each["metadata"]["labels"])
        ]
        for endpoint in monitor["spec"]["endpoints"]:
            if not met or any(endpoint["port"] not in ports[each["metadata"]["name"]] for each in met):
                yield f"monitor {monitor['metadata']['name']} scrapes nothing"


def no_secret_inside(release: Release) -> Iterator[str]:
    """Secrets are named, never held; a URL may refer to a variable that comes from one."""
    yield from (f"the chart makes Secret {name}" for name in release.names("Secret"))
    for name, _, container in _containers(release):
        for variable in container.get("env", ()):
            held = str(variable.get("value", ""))
            if SECRET_NAME.search(variable["name"]) and held and "$(" not in held:
                yield f"{name} holds {variable['name']}"


SECRET_NAME: Final = re.compile(r"PASSWORD|SECRET|API_KEY|AUTHORIZATION|REDIS__URL$|REDISCLI_AUTH")


def names_fit(release: Release) -> Iterator[str]:
    counted = Counter((each["kind"], each["metadata"]["name"]) for each in release.manifests)
    for (kind, name), count in counted.items():
        if count > 1:
            yield f"there are {count} of {kind} {name}"
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) or len(name) > _LONGEST.get(kind, 63):
            yield f"{kind} {name} is no name, or too long"
    for each in release.manifests:
        name, labels = f"{each['kind']} {each['metadata']['name']}", each["metadata"].get("labels", {})
        if "namespace" not in each["metadata"]:
            yield f"{name} has no namespace"
        yield from (f"{name} has no label {label}" for label in _LABELS if f"app.kubernetes.io/{label}" not in labels)


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (
            no_root,
            read_only_root,
            limits_set,
            no_latest_tag,
            probes_there,
            no_token,
            policy_for_each_workload,
            what_is_named_is_there,
            selectors_meet,
            no_secret_inside,
            names_fit,
        )
    }
)


def broken(release: Release) -> list[str]:
    """Everything that breaks a rule."""
    return [complaint for rule in RULES.values() for complaint in rule(release)]
