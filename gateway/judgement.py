"""Judge: what is in a request or a reply, screened and put to the policy; old turns and what could not be screened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from antiprompt_bank import Score
from gateway.conversation import Conversation, Part
from gateway.errors import Overloaded, ScreeningUnavailable
from gateway.policy import Action, Decision, Finding, Hit, Policy, RewriteMethod, Unscreened
from gateway.screening import Screener, Subject
from gateway.telemetry import Metrics
from gateway.wire.surface import Role

Known = Callable[[Sequence[str]], Awaitable[Collection[str]]]
"""Of some texts, those that were judged before for this tenant."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found and what is done about it.

    ``decision.hits`` number the ``parts`` that were screened. ``placeholders`` are indexes of request texts that were
    judged before and go upstream as placeholders. ``unscreened`` names the cause where policy lets texts pass that
    could not be screened.
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
        """Judge every text of a request: each alone, and the trailing user turns joined."""
        parts = conversation.parts()
        scores, unscreened = await self._scores(parts, "request", policy, tenant)
        if unscreened:
            return Judgement(Decision(Action.ALLOW), parts, (), unscreened=unscreened)
        decision = policy.decide(_findings(parts, scores, "request"))
        if decision.action is Action.ALLOW:
            return Judgement(decision, parts, scores)
        return await self._without_old_turns(conversation, policy, tenant, known, Judgement(decision, parts, scores))

    async def _without_old_turns(
        self, conversation: Conversation, policy: Policy, tenant: str, known: Known, first: Judgement
    ) -> Judgement:
        """Decide anew without the hits on turns that were judged before; of those, what would stop the request
        becomes a placeholder."""
        hits = {index: hit for index, (hit, _) in first.hits_by_text().items() if conversation.may_be_old(index)}
        if not hits:
            return first
        judged = await known([conversation.texts[index].text for index in hits])
        old = {index: hit for index, hit in hits.items() if conversation.texts[index].text in judged}
        if not old:
            return first
        placeholders = frozenset(index for index, hit in old.items() if _keeps_out(hit))
        dropped = placeholders | {index for index, hit in old.items() if hit.action is Action.FLAG}
        kept = [
            (part, score)
            for part, score in zip(first.parts, first.scores, strict=True)
            if not (set(part.indexes) & (dropped if len(part.indexes) == 1 else placeholders))
        ]
        parts = [part for part, _ in kept]
        scores = [score for _, score in kept]
        joined = conversation.joined(placeholders)
        if joined is not None and placeholders and not any(part.indexes == joined.indexes for part in parts):
            extra, unscreened = await self._scores([joined], "request", policy, tenant)
            if unscreened:
                return Judgement(Decision(Action.ALLOW), parts, scores, placeholders, unscreened)
            parts.append(joined)
            scores.extend(extra)
        decision = policy.decide(_findings(parts, scores, "request"))
        return Judgement(decision, parts, scores, placeholders)

    async def reply(self, texts: Sequence[str], prompt: str | None, policy: Policy, *, tenant: str) -> Judgement:
        """Judge the texts of a reply, each with the prompt that it answers."""
        parts = [Part(Subject(text, "response", prompt), (index,), Role.ASSISTANT) for index, text in enumerate(texts)]
        scores, unscreened = await self._scores(parts, "response", policy, tenant)
        if unscreened:
            return Judgement(Decision(Action.ALLOW), parts, (), unscreened=unscreened)
        return Judgement(policy.decide(_findings(parts, scores, "response")), parts, scores)

    async def _scores(
        self, parts: Sequence[Part], travels: Literal["request", "response"], policy: Policy, tenant: str
    ) -> tuple[list[Score], str | None]:
        try:
            return await self._screener.screen([part.subject for part in parts], tenant=tenant), None
        except (ScreeningUnavailable, Overloaded) as error:
            self._metrics.unavailable.labels(travels, error.code).inc()
            outcome = policy.on_unavailable.input if travels == "request" else policy.on_unavailable.output
            if isinstance(error, Overloaded) or outcome is Unscreened.BLOCK:
                raise
            return [], error.code


def _findings(parts: Sequence[Part], scores: Sequence[Score], travels: Literal["request", "response"]) -> list[Finding]:
    return [
        Finding(score, travels, part.role, number)
        for number, (part, score) in enumerate(zip(parts, scores, strict=True))
    ]


def _keeps_out(hit: Hit) -> bool:
    """Whether a hit kept its text from the model when it was new."""
    return hit.action is Action.BLOCK or hit.rewrite is RewriteMethod.DESIRED_RESPONSE
