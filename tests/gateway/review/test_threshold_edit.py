from __future__ import annotations

import pytest
import yaml

from gateway.policy import Policy
from gateway.policy_file import DEFAULT_POLICY_FILE
from gateway.review.threshold_edit import replaced, thresholds

SHIPPED = DEFAULT_POLICY_FILE.read_text("utf-8")

POLICY = """\
# A comment, with risk_at_least: 0.1 in it.
rules:
  - {name: first, hazard: privacy, side: any, risk_at_least: 0.9, action: block}  # é
  - name: second
    hazard: [privacy, hate]
    side: request
    risk_at_least: .5   # half
    action: flag
    mode: shadow
tenants:
  trial:
    rules: [{name: third, hazard: "*", side: any, risk_at_least: 1, action: block}]
  quiet: {mode: shadow}
"""


def test_every_rule_is_found_in_its_order() -> None:
    found = thresholds(POLICY)
    assert [(one.number, one.tenant, one.rule, one.value, one.mode) for one in found] == [
        (0, None, "first", 0.9, None),
        (1, None, "second", 0.5, "shadow"),
        (2, "trial", "third", 1.0, None),
    ]
    assert found[1].hazards == ("privacy", "hate")


def test_only_the_numbers_change_and_comments_stay() -> None:
    changed = replaced(POLICY, {0: 0.85, 1: 0.5, 2: 0.25})
    assert changed == POLICY.replace("0.9,", "0.85,").replace("risk_at_least: 1,", "risk_at_least: 0.25,")
    Policy.from_yaml(changed)


def test_the_same_numbers_change_nothing() -> None:
    assert replaced(SHIPPED, {one.number: one.value for one in thresholds(SHIPPED)}) == SHIPPED


@pytest.mark.parametrize("value", [0.0, 1.0, 0.123456, 1e-05])
def test_a_number_is_written_so_that_it_is_read_back(value: float) -> None:
    for number, one in enumerate(thresholds(SHIPPED)):
        text = replaced(SHIPPED, {number: value})
        assert float(thresholds(text)[number].value) == pytest.approx(value)
        before, after = yaml.safe_load(SHIPPED), yaml.safe_load(text)
        after["rules"][number]["risk_at_least"] = before["rules"][number]["risk_at_least"]
        assert after == before, one.rule


def test_a_rule_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        replaced(POLICY, {7: 0.5})
