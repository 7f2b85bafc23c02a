"""What network policies let through, as a cluster that enforces them would have it: by labels and ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from tests.helm.rendering import NAMESPACE, Release

Way = Literal["ingress", "egress"]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector meets labels; an empty one meets all."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    expressions: Sequence[Mapping[str, Any]] = selector.get("matchExpressions") or ()
    assert all(each["operator"] == "In" for each in expressions)
    return all(labels.get(name) == value for name, value in wanted.items()) and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def may_call(release: Release, caller: str, called: str, port: int) -> bool:
    """Whether pods of one component reach those of another: both sides must allow it."""
    one, other = (release.workload(component).labels for component in (caller, called))
    return _allows(release, one, other, port, "egress") and _allows(release, other, one, port, "ingress")


def may_leave(release: Release, caller: str, block: str, port: int) -> bool:
    """Whether pods of a component reach addresses of ``block``, which is written as a policy writes it."""
    for rule in _rules(release, release.workload(caller).labels, "egress"):
        blocks = [peer["ipBlock"]["cidr"] for peer in rule["to"] if "ipBlock" in peer]
        if _on(rule, port) and block in blocks:
            return True
    return False


def may_enter(release: Release, namespace: str, called: str, port: int) -> bool:
    """Whether pods of another namespace, known by its name alone, reach those of a component."""
    return _between(release, release.workload(called).labels, namespace, port, "ingress")


def may_go(release: Release, caller: str, namespace: str, port: int) -> bool:
    """Whether pods of a component reach all those of another namespace, known by its name alone."""
    return _between(release, release.workload(caller).labels, namespace, port, "egress")


def _between(release: Release, mine: Mapping[str, str], namespace: str, port: int, way: Way) -> bool:
    for rule in _rules(release, mine, way):
        peers = [peer for peer in _peers(rule, way) if "podSelector" not in peer and "ipBlock" not in peer]
        if _on(rule, port) and any(_in(peer, namespace) for peer in peers):
            return True
    return False


def _allows(release: Release, mine: Mapping[str, str], theirs: Mapping[str, str], port: int, way: Way) -> bool:
    for rule in _rules(release, mine, way):
        peers = [peer for peer in _peers(rule, way) if "podSelector" in peer and _in(peer, NAMESPACE)]
        if _on(rule, port) and any(selects(peer["podSelector"], theirs) for peer in peers):
            return True
    return False


def _peers(rule: Mapping[str, Any], way: Way) -> Sequence[Mapping[str, Any]]:
    peers: Sequence[Mapping[str, Any]] = rule["from" if way == "ingress" else "to"]
    return peers


def _in(peer: Mapping[str, Any], namespace: str) -> bool:
    """Whether a peer may be in a namespace; one that names none is in the policy's own."""
    selector = peer.get("namespaceSelector")
    if selector is None:
        return namespace == NAMESPACE
    return selects(selector, {"kubernetes.io/metadata.name": namespace})


def _on(rule: Mapping[str, Any], port: int) -> bool:
    return any(each["port"] == port for each in rule["ports"])


def _rules(release: Release, labels: Mapping[str, str], way: Way) -> Iterator[Mapping[str, Any]]:
    for policy in release.of("NetworkPolicy"):
        if selects(policy["spec"]["podSelector"], labels):
            yield from policy["spec"].get(way) or ()
