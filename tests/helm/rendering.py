"""The chart as Helm renders it, and what the tests ask of the manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from helm_python import Chart

CHART: Final = Path(__file__).parents[2] / "helm" / "antiprompt"
EXAMPLES: Final = tuple(sorted((CHART / "examples").glob("*.yaml")))
NAMESPACE: Final = "safety"
OUR_IMAGE: Final = "antiprompt-gateway"

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that runs pods; ``kind`` and ``name`` are the owner's."""

    kind: str
    name: str
    owner: Manifest
    labels: Mapping[str, str]
    pod: Mapping[str, Any]

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def serves(self) -> bool:
        """Whether it runs until it is told to end."""
        return self.kind in ("Deployment", "StatefulSet")

    @property
    def containers(self) -> Sequence[Mapping[str, Any]]:
        """Those that run first, too."""
        return [*self.pod.get("initContainers", ()), *self.pod["containers"]]

    @property
    def volumes(self) -> Mapping[str, Mapping[str, Any]]:
        """Volumes by name; the ones that claim templates give as claims of no name."""
        templates = self.owner.get("spec", {}).get("volumeClaimTemplates", ())
        given: dict[str, Mapping[str, Any]] = {
            each["metadata"]["name"]: {"persistentVolumeClaim": {}} for each in templates
        }
        return {**given, **{each["name"]: each for each in self.pod.get("volumes", ())}}


@dataclass(frozen=True, slots=True)
class Release:
    """What one set of values renders to."""

    values: Mapping[str, Any]
    texts: Mapping[str, str]
    manifests: Sequence[Manifest] = field(repr=False)

    def of(self, *kinds: str) -> list[Manifest]:
        return [each for each in self.manifests if each["kind"] in kinds]

    def one(self, kind: str, suffix: str = "") -> Manifest:
        """The only manifest of a kind whose name ends so."""
        (found,) = [each for each in self.of(kind) if each["metadata"]["name"].endswith(suffix)]
        return found

    def names(self, kind: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.of(kind)}

    def workloads(self) -> Iterator[Workload]:
        for each in self.manifests:
            if (template := template_of(each)) is not None:
                labels = template["metadata"]["labels"]
                yield Workload(each["kind"], each["metadata"]["name"], each, labels, template["spec"])

    def workload(self, component: str) -> Workload:
        (found,) = [each for each in self.workloads() if each.component == component]
        return found


def template_of(manifest: Manifest) -> Manifest | None:
    """The pod's metadata and spec in a manifest that runs one."""
    match manifest["kind"]:
        case "Pod":
            return manifest
        case "Deployment" | "StatefulSet" | "Job":
            template: Manifest = manifest["spec"]["template"]
        case "CronJob":
            template = manifest["spec"]["jobTemplate"]["spec"]["template"]
        case _:
            return None
    return template


def rendered(values: Mapping[str, Any] | None = None, *, name: str = "antiprompt") -> Release:
    """Raises ``HelmError`` for values that the chart does not take."""
    with Chart.load(CHART) as chart:
        in_force = chart.merge_values(dict(values or {}))
        texts = chart.render(dict(values or {}), name=name, namespace=NAMESPACE)
    files = {path: text for path, text in texts.items() if path.endswith(".yaml")}
    manifests = [each for text in files.values() for each in yaml.load_all(text, yaml.CSafeLoader) if each]
    return Release(in_force, texts, manifests)


@cache
def example(path: Path) -> Release:
    """What an example renders to; whoever changes it copies it before."""
    return rendered(yaml.safe_load(path.read_text("utf-8")))
