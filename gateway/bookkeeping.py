"""Bookkeeper: what an exchange leaves behind: policy's flags, the memory of judged texts, case, metrics, log line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from antiprompt_bank import Side
from gateway.cases import CaseStore
from gateway.errors import GatewayError, StateUnavailable
from gateway.exchange import Exchange
from gateway.exemplar_hits import ExemplarHits, behind
from gateway.flags import Flag, FlagStore, Source
from gateway.history import TenantHistory
from gateway.judgement import Judgement
from gateway.policy import Action
from gateway.quotas import Quotas
from gateway.strikes import Strike, StrikeStore
from gateway.telemetry import Metrics, logger
from gateway.tracing import current
from gateway.wire.surface import Role


class Bookkeeper:
    """Writes down what happened. Nothing here changes what a caller gets."""

    def __init__(
        self,
        cases: CaseStore,
        flags: FlagStore,
        history: TenantHistory,
        quotas: Quotas,
        strikes: StrikeStore,
        hits: ExemplarHits,
        metrics: Metrics,
    ) -> None:
        self._strikes = strikes
        self._hits = hits
        self._quotas = quotas
        self._spending: set[asyncio.Task[None]] = set()
        self._cases = cases
        self._flags = flags
        self._history = history
        self._metrics = metrics
        self._log = logger()

    async def judged(self, exchange: Exchange, judgement: Judgement, side: Side) -> None:
        """Write down a judgement before it is acted on: policy's flags, and which texts were acted on.

        A flag is written before the answer leaves, as a user's is; where it cannot be, the answer still goes, and the
        case and the metric say so.
        """
        for shadow in judgement.decision.shadow:
            self._metrics.shadow_hits.labels(str(shadow.action), shadow.hazard or "none").inc()
        if judgement.decision.action is Action.ALLOW:
            return
        await self._remember(exchange, judgement)
        for number, hit in judgement.decision.by_text.items():
            if hit.action is Action.FLAG:
                await self._flag(exchange, judgement, number, side)
        await self._strike(exchange, judgement, side)

    async def _remember(self, exchange: Exchange, judgement: Judgement) -> None:
        """Remember the texts that were acted on; of a run of turns that was judged as a whole, the whole."""
        texts: dict[Action, list[str]] = {}
        for number, hit in judgement.decision.by_text.items():
            texts.setdefault(hit.action, []).append(judgement.parts[number].subject.text)
        for action, acted_on in texts.items():
            await self._history.remember_judged(exchange.tenant, acted_on, str(action))

    async def _flag(self, exchange: Exchange, judgement: Judgement, number: int, side: Side) -> None:
        hit = judgement.decision.by_text[number]
        subject = judgement.parts[number].subject
        flag = Flag(
            tenant=exchange.tenant,
            source=Source.POLICY,
            side=side,
            text=subject.text,
            prompt=subject.prompt,
            reason=f"policy rule {hit.rule}",
            hazard=hit.hazard,
            risk=hit.risk,
            case_id=exchange.case_id,
            bank_version=exchange.bank_version,
            exemplar=behind(judgement.scores[number], hit.hazard),
            end_user=exchange.end_user,
        )
        try:
            await self._flags.add(flag)
        except GatewayError as error:
            self._metrics.errors.labels(f"flag_{error.code}").inc()
            self._log.error("policy flag lost", case=exchange.case_id, cause=error.code)
            return
        self._metrics.flags.labels("policy").inc()

    async def _strike(self, exchange: Exchange, judgement: Judgement, side: Side) -> None:
        """Count a block against the end user it stopped: for what they wrote, or had the model say.

        What the application itself, a tool or a document said is not theirs. A strike that cannot be kept is not one.
        """
        decision, policy = judgement.decision, exchange.policy
        weight = policy.strike_weight(decision)
        if exchange.end_user is None or weight == 0 or decision.finding is None:
            return
        if side == "request" and judgement.parts[decision.finding].role != Role.USER:
            return
        part = exchange.principal.policy or exchange.tenant
        strike = Strike(at_ms=0, weight=weight, side=side, hazard=decision.hazard or "", part=part)
        try:
            conduct = await self._strikes.add(
                strike,
                case_id=exchange.case_id,
                tenant=exchange.tenant,
                end_user=exchange.end_user,
                rules=policy.strikes,
            )
        except StateUnavailable as error:
            self._metrics.errors.labels(f"strike_{error.code}").inc()
            return
        exchange.standing = conduct.standing
        self._metrics.strikes.labels(decision.hazard or "none").inc()

    def finish(self, exchange: Exchange, *, status: int) -> None:
        """Close an exchange: its case, its metrics, its line in the log."""
        self._spend(exchange)
        case = exchange.case()
        self._cases.record(case, exchange.texts())
        metrics = self._metrics
        metrics.requests.labels(exchange.surface.name, case.action, case.hazard or "none", case.side or "none").inc()
        for exemplar in dict.fromkeys(_behind(exchange.request) + _behind(exchange.reply)):
            self._hits.note(exemplar)
        spent_s = [
            exchange.timings_s[step] for step in ("screen_request", "screen_reply") if step in exchange.timings_s
        ]
        if spent_s:
            metrics.added.labels(exchange.surface.name).observe(sum(spent_s))
        for judgement, side in ((exchange.request, "request"), (exchange.reply, "response")):
            if judgement is not None and judgement.scores:
                metrics.risk.labels(side).observe(max(score.risk for score in judgement.scores))
        if (trace := current()) is not None and trace.recording:
            hazard = case.hazard if case.action != "allow" else None
            trace.note(case=case.id, tenant=case.tenant, surface=case.surface, action=case.action, hazard=hazard)
            trace.note(stream=exchange.streamed, unscreened=case.unscreened)
        self._log.info(
            "exchange",
            case=case.id,
            tenant=case.tenant,
            surface=case.surface,
            action=case.action,
            rule=case.rule,
            hazard=case.hazard if case.action != "allow" else None,
            status=status,
            upstream_status=case.upstream_status,
            ms=case.timings_ms["total"],
        )

    def remember_reply(self, exchange: Exchange, texts: Sequence[str]) -> None:
        """Note what a caller was given, so that the same text in a later history is an old turn, not a forged one."""
        self._history.note_given(exchange.tenant, texts)

    def _spend(self, exchange: Exchange) -> None:
        """Count what the exchange used against the key's tokens, also where its caller left half-way."""
        key = exchange.principal
        if key.key_id is None or key.tokens_per_minute is None or exchange.upstream_status is None:
            return
        work = self._quotas.count_tokens(key.key_id, exchange.tokens, tokens_per_minute=key.tokens_per_minute)
        task = asyncio.create_task(work)
        self._spending.add(task)
        task.add_done_callback(self._spending.discard)

    async def close(self) -> None:
        """Wait for what is still being counted."""
        await asyncio.gather(*self._spending, return_exceptions=True)


def _behind(judgement: Judgement | None) -> list[str]:
    """The exemplars behind what policy did about the texts of a request or a reply."""
    if judgement is None:
        return []
    hits = judgement.decision.by_text.items()
    found = [behind(judgement.scores[number], hit.hazard) for number, hit in hits if number < len(judgement.scores)]
    return [exemplar for exemplar in found if exemplar is not None]
