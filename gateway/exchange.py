"""Exchange: what is known of one request while it is under way, and the case that is made of it at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from antiprompt_bank import Side
from gateway.auth import Principal
from gateway.cases import Case, CaseFinding, new_case_id
from gateway.cases import Exchange as ExchangeTexts
from gateway.conversation import Conversation
from gateway.exemplar_hits import behind
from gateway.judgement import Judgement
from gateway.policy import Action, Decision, Policy
from gateway.strikes import STANDING_HEADER, Standing
from gateway.wire.surface import Json, Surface, Unreadable

_FINDINGS: Final = 32
"""Findings kept in a case, riskiest first: a long conversation has hundreds that say nothing."""

_CHARS_PER_TOKEN: Final = 4
_LEAST_RISK_KEPT: Final = 0.05


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and its reply on their way through the gateway."""

    surface: Surface
    principal: Principal
    policy: Policy
    end_user: str | None = None
    body: Json = field(default_factory=dict)
    conversation: Conversation | None = None
    unreadable: Sequence[Unreadable] = ()
    request: Judgement | None = None
    reply: Judgement | None = None
    reply_texts: Sequence[str] = ()  # the model's, also where the caller got other words in their place
    completion_id: str | None = None
    upstream_status: int | None = None
    bank_version: str | None = None
    standing: Standing = Standing.GOOD
    error: str | None = None
    timings_s: dict[str, float] = field(default_factory=dict)
    accept_language: str | None = None
    used_tokens: int | None = None
    handed_over: bool = False
    withheld: bool = False
    trace_id: str | None = None
    case_id: str = field(default_factory=new_case_id)
    created_at: float = field(default_factory=time.time)
    started_s: float = field(default_factory=time.perf_counter)

    @property
    def tenant(self) -> str:
        return self.principal.tenant

    @property
    def model(self) -> str:
        """The model asked for; what stands there has not been checked by anyone."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""

    @property
    def streamed(self) -> bool:
        return self.surface.streams and self.body.get("stream") is True

    @property
    def choices(self) -> int:
        """How many replies were asked for."""
        return self.surface.choices(self.body)

    @property
    def deciding(self) -> tuple[Decision, Side]:
        """The decision that counts for the whole exchange: the stronger of the request's and the reply's."""
        request = self.request.decision if self.request else Decision(Action.ALLOW)
        reply = self.reply.decision if self.reply else Decision(Action.ALLOW)
        if reply.action.strength > request.action.strength or (
            reply.action is request.action and reply.risk > request.risk
        ):
            return reply, "response"
        return request, "request"

    @property
    def exemplar(self) -> str | None:
        """The id of the bank's exemplar behind the decision; None where that is to allow."""
        decision, side = self.deciding
        judgement = self.request if side == "request" else self.reply
        if judgement is None or decision.action is Action.ALLOW or decision.finding is None:
            return None
        return behind(judgement.scores[decision.finding], decision.hazard)

    @property
    def action(self) -> Action:
        """What was done in the end: a rewrite that had no place, or no success, was a block (``withheld``)."""
        return Action.BLOCK if self.withheld else self.deciding[0].action

    @property
    def tokens(self) -> int:
        """What the exchange used: the upstream's count, or an estimate of a token for four characters."""
        if self.used_tokens is not None:
            return self.used_tokens
        texts = self.conversation.texts if self.conversation else ()
        return (sum(len(text.text) for text in texts) + sum(map(len, self.reply_texts))) // _CHARS_PER_TOKEN

    def note_usage(self, payload: Json) -> None:
        """Take the upstream's count of tokens from a reply, or from the event of a stream that carries it."""
        usage = payload.get("usage")
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        if isinstance(total, int) and total > 0:
            self.used_tokens = total

    @property
    def prompt(self) -> str | None:
        """What the reply answers."""
        return self.conversation.prompt if self.conversation else None

    def note_reply(self, judgement: Judgement) -> None:
        """Keep the judgement of the reply that counts: a stream has one for each window, the strongest stands."""
        if self.reply is not None:
            before, now = self.reply.decision, judgement.decision
            if (now.action.strength, now.risk) <= (before.action.strength, before.risk):
                return
        self.reply = judgement

    def headers(self) -> dict[str, str]:
        """What every reply to a caller carries; never a matched text or a score."""
        told = {"x-antiprompt-case": self.case_id, "x-antiprompt-action": str(self.action)}
        return told if self.standing is Standing.GOOD else {**told, STANDING_HEADER: str(self.standing)}

    def elapsed(self, step: str, since_s: float) -> None:
        """Note how long a step took."""
        self.timings_s[step] = self.timings_s.get(step, 0.0) + time.perf_counter() - since_s

    def case(self) -> Case:
        """The record of what was decided and why, without any text."""
        decision, side = self.deciding
        unscreened = next((j.unscreened for j in (self.request, self.reply) if j and j.unscreened), None)
        timings = {step: round(seconds * 1000, 3) for step, seconds in self.timings_s.items()}
        timings["total"] = round((time.perf_counter() - self.started_s) * 1000, 3)
        return Case(
            id=self.case_id,
            created_at=self.created_at,
            tenant=self.tenant,
            surface=self.surface.name,
            action=str(self.action) if self.error is None else "error",
            key_id=self.principal.key_id,
            end_user=self.end_user,
            model=self.model[:200] or None,
            rule=decision.rule,
            enforced=decision.enforced,
            hazard=decision.hazard,
            risk=decision.risk,
            side=side if decision.action is not Action.ALLOW else None,
            policy_version=self.policy.version,
            bank_version=self.bank_version,
            shadow=tuple(hit.rule for judged in (self.request, self.reply) if judged for hit in judged.decision.shadow),
            findings=(*_findings(self.request, "request"), *_findings(self.reply, "response")),
            unreadable=tuple(part.kind for part in self.unreadable),
            unscreened=unscreened or self.error,
            exemplar=self.exemplar,
            standing=None if self.standing is Standing.GOOD else str(self.standing),
            upstream_status=self.upstream_status,
            completion_id=self.completion_id,
            timings_ms=timings,
            trace_id=self.trace_id,
        )

    def texts(self) -> ExchangeTexts | None:
        """The text of the exchange, for the store that keeps it for a while."""
        if self.conversation is None:
            return None
        request = tuple((str(text.role), text.text) for text in self.conversation.texts)
        return ExchangeTexts(request, tuple(self.reply_texts))


def _findings(judgement: Judgement | None, side: Side) -> Sequence[CaseFinding]:
    if judgement is None:
        return ()
    found: list[Any] = [
        (score, part)
        for part, score in zip(judgement.parts, judgement.scores, strict=False)
        if score.risk >= _LEAST_RISK_KEPT
    ]
    found.sort(key=lambda pair: -pair[0].risk)
    return [
        CaseFinding(
            side=side,
            role=str(part.role),
            index=part.indexes[-1],
            risk=round(score.risk, 4),
            hazard=score.hazard,
            risks={hazard: round(risk, 4) for hazard, risk in score.risks.items()},
            view=score.view,
            start=score.start,
            end=score.end,
            token_start=score.token_start,
            token_end=score.token_end,
            exemplars=tuple(neighbour.id for neighbour in score.nearest),
        )
        for score, part in found[:_FINDINGS]
    ]
