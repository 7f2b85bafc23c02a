"""The policy file: what may stand in it, and what is wrong with it when it cannot be used.

A policy is data. It is read from YAML, checked whole, and every problem is told at once, each with its path and a
hint. ``gateway/policy.yaml`` is the default and explains each key; ``gateway/policy.schema.json`` is made from the
models here (``json_schema``), for editors and for the tests that hold the two together.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Hashable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from antiprompt_bank.hazards import HAZARDS
from antiprompt_bank.records import Kind, Side
from gateway.strike_rules import Strikes
from gateway.wire.surface import Role

DEFAULT_POLICY_FILE: Final = Path(__file__).with_name("policy.yaml")
SCHEMA_FILE: Final = Path(__file__).with_name("policy.schema.json")
MAX_POLICY_BYTES: Final = 256 << 10
ANY_HAZARD: Final = "*"


class PolicyError(Exception):
    """The policy cannot be used. ``problems`` holds one line each: the path, what is wrong, and a hint."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the policy is not valid:\n  " + "\n  ".join(self.problems))


class Action(StrEnum):
    """What is done with a text, weakest first."""

    ALLOW = "allow"
    FLAG = "flag"
    REWRITE = "rewrite"
    BLOCK = "block"

    @property
    def strength(self) -> int:
        """0 for allow up to 3 for block."""
        return _ACTIONS.index(self)


_ACTIONS: Final = tuple(Action)


class RewriteMethod(StrEnum):
    """How a text is rewritten, the one that changes least first."""

    GUARD = "guard"  # a safety instruction is put before what the model reads
    REDACT = "redact"  # the matched passage is cut out
    REGENERATE = "regenerate"  # the model is asked again, with a corrective instruction
    DESIRED_RESPONSE = "desired_response"  # the reply is what the nearest exemplar says a model should answer

    @property
    def strength(self) -> int:
        """0 for guard up to 3 for desired_response."""
        return _METHODS.index(self)


_METHODS: Final = tuple(RewriteMethod)
_METHODS_OF_SIDE: Final[Mapping[Side, frozenset[RewriteMethod]]] = {
    "request": frozenset(_METHODS) - {RewriteMethod.REGENERATE},
    "response": frozenset(_METHODS) - {RewriteMethod.GUARD},
}


class Mode(StrEnum):
    """Whether rules act, or only record what they would have done."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class Unscreened(StrEnum):
    """What happens to a text that could not be screened."""

    BLOCK = "block"
    ALLOW = "allow"


def _hazards(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list | tuple) else [value]
    if not names:
        raise ValueError('names no hazard; write "*" for all of them')
    for name in names:
        if name == ANY_HAZARD and len(names) > 1:
            raise ValueError('"*" stands for all hazards and alone')
        if name != ANY_HAZARD and name not in HAZARDS:
            raise ValueError(f"there is no hazard {name!r}{_nearest(str(name), HAZARDS)}")
    return tuple(dict.fromkeys(names))


def _kinds(value: object) -> tuple[Kind, ...]:
    names = value if isinstance(value, list | tuple) else [value]
    if not names:
        raise ValueError("names no kind; leave it out for all of them")
    for name in names:
        if name not in list(Kind):
            raise ValueError(f"there is no kind {name!r}{_nearest(str(name), [kind.value for kind in Kind])}")
    return tuple(dict.fromkeys(map(Kind, names)))


_SLUG: Final = {"type": "string", "enum": list(HAZARDS)}
HazardNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_hazards),
    WithJsonSchema(
        {"anyOf": [{"const": ANY_HAZARD}, _SLUG, {"type": "array", "items": _SLUG, "minItems": 1, "uniqueItems": True}]}
    ),
]
_KIND: Final = {"type": "string", "enum": list(Kind)}
KindNames = Annotated[
    tuple[Kind, ...],
    BeforeValidator(_kinds),
    WithJsonSchema({"anyOf": [_KIND, {"type": "array", "items": _KIND, "minItems": 1, "uniqueItems": True}]}),
]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
TenantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rewrite(_Group):
    """How a rewrite rule rewrites."""

    method: RewriteMethod = Field(description="desired_response and redact on both sides; guard only on requests.")
    max_tries: int = Field(
        2, strict=True, ge=1, le=5, description="regenerate: new replies asked for. redact: passages cut out."
    )


class Rule(_Group):
    """One rule: which findings it is for, from which risk on, and what is done."""

    name: Name = Field(description="Named in decisions, cases and metrics. Unique in its list.")
    hazard: HazardNames = Field(description='A hazard, a list of hazards, or "*" for any.')
    kind: KindNames | None = Field(
        None, description="Only where the nearest harmful exemplar of the hazard is of this kind, or one of these."
    )
    side: Literal["request", "response", "any"] = Field(description="Which way the text travels.")
    roles: tuple[Role, ...] | None = Field(None, min_length=1, description="Only texts of these roles. Unset: all.")
    risk_at_least: Share = Field(description="Matches from this risk of the hazard on.")
    action: Action = Field(description="What is done with the text.")
    rewrite: Rewrite | None = Field(None, description="How; needed with action rewrite, and only there.")
    mode: Mode | None = Field(None, description="shadow: record what this rule would do, and go on to the next rule.")
    watch_at_least: Share | None = Field(
        None,
        description="Rules that rewrite responses: a stream is held whole only when its request's risk of the hazard, "
        "or its similarity to an exemplar of the hazard, harmful or benign, reaches this. Unset: every stream.",
    )
    strike: Annotated[float, Field(strict=True, ge=0, le=10, allow_inf_nan=False)] | None = Field(
        None,
        description="What a block by this rule weighs against the end user. Unset: 1, and 0 where a person may be in "
        "danger or only something unreadable was found.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Rule:
        if self.action is not Action.BLOCK and self.strike is not None:
            raise ValueError(f"strike belongs to action block, but the action is {self.action}")
        if self.action is not Action.REWRITE:
            for key in ("rewrite", "watch_at_least"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} belongs to action rewrite, but the action is {self.action}")
            return self
        if self.rewrite is None:
            raise ValueError("action rewrite needs a rewrite, such as rewrite: {method: desired_response}")
        for side in self.sides:
            allowed = _METHODS_OF_SIDE[side]
            if self.rewrite.method not in allowed:
                names = ", ".join(method for method in _METHODS if method in allowed)
                raise ValueError(f"{self.rewrite.method} cannot rewrite a {side}; use {names}, or another side")
        if self.watch_at_least is not None and self.side == "request":
            raise ValueError("watch_at_least is for rules that rewrite responses; this one is for requests")
        return self

    @property
    def sides(self) -> tuple[Side, ...]:
        return ("request", "response") if self.side == "any" else (self.side,)

    def covers(self, later: Rule) -> bool:
        """Whether ``later`` can never act behind this rule, because this one matches whatever it would match."""
        return (
            (self.mode is not Mode.SHADOW or later.mode is Mode.SHADOW)
            and self.risk_at_least <= later.risk_at_least
            and set(later.sides) <= set(self.sides)
            and (self.hazard == (ANY_HAZARD,) or set(later.hazard) <= set(self.hazard))
            and (self.kind is None or (later.kind is not None and set(later.kind) <= set(self.kind)))
            and (self.roles is None or (later.roles is not None and set(later.roles) <= set(self.roles)))
        )


def _each_rule_counts(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    for place, rule in enumerate(rules):
        for earlier in rules[:place]:
            if earlier.name == rule.name:
                raise ValueError(f"two rules are named {rule.name!r}; give each its own name")
            if earlier.covers(rule):
                raise ValueError(
                    f"{rule.name!r} can never act, because {earlier.name!r} before it matches first; "
                    f"move {rule.name!r} up or drop it"
                )
    return rules


Rules = Annotated[tuple[Rule, ...], Field(max_length=500), AfterValidator(_each_rule_counts)]
BlockStyle = Literal["refusal", "error"]
Unreadable = Literal["refuse", "pass"]
StreamHold = Literal["window", "whole"]


class OnUnavailable(_Group):
    """What happens to texts that could not be screened, on the way in and on the way out."""

    input: Unscreened = Field(Unscreened.BLOCK, description="Requests.")
    output: Unscreened = Field(Unscreened.BLOCK, description="Replies.")


class Tenant(_Group):
    """One tenant's part of the policy: what it says replaces the policy's, and its rules stand before the policy's."""

    mode: Mode | None = None
    on_unavailable: OnUnavailable | None = None
    block_style: BlockStyle | None = None
    unreadable: Unreadable | None = None
    overlap: StrictBool | None = None
    stream_hold: StreamHold | None = None
    strikes: Strikes | None = None
    rules: Rules = ()


class PolicyFile(_Group):
    """The policy of an antiprompt gateway."""

    mode: Mode = Field(Mode.ENFORCE, description="shadow: no rule acts, each records what it would have done.")
    on_unavailable: OnUnavailable = Field(OnUnavailable(), description="What happens to texts not screened.")
    block_style: BlockStyle = Field(
        "refusal", description="refusal: a reply that refuses, with finish_reason content_filter. error: HTTP 400."
    )
    unreadable: Unreadable = Field("refuse", description="Images, audio and files, which hold no text to screen.")
    overlap: StrictBool = Field(False, description="Send the request upstream while it is being screened.")
    stream_hold: StreamHold | None = Field(None, description="In place of the setting stream.hold.")
    strikes: Strikes | None = Field(None, description="What follows for an end user who is blocked again and again.")
    rules: Rules = Field((), description="In order: the first that matches a hazard of a text decides about it.")
    tenants: dict[TenantName, Tenant] = Field(
        {}, max_length=10_000, description="Overrides by tenant or by policy name."
    )
    locked: StrictBool = Field(False, description="This file is the only source: nothing in Redis replaces it.")

    @model_validator(mode="after")
    def _names_stay_unique(self) -> PolicyFile:
        names = {rule.name for rule in self.rules}
        for tenant, part in self.tenants.items():
            for rule in part.rules:
                if rule.name in names:
                    raise ValueError(f"tenants.{tenant}: a rule is named {rule.name!r} already; give it its own name")
        return self


def read_policy_file(text: str) -> PolicyFile:
    """Read and check a policy. Raises ``PolicyError`` with every problem, its path and a hint."""
    if len(text.encode("utf-8", "replace")) > MAX_POLICY_BYTES:
        raise PolicyError([f"it is longer than {MAX_POLICY_BYTES} bytes; a policy is rules, not data"])
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise PolicyError([_yaml_problem(error)]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PolicyError([f"it is not YAML: {error}"]) from None
    if not isinstance(values, dict):
        raise PolicyError(["it must be a mapping with keys such as mode and rules; start from gateway/policy.yaml"])
    try:
        return PolicyFile.model_validate(values)
    except ValidationError as error:
        raise PolicyError(
            _problem(e["loc"], e["type"], e["msg"], e["input"]) for e in error.errors(include_url=False)
        ) from None


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a policy file, as ``gateway/policy.schema.json`` holds it."""
    schema = PolicyFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "antiprompt policy"}


def canonical(file: PolicyFile) -> dict[str, Any]:
    """What a policy says, for its hash: a key that came after others were published counts only where it is set."""
    said = file.model_dump(mode="json")
    parts = [said, *said["tenants"].values()]
    later = [(part, "strikes") for part in parts]
    later += [(rule, key) for part in parts for rule in part["rules"] for key in ("strike", "kind")]
    for group, name in later:
        if group[name] is None:
            del group[name]
    return said


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys: of two thresholds for one rule, neither must win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is given twice; keep one", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    line = f"line {mark.line + 1}: " if mark is not None else ""
    hint = '; put the star in quotes: hazard: "*"' if "alias" in f"{error.context} {error.problem}" else ""
    return f"{line}{error.problem}{hint}"


_NAME_LETTERS: Final = "lower-case letters, digits, - and _"
_KEYS: Final = tuple(
    dict.fromkeys(key for model in (PolicyFile, Rule, Rewrite, OnUnavailable, Strikes) for key in model.model_fields)
)


def _problem(place: tuple[int | str, ...], kind: str, message: str, value: object) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
    if kind == "extra_forbidden":
        return f"{path}: there is no such key{_nearest(str(place[-1]), _KEYS)}"
    if kind == "missing":
        return f"{path}: is missing" + ("; each rule needs it" if isinstance(place[-2], int) else "")
    if kind == "string_pattern_mismatch":
        letters = "letters, digits, '.', - and _" if place[0] == "tenants" and place[-1] == "[key]" else _NAME_LETTERS
        return f"{path.removesuffix('.[key]')}: a name is {letters}, at most 64, not {reprlib.repr(value)}"
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    shown = f", not {reprlib.repr(value)}" if isinstance(value, str | int | float | bool) else ""
    return f"{path}: {message}{shown}" if path else message


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
