from __future__ import annotations

from gateway.case_records import Case, CaseFinding
from gateway.policy import Action, Policy
from gateway.review.backtest import backtest

RULES = '{rules: [{name: harmful, hazard: "*", side: any, risk_at_least: %s, action: block}]%s}'


def policy(threshold: float, tenants: str = "") -> Policy:
    return Policy.from_yaml(RULES % (threshold, tenants))


def case(risk: float, *, side: str = "request", tenant: str = "acme", **fields: object) -> Case:
    values = {"index": 0, "risk": risk, "hazard": "privacy", "risks": {"privacy": risk}, "role": "user", **fields}
    found = CaseFinding(side=side, **values)  # type: ignore[arg-type]  # a test's own
    return Case(id=f"case_{risk}", created_at=0.0, tenant=tenant, surface="chat", action="allow", findings=(found,))


def test_a_lower_threshold_would_have_blocked_more() -> None:
    replay = backtest([case(0.3), case(0.6), case(0.95)], policy(0.9), policy(0.5))
    assert (replay.cases, replay.changed, replay.stronger) == (3, 1, 1)
    assert replay.before == {Action.ALLOW: 2, Action.BLOCK: 1}
    assert replay.after == {Action.ALLOW: 1, Action.BLOCK: 2}
    (change,) = replay.changes
    assert (change.case_id, change.before, change.after) == ("case_0.6", Action.ALLOW, Action.BLOCK)


def test_a_higher_one_less_and_nothing_more_strictly() -> None:
    replay = backtest([case(0.6, side="response")], policy(0.5), policy(0.9))
    assert (replay.changed, replay.stronger) == (1, 0)


def test_each_case_falls_under_its_tenant_s_part() -> None:
    lenient = ", tenants: {trial: {mode: shadow}}"
    replay = backtest([case(0.95), case(0.95, tenant="trial")], policy(0.9), policy(0.9, lenient))
    assert replay.after == {Action.BLOCK: 1, Action.ALLOW: 1}


def test_an_older_case_without_risks_by_hazard_still_counts() -> None:
    assert backtest([case(0.95, risks={})], policy(0.9), policy(0.9)).before == {Action.BLOCK: 1}


def test_no_case_is_no_change() -> None:
    assert backtest([], policy(0.9), policy(0.1)).changed == 0
