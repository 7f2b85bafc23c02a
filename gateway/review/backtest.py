"""Backtest: what a policy would have done with the last day's cases, from the risks that were kept, without a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from antiprompt_bank import Score
from gateway.case_records import Case, CaseFinding
from gateway.policy import Action, Finding, Policy

SHOWN_CHANGES: Final = 50


@dataclass(frozen=True, slots=True)
class Change:
    """A case that another policy would have treated otherwise."""

    case_id: str
    at: float
    hazard: str | None
    risk: float
    before: Action
    after: Action


@dataclass(frozen=True, slots=True)
class Backtest:
    """How often each action is taken by the policy in force and by the other one, on the same ``cases``.

    ``changes`` holds the newest of the ``changed`` cases; ``stronger`` of them would have met a stronger action.
    """

    cases: int
    before: Mapping[Action, int]
    after: Mapping[Action, int]
    changed: int
    stronger: int
    changes: tuple[Change, ...]


def backtest(cases: Sequence[Case], policy: Policy, other: Policy) -> Backtest:
    """Decide every case by both policies. Tenants are those of the cases; what callers wished for is not known."""
    before: Counter[Action] = Counter()
    after: Counter[Action] = Counter()
    changes = []
    for case in cases:
        old, new = _action(case, policy), _action(case, other)
        before[old] += 1
        after[new] += 1
        if old is not new:
            changes.append(Change(case.id, case.created_at, case.hazard, case.risk, old, new))
    stronger = sum(change.after.strength > change.before.strength for change in changes)
    return Backtest(len(cases), before, after, len(changes), stronger, tuple(changes[:SHOWN_CHANGES]))


def _action(case: Case, policy: Policy) -> Action:
    """What is done about a case: with its request and, if that passes, with its reply."""
    mine = policy.for_tenant(case.tenant)
    sides: list[Action] = []
    for side in ("request", "response"):
        findings = [_finding(found) for found in case.findings if found.side == side]
        if findings:
            sides.append(mine.decide(findings).action)
    return max(sides, key=lambda action: action.strength, default=Action.ALLOW)


def _finding(found: CaseFinding) -> Finding:
    risks = found.risks or ({found.hazard: found.risk} if found.hazard is not None else {})
    score = Score(found.risk, found.hazard, risks, (), found.view, found.start, found.end, 1)
    return Finding(score, found.side, found.role, found.index)
