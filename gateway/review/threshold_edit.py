"""Thresholds in the text of a policy: found, and replaced in their places, so that comments and order stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml


@dataclass(frozen=True, slots=True)
class Threshold:
    """One rule's ``risk_at_least`` in a policy's text, at the characters ``[start, end)``.

    ``number`` counts the rules of the whole text; ``tenant`` is None for the policy's own.
    """

    number: int
    tenant: str | None
    rule: str
    hazards: tuple[str, ...]
    side: str
    action: str
    mode: str | None
    value: float
    start: int
    end: int


def thresholds(text: str) -> list[Threshold]:
    """Every rule's threshold, in the order of the text. The policy must be a valid one."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    found: list[Threshold] = []
    parts = dict(_items(root))
    found.extend(_of_rules(parts.get("rules"), None, 0))
    for tenant, part in _items(parts.get("tenants")):
        found.extend(_of_rules(dict(_items(part)).get("rules"), tenant, len(found)))
    return found


def replaced(text: str, values: Mapping[int, float]) -> str:
    """``text`` with other thresholds, by the numbers of their rules. Raises ``KeyError`` for a rule it has not."""
    by_number = {threshold.number: threshold for threshold in thresholds(text)}
    changes = sorted(((by_number[number], value) for number, value in values.items()), key=lambda pair: -pair[0].start)
    for threshold, value in changes:
        if value != threshold.value:
            text = f"{text[: threshold.start]}{value:g}{text[threshold.end :]}"
    return text


def _of_rules(rules: yaml.Node | None, tenant: str | None, first: int) -> Iterator[Threshold]:
    if not isinstance(rules, yaml.SequenceNode):
        return
    for number, node in enumerate(rules.value, first):
        rule = dict(_items(node))
        risk = rule["risk_at_least"]
        hazard = rule["hazard"]
        names = hazard.value if isinstance(hazard, yaml.SequenceNode) else [hazard]
        mode = rule.get("mode")
        yield Threshold(
            number=number,
            tenant=tenant,
            rule=rule["name"].value,
            hazards=tuple(name.value for name in names),
            side=rule["side"].value,
            action=rule["action"].value,
            mode=mode.value if mode is not None else None,
            value=float(risk.value),
            start=risk.start_mark.index,
            end=risk.end_mark.index,
        )


def _items(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.value, value
