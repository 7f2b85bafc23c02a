"""The /v1 routes: the only place where the order of the steps is written.

A request: who asks -> body -> policy -> what may be asked for at all -> screening -> what is done about it -> upstream
-> the reply, screened in its turn (``replies``). Every path ends in exactly one case record, whatever happens on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.answers import blocked, refuse, safe_answer
from gateway.auth import Authenticator, Principal
from gateway.bookkeeping import Bookkeeper
from gateway.conduct import EndUsers
from gateway.conversation import PLACEHOLDER, Conversation
from gateway.corrections import guard_instruction, redacted
from gateway.errors import (
    ClientLeft,
    ContentFiltered,
    Forbidden,
    GatewayError,
    NotFound,
    StateUnavailable,
    TooLarge,
    Unscreenable,
)
from gateway.exchange import Exchange
from gateway.history import TenantHistory
from gateway.http_client import Headers, HttpReply, HttpStream
from gateway.judgement import Judge, Judgement
from gateway.policy import STRICTNESS_HEADER, Action, Hit, RewriteMethod, Strictness
from gateway.policy_store import PolicyStore
from gateway.quotas import Quotas
from gateway.redis_client import RedisClient
from gateway.replies import Replies
from gateway.request_body import read_body, read_json
from gateway.screening import Screener
from gateway.settings import Settings
from gateway.telemetry import Metrics
from gateway.tracing import current, step
from gateway.upstream import Call
from gateway.wire.places import replace
from gateway.wire.surface import Json, Place, References, Surface


class Proxy:
    """Answers requests to the surfaces: screens, decides, asks the upstream, screens again."""

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        quotas: Quotas,
        end_users: EndUsers,
        policies: PolicyStore,
        screener: Screener,
        judge: Judge,
        replies: Replies,
        history: TenantHistory,
        bookkeeper: Bookkeeper,
        redis: RedisClient,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._quotas = quotas
        self._end_users = end_users
        self._policies = policies
        self._screener = screener
        self._judge = judge
        self._replies = replies
        self._history = history
        self._bookkeeper = bookkeeper
        self._redis = redis
        self._metrics = metrics

    async def generate(self, request: Request, surface: Surface) -> Response:
        """Answer one request to ``surface``."""
        principal = await self.admit(request)
        exchange = self._exchange(request, surface, principal)
        async with self._accounted(exchange) as account:
            exchange.body = await read_json(request, self._settings.limits)
            async with _while_connected(request):
                return account(await self._steps(request, exchange))

    async def stored(self, request: Request, surface: Surface, path: str, issued_id: str) -> Response:
        """Answer a request about something the upstream keeps; only its own tenant may ask, and text is screened."""
        principal = await self.admit(request)
        if not await self._history.owns(principal.tenant, issued_id):
            raise NotFound(f"there is no {issued_id[:80]!r} for this key")
        exchange = self._exchange(request, surface, principal)
        call = self._call(request, path, principal, None)
        exchange.body = {"stream": request.query_params.get("stream") == "true"}
        async with self._accounted(exchange) as account, _while_connected(request):
            return account(await self._answered(exchange, call))

    @asynccontextmanager
    async def _accounted(self, exchange: Exchange) -> AsyncIterator[Callable[[Response], Response]]:
        """Close the exchange's books whatever happens inside; a stream that is under way closes its own."""
        status = ClientLeft.status

        def account(response: Response) -> Response:
            nonlocal status
            status = response.status_code
            return response

        try:
            yield account
        except GatewayError as error:
            exchange.error = None if isinstance(error, ContentFiltered) else error.code
            status = error.status
            error.headers.update(exchange.headers())
            raise
        finally:
            if not exchange.handed_over:
                self._finish(exchange, status)

    async def passed(self, request: Request) -> Response:
        """Pass a route on that settings list, or that holds nothing to screen (models)."""
        principal = await self.admit(request)
        body = await read_body(request, self._settings.limits) or None
        path = request.scope["raw_path"].decode("latin-1")  # as it was sent: a model's name may hold an encoded slash
        async with _while_connected(request):
            return await self._replies.passed(self._call(request, path.removeprefix("/v1"), principal, body))

    # The steps.

    async def admit(self, request: Request) -> Principal:
        """Who is calling, within their rate limits."""
        with step("auth"):
            principal = await self._authenticator.principal(
                request.headers, request.client.host if request.client else None
            )
            if principal.key_id is not None:
                await self._quotas.take_request(
                    principal.key_id,
                    requests_per_minute=principal.requests_per_minute,
                    tokens_per_minute=principal.tokens_per_minute,
                )
        return principal

    def _exchange(self, request: Request, surface: Surface, principal: Principal) -> Exchange:
        wish = Strictness.from_header(request.headers.get(STRICTNESS_HEADER))
        policy = self._policies.current.for_tenant(principal.policy or principal.tenant).strengthened(wish)
        if self._screener.calibration.in_shadow:
            policy = policy.recording()
        bank, trace = self._screener.bank, current()
        return Exchange(
            surface=surface,
            principal=principal,
            policy=policy,
            bank_version=bank.version if bank else None,
            accept_language=request.headers.get("accept-language"),
            trace_id=trace.id if trace is not None else None,
        )

    async def _steps(self, request: Request, exchange: Exchange) -> Response:
        exchange.end_user = self._end_user(exchange.body)
        await self._admit_end_user(exchange)
        await self._check(exchange)
        if exchange.policy.overlap:
            return await self._overlapped(request, exchange)
        judgement = await self._judged(exchange)
        answer, body = await self._acted_on(exchange, judgement)
        if answer is not None:
            return answer
        return await self._answered(exchange, self._request_call(request, exchange, body))

    async def _admit_end_user(self, exchange: Exchange) -> None:
        """Refuse, or slow down, whom policy has blocked too often."""
        tenant, end_user, rules = exchange.tenant, exchange.end_user, exchange.policy.strikes
        conduct = await self._end_users.conduct(tenant=tenant, end_user=end_user, rules=rules)
        exchange.standing = conduct.standing
        await self._end_users.admit(conduct, tenant=tenant, end_user=end_user, rules=rules, param="safety_identifier")

    async def _check(self, exchange: Exchange) -> None:
        """Refuse what this caller may not ask for, or what cannot be screened."""
        models = exchange.principal.models
        if models and exchange.model not in models:
            raise Forbidden("this key may not use that model", param="model")
        extracted = exchange.surface.read_request(exchange.body)
        if len(extracted.texts) > self._settings.limits.max_texts:
            raise TooLarge(f"the request holds more than {self._settings.limits.max_texts} texts")
        await self._check_references(exchange.surface.references(exchange.body), exchange.tenant)
        exchange.unreadable = extracted.unreadable
        if extracted.unreadable and exchange.policy.unreadable == "refuse":
            part = extracted.unreadable[0]
            raise Unscreenable(
                f"this gateway cannot screen content of the kind {part.kind!r}, and its policy refuses what it "
                "cannot screen",
                param=".".join(map(str, part.place)),
            )
        exchange.conversation = Conversation(extracted)

    async def _check_references(self, references: References, tenant: str) -> None:
        """What stands for text kept upstream is let through only where it was issued to this tenant, or is listed."""
        routes = self._settings.routes
        if references.background and not routes.background:
            raise Forbidden("background responses are not allowed by this gateway", param="background")
        for tool in references.hosted_tools:
            if tool not in routes.hosted_tools:
                raise Forbidden(f"the hosted tool {tool[:40]!r} is not allowed by this gateway", param="tools")
        for prompt in references.stored_prompts:
            if prompt not in routes.stored_prompts:
                raise Forbidden("this stored prompt is not allowed by this gateway", param="prompt")
        for conversation in references.conversations:
            if conversation not in routes.conversations and not await self._history.owns(tenant, conversation):
                raise NotFound("there is no such conversation for this key", param="conversation")
        for response in references.responses:
            if not await self._history.owns(tenant, response):
                raise NotFound("there is no such response for this key", param="previous_response_id")

    async def _judged(self, exchange: Exchange) -> Judgement:
        assert exchange.conversation is not None
        tenant = exchange.tenant
        started_s = time.perf_counter()
        judgement = await self._judge.request(
            exchange.conversation,
            exchange.policy,
            tenant=tenant,
            known=lambda texts: self._history.judged(tenant, texts),
        )
        exchange.elapsed("screen_request", started_s)
        exchange.request = judgement
        await self._bookkeeper.judged(exchange, judgement, "request")
        return judgement

    async def _acted_on(self, exchange: Exchange, judgement: Judgement) -> tuple[Response | None, Json]:
        """The answer that policy gives in the upstream's place, or the request as it may go upstream."""
        decision, body = judgement.decision, exchange.body
        if decision.action is Action.BLOCK:
            return refuse(exchange, decision), body
        assert exchange.conversation is not None
        texts = exchange.conversation.texts
        edits: dict[Place, str] = {texts[index].place: PLACEHOLDER for index in judgement.placeholders}
        if decision.action is not Action.REWRITE:
            return None, replace(body, edits) if edits else body
        if decision.rewrite is RewriteMethod.DESIRED_RESPONSE:
            if not exchange.surface.speaks:
                raise blocked(exchange, decision)
            return safe_answer(exchange, judgement, self._screener.in_force), body
        hits = list(decision.hits)
        for number in _to_redact(judgement):
            left = await self._redacted(exchange, judgement, number)
            if left is None:
                return refuse(exchange, decision), body
            text, hits_left = left
            edits[texts[judgement.parts[number].indexes[0]].place] = text
            hits += hits_left
        body = replace(body, edits) if edits else body
        if any(hit.rewrite is RewriteMethod.GUARD for hit in hits):
            if not exchange.surface.speaks:
                raise blocked(exchange, decision)
            body = exchange.surface.instruct(body, guard_instruction(dict.fromkeys(h.hazard for h in hits if h.hazard)))
        return None, body

    async def _redacted(
        self, exchange: Exchange, judgement: Judgement, number: int
    ) -> tuple[str, Sequence[Hit]] | None:
        """What is left of a part once its passages are cut out, and which hits that still has.

        None where more would have to be cut than policy allows, or where a cut would break a format.
        """
        assert exchange.conversation is not None
        part, score = judgement.parts[number], judgement.scores[number]
        if len(part.indexes) > 1 or exchange.conversation.texts[part.indexes[0]].structured:
            return None
        for _ in range(judgement.decision.by_text[number].max_tries):
            part = part.edited(redacted(part.subject.text, score.start, score.end))
            left = await self._judge.edited(part, exchange.policy, tenant=exchange.tenant)
            if left.decision.rewrite is RewriteMethod.GUARD or not left.stops:
                return part.subject.text, left.decision.hits
            if left.decision.rewrite is not RewriteMethod.REDACT:
                return None
            score = left.scores[0]
        return None

    async def _answered(self, exchange: Exchange, call: Call) -> Response:
        if exchange.streamed:
            stream = await self._replies.open_stream(exchange, call)
            return await self._replies.streamed(exchange, call, stream, self._finish)
        return await self._replies.whole(exchange, call, await self._replies.ask(exchange, call))

    async def _overlapped(self, request: Request, exchange: Exchange) -> Response:
        """Ask the upstream while the request is being screened, and hold its answer until the verdict.

        The model then sees what is blocked a moment later, and bills it; what has to be changed is asked anew.
        """
        call = self._request_call(request, exchange, exchange.body)
        asked: asyncio.Task[HttpReply | HttpStream] = asyncio.create_task(
            self._replies.open_stream(exchange, call) if exchange.streamed else self._replies.ask(exchange, call)
        )
        try:
            judgement = await self._judged(exchange)
            answer, body = await self._acted_on(exchange, judgement)
        except BaseException:
            await _abandon(asked)
            raise
        if answer is not None or body is not exchange.body:
            await _abandon(asked)
            return answer or await self._answered(exchange, self._request_call(request, exchange, body))
        try:
            reply = await asked
        except asyncio.CancelledError:
            await _abandon(asked)
            raise
        if isinstance(reply, HttpStream):
            return await self._replies.streamed(exchange, call, reply, self._finish)
        return await self._replies.whole(exchange, call, reply)

    # Small pieces.

    def _request_call(self, request: Request, exchange: Exchange, body: Json) -> Call:
        return self._call(request, exchange.surface.path, exchange.principal, orjson.dumps(body))

    def _call(self, request: Request, path: str, principal: Principal, body: bytes | None) -> Call:
        headers: Headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in request.headers.raw)
        return Call(
            request.method,
            path,
            headers,
            body,
            request.url.query,
            callers_credentials=principal.key_id is None,
        )

    def _end_user(self, body: Json) -> str | None:
        """A digest of whom the caller says this is for (``safety_identifier``, formerly ``user``)."""
        named = body.get("safety_identifier") or body.get("user")
        if not isinstance(named, str) or not named:
            return None
        try:
            return self._redis.end_user_digest(named)
        except StateUnavailable:  # before the first contact with Redis; no text is kept then either
            return None

    def _finish(self, exchange: Exchange, status: int) -> None:
        self._bookkeeper.finish(exchange, status=status)


def _to_redact(judgement: Judgement) -> list[int]:
    """The parts with a passage to cut out."""
    return [number for number, hit in judgement.decision.by_text.items() if hit.rewrite is RewriteMethod.REDACT]


async def _abandon(asked: asyncio.Task[HttpReply | HttpStream]) -> None:
    """Give up an answer that nobody will read: closing its connection is how the upstream learns of it."""
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError, GatewayError):
        reply = await asked
        if isinstance(reply, HttpStream):
            await reply.close()


@asynccontextmanager
async def _while_connected(request: Request) -> AsyncIterator[None]:
    """Cancel what runs inside when the caller closes the connection. The body must have been read before.

    Raises ``ClientLeft`` in place of the cancellation.
    """
    task = asyncio.current_task()
    assert task is not None

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not watching.done() or watching.cancelled():
            raise
        task.uncancel()
        raise ClientLeft("the caller closed the connection") from None
    finally:
        watching.cancel()
