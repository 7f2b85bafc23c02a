"""From rules and findings to a decision: the rules are matched here, and nothing else is known here.

How a decision is made:

1. A text carries hazards, each with a risk. For each hazard, the rules are read from top to bottom (a tenant's own
   before the policy's), and the **first that matches decides** about it, as in a firewall: a rule matches when its
   hazards hold this one, its kinds hold that of the hazard's nearest harmful exemplar, its side and roles hold the
   text's, and the risk is at least ``risk_at_least``. So an early rule is an exception to those below it, in either
   direction, and ``allow`` is how one says "not this one".
2. Over all hazards of all texts, the **strongest action wins**: block > rewrite > flag > allow.
3. A rule in shadow never decides. When it would have been the first to match, that is recorded, and reading goes on.

``Decision.action`` is always what must be carried out; what shadow rules say stands in ``Decision.shadow`` alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from antiprompt_bank import HAZARDS, Kind, Score, Side
from gateway.policy_file import ANY_HAZARD, Action, Mode, RewriteMethod, Rule
from gateway.wire.surface import Role


@dataclass(frozen=True, slots=True)
class Finding:
    """What the screener says about one text. ``index`` is its position in the list of texts that were screened.

    ``side`` is the way the text travels now: an assistant's old turn in a request travels as request.
    """

    score: Score
    side: Side
    role: str
    index: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule decided about one hazard of one text. ``rewrite`` and ``max_tries`` are set with action rewrite."""

    rule: str
    action: Action
    hazard: str | None
    risk: float
    index: int
    rewrite: RewriteMethod | None = None
    max_tries: int = 0


@dataclass(frozen=True, slots=True)
class ShadowHit:
    """What a rule in shadow would have decided. Never carried out."""

    rule: str
    action: Action
    hazard: str | None
    risk: float
    index: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with a request or a reply.

    ``enforced`` says that a rule decided; otherwise the action is allow and ``rule`` None. ``hazard`` and ``risk``
    are those of the hit that decided or, where none did, the riskiest that was found: passes are recorded too.
    ``finding`` is the ``Finding.index`` of the text that decided. ``hits`` holds all that ask for more than allow,
    strongest first: with several texts to rewrite, each is rewritten.
    """

    action: Action
    rule: str | None = None
    hazard: str | None = None
    risk: float = 0.0
    enforced: bool = False
    finding: int | None = None
    rewrite: RewriteMethod | None = None
    max_tries: int = 0
    hits: tuple[Hit, ...] = ()
    shadow: tuple[ShadowHit, ...] = ()

    @property
    def hazards(self) -> tuple[str, ...]:
        """The hazards of all hits, that of the strongest first."""
        return tuple(dict.fromkeys(hit.hazard for hit in self.hits if hit.hazard is not None))

    @property
    def person_at_risk(self) -> bool:
        """Whether the person writing may be in danger, so that whatever is answered must carry crisis help."""
        return any(HAZARDS[hazard].person_at_risk for hazard in self.hazards)

    @property
    def by_text(self) -> Mapping[int, Hit]:
        """The strongest hit of each text, by ``Finding.index``."""
        strongest: dict[int, Hit] = {}
        for hit in self.hits:
            strongest.setdefault(hit.index, hit)
        return strongest

    def unheld(self) -> Decision:
        """The same for a reply of which a part has left already: it cannot be rewritten, so a rewrite is a block."""
        if self.action is not Action.REWRITE:
            return self
        return replace(self, action=Action.BLOCK, rewrite=None, max_tries=0)


@dataclass(frozen=True, slots=True)
class _Clause:
    """A rule, ready to be matched; ``hazards`` and ``kinds`` None stand for any, and for none at all."""

    rule: str
    hazards: frozenset[str] | None
    kinds: frozenset[Kind] | None
    least_risk: float
    action: Action
    rewrite: RewriteMethod | None
    max_tries: int
    shadow: bool

    def matches(self, hazard: str | None, risk: float, kind: Kind | None) -> bool:
        # "not less than", so that a risk that is not a number counts as a risk and never as harmless
        return (
            not risk < self.least_risk
            and (self.hazards is None or hazard in self.hazards)
            and (self.kinds is None or kind in self.kinds)
        )


@dataclass(frozen=True, slots=True)
class _Watch:
    """When a rewrite rule wants a stream held whole; ``least`` None: always."""

    hazards: frozenset[str] | None
    least: float | None

    def armed_by(self, score: Score) -> bool:
        if self.least is None:
            return True
        if self.hazards is None:
            near = any(n.hazard is not None and n.similarity >= self.least for n in score.nearest)
            return near or score.risk >= self.least
        near = any(n.hazard in self.hazards and n.similarity >= self.least for n in score.nearest)
        return near or any(score.risks.get(hazard, 0.0) >= self.least for hazard in self.hazards)


@dataclass(frozen=True, slots=True)
class _Lane:
    """The rules for one side and role, in order. ``least_risk``: nothing below it is matched by any of them."""

    clauses: tuple[_Clause, ...]
    least_risk: float


class Ruling:
    """A list of rules, laid out by side and role, so that a harmless text costs one comparison."""

    __slots__ = ("_lanes", "_watches")

    def __init__(self, rules: Sequence[Rule], *, shadow: bool) -> None:
        clauses = [(rule, _clause(rule, shadow=shadow)) for rule in rules]
        self._lanes = {
            (side, str(role)): _lane(
                clause for rule, clause in clauses if side in rule.sides and (rule.roles is None or role in rule.roles)
            )
            for side in ("request", "response")
            for role in Role
        }
        self._watches = tuple(
            _Watch(clause.hazards, rule.watch_at_least)
            for rule, clause in clauses
            if clause.action is Action.REWRITE and "response" in rule.sides and not clause.shadow
        )

    def armed_by(self, scores: Sequence[Score]) -> bool:
        return any(watch.least is None or any(map(watch.armed_by, scores)) for watch in self._watches)

    def decide(self, findings: Sequence[Finding]) -> Decision:
        matches: list[Hit] = []
        shadow: list[ShadowHit] = []
        for finding in findings:
            lane = self._lanes[finding.side, finding.role]
            if finding.score.risk < lane.least_risk:
                continue
            for hazard, risk in _evidence(finding.score):
                match, first_shadow = _first_matches(lane.clauses, hazard, risk, _kind(finding.score, hazard))
                if match is not None:
                    matches.append(_hit(match, hazard, risk, finding.index))
                if first_shadow is not None:
                    shadow.append(ShadowHit(first_shadow.rule, first_shadow.action, hazard, risk, finding.index))
        matches.sort(key=_strength, reverse=True)
        return _decision(matches, shadow, findings)


def _decision(matches: Sequence[Hit], shadow: Sequence[ShadowHit], findings: Sequence[Finding]) -> Decision:
    """From all that matched, strongest first, to what is done."""
    if not matches:
        riskiest = max((finding.score for finding in findings), key=lambda score: score.risk, default=None)
        if riskiest is None:
            return Decision(Action.ALLOW)
        return Decision(Action.ALLOW, hazard=riskiest.hazard, risk=riskiest.risk, shadow=tuple(shadow))
    first = matches[0]
    return Decision(
        first.action,
        rule=first.rule,
        hazard=first.hazard,
        risk=first.risk,
        enforced=True,
        finding=first.index,
        rewrite=first.rewrite,
        max_tries=first.max_tries,
        hits=tuple(hit for hit in matches if hit.action is not Action.ALLOW),
        shadow=tuple(shadow),
    )


def _first_matches(
    clauses: Iterable[_Clause], hazard: str | None, risk: float, kind: Kind | None
) -> tuple[_Clause | None, _Clause | None]:
    """The clause that decides, and the one in shadow that would have decided before it."""
    shadow: _Clause | None = None
    for clause in clauses:
        if not clause.matches(hazard, risk, kind):
            continue
        if not clause.shadow:
            return clause, shadow
        shadow = shadow or clause
    return None, shadow


def _hit(clause: _Clause, hazard: str | None, risk: float, index: int) -> Hit:
    return Hit(clause.rule, clause.action, hazard, risk, index, clause.rewrite, clause.max_tries)


def _strength(hit: Hit) -> tuple[int, int, float]:
    return hit.action.strength, -1 if hit.rewrite is None else hit.rewrite.strength, hit.risk


def _evidence(score: Score) -> Iterator[tuple[str | None, float]]:
    """Each hazard of a text with its risk; the risk without a hazard too, where there is one."""
    yield from score.risks.items()
    if score.hazard not in score.risks:
        yield score.hazard, score.risk


def _kind(score: Score, hazard: str | None) -> Kind | None:
    """The kind of the nearest harmful exemplar of a hazard; None where none is shown, as for a lesser hazard of a long
    text, so that no rule by kind is an exception for what nobody knows the kind of."""
    return next((near.kind for near in score.nearest if near.harmful and near.hazard == hazard), None)


def _clause(rule: Rule, *, shadow: bool) -> _Clause:
    return _Clause(
        rule=rule.name,
        hazards=None if rule.hazard == (ANY_HAZARD,) else frozenset(rule.hazard),
        kinds=None if rule.kind is None else frozenset(rule.kind),
        least_risk=rule.risk_at_least,
        action=rule.action,
        rewrite=rule.rewrite.method if rule.rewrite is not None else None,
        max_tries=rule.rewrite.max_tries if rule.rewrite is not None else 0,
        shadow=shadow or rule.mode is Mode.SHADOW,
    )


def _lane(clauses: Iterable[_Clause]) -> _Lane:
    ordered = tuple(clauses)
    return _Lane(ordered, min((clause.least_risk for clause in ordered), default=math.inf))
