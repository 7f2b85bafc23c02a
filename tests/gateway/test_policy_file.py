import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from antiprompt_bank import HAZARDS, Kind
from gateway.policy_file import (
    DEFAULT_POLICY_FILE,
    MAX_POLICY_BYTES,
    SCHEMA_FILE,
    PolicyError,
    json_schema,
    read_policy_file,
)

RULE = {"name": "r", "hazard": "hate", "side": "request", "risk_at_least": 0.5, "action": "block"}


def rules(*changes: dict[str, object]) -> str:
    """A policy of one rule for each of ``changes`` to RULE; None takes a key away."""
    made = [{key: value for key, value in (RULE | change).items() if value is not None} for change in changes]
    return yaml.safe_dump({"rules": made})


def problems(text: str) -> str:
    with pytest.raises(PolicyError) as error:
        read_policy_file(text)
    return "\n".join(error.value.problems)


def test_the_default_policy_can_be_used_and_fits_the_schema() -> None:
    text = DEFAULT_POLICY_FILE.read_text("utf-8")
    assert read_policy_file(text).rules
    Draft202012Validator(json_schema()).validate(yaml.safe_load(text))


def test_the_schema_that_ships_is_the_one_the_code_has() -> None:
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == json_schema()
    Draft202012Validator.check_schema(json_schema())


def test_the_default_policy_explains_every_key_and_the_example_in_its_comments_can_be_used() -> None:
    text = DEFAULT_POLICY_FILE.read_text("utf-8")
    models = json_schema()["$defs"]
    for key in (*json_schema()["properties"], *models["Rule"]["properties"], *models["Strikes"]["properties"]):
        assert key in text, key
    example = text.partition("# tenants:\n")[2].partition("tenants: {}")[0]
    uncommented = "tenants:\n" + "\n".join(line.removeprefix("# ") for line in example.splitlines())
    assert set(read_policy_file(text.replace("tenants: {}", uncommented)).tenants) == {"fiction-workshop", "trial"}


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        (rules({"hazard": "hatee"}), "rules[0].hazard", "did you mean 'hate'"),
        (rules({"hazard": []}), "rules[0].hazard", "names no hazard"),
        (rules({"hazard": ["*", "hate"]}), "rules[0].hazard", "stands for all hazards"),
        (rules({"hazard": 3}), "rules[0].hazard", "there is no hazard 3"),
        (rules({"kind": "ambigous"}), "rules[0].kind", "there is no kind 'ambigous'; did you mean 'ambiguous'"),
        (rules({"kind": []}), "rules[0].kind", "names no kind"),
        (rules({"kind": ["ambiguous", 3]}), "rules[0].kind", "there is no kind 3"),
        ("strikes: {warn_at: 5, slow_at: 3}", "strikes", "warn_at is 5, above slow_at"),
        ("strikes: {warn_at: 5, suspend_at: 3}", "strikes", "warn_at is 5, above suspend_at"),
        ("strikes: {warn_at: 0}", "strikes.warn_at", "greater than or equal to 0.5"),
        ("strikes: {ban_at: 5}", "strikes.ban_at", "there is no such key"),
        (rules({"strike": 11}), "rules[0].strike", "less than or equal to 10"),
        (rules({"action": "flag", "strike": 1}), "rules[0]", "strike belongs to action block"),
        (rules({"risk_at_least": 1.1}), "rules[0].risk_at_least", "less than or equal to 1, not 1.1"),
        (rules({"risk_at_least": -0.1}), "rules[0].risk_at_least", "greater than or equal to 0"),
        (rules({"risk_at_least": True}), "rules[0].risk_at_least", "valid number, not True"),
        (rules({"risk_at_least": "0.5"}), "rules[0].risk_at_least", "valid number"),
        (rules({"risk_at_least": float("nan")}), "rules[0].risk_at_least", "finite number"),
        (rules({"risk_at_least": None}), "rules[0].risk_at_least", "is missing"),
        (rules({"risk_atleast": 0.5}), "rules[0].risk_atleast", "did you mean 'risk_at_least'"),
        (rules({"action": "deny"}), "rules[0].action", "'allow', 'flag', 'rewrite' or 'block', not 'deny'"),
        (rules({"side": "both"}), "rules[0].side", "'request', 'response' or 'any'"),
        (rules({"roles": []}), "rules[0].roles", "at least 1 item"),
        (rules({"roles": ["developer"]}), "rules[0].roles[0]", "'system'"),
        (rules({"name": "Two Words"}), "rules[0].name", "lower-case letters"),
        (rules({"mode": "off"}), "rules[0].mode", "'enforce' or 'shadow'"),
        (rules({"action": "rewrite"}), "rules[0]", "needs a rewrite"),
        (rules({"rewrite": {"method": "redact"}}), "rules[0]", "rewrite belongs to action rewrite"),
        (rules({"watch_at_least": 0.5}), "rules[0]", "watch_at_least belongs to action rewrite"),
        (rules({"action": "rewrite", "rewrite": {"method": "shout"}}), "rules[0].rewrite.method", "'guard'"),
        (
            rules({"action": "rewrite", "rewrite": {"method": "redact", "max_tries": 6}}),
            "rules[0].rewrite.max_tries",
            "less than or equal to 5",
        ),
        (
            rules({"action": "rewrite", "rewrite": {"method": "redact"}, "watch_at_least": 0.5}),
            "rules[0]",
            "this one is for requests",
        ),
        (rules({}, {}), "rules", "two rules are named 'r'"),
        ("mode: on", "mode", "'enforce' or 'shadow', not True"),
        ("block_style: gentle", "block_style", "'refusal' or 'error'"),
        ("on_unavailable: {input: pass}", "on_unavailable.input", "'block' or 'allow'"),
        ("on_unavailable: block", "on_unavailable", "must be"),
        ("overlap: 1", "overlap", "valid boolean"),
        ("ruls: []", "ruls", "did you mean 'rules'"),
        ("tenants: {'a:b': {}}", "tenants.a:b", "letters, digits"),
        ("tenants: {kids: {locked: true}}", "tenants.kids.locked", "no such key"),
    ],
)
def test_a_mistake_is_told_with_its_path_and_a_hint(text: str, path: str, hint: str) -> None:
    told = problems(text)
    assert any(line.startswith(f"{path}: ") and hint in line for line in told.splitlines()), told


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("rules: [", "line 1: "),
        ("mode: enforce\nmode: shadow", "line 2: 'mode' is given twice"),
        ("rules:\n  - {name: r, hazard: *, side: any}", 'put the star in quotes: hazard: "*"'),
        ("mode: 2026-13-45", "is not YAML"),
        ("[" * 20_000, "is not YAML"),
        ("mode: !!python/object:os.system x", "could not determine a constructor"),
        ("#" * (MAX_POLICY_BYTES + 1), "longer than"),
        ("? {a: b}\n: c", "unhashable"),
    ],
)
def test_what_is_no_policy_at_all_is_told_as_such(text: str, hint: str) -> None:
    assert hint in problems(text)


def test_every_mistake_is_told_at_once() -> None:
    told = problems(rules({"name": "a", "action": "deny"}, {"name": "b", "side": "up"}) + "ruls: 1\n")
    assert [line.partition(":")[0] for line in told.splitlines()] == ["rules[0].action", "rules[1].side", "ruls"]


@pytest.mark.parametrize(
    ("side", "method", "usable"),
    [
        ("request", "desired_response", True),
        ("request", "redact", True),
        ("request", "guard", True),
        ("request", "regenerate", False),
        ("response", "desired_response", True),
        ("response", "redact", True),
        ("response", "guard", False),
        ("response", "regenerate", True),
        ("any", "desired_response", True),
        ("any", "redact", True),
        ("any", "guard", False),
        ("any", "regenerate", False),
    ],
)
def test_a_rewrite_method_is_refused_where_it_has_no_meaning(side: str, method: str, usable: bool) -> None:
    text = rules({"side": side, "action": "rewrite", "rewrite": {"method": method}})
    if usable:
        assert read_policy_file(text)
    else:
        assert f"{method} cannot rewrite a" in problems(text)


@pytest.mark.parametrize(
    ("earlier", "later", "dead"),
    [
        ({"hazard": "*", "risk_at_least": 0.5}, {}, True),
        ({"risk_at_least": 0.4}, {}, True),
        ({"risk_at_least": 0.6}, {}, False),
        ({"hazard": ["hate", "privacy"]}, {}, True),
        ({}, {"hazard": "*"}, False),
        ({"side": "any"}, {}, True),
        ({}, {"side": "any"}, False),
        ({"roles": ["user"]}, {}, False),
        ({}, {"roles": ["user"]}, True),
        ({"roles": ["user", "tool"]}, {"roles": ["user"]}, True),
        ({"kind": "ambiguous"}, {}, False),
        ({}, {"kind": "ambiguous"}, True),
        ({"kind": ["ambiguous", "misleading"]}, {"kind": "misleading"}, True),
        ({"kind": "misleading"}, {"kind": ["ambiguous", "misleading"]}, False),
        ({"mode": "shadow"}, {}, False),
        ({"mode": "shadow"}, {"mode": "shadow"}, True),
        ({}, {"mode": "shadow"}, True),
    ],
)
def test_a_rule_that_can_never_act_is_refused(earlier: dict[str, object], later: dict[str, object], dead: bool) -> None:
    text = rules({"name": "first", "action": "flag"} | earlier, {"name": "second"} | later)
    if dead:
        assert "'second' can never act, because 'first' before it matches first" in problems(text)
    else:
        assert read_policy_file(text)


def test_a_tenants_rule_needs_a_name_of_its_own_but_may_cover_the_policys() -> None:
    base = yaml.safe_load(rules({}))
    named = base | {"tenants": {"kids": {"rules": [RULE]}}}
    assert "a rule is named 'r' already" in problems(yaml.safe_dump(named))
    covering = base | {"tenants": {"kids": {"rules": [RULE | {"name": "k", "hazard": "*", "risk_at_least": 0}]}}}
    assert read_policy_file(yaml.safe_dump(covering))


def test_the_schema_knows_every_hazard_and_refuses_what_the_code_refuses() -> None:
    validator = Draft202012Validator(json_schema())
    for hazard in ("*", *HAZARDS, ["hate", "privacy"]):
        assert validator.is_valid({"rules": [RULE | {"hazard": hazard}]})
    for kind in (*Kind, [*Kind]):
        assert validator.is_valid({"rules": [RULE | {"kind": kind}]})
    for wrong in (
        {"hazard": "hatee"},
        {"hazard": []},
        {"kind": "odd"},
        {"kind": []},
        {"risk_at_least": 2},
        {"action": "deny"},
        {"more": 1},
    ):
        assert not validator.is_valid({"rules": [RULE | wrong]})
