import math
from itertools import product

import pytest
import yaml

from antiprompt_bank import Kind, Neighbour, Score, Side
from gateway.policy import Action, Decision, Finding, Mode, Policy, RewriteMethod
from gateway.wire.surface import Role
from tests.gateway.scores import finding, score

SIDES: tuple[Side, ...] = ("request", "response")
METHODS = {
    "request": [RewriteMethod.GUARD, RewriteMethod.REDACT, RewriteMethod.DESIRED_RESPONSE],
    "response": [RewriteMethod.REDACT, RewriteMethod.REGENERATE, RewriteMethod.DESIRED_RESPONSE],
}
ACTS = [
    (side, action, method)
    for side in SIDES
    for action in Action
    for method in (METHODS[side] if action is Action.REWRITE else [None])
]


def rule(
    name: str, hazard: object = "*", action: str = "block", risk: float = 0.5, **more: object
) -> dict[str, object]:
    made = {"name": name, "hazard": hazard, "side": "any", "risk_at_least": risk, "action": action, **more}
    if action == "rewrite":
        made.setdefault("rewrite", {"method": "desired_response"})
    return made


def policy(*rules: dict[str, object], **more: object) -> Policy:
    return Policy.from_yaml(yaml.safe_dump({"rules": list(rules), **more}))


@pytest.mark.parametrize(("act", "mode", "whole"), list(product(ACTS, Mode, Mode)))
@pytest.mark.parametrize("role", Role)
def test_what_a_rule_detects_is_enforced_unless_it_is_in_shadow(
    act: tuple[Side, Action, RewriteMethod | None], mode: Mode, whole: Mode, role: Role
) -> None:
    side, action, method = act
    more: dict[str, object] = {"rewrite": {"method": str(method), "max_tries": 4}} if method else {}
    decided = policy(rule("r", "hate", str(action), side=side, mode=str(mode), **more), mode=str(whole)).decide(
        [finding(side, role, 7, hate=0.6)]
    )
    if Mode.SHADOW in (mode, whole):
        assert (decided.action, decided.enforced, decided.rule, decided.hits) == (Action.ALLOW, False, None, ())
        assert [(hit.rule, hit.action, hit.index) for hit in decided.shadow] == [("r", action, 7)]
    else:
        assert (decided.action, decided.enforced, decided.rule, decided.finding) == (action, True, "r", 7)
        assert (decided.rewrite, decided.max_tries) == ((method, 4) if method else (None, 0))
        assert len(decided.hits) == (action is not Action.ALLOW)
        assert decided.shadow == ()
    assert (decided.hazard, decided.risk) == ("hate", 0.6)


@pytest.mark.parametrize("side", SIDES)
def test_a_rule_of_one_side_leaves_the_other_alone(side: Side) -> None:
    other: Side = "response" if side == "request" else "request"
    assert policy(rule("r", side=side)).decide([finding(other, "user", 0, hate=1.0)]).rule is None


@pytest.mark.parametrize(("risk", "hit"), [(0.4999, False), (0.5, True), (1.0, True)])
def test_a_threshold_belongs_to_what_it_hits(risk: float, hit: bool) -> None:
    assert (policy(rule("r")).decide([finding(hate=risk)]).action is Action.BLOCK) is hit


def test_a_rule_looks_at_the_risk_of_its_own_hazard_and_a_star_at_each() -> None:
    found = [finding(hate=0.9, privacy=0.4)]
    assert policy(rule("r", "privacy")).decide(found).rule is None
    assert policy(rule("r", ["privacy", "hate"])).decide(found).hazard == "hate"
    assert policy(rule("r", risk=0.3)).decide(found).hazards == ("hate", "privacy")


def test_the_first_rule_that_matches_decides_about_a_hazard() -> None:
    rules = rule("exception", "privacy", "flag"), rule("rest", "*", "block")
    assert policy(*rules).decide([finding(privacy=0.9)]).rule == "exception"
    assert policy(*rules).decide([finding(hate=0.9)]).rule == "rest"
    stronger = rule("strict", "privacy", "block", 0.9), rule("mild", "privacy", "flag", 0.5)
    assert policy(*stronger).decide([finding(privacy=0.95)]).rule == "strict"
    assert policy(*stronger).decide([finding(privacy=0.8)]).rule == "mild"


@pytest.mark.parametrize(
    ("nearest", "rule_is"),
    [
        ([("hate", True, Kind.AMBIGUOUS)], "asked"),
        ([("hate", True, Kind.ADVERSARIAL)], "rest"),
        ([("hate", True, None)], "rest"),
        ([("hate", True, Kind.ADVERSARIAL), ("hate", True, Kind.AMBIGUOUS)], "rest"),
        ([("privacy", True, Kind.ADVERSARIAL), ("hate", True, Kind.AMBIGUOUS)], "asked"),
        ([("privacy", True, Kind.AMBIGUOUS)], "rest"),
        ([("hate", False, Kind.AMBIGUOUS)], "rest"),
        ([], "rest"),
    ],
)
def test_a_rule_for_a_kind_looks_at_the_nearest_harmful_exemplar_of_the_hazard(
    nearest: list[tuple[str, bool, Kind | None]], rule_is: str
) -> None:
    """What nobody knows the kind of is none of its business."""
    near = [
        Neighbour(f"ap_{at}", 0.9, harmful, hazard, None, kind) for at, (hazard, harmful, kind) in enumerate(nearest)
    ]
    found = [Finding(score({"hate": 0.95}, near), "request", "user", 0)]
    assert policy(rule("asked", kind="ambiguous", action="rewrite"), rule("rest")).decide(found).rule == rule_is
    several = rule("asked", kind=["misleading", "ambiguous"], action="rewrite")
    assert policy(several, rule("rest")).decide(found).rule == rule_is


def test_allow_keeps_the_rules_below_from_a_hazard_but_not_from_another() -> None:
    decide = policy(rule("fiction", "sexual_content", "allow", 0), rule("rest")).decide
    allowed = decide([finding(sexual_content=0.99)])
    assert (allowed.action, allowed.rule, allowed.enforced, allowed.hits) == (Action.ALLOW, "fiction", True, ())
    assert decide([finding(sexual_content=0.99, hate=0.6)]).hazard == "hate"


def test_over_hazards_and_texts_the_strongest_action_wins() -> None:
    decide = policy(rule("a", "hate", "flag"), rule("b", "privacy", "rewrite"), rule("c", "elections", "block")).decide
    assert decide([finding(hate=0.99, privacy=0.5)]).rule == "b"
    decided = decide([finding(hate=0.99), finding("request", "tool", 1, elections=0.6), finding(privacy=0.9)])
    assert (decided.rule, decided.finding, decided.risk) == ("c", 1, 0.6)
    assert [hit.rule for hit in decided.hits] == ["c", "b", "a"]


def test_among_equal_actions_the_rewrite_that_changes_most_and_then_the_highest_risk_leads() -> None:
    guard = rule("guard", "hate", "rewrite", side="request", rewrite={"method": "guard"})
    answer = rule("answer", "privacy", "rewrite", side="request")
    decided = policy(guard, answer).decide([finding(hate=0.9), finding("request", "user", 1, privacy=0.6)])
    assert (decided.rule, decided.rewrite) == ("answer", RewriteMethod.DESIRED_RESPONSE)
    assert [hit.rewrite for hit in decided.by_text.values()] == [RewriteMethod.DESIRED_RESPONSE, RewriteMethod.GUARD]
    blocked = policy(rule("r")).decide([finding(hate=0.7), finding("request", "user", 1, hate=0.8)])
    assert (blocked.finding, blocked.risk) == (1, 0.8)


def test_each_text_has_its_strongest_hit_of_its_own() -> None:
    decided = policy(rule("a", "hate", "flag"), rule("b", "privacy", "block")).decide(
        [finding(hate=0.9, privacy=0.6), finding("request", "user", 3, hate=0.8)]
    )
    assert {index: hit.rule for index, hit in decided.by_text.items()} == {0: "b", 3: "a"}


def test_roles_narrow_a_rule() -> None:
    decide = policy(rule("r", roles=["tool", "definition"])).decide
    for role in Role:
        hit = decide([finding("request", role, 0, hate=0.9)]).rule == "r"
        assert hit is (role in (Role.TOOL, Role.DEFINITION))


def test_a_shadow_rule_is_recorded_and_reading_goes_on() -> None:
    decided = policy(rule("trial", "hate", "block", mode="shadow"), rule("rest", "*", "flag")).decide(
        [finding(hate=0.9)]
    )
    assert (decided.action, decided.rule) == (Action.FLAG, "rest")
    assert [(hit.rule, hit.action) for hit in decided.shadow] == [("trial", Action.BLOCK)]


def test_a_shadow_rule_that_would_not_have_decided_is_not_recorded() -> None:
    behind = policy(rule("first", "hate", "flag", 0.9), rule("trial", "hate", "block", 0.5, mode="shadow"))
    assert behind.decide([finding(hate=0.95)]).shadow == ()
    assert [hit.rule for hit in behind.decide([finding(hate=0.6)]).shadow] == ["trial"]


def test_nothing_found_and_nothing_to_judge_pass() -> None:
    decide = policy(rule("r", risk=0.01)).decide
    assert decide([]) == Decision(Action.ALLOW)
    assert decide([finding()]) == Decision(Action.ALLOW)


def test_a_pass_tells_the_riskiest_hazard_that_was_found() -> None:
    decided = policy(rule("r", risk=0.9)).decide([finding(hate=0.2), finding(privacy=0.4)])
    assert (decided.action, decided.hazard, decided.risk, decided.finding) == (Action.ALLOW, "privacy", 0.4, None)


def test_a_threshold_of_zero_hits_every_text() -> None:
    assert policy(rule("r", risk=0, action="flag")).decide([finding()]).action is Action.FLAG


def test_a_risk_that_is_not_a_number_is_never_harmless() -> None:
    broken = Score(math.nan, None, {}, (), "raw", 0, 1, 1)
    assert policy(rule("r", risk=0.9)).decide([Finding(broken, "request", "user", 0)]).action is Action.BLOCK


def test_an_unknown_role_is_a_mistake_and_not_a_pass() -> None:
    with pytest.raises(KeyError):
        policy(rule("r")).decide([finding("request", "developer", 0, hate=1.0)])


@pytest.mark.parametrize(("hazard", "at_risk"), [("self_harm", True), ("hate", False)])
def test_a_person_at_risk_is_seen_behind_any_stronger_hit(hazard: str, at_risk: bool) -> None:
    decided = policy(rule("r")).decide([finding(jailbreak=0.99, **{hazard: 0.6})])
    assert decided.hazard == "jailbreak"
    assert decided.person_at_risk is at_risk


def test_a_rewrite_of_a_reply_that_has_begun_to_leave_is_a_block() -> None:
    decided = policy(rule("r", action="rewrite")).decide([finding("response", "assistant", 2, hate=0.9)])
    unheld = decided.unheld()
    assert (unheld.action, unheld.rewrite, unheld.max_tries) == (Action.BLOCK, None, 0)
    assert (unheld.rule, unheld.finding, unheld.enforced) == ("r", 2, True)
    flagged = policy(rule("r", action="flag")).decide([finding("response", "assistant", 0, hate=0.9)])
    assert flagged.unheld() is flagged


def near(hazard: str | None, similarity: float, *, harmful: bool = True) -> Score:
    return score({}, [Neighbour("ap_1", similarity, harmful, hazard)])


WATCH = rule("r", "hate", "rewrite", side="response", watch_at_least=0.5)
WATCH_ANY = rule("r", "*", "rewrite", side="response", watch_at_least=0.5)


@pytest.mark.parametrize(
    ("rules", "scores", "held"),
    [
        ([], [score({"hate": 1.0})], False),
        ([rule("r", side="response")], [score({"hate": 1.0})], False),
        ([rule("r", action="rewrite", side="request")], [score({"hate": 1.0})], False),
        ([rule("r", action="rewrite", side="response")], [], True),
        ([rule("r", action="rewrite", side="any")], [], True),
        ([rule("r", action="rewrite", side="response", mode="shadow")], [], False),
        ([WATCH], [], False),
        ([WATCH], [score({"hate": 0.5})], True),
        ([WATCH], [score({"hate": 0.4, "privacy": 0.9})], False),
        ([WATCH], [near("hate", 0.5)], True),
        ([WATCH], [near("hate", 0.5, harmful=False)], True),
        ([WATCH], [near("hate", 0.4)], False),
        ([WATCH], [near("privacy", 0.9), near(None, 0.9)], False),
        ([WATCH], [near("privacy", 0.9), near("hate", 0.6)], True),
        ([WATCH_ANY], [near("privacy", 0.6)], True),
        ([WATCH_ANY], [near(None, 0.9, harmful=False)], False),
        ([WATCH_ANY], [score({"privacy": 0.6})], True),
    ],
)
def test_a_stream_is_held_whole_where_a_rewrite_may_be_needed(
    rules: list[dict[str, object]], scores: list[Score], held: bool
) -> None:
    assert policy(*rules).holds_whole_reply(scores) is held
