"""Replies of the gateway's own making: a refusal, a safe answer, an error, each in the shape its surface has."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Final

import orjson
from starlette.responses import Response

from antiprompt_bank import HAZARDS, Bank
from gateway.corrections import desired_response
from gateway.errors import ContentFiltered
from gateway.exchange import Exchange
from gateway.judgement import Judgement
from gateway.policy import Decision
from gateway.refusals import language_of, refusal_text
from gateway.streaming import DONE, encode
from gateway.wire.surface import Answer, Finish, Json

JSON_TYPE: Final = "application/json"
EVENTS_TYPE: Final = "text/event-stream; charset=utf-8"


def refuse(exchange: Exchange, decision: Decision) -> Response:
    """The block of ``decision``, in the policy's style.

    Raises ``ContentFiltered`` in the error style, and where a refusal has no place in a reply.
    """
    if exchange.policy.block_style == "error" or not exchange.surface.speaks:
        raise blocked(exchange, decision)
    exchange.withheld = True
    return say(exchange, [refusal(exchange, decision)] * exchange.choices, "content_filter")


def blocked(exchange: Exchange, decision: Decision) -> ContentFiltered:
    """The error that says that policy blocks: the hazard and the case, never what was matched."""
    exchange.withheld = True
    named = HAZARDS[decision.hazard].title.lower() if decision.hazard else "its content"
    return ContentFiltered(f"blocked by the safety policy ({named}); case {exchange.case_id}")


def refusal(exchange: Exchange, decision: Decision) -> str:
    """The refusal's text for these hazards in the language of the request."""
    return refusal_text(decision.hazards, _language(exchange))


def safe_answer(exchange: Exchange, judgement: Judgement, bank: Bank) -> Response:
    """In place of what was judged: what the nearest exemplar says should be answered, or a refusal's text.

    Where JSON was asked for, a sentence would not parse: that is refused.
    """
    decision = judgement.decision
    if exchange.surface.wants_structure(exchange.body):
        return refuse(exchange, decision)
    assert decision.finding is not None
    score = judgement.scores[decision.finding]
    text = desired_response(score, decision.hazards, record=bank.record, language=_language(exchange))
    return say(exchange, [text] * exchange.choices, "stop")


def _language(exchange: Exchange) -> str:
    return language_of(exchange.prompt or "", exchange.accept_language)


def as_reply(exchange: Exchange, texts: Sequence[str]) -> Json:
    """The body of a whole reply that says ``texts``."""
    return exchange.surface.answer(_answer(exchange, texts, "stop"))


def say(exchange: Exchange, texts: Sequence[str], finish: Finish) -> Response:
    """A reply that says ``texts``, one a choice: whole or as a stream, as the caller asked for.

    ``exchange.reply_texts`` stays what the model said: our own words are for nobody to review.
    """
    answer = _answer(exchange, texts, finish)
    exchange.completion_id = exchange.completion_id or answer.reply_id
    if not exchange.streamed:
        body = orjson.dumps(exchange.surface.answer(answer))
        return Response(body, media_type=JSON_TYPE, headers=exchange.headers())
    events = [encode(name, payload) for name, payload in exchange.surface.answer_events(answer)]
    if exchange.surface.ends_with_done:
        events.append(DONE)
    return Response(b"".join(events), media_type=EVENTS_TYPE, headers=exchange.headers())


def _answer(exchange: Exchange, texts: Sequence[str], finish: Finish) -> Answer:
    options = exchange.body.get("stream_options")
    return Answer(
        texts=texts,
        finish=finish,
        model=exchange.model,
        reply_id=f"{_PREFIXES[exchange.surface.name]}{secrets.token_hex(16)}",
        created_at=int(time.time()),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        request=exchange.body,
    )


_PREFIXES: Final = {"chat": "chatcmpl-", "completions": "cmpl-", "responses": "resp_"}
