"""Policy: what an operator wants done, compiled, and each tenant's view of it. Pure: no clock, no file, no network.

``gateway.policy_file`` reads and checks the YAML, ``gateway.ruling`` matches rules and states how a decision is made;
here the two meet. Under ``mode: shadow`` all rules are in shadow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from antiprompt_bank import HAZARDS, Score
from gateway.errors import BadRequest
from gateway.policy_file import (
    Action,
    BlockStyle,
    Mode,
    OnUnavailable,
    PolicyError,
    PolicyFile,
    RewriteMethod,
    Rule,
    StreamHold,
    Tenant,
    Unreadable,
    Unscreened,
    canonical,
    read_policy_file,
)
from gateway.ruling import Decision, Finding, Hit, Ruling, ShadowHit
from gateway.strike_rules import Strikes

__all__ = [
    "STRICTNESS_HEADER",
    "STRICT_FACTOR",
    "Action",
    "Decision",
    "Finding",
    "Hit",
    "Mode",
    "OnUnavailable",
    "Policy",
    "PolicyError",
    "RewriteMethod",
    "ShadowHit",
    "Strictness",
    "Unscreened",
]

STRICT_FACTOR: Final = 0.8
"""What strictness multiplies each threshold with."""

VERSION_DIGITS: Final = 12

STRICTNESS_HEADER: Final = "x-antiprompt-policy"


class Strictness(StrEnum):
    """What a caller may wish for. There is no word for less: a request can only strengthen policy."""

    DEFAULT = "default"
    STRICT = "strict"

    @classmethod
    def from_header(cls, value: str | None) -> Strictness:
        """Read the header ``x-antiprompt-policy``. Raises ``BadRequest`` for a wish that does not exist."""
        try:
            return cls.DEFAULT if value is None else cls(value.strip().lower())
        except ValueError:
            raise BadRequest(
                f"{STRICTNESS_HEADER} can be 'default' or 'strict'; a request can only strengthen the policy",
                param=STRICTNESS_HEADER,
            ) from None


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy as one tenant sees it. Immutable; swapping a policy is replacing one reference.

    ``content_hash`` is the SHA-256 (hex) of what the whole policy says, all tenants included: comments, the order of
    keys and spelled-out defaults do not change it.
    """

    content_hash: str
    tenant: str | None
    mode: Mode
    on_unavailable: OnUnavailable
    block_style: BlockStyle
    unreadable: Unreadable
    overlap: bool
    stream_hold: StreamHold | None
    locked: bool
    strictness: Strictness
    break_glass: bool
    _strikes: Strikes
    _weights: Mapping[str, float | None] = field(repr=False, compare=False)
    _ruling: Ruling = field(repr=False, compare=False)
    _strict_ruling: Ruling = field(repr=False, compare=False)
    _shadow_ruling: Ruling = field(repr=False, compare=False)
    _tenants: Mapping[str, Policy] = field(repr=False, compare=False)
    _file: PolicyFile = field(repr=False, compare=False)

    @classmethod
    def from_yaml(cls, text: str) -> Policy:
        """Read, check and compile a policy. Raises ``PolicyError`` with every problem, its path and a hint."""
        return _compile(read_policy_file(text))

    @property
    def version(self) -> str:
        """The policy's name in logs, metrics and the store: the start of ``content_hash``."""
        return self.content_hash[:VERSION_DIGITS]

    @property
    def tenants(self) -> frozenset[str]:
        """The names that have a part of their own."""
        return frozenset(self._tenants)

    def for_tenant(self, name: str | None) -> Policy:
        """The policy of a tenant; the whole policy's own rules for one that has no part of its own."""
        return self if name is None else self._tenants.get(name, self)

    def strengthened(self, wish: Strictness) -> Policy:
        """This policy under a caller's wish; during break-glass the wish counts for nothing.

        Strict means: thresholds times ``STRICT_FACTOR``, shadow rules enforced, nothing unscreened or unreadable let
        through, no overlap. The plain decision is made as well, and the stronger of the two counts: no order of
        rules can turn the wish into a weaker policy.
        """
        if wish is Strictness.DEFAULT or self.break_glass:
            return self
        return replace(
            self,
            strictness=wish,
            on_unavailable=OnUnavailable(),
            unreadable="refuse",
            overlap=False,
        )

    def in_shadow(self) -> Policy:
        """Break-glass: this policy with nothing enforced, whatever a caller wishes.

        Rules of all tenants are in shadow, strict ones too; what cannot be screened or read is let through.
        """
        return _compile(self._file, break_glass=True)

    def recording(self) -> Policy:
        """This policy as if it said ``mode: shadow``: decided and recorded, not enforced, unless a caller is strict.

        For as long as risks cannot be relied on, as with a stale calibration.
        """
        return replace(self, mode=Mode.SHADOW, _ruling=self._shadow_ruling)

    def decide(self, findings: Sequence[Finding]) -> Decision:
        """What is done about ``findings``: all texts of one request, or all of one reply."""
        decision = self._ruling.decide(findings)
        if self.strictness is Strictness.STRICT:
            strict = self._strict_ruling.decide(findings)
            if strict.action.strength > decision.action.strength:
                return strict
        return decision

    @property
    def strikes(self) -> Strikes:
        """What follows for end users who are blocked again and again; nothing while the policy is in shadow."""
        return Strikes() if self.mode is Mode.SHADOW else self._strikes

    def strike_weight(self, decision: Decision) -> float:
        """What a block weighs against the person it stopped; 0 where it is no strike, as in shadow.

        A rule that names no weight counts 1, and nothing against somebody who may be in danger, or for what merely
        could not be read.
        """
        enforced = decision.action is Action.BLOCK and decision.enforced and self.mode is not Mode.SHADOW
        if not enforced or decision.rule is None or decision.rule not in self._weights:
            return 0.0
        weight = self._weights[decision.rule]
        if weight is not None:
            return weight
        hazard = HAZARDS.get(decision.hazard or "")
        return 0.0 if decision.person_at_risk or (hazard is not None and hazard.signal) else 1.0

    def holds_whole_reply(self, request_scores: Sequence[Score]) -> bool:
        """Whether a streamed reply is held until its end, told before it starts from what its request scored.

        True where the policy says ``stream_hold: whole``, or where an enforced rule that rewrites responses does not
        watch, or watches and is armed by the request. A rewrite rule that was not armed blocks when it hits a reply
        of which a part has left: see ``Decision.unheld``.
        """
        if self.stream_hold == "whole" or self._ruling.armed_by(request_scores):
            return True
        return self.strictness is Strictness.STRICT and self._strict_ruling.armed_by(request_scores)


def _strict(rule: Rule) -> Rule:
    """The rule as a strict caller has it. A rule that allows stays as it is: widened, it would allow more. So does one
    for a kind, unless it blocks: it is there to be milder than the rules below it, and those are widened."""
    if rule.action is Action.ALLOW or (rule.kind is not None and rule.action is not Action.BLOCK):
        return rule
    watch = rule.watch_at_least
    return rule.model_copy(
        update={
            "risk_at_least": rule.risk_at_least * STRICT_FACTOR,
            "watch_at_least": watch * STRICT_FACTOR if watch is not None else None,
            "mode": Mode.ENFORCE,
        }
    )


def _strikes_down(rule: Rule) -> bool:
    """Whether a block by the rule can be a strike: one in shadow never is, not even where a caller is strict."""
    return rule.action is Action.BLOCK and rule.mode is not Mode.SHADOW


def _compile(file: PolicyFile, *, break_glass: bool = False) -> Policy:
    said = json.dumps(canonical(file), sort_keys=True, separators=(",", ":"))
    content_hash = hashlib.sha256(said.encode()).hexdigest()

    def view(tenant: str | None, part: Tenant, tenants: Mapping[str, Policy]) -> Policy:
        rules = (*part.rules, *file.rules)
        mode = Mode.SHADOW if break_glass else part.mode or file.mode
        unavailable = part.on_unavailable or file.on_unavailable
        return Policy(
            content_hash=content_hash,
            tenant=tenant,
            mode=mode,
            on_unavailable=_OPEN if break_glass else unavailable,
            block_style=part.block_style or file.block_style,
            unreadable="pass" if break_glass else part.unreadable or file.unreadable,
            overlap=file.overlap if part.overlap is None else part.overlap,
            stream_hold=part.stream_hold or file.stream_hold,
            locked=file.locked,
            strictness=Strictness.DEFAULT,
            break_glass=break_glass,
            _strikes=part.strikes or file.strikes or Strikes(),
            _weights={rule.name: rule.strike for rule in rules if _strikes_down(rule)},
            _ruling=Ruling(rules, shadow=mode is Mode.SHADOW),
            _strict_ruling=Ruling([_strict(rule) for rule in rules], shadow=False),
            _shadow_ruling=Ruling(rules, shadow=True),
            _tenants=tenants,
            _file=file,
        )

    tenants = {name: view(name, part, {}) for name, part in file.tenants.items()}
    return view(None, Tenant(), MappingProxyType(tenants))


_OPEN: Final = OnUnavailable(input=Unscreened.ALLOW, output=Unscreened.ALLOW)
