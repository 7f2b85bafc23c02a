"""Judge: what is in a request or a reply, screened and put to the policy; old turns and what could not be screened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from antiprompt_bank import Score
from gateway.conversation import Conversation, Part
from gateway.errors import Overloaded, ScreeningUnavailable
from gateway.policy import Action, Decision, Finding, Hit, Policy, RewriteMethod, Unscreened
from gateway.screening import Screener, Subject
from gateway.telemetry import Metrics
from gateway.tracing import step
from gateway.wire.surface import Role

Known = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
"""Of some texts, those that were acted on before for this tenant, with the action."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found and what is done about it.

    ``decision.hits`` number the ``parts`` that were screened. ``placeholders`` are indexes of request texts that were
    judged before and go upstream as placeholders. ``unscreened`` names the cause where policy lets texts pass that
    could not be screened: then the scores are those of known antiprompts found word for word, and none at all where
    there is no such text.
    """

    decision: Decision
    parts: Sequence[Part]
    scores: Sequence[Score]
    placeholders: frozenset[int] = field(default_factory=frozenset)
    unscreened: str | None = None

    @property
    def stops(self) -> bool:
        """Whether the text may not go on as it is."""
        return self.decision.action in (Action.BLOCK, Action.REWRITE)

    def hits_by_text(self) -> Mapping[int, tuple[Hit, Score]]:
        """The strongest hit of each text that was hit alone, with its score; a joined part has no text of its own."""
        return {
            self.parts[number].indexes[0]: (hit, self.scores[number])
            for number, hit in self.decision.by_text.items()
            if len(self.parts[number].indexes) == 1
        }


class Judge:
    """Screens and decides. Raises ``ScreeningUnavailable`` where policy stops what could not be screened, and
    ``Overloaded`` or ``TooLarge`` always: a full queue is never an open door."""

    def __init__(self, screener: Screener, metrics: Metrics) -> None:
        self._screener = screener
        self._metrics = metrics

    async def request(self, conversation: Conversation, policy: Policy, *, tenant: str, known: Known) -> Judgement:
        """Judge every text of a request: each alone, and each run of user turns joined."""
        parts = conversation.parts()
        scores, unscreened = await self._scores(parts, "request", policy, tenant)
        first = Judgement(_decided(policy, parts, scores, "request"), parts, scores, unscreened=unscreened)
        if unscreened and not scores:
            return first
        old = await _old_turns(conversation, known, first)
        if not old.placeholders and not old.settled:
            return first
        return await self._without(old, conversation, policy, tenant, first)

    async def _without(
        self, old: _OldTurns, conversation: Conversation, policy: Policy, tenant: str, first: Judgement
    ) -> Judgement:
        """Decide anew without what is old; runs that lose a text to a placeholder are judged by what is left."""
        kept = {
            part.indexes: (part, score)
            for part, score in zip(first.parts, first.scores, strict=True)
            if part.indexes not in old.settled and not old.placeholders.intersection(part.indexes)
        }
        shorter = [part for part in conversation.joined_runs(old.placeholders) if part.indexes not in old.settled]
        fresh = [part for part in shorter if part.indexes not in kept]
        scores, unscreened = await self._scores(fresh, "request", policy, tenant)
        kept.update(
            (part.indexes, (part, score)) for part, score in zip(fresh, scores or map(_blank, fresh), strict=True)
        )
        parts = [part for part, _ in kept.values()]
        found = [score for _, score in kept.values()]
        decision = _decided(policy, parts, found, "request")
        return Judgement(decision, parts, found, old.placeholders, unscreened or first.unscreened)

    async def edited(self, part: Part, policy: Policy, *, tenant: str) -> Judgement:
        """Judge what an edit has left of one part of a request."""
        scores, unscreened = await self._scores([part], "request", policy, tenant)
        decision = _decided(policy, [part], scores, "request")
        return Judgement(decision, [part], scores, unscreened=unscreened)

    async def reply(self, texts: Sequence[str], prompt: str | None, policy: Policy, *, tenant: str) -> Judgement:
        """Judge the texts of a reply, each with the prompt that it answers."""
        parts = [Part(Subject(text, "response", prompt), (index,), Role.ASSISTANT) for index, text in enumerate(texts)]
        scores, unscreened = await self._scores(parts, "response", policy, tenant)
        decision = _decided(policy, parts, scores, "response")
        return Judgement(decision, parts, scores, unscreened=unscreened)

    async def _scores(
        self, parts: Sequence[Part], travels: Literal["request", "response"], policy: Policy, tenant: str
    ) -> tuple[list[Score], str | None]:
        """A score for each part, and None; or the cause where they could not be screened and policy lets them pass.

        Then what they hold of known antiprompts word for word is looked up: without any there are no scores.
        """
        subjects = [part.subject for part in parts]
        try:
            return await self._screener.screen(subjects, tenant=tenant), None
        except (ScreeningUnavailable, Overloaded) as error:
            self._metrics.unavailable.labels(travels, error.code).inc()
            outcome = policy.on_unavailable.input if travels == "request" else policy.on_unavailable.output
            if isinstance(error, Overloaded) or outcome is Unscreened.BLOCK:
                raise
            found = await self._screener.known(subjects, tenant=tenant)
            scores = [score or _blank(part) for part, score in zip(parts, found, strict=True)]
            return scores if any(found) else [], error.code


@dataclass(frozen=True, slots=True)
class _OldTurns:
    """What of a request was acted on before: texts that make way for placeholders, parts that are not asked about."""

    placeholders: frozenset[int]
    settled: frozenset[tuple[int, ...]]


async def _old_turns(conversation: Conversation, known: Known, first: Judgement) -> _OldTurns:
    """Tell the old turns among what was hit, and the earlier blocks of a run that has gone on since.

    A run that was harmful as a whole makes way by its newest text, and is old where all of it is.
    """
    hits = [
        (first.parts[number], hit)
        for number, hit in first.decision.by_text.items()
        if conversation.may_be_old(first.parts[number].indexes[-1])
    ]
    gone_on = conversation.as_asked_before()
    if not hits and not gone_on:
        return _OldTurns(frozenset(), frozenset())
    judged = await known([part.subject.text for part in (*(part for part, _ in hits), *gone_on)])
    old = [(part, hit) for part, hit in hits if part.subject.text in judged]
    kept_out = [part for part, hit in old if _keeps_out(hit)]
    kept_out += [part for part in gone_on if judged.get(part.subject.text) == Action.BLOCK]
    return _OldTurns(
        frozenset(part.indexes[-1] for part in kept_out),
        frozenset(part.indexes for part, hit in old if hit.action is Action.FLAG),
    )


def _decided(
    policy: Policy, parts: Sequence[Part], scores: Sequence[Score], travels: Literal["request", "response"]
) -> Decision:
    with step("decide", side=travels, texts=len(parts)):
        return policy.decide(_findings(parts, scores, travels))


def _findings(parts: Sequence[Part], scores: Sequence[Score], travels: Literal["request", "response"]) -> list[Finding]:
    """A finding for each part; none where nothing was found in any, because they could not be screened."""
    return [
        Finding(score, travels, part.role, number)
        for number, (part, score) in enumerate(zip(parts, scores, strict=bool(scores)))
    ]


def _blank(part: Part) -> Score:
    """The score of a text of which nothing is known."""
    return Score(0.0, None, {}, (), "raw", 0, len(part.subject.text), 0)


def _keeps_out(hit: Hit) -> bool:
    """Whether a hit kept its text from the model when it was new."""
    return hit.action is Action.BLOCK or hit.rewrite is RewriteMethod.DESIRED_RESPONSE
