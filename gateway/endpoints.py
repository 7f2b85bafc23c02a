"""The gateway's own endpoints: flags, moderations, health, readiness and metrics."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from fastapi import APIRouter, Header, Request, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.responses import PlainTextResponse, Response

from antiprompt_bank import HAZARDS, Side
from gateway.answers import JSON_TYPE
from gateway.auth import Principal
from gateway.calibration import Status
from gateway.cases import Case
from gateway.cases import Exchange as ExchangeTexts
from gateway.conversation import Conversation
from gateway.errors import BadRequest, StateUnavailable, TooLarge, Unscreenable
from gateway.flag_records import FlagState
from gateway.flags import Flag, Source
from gateway.parts import Parts
from gateway.policy import Policy
from gateway.request_body import parse_object, read_body
from gateway.telemetry import METRICS_CONTENT_TYPE
from gateway.wire import MODERATIONS
from gateway.wire.surface import Extracted

Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._:-]+$")]
M = TypeVar("M", bound=BaseModel)
Passage = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """Every error, in OpenAI's shape."""

    error: ErrorDetail


def _one_of_these_names_the_text(schema: dict[str, Any]) -> None:
    names = ("case_id", "completion_id", "text")
    schema["anyOf"] = [{"required": [name], "properties": {name: {"type": "string"}}} for name in names]


class FlagRequest(BaseModel):
    """A user's report: which text, by id or in words, and why."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_one_of_these_names_the_text)

    case_id: Id | None = Field(None, description="The x-antiprompt-case of the reply.")
    completion_id: Id | None = Field(None, description="The id of the completion or response.")
    text: Passage | None = Field(None, description="The text itself, where there is no id.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    prompt: Passage | None = Field(None, description="What the text answered.")
    hazard: str | None = Field(None, description="A hazard slug.", json_schema_extra={"enum": [*HAZARDS, None]})
    corrected_answer: Passage | None = Field(None, description="What should have been said.")
    end_user: Id | None = Field(None, description="Whom the report is from; kept as a digest.")


class FlagReply(BaseModel):
    """Where a flag stands."""

    id: str
    state: FlagState


class Health(BaseModel):
    """That the process answers."""

    status: Literal["ok"]


class ReadinessReport(BaseModel):
    """Whether traffic should come here, and why not."""

    status: Literal["ready", "starting", "failed"]
    bank: str | None = Field(description="The version of the bank.")
    calibration: Status | None = Field(description="The bank's own, fitted to own texts, or stale and what that does.")
    redis: Literal["up", "away"]
    reason: str | None = Field(description="Why it will never be ready.")


class ModerationResult(BaseModel):
    """The verdict on one input. Scores are 0 or 1 unless the key may see them."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]


class ModerationReply(BaseModel):
    """One result for each input."""

    id: str
    model: str
    results: list[ModerationResult]


_TEXT_PART: Final = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_MODERATION_REQUEST: Final = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": {"type": "string", "description": "Repeated in the reply; there is one detector."},
        "input": {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "minItems": 1, "items": {"type": "string"}},
                {"type": "array", "minItems": 1, "items": _TEXT_PART},
            ]
        },
    },
}


def json_body(schema: dict[str, Any]) -> dict[str, Any]:
    """What the schema says of a body that the endpoint reads for itself, within its limits."""
    return {"requestBody": {"required": True, "content": {JSON_TYPE: {"schema": schema}}}}


ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": ErrorReply, "description": "The request is refused."},
    "5XX": {"model": ErrorReply, "description": "The gateway cannot answer now."},
}
router = APIRouter(responses=ERRORS)
with_key: Final = [Security(HTTPBearer(auto_error=False, description="A client key, once the gateway has any."))]


def parts_of(request: Request) -> Parts:
    """The parts of the running gateway. Raises ``ScreeningUnavailable`` while it is starting."""
    parts: Parts = request.app.state.parts
    return parts


@router.post(
    "/v1/flags",
    status_code=202,
    response_model=FlagReply,
    dependencies=with_key,
    openapi_extra=json_body(FlagRequest.model_json_schema()),
)
async def file_flag(
    request: Request, idempotency_key: Annotated[str | None, Header(max_length=200)] = None
) -> Response:
    """Report a text. Answered when the flag is kept; the same Idempotency-Key files it once."""
    parts = parts_of(request)
    principal = await parts.authenticator.principal(request.headers, peer(request))
    raw = await read_body(request, parts.settings.limits)
    asked = _flag_request(parse_object(raw, parts.settings.limits.max_json_depth))
    end_user = parts.redis.end_user_digest(asked.end_user) if asked.end_user else None
    await parts.quotas.take_flag(tenant=principal.tenant, key_id=principal.key_id, end_user=end_user)
    flag = await _flag(parts, principal, asked, end_user)
    fingerprint = parts.redis.digest("flag body", raw.decode("utf-8"))
    flag_id, state = await parts.flags.add(flag, idempotency_key=idempotency_key, fingerprint=fingerprint)
    parts.metrics.flags.labels("user").inc()
    return json_reply({"id": flag_id, "state": str(state)}, 202)


@router.get("/v1/flags/{flag_id}", response_model=FlagReply, dependencies=with_key)
async def flag_state(request: Request, flag_id: str) -> Response:
    """Where a flag of this tenant stands."""
    parts = parts_of(request)
    principal = await parts.authenticator.principal(request.headers, peer(request))
    flag = await parts.flags.get(flag_id, tenant=principal.tenant)
    return json_reply({"id": flag.id, "state": str(flag.state)})


def validated(model: type[M], body: dict[str, Any]) -> M:
    """The body as ``model`` has it. Raises ``BadRequest`` that names the field."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or None
        raise BadRequest(f"{place or 'the body'}: {first['msg']}", param=place) from None


def _flag_request(body: dict[str, Any]) -> FlagRequest:
    asked = validated(FlagRequest, body)
    if asked.case_id is None and asked.completion_id is None and asked.text is None:
        raise BadRequest("name the text by case_id or completion_id, or send it as text", param="case_id")
    if asked.hazard is not None and asked.hazard not in HAZARDS:
        raise BadRequest(f"hazard must be one of {', '.join(HAZARDS)}", param="hazard")
    return asked


async def _flag(parts: Parts, principal: Principal, asked: FlagRequest, end_user: str | None) -> Flag:
    case, texts = await reported(parts, principal, asked)
    side = _side(asked, case, texts)
    text, prompt = asked.text, asked.prompt
    if case is not None and texts is not None:
        text = text or ("\n".join(texts.reply) if side == "response" else None) or texts.acted_on(case)
        prompt = prompt or (texts.prompt if side == "response" and texts.reply else None)
    return Flag(
        tenant=principal.tenant,
        source=Source.USER,
        side=side,
        text=text,
        prompt=prompt,
        reason=asked.reason,
        corrected_answer=asked.corrected_answer,
        hazard=asked.hazard,
        risk=case.risk if case else None,
        case_id=case.id if case else asked.case_id,
        completion_id=asked.completion_id or (case.completion_id if case else None),
        bank_version=case.bank_version if case else None,
        exemplar=case.exemplar if case and case.side == side else None,
        end_user=end_user,
    )


def _side(asked: FlagRequest, case: Case | None, texts: ExchangeTexts | None) -> Side:
    """What a report is about: the reply, unless there was none because the request was stopped."""
    has_reply = texts is not None and bool(texts.reply)
    if asked.prompt is not None or has_reply:
        return "response"
    if case is not None and case.stopped == "request":
        return "request"
    return "request" if asked.text is None else "response"


async def reported(parts: Parts, principal: Principal, asked: FlagRequest) -> tuple[Case | None, ExchangeTexts | None]:
    """The case that is reported and its text. While Redis is away the flag is kept with the ids alone."""
    try:
        if asked.case_id is not None:
            case = await parts.cases.get(asked.case_id, tenant=principal.tenant)
        elif asked.completion_id is not None:
            case = await parts.cases.by_completion(asked.completion_id, tenant=principal.tenant)
        else:
            return None, None
        return case, await parts.cases.exchange(case.id, tenant=principal.tenant)
    except StateUnavailable:
        return None, None


@router.post(
    "/v1/moderations",
    response_model=ModerationReply,
    dependencies=with_key,
    openapi_extra=json_body(_MODERATION_REQUEST),
)
async def moderate(request: Request) -> Response:
    """The verdict of the gateway's own detector, in OpenAI's shape."""
    parts = parts_of(request)
    principal = await parts.proxy.admit(request)
    limits = parts.settings.limits
    body = parse_object(await read_body(request, limits), limits.max_json_depth, goes_upstream=False)
    model = body.get("model", "antiprompt")
    if not isinstance(model, str):
        raise BadRequest("model: must be a string", param="model")
    extracted = MODERATIONS.read_request(body)
    if len(extracted.texts) > parts.settings.limits.max_texts:
        raise TooLarge(f"the request holds more than {parts.settings.limits.max_texts} texts")
    if extracted.unreadable:
        raise Unscreenable("this gateway screens text; it cannot moderate images", param="input")
    policy: Policy = parts.policies.current.for_tenant(principal.policy or principal.tenant)
    if parts.screener.calibration.in_shadow:
        policy = policy.recording()
    numbers = range(MODERATIONS.result_count(body))
    inputs = [Extracted(tuple(text for text in extracted.texts if text.choice == number)) for number in numbers]
    judged = await asyncio.gather(*(_moderated(parts, one, policy, principal.tenant) for one in inputs))
    reply = MODERATIONS.reply(
        [risks for risks, _ in judged],
        [hits for _, hits in judged],
        model=model,
        reply_id=f"modr-{secrets.token_hex(12)}",
        with_scores=principal.sees_scores,
    )
    return json_reply(reply)


async def _moderated(
    parts: Parts, extracted: Extracted, policy: Policy, tenant: str
) -> tuple[dict[str, float], set[str]]:
    """The risks of one input by hazard, and the hazards for which policy would do anything but allow."""
    conversation = Conversation(extracted)
    judgement = await parts.judge.request(conversation, policy, tenant=tenant, known=nothing_known)
    risks: dict[str, float] = {}
    for score in judgement.scores:
        for hazard, risk in score.risks.items():
            risks[hazard] = max(risk, risks.get(hazard, 0.0))
    return risks, {hit.hazard for hit in judgement.decision.hits if hit.hazard}


async def nothing_known(texts: Any) -> dict[str, str]:
    """For texts that stand alone: none of them is an old turn."""
    return {}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", response_model=Health)
async def healthz(request: Request) -> Response:
    """Whether the process answers at all. Says nothing about how it is set up."""
    return json_reply({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", response_model=ReadinessReport, responses={503: {"model": ReadinessReport}})
async def readyz(request: Request) -> Response:
    """Whether traffic should come here: the bank is loaded and has been tried out."""
    readiness = request.app.state.readiness
    return json_reply(readiness.report(), 200 if readiness.ready else 503)


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Everything that is counted, for Prometheus."""
    return Response(request.app.state.metrics.exposition(), media_type=METRICS_CONTENT_TYPE)


def json_reply(body: dict[str, Any], status: int = 200) -> Response:
    """A body as JSON."""
    return Response(orjson.dumps(body), status, media_type=JSON_TYPE)


def peer(request: Request) -> str | None:
    """The address of whoever calls."""
    return request.client.host if request.client else None
