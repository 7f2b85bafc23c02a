"""Replies: what the upstream answers, screened, and what is done about it; whole or as a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace as changed

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.answers import EVENTS_TYPE, as_reply, refuse, safe_answer, say
from gateway.bookkeeping import Bookkeeper
from gateway.corrections import corrective_instruction, redacted
from gateway.errors import GatewayError, UpstreamInvalid
from gateway.exchange import Exchange
from gateway.history import TenantHistory
from gateway.holdback import Portion
from gateway.http_client import Headers, HttpReply, HttpStream
from gateway.judgement import Judge, Judgement
from gateway.policy import Action, Decision, RewriteMethod
from gateway.relay import Relay
from gateway.screening import Screener
from gateway.settings import Settings
from gateway.streaming import DONE, encode
from gateway.telemetry import Metrics
from gateway.tracing import step
from gateway.upstream import Call, Upstream
from gateway.wire.places import replace
from gateway.wire.surface import Extracted, Json

Finish = Callable[[Exchange, int], None]


class Replies:
    """Takes a request to the upstream and brings back what may be read of its reply."""

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        judge: Judge,
        screener: Screener,
        history: TenantHistory,
        bookkeeper: Bookkeeper,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._judge = judge
        self._screener = screener
        self._history = history
        self._bookkeeper = bookkeeper
        self._metrics = metrics

    # Whole replies.

    async def ask(self, exchange: Exchange, call: Call) -> HttpReply:
        """The upstream's whole reply, timed."""
        started_s = time.perf_counter()
        with step("upstream"):
            reply = await self._upstream.ask(call)
        self._answered(exchange, reply.status, started_s)
        return reply

    async def passed(self, call: Call) -> Response:
        """A reply that is not screened, as it comes."""
        with step("upstream"):
            reply = await self._upstream.ask(call)
        return Response(reply.body, reply.status, _plain(reply.headers))

    async def whole(self, exchange: Exchange, call: Call, reply: HttpReply) -> Response:
        """Screen a whole reply and answer the caller with what may be read of it."""
        if not 200 <= reply.status < 300 or not exchange.surface.has_words:
            return _as_it_came(exchange, reply)
        body = _parsed(reply)
        _note_usage(exchange, body)
        return await self._decided(exchange, call, reply, body, tries_left=None)

    async def _decided(
        self, exchange: Exchange, call: Call, reply: HttpReply, body: Json, *, tries_left: int | None
    ) -> Response:
        extracted = _extracted(exchange, body)
        texts = [text.text for text in extracted.texts]
        judgement = await self._judged(exchange, texts)
        exchange.reply_texts = texts
        await self._issued(exchange, body)
        decision = judgement.decision
        if decision.action is Action.BLOCK:
            return refuse(exchange, decision)
        if decision.action is not Action.REWRITE:
            self._bookkeeper.remember_reply(exchange, texts)
            return _as_it_came(exchange, reply)
        if not exchange.surface.speaks:
            return refuse(exchange, decision)
        if decision.rewrite is RewriteMethod.REGENERATE:
            tries = _tries(call, decision, tries_left)
            if tries > 0:
                return await self._regenerated(exchange, call, judgement, tries)
        if decision.rewrite is RewriteMethod.REDACT:
            return await self._redacted(exchange, reply, body, extracted, judgement)
        return safe_answer(exchange, judgement, self._screener.in_force)

    async def _judged(self, exchange: Exchange, texts: Sequence[str]) -> Judgement:
        started_s = time.perf_counter()
        judgement = await self._judge.reply(texts, exchange.prompt, exchange.policy, tenant=exchange.tenant)
        exchange.elapsed("screen_reply", started_s)
        exchange.note_reply(judgement)
        await self._bookkeeper.judged(exchange, judgement, "response")
        return judgement

    async def _regenerated(self, exchange: Exchange, call: Call, judgement: Judgement, tries: int) -> Response:
        """Ask the upstream again with a corrective instruction; what comes is screened like the first reply."""
        again = _corrected(exchange, call, judgement)
        reply = await self.ask(exchange, again)
        if not 200 <= reply.status < 300:
            return safe_answer(exchange, judgement, self._screener.in_force)
        return await self._decided(exchange, again, reply, _parsed(reply), tries_left=tries - 1)

    async def _redacted(
        self, exchange: Exchange, reply: HttpReply, body: Json, extracted: Extracted, judgement: Judgement
    ) -> Response:
        """Cut the matched passages out, screen what is left, and repeat where that is hit again; then block."""
        for _ in range(max(1, judgement.decision.max_tries)):
            hits = judgement.hits_by_text()
            if any(extracted.texts[index].structured for index in hits):
                break  # an edit would break the format that was asked for
            edits = {
                extracted.texts[index].place: redacted(extracted.texts[index].text, score.start, score.end)
                for index, (_, score) in hits.items()
            }
            body = replace(body, edits)
            extracted = _extracted(exchange, body)
            texts = [text.text for text in extracted.texts]
            judgement = await self._judge.reply(texts, exchange.prompt, exchange.policy, tenant=exchange.tenant)
            if not judgement.stops:
                exchange.reply_texts = texts
                self._bookkeeper.remember_reply(exchange, texts)
                return _json(exchange, reply, body)
        return refuse(exchange, judgement.decision)

    async def _issued(self, exchange: Exchange, payload: Json) -> None:
        """Note the ids that the upstream gives out, before the caller can have them."""
        response = payload.get("response", payload)
        reply_id = response.get("id") if isinstance(response, dict) else None
        if not isinstance(reply_id, str):
            return
        exchange.completion_id = reply_id
        if exchange.surface.name != "responses":
            return
        conversation = response.get("conversation")
        known = conversation.get("id") if isinstance(conversation, dict) else None
        ids = [reply_id, known] if isinstance(known, str) else [reply_id]
        await self._history.remember_issued(exchange.tenant, ids)

    # Streams.

    async def open_stream(self, exchange: Exchange, call: Call) -> HttpStream:
        """The upstream's reply as soon as its head is there, timed."""
        started_s = time.perf_counter()
        with step("upstream"):
            stream = await self._upstream.open_stream(call)
        self._answered(exchange, stream.status, started_s)
        return stream

    async def streamed(
        self, exchange: Exchange, call: Call, stream: HttpStream, finish: Finish, *, tries_left: int | None = None
    ) -> Response:
        """Screen a streamed reply as it comes.

        Nothing is sent, not even the status, before the first text may leave: so a reply that is hit in its first
        window is answered in full by policy's style. ``finish`` is called when the stream is over. ``tries_left`` is
        None but for a regenerated reply, which is held whole.
        """
        try:
            if not 200 <= stream.status < 300 or not _is_event_stream(stream.headers):
                reply = HttpReply(stream.status, stream.headers, await stream.read())
                return await self.whole(exchange, call, reply)
            relay = self._relay(exchange, stream, whole=tries_left is not None)
            chunks = relay.released()
            first = await anext(chunks, None)
            await self._issued(exchange, relay.first_payload or {})
            if first is None and relay.hit is not None:
                await stream.close()
                return await self._instead(exchange, call, relay, finish, tries_left)
        except BaseException:
            await stream.close()
            raise
        headers = {**_plain(stream.headers), **exchange.headers()}

        async def over() -> None:
            await chunks.aclose()
            await stream.close()
            exchange.reply_texts = relay.texts
            _note_usage(exchange, relay.last_usage or {})
            if relay.hit is None:
                self._bookkeeper.remember_reply(exchange, relay.texts)
            finish(exchange, stream.status)

        exchange.handed_over = True
        return _RelayedResponse(self._body(exchange, relay, chunks, first or b""), stream.status, headers, over)

    def _relay(self, exchange: Exchange, stream: HttpStream, *, whole: bool) -> Relay:
        policy = exchange.policy
        scores = exchange.request.scores if exchange.request else ()
        always = (policy.stream_hold or self._settings.stream.hold) == "whole"

        async def judge(portions: Sequence[Portion]) -> Judgement:
            judgement = await self._judged(exchange, [portion.text for portion in portions])
            if relay.started and judgement.decision.action is Action.REWRITE:
                judgement = changed(judgement, decision=judgement.decision.unheld())
                exchange.note_reply(judgement)
            return judgement

        relay = Relay(
            stream,
            exchange.surface.reply_stream(exchange.body),
            judge,
            settings=self._settings.stream,
            hold_whole=whole or always or policy.holds_whole_reply(scores),
            max_event_bytes=self._settings.upstream.max_event_bytes,
            read_timeout_s=self._settings.upstream.read_timeout_s,
            metrics=self._metrics,
        )
        return relay

    async def _instead(
        self, exchange: Exchange, call: Call, relay: Relay, finish: Finish, tries_left: int | None
    ) -> Response:
        """The whole answer to a stream that was hit before any of it had left."""
        assert relay.hit is not None
        judgement, decision = relay.hit, relay.hit.decision
        exchange.reply_texts = relay.texts
        if decision.action is Action.REWRITE and exchange.surface.speaks:
            tries = _tries(call, decision, tries_left)
            if decision.rewrite is RewriteMethod.REGENERATE and tries > 0:
                return await self._regenerated_stream(exchange, call, judgement, finish, tries)
            if decision.rewrite is not RewriteMethod.REDACT:
                return safe_answer(exchange, judgement, self._screener.in_force)
            spoken = await self._redacted_stream(exchange, relay, judgement)
            if spoken is not None:
                exchange.reply_texts = spoken
                return say(exchange, spoken, "stop")
        return refuse(exchange, decision)

    async def _regenerated_stream(
        self, exchange: Exchange, call: Call, judgement: Judgement, finish: Finish, tries: int
    ) -> Response:
        """The same as ``_regenerated`` for a caller that asked for a stream."""
        again = _corrected(exchange, call, judgement)
        stream = await self.open_stream(exchange, again)
        if not 200 <= stream.status < 300:
            await stream.close()
            return safe_answer(exchange, judgement, self._screener.in_force)
        return await self.streamed(exchange, again, stream, finish, tries_left=tries - 1)

    async def _redacted_stream(self, exchange: Exchange, relay: Relay, judgement: Judgement) -> Sequence[str] | None:
        """What each choice says with the matched passages cut out; None where that cannot be said in plain text.

        Only a reply that was held whole and holds nothing but its choices' spoken text can be put together again.
        """
        if not relay.held_whole:
            return None
        texts = relay.spoken()
        if texts is None or any(text.structured for text in _extracted(exchange, as_reply(exchange, texts)).texts):
            return None
        for _ in range(max(1, judgement.decision.max_tries)):
            for index, (_, score) in judgement.hits_by_text().items():
                texts[index] = redacted(texts[index], score.start, score.end)
            judgement = await self._judge.reply(texts, exchange.prompt, exchange.policy, tenant=exchange.tenant)
            if not judgement.stops:
                return texts
        return None

    async def _body(
        self,
        exchange: Exchange,
        relay: Relay,
        chunks: AsyncGenerator[bytes, None],
        first: bytes,
    ) -> AsyncIterator[bytes]:
        """What the caller receives."""
        try:
            yield first
            async for chunk in chunks:
                yield chunk
            if relay.hit is not None:
                yield self._closing(exchange, relay)
        except GatewayError as error:
            # The status has left already, so the error travels as an event; OpenAI's clients raise it.
            exchange.error = error.code
            self._metrics.errors.labels(error.code).inc()
            yield _error_event(exchange, error)

    def _closing(self, exchange: Exchange, relay: Relay) -> bytes:
        events = [encode(name, payload) for name, payload in relay.close()]
        if exchange.surface.ends_with_done:
            events.append(DONE)
        return b"".join(events)

    def _answered(self, exchange: Exchange, status: int, since_s: float) -> None:
        exchange.upstream_status = status
        exchange.elapsed("upstream", since_s)
        self._metrics.upstream.labels(exchange.surface.name).observe(time.perf_counter() - since_s)


class _RelayedResponse(StreamingResponse):
    """A streamed reply. ``over`` runs when it has ended, however it did, and also where it never began."""

    def __init__(
        self, body: AsyncIterator[bytes], status: int, headers: dict[str, str], over: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(body, status, headers, media_type=EVENTS_TYPE)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._over()


def _tries(call: Call, decision: Decision, left: int | None) -> int:
    """How often the model may be asked again. A stored reply that is read back cannot be asked for anew."""
    if call.method != "POST":
        return 0
    return decision.max_tries if left is None else left


def _corrected(exchange: Exchange, call: Call, judgement: Judgement) -> Call:
    """The same request with an instruction not to repeat what was wrong."""
    instruction = corrective_instruction(judgement.decision.hazards)
    return changed(call, body=orjson.dumps(exchange.surface.instruct(exchange.body, instruction)))


def _note_usage(exchange: Exchange, payload: Json) -> None:
    response = payload.get("response")  # the responses API wraps it in its events
    exchange.note_usage(response if isinstance(response, dict) else payload)


def _as_it_came(exchange: Exchange, reply: HttpReply) -> Response:
    """The upstream's own bytes; what they say was screened, or is not for reading (numbers, sound, an error)."""
    return Response(reply.body, reply.status, {**_plain(reply.headers), **exchange.headers()})


def _json(exchange: Exchange, reply: HttpReply, body: Json) -> Response:
    return Response(orjson.dumps(body), reply.status, {**_plain(reply.headers), **exchange.headers()})


def _plain(headers: Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def _is_event_stream(headers: Headers) -> bool:
    return _plain(headers).get("content-type", "").lower().startswith("text/event-stream")


def _parsed(reply: HttpReply) -> Json:
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        raise UpstreamInvalid("the model server's reply is not JSON, so it cannot be screened") from None
    if not isinstance(body, dict):
        raise UpstreamInvalid("the model server's reply is not a JSON object, so it cannot be screened")
    return body


def _extracted(exchange: Exchange, body: Json) -> Extracted:
    try:
        return exchange.surface.read_reply(body)
    except ValueError:
        raise UpstreamInvalid("the model server's reply cannot be read, so it cannot be screened") from None


def _error_event(exchange: Exchange, error: GatewayError) -> bytes:
    if exchange.surface.ends_with_done:
        return encode(None, error.body())
    return encode(
        "error", {"type": "error", "code": error.code, "message": error.message, "param": None, **error.body()}
    )
