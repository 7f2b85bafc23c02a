import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from antiprompt_bank import HAZARDS, Kind, Neighbour, Side
from gateway.errors import BadRequest
from gateway.policy import (
    STRICT_FACTOR,
    Action,
    Decision,
    Finding,
    Mode,
    Policy,
    RewriteMethod,
    Strictness,
    Unscreened,
)
from gateway.policy_file import DEFAULT_POLICY_FILE, PolicyError
from gateway.wire.surface import Role
from tests.gateway.scores import finding, score

BLOCK_HATE = {"name": "hate", "hazard": "hate", "side": "any", "risk_at_least": 0.5, "action": "block"}


@pytest.fixture(scope="module")
def default() -> Policy:
    return Policy.from_yaml(DEFAULT_POLICY_FILE.read_text("utf-8"))


def policy(*rules: dict[str, object], **more: object) -> Policy:
    return Policy.from_yaml(yaml.safe_dump({"rules": list(rules), **more}))


# ---- Versions.


def test_the_version_follows_what_a_policy_says_and_not_how_it_is_written() -> None:
    plain = Policy.from_yaml("mode: enforce\noverlap: false\n")
    same = Policy.from_yaml("# a comment\n{overlap: false, rules: [], mode: enforce}")
    other = Policy.from_yaml("mode: enforce\noverlap: true\n")
    assert plain.content_hash == same.content_hash != other.content_hash
    assert plain.content_hash.startswith(plain.version)
    assert plain.in_shadow().version == plain.version


def test_a_policy_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"rules: .*must be"):
        Policy.from_yaml("rules: 3")


# ---- Tenants.


def test_a_tenants_part_replaces_choices_and_stands_before_the_rules() -> None:
    kids = {
        "mode": "enforce",
        "block_style": "error",
        "unreadable": "pass",
        "overlap": True,
        "stream_hold": "whole",
        "on_unavailable": {"input": "allow"},
        "rules": [{"name": "kids", "hazard": "hate", "side": "any", "risk_at_least": 0.1, "action": "flag"}],
    }
    base = policy(BLOCK_HATE, mode="shadow", tenants={"kids": kids, "same": {}})
    view = base.for_tenant("kids")
    assert (view.mode, view.block_style, view.unreadable, view.overlap, view.stream_hold) == (
        Mode.ENFORCE,
        "error",
        "pass",
        True,
        "whole",
    )
    assert (view.on_unavailable.input, view.on_unavailable.output) == (Unscreened.ALLOW, Unscreened.BLOCK)
    assert view.decide([finding(hate=0.9)]).rule == "kids"
    assert (view.tenant, view.version) == ("kids", base.version)
    assert base.decide([finding(hate=0.9)]).rule is None
    assert base.for_tenant("same").decide([finding(hate=0.9)]) == base.decide([finding(hate=0.9)])
    assert base.tenants == {"kids", "same"}


@pytest.mark.parametrize("name", [None, "nobody", ""])
def test_a_tenant_without_a_part_has_the_policy_itself(name: str | None) -> None:
    base = policy(BLOCK_HATE, tenants={"kids": {"mode": "shadow"}})
    assert base.for_tenant(name) is base


def test_streams_are_held_whole_where_the_policy_says_so() -> None:
    assert policy(stream_hold="whole").holds_whole_reply([])
    assert not policy(stream_hold="window").holds_whole_reply([])
    assert not policy().holds_whole_reply([])


# ---- A caller's wish.


@pytest.mark.parametrize(
    ("header", "wish"),
    [(None, "default"), ("default", "default"), ("strict", "strict"), (" Strict ", "strict")],
)
def test_a_caller_can_wish_for_strictness(header: str | None, wish: str) -> None:
    assert Strictness.from_header(header) == wish


@pytest.mark.parametrize("header", ["off", "shadow", "", "lenient"])
def test_a_wish_for_less_is_an_error_that_says_what_can_be_wished_for(header: str) -> None:
    with pytest.raises(BadRequest, match="can only strengthen") as error:
        Strictness.from_header(header)
    assert error.value.param == "x-antiprompt-policy"


def test_strict_lowers_thresholds_by_the_stated_factor() -> None:
    strict = policy(BLOCK_HATE).strengthened(Strictness.STRICT)
    assert strict.decide([finding(hate=0.5 * STRICT_FACTOR)]).action is Action.BLOCK
    assert strict.decide([finding(hate=0.5 * STRICT_FACTOR - 0.01)]).action is Action.ALLOW


def test_strict_enforces_shadow_and_lets_nothing_by_unscreened() -> None:
    open_to_all = policy(
        BLOCK_HATE,
        mode="shadow",
        on_unavailable={"input": "allow", "output": "allow"},
        unreadable="pass",
        overlap=True,
    )
    strict = open_to_all.strengthened(Strictness.STRICT)
    assert strict.decide([finding(hate=0.9)]).action is Action.BLOCK
    assert (strict.on_unavailable.input, strict.on_unavailable.output) == (Unscreened.BLOCK, Unscreened.BLOCK)
    assert (strict.unreadable, strict.overlap) == ("refuse", False)
    assert open_to_all.strengthened(Strictness.DEFAULT) is open_to_all


def test_strict_arms_the_watch_earlier_and_for_shadow_rules_too() -> None:
    rewrite = BLOCK_HATE | {"action": "rewrite", "rewrite": {"method": "desired_response"}, "watch_at_least": 0.5}
    near = [score({}, [Neighbour("ap_1", 0.45, True, "hate")])]
    for mode in Mode:
        base = policy(rewrite, mode=str(mode))
        assert not base.holds_whole_reply(near)
        assert base.strengthened(Strictness.STRICT).holds_whole_reply(near)


def test_strict_does_not_widen_what_is_allowed() -> None:
    allow = {"name": "fine", "hazard": "hate", "side": "any", "risk_at_least": 0.9, "action": "allow"}
    shadow_allow = {
        "name": "all",
        "hazard": "*",
        "side": "any",
        "risk_at_least": 0,
        "action": "allow",
        "mode": "shadow",
    }
    base = policy(allow, shadow_allow, BLOCK_HATE)
    assert base.strengthened(Strictness.STRICT).decide([finding(hate=0.8)]).action is Action.BLOCK


RISKS = st.sampled_from([0.0, 0.1, 0.39, 0.4, 0.49, 0.5, 0.63, 0.79, 0.8, 0.9, 1.0])
SLUGS = ("hate", "privacy", "self_harm")


@st.composite
def rule_lists(draw: st.DrawFn) -> list[dict[str, object]]:
    """Any rules, in any order, those that can never act left out."""
    kept: list[dict[str, object]] = []
    for number in range(draw(st.integers(0, 6))):
        action = draw(st.sampled_from(list(Action)))
        rule: dict[str, object] = {
            "name": f"r{number}",
            "hazard": draw(st.sampled_from(["*", *SLUGS, list(SLUGS[:2])])),
            "side": draw(st.sampled_from(["request", "response", "any"])),
            "risk_at_least": draw(RISKS),
            "action": str(action),
            "mode": draw(st.sampled_from(["enforce", "shadow"])),
        }
        if action is Action.REWRITE:
            rule["rewrite"] = {"method": draw(st.sampled_from(["desired_response", "redact"]))}
        if draw(st.booleans()):
            rule["roles"] = [str(role) for role in draw(st.sets(st.sampled_from(list(Role)), min_size=1))]
        try:
            policy(*kept, rule)
        except PolicyError:
            continue
        kept.append(rule)
    return kept


FINDINGS = st.lists(
    st.builds(
        lambda risks, side, role: Finding(score(risks), side, role, 0),
        st.dictionaries(st.sampled_from(SLUGS), RISKS, max_size=3),
        st.sampled_from(["request", "response"]),
        st.sampled_from([str(role) for role in Role]),
    ),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(rules=rule_lists(), found=FINDINGS, mode=st.sampled_from(list(Mode)))
def test_no_policy_is_weaker_under_a_callers_wish(
    rules: list[dict[str, object]], found: list[Finding], mode: Mode
) -> None:
    base = policy(*rules, mode=str(mode))
    strict = base.strengthened(Strictness.STRICT)
    assert strict.decide(found).action.strength >= base.decide(found).action.strength
    scores = [each.score for each in found]
    assert strict.holds_whole_reply(scores) >= base.holds_whole_reply(scores)


@settings(max_examples=80, deadline=None)
@given(rules=rule_lists(), found=FINDINGS)
def test_break_glass_enforces_nothing_and_records_what_would_have_been_done(
    rules: list[dict[str, object]], found: list[Finding]
) -> None:
    base = policy(*rules, tenants={"kids": {"mode": "enforce"}})
    opened = base.in_shadow()
    for view in (opened, opened.for_tenant("kids"), opened.strengthened(Strictness.STRICT)):
        decided = view.decide(found)
        assert (decided.action, decided.enforced, decided.hits) == (Action.ALLOW, False, ())
        assert not view.holds_whole_reply([each.score for each in found])
    enforced = {hit.rule for hit in base.decide(found).hits}
    assert enforced <= {hit.rule for hit in opened.decide(found).shadow} | _behind_shadow(rules)


def _behind_shadow(rules: list[dict[str, object]]) -> set[object]:
    """Rules behind one that was in shadow already: with all in shadow, that one is what would decide."""
    first = next((n for n, rule in enumerate(rules) if rule["mode"] == "shadow"), len(rules))
    return {rule["name"] for rule in rules[first:]}


def test_break_glass_lets_pass_what_cannot_be_screened_or_read() -> None:
    opened = policy(BLOCK_HATE).in_shadow()
    assert (opened.on_unavailable.input, opened.on_unavailable.output) == (Unscreened.ALLOW, Unscreened.ALLOW)
    assert (opened.unreadable, opened.mode, opened.break_glass) == ("pass", Mode.SHADOW, True)


# ---- The policy that ships.


OF_THEIR_OWN = {"self_harm", "specialized_advice", "unreadable"}
"""Hazards that have rules of their own in it."""


@pytest.mark.parametrize("hazard", sorted(HAZARDS.keys() - OF_THEIR_OWN - {"child_exploitation"}))
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_harmful_is_blocked_risky_rewritten_doubtful_flagged_and_the_rest_unchanged(
    default: Policy, hazard: str, role: str
) -> None:
    def act(risk: float) -> Decision:
        return default.decide([finding("request", role, 0, **{hazard: risk})])

    assert [act(risk).action for risk in (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.49, 0.0)] == [
        *[Action.BLOCK] * 2,
        *[Action.REWRITE] * 2,
        *[Action.FLAG] * 2,
        *[Action.ALLOW] * 2,
    ]
    assert act(0.8).rewrite is RewriteMethod.GUARD


@pytest.mark.parametrize(
    ("risk", "default_is", "strict_is"),
    [
        (1.0, "asked", "asked"),
        (0.9, "asked", "asked"),
        (0.8, "guarded", "blocked"),
        (0.6, "flagged", "guarded"),
    ],
)
def test_what_may_be_meant_well_is_asked_back_about(
    default: Policy, risk: float, default_is: str, strict_is: str
) -> None:
    """Neither answered nor turned away: the exemplar says what to ask. Strictness makes no milder case of others."""
    near = [Neighbour("ap_1", 0.9, True, "privacy", None, Kind.AMBIGUOUS)]
    found = [Finding(score({"privacy": risk}, near), "request", "user", 0)]

    def done(policy: Policy) -> str:
        decided = policy.decide(found)
        if decided.action is Action.REWRITE:
            return "asked" if decided.rewrite is RewriteMethod.DESIRED_RESPONSE else "guarded"
        return {Action.BLOCK: "blocked", Action.FLAG: "flagged"}[decided.action]

    assert done(default) == default_is
    assert done(default.strengthened(Strictness.STRICT)) == strict_is


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize("role", Role)
def test_what_nobody_can_read_is_flagged_and_never_stopped(default: Policy, side: Side, role: Role) -> None:
    for risk, action in ((0.49, Action.ALLOW), (0.5, Action.FLAG), (0.9, Action.FLAG), (1.0, Action.FLAG)):
        assert default.decide([finding(side, role, 0, unreadable=risk)]).action is action


@pytest.mark.parametrize("hazard", sorted(HAZARDS.keys() - OF_THEIR_OWN))
def test_a_harmful_reply_is_blocked(default: Policy, hazard: str) -> None:
    decided = default.decide([finding("response", "assistant", 0, **{hazard: 0.95})])
    assert decided.action is Action.BLOCK


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("risk", [0.5, 0.7, 0.9, 1.0])
def test_a_question_about_health_law_or_money_is_never_refused(default: Policy, role: Role, risk: float) -> None:
    decided = default.decide([finding("request", role, 0, specialized_advice=risk)])
    assert decided.action is not Action.BLOCK
    assert decided.rewrite in (None, RewriteMethod.GUARD)


def test_dangerous_advice_is_replaced_and_the_stream_of_such_a_question_held_whole(default: Policy) -> None:
    decided = default.decide([finding("response", "assistant", 0, specialized_advice=0.8)])
    assert (decided.action, decided.rewrite) == (Action.REWRITE, RewriteMethod.DESIRED_RESPONSE)
    fair_question = score({}, [Neighbour("ap_1", 0.7, False, "specialized_advice")])
    everyday = score(
        {"hate": 0.2}, [Neighbour("ap_2", 0.4, True, "specialized_advice"), Neighbour("ap_3", 0.8, False, None)]
    )
    assert default.holds_whole_reply([everyday, fair_question])
    assert not default.holds_whole_reply([everyday])


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("risk", [0.7, 0.8, 0.9, 1.0])
def test_a_person_in_danger_is_never_met_with_a_bare_block(
    default: Policy, side: Side, role: Role, risk: float
) -> None:
    decided = default.decide([finding(side, role, 0, self_harm=risk)])
    assert decided.action is Action.REWRITE
    assert decided.person_at_risk


@pytest.mark.parametrize("hazard", ["indirect_injection", "prompt_injection", "jailbreak", "prompt_leak"])
def test_an_injection_is_cut_out_of_a_document_and_no_attack_in_a_system_prompt_is_blocked_for_speaking_of_one(
    default: Policy, hazard: str
) -> None:
    document = default.decide([finding("request", "tool", 0, **{hazard: 0.95})])
    assert (document.rewrite, document.max_tries) == (RewriteMethod.REDACT, 3)
    instructions = default.decide([finding("request", "system", 0, **{hazard: 0.95})])
    assert instructions.action is (Action.BLOCK if hazard == "jailbreak" else Action.FLAG)
    definition = default.decide([finding("request", "definition", 0, **{hazard: 0.95})])
    assert definition.action is Action.BLOCK


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize("role", Role)
def test_what_sexualises_children_is_blocked_from_a_lower_risk_on(default: Policy, side: Side, role: Role) -> None:
    assert default.decide([finding(side, role, 0, child_exploitation=0.7)]).action is Action.BLOCK


def test_the_default_fails_closed(default: Policy) -> None:
    assert (default.on_unavailable.input, default.on_unavailable.output) == (Unscreened.BLOCK, Unscreened.BLOCK)
    assert (default.unreadable, default.overlap, default.locked) == ("refuse", False, False)


# ---- Strikes.

HELD_BACK = {"name": "held-back", "hazard": "hate", "side": "any", "risk_at_least": 0.9, "action": "block"}


@pytest.mark.parametrize(
    ("rule", "hazard", "weight"),
    [
        ({}, "hate", 1.0),
        ({"strike": 4}, "hate", 4.0),
        ({"strike": 0}, "hate", 0.0),
        ({"action": "flag"}, "hate", 0.0),
        ({"action": "rewrite", "rewrite": {"method": "desired_response"}}, "hate", 0.0),
        ({"mode": "shadow"}, "hate", 0.0),
        ({"hazard": "self_harm"}, "self_harm", 0.0),
        ({"hazard": "self_harm", "strike": 0.5}, "self_harm", 0.5),
        ({"hazard": "unreadable"}, "unreadable", 0.0),
    ],
)
def test_a_block_weighs_what_its_rule_says_and_nothing_else_weighs_anything(
    rule: dict[str, object], hazard: str, weight: float
) -> None:
    made = policy({**BLOCK_HATE, **rule})
    assert made.strike_weight(made.decide([finding(**{hazard: 0.95})])) == weight
    assert made.strike_weight(made.decide([finding(**{hazard: 0.1})])) == 0


def test_a_rewrite_that_became_a_block_on_the_way_is_no_strike() -> None:
    made = policy({**BLOCK_HATE, "action": "rewrite", "rewrite": {"method": "desired_response"}})
    decision = made.decide([finding("response", hate=0.9)]).unheld()
    assert decision.action is Action.BLOCK
    assert made.strike_weight(decision) == 0


def test_nothing_in_shadow_is_a_strike_or_has_one_followed() -> None:
    rules = {"warn_at": 1, "suspend_at": 1}
    made = policy(BLOCK_HATE, strikes=rules)
    hit = [finding(hate=0.95)]
    enforced = made.decide(hit)
    assert made.strikes.follows
    for view in (policy(BLOCK_HATE, strikes=rules, mode="shadow"), made.in_shadow(), made.recording()):
        assert view.strike_weight(view.decide(hit)) == 0
        assert view.strike_weight(enforced) == 0
        assert not view.strikes.follows


def test_a_strict_caller_s_own_wish_makes_no_strike_of_a_shadow_rule() -> None:
    made = policy({**BLOCK_HATE, "mode": "shadow"}, {**HELD_BACK, "risk_at_least": 1.0}).strengthened(Strictness.STRICT)
    decision = made.decide([finding(hate=0.6)])
    assert (decision.action, decision.rule) == (Action.BLOCK, "hate")
    assert made.strike_weight(decision) == 0


def test_a_tenant_s_strikes_replace_the_policy_s() -> None:
    made = policy(BLOCK_HATE, strikes={"warn_at": 3}, tenants={"kids": {"strikes": {"suspend_at": 2}}, "same": {}})
    assert (made.strikes.warn_at, made.for_tenant("same").strikes.warn_at) == (3, 3)
    assert (made.for_tenant("kids").strikes.warn_at, made.for_tenant("kids").strikes.suspend_at) == (None, 2)


def test_a_policy_that_says_nothing_of_strikes_keeps_the_version_it_had_before_there_were_any() -> None:
    assert policy(BLOCK_HATE, tenants={"kids": {}}).version == "d3450a9fc12a"
    assert policy({**BLOCK_HATE, "strike": 2}).version != policy(BLOCK_HATE).version
    assert policy(BLOCK_HATE, strikes={}).version != policy(BLOCK_HATE).version
