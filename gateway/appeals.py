"""Appeals: somebody who was stopped asks for a person to look again. An appeal opens a flag of its own in the queue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from gateway.endpoints import (
    ERRORS,
    FlagReply,
    Id,
    Passage,
    json_body,
    json_reply,
    parts_of,
    peer,
    validated,
    with_key,
)
from gateway.flags import Flag, Source
from gateway.request_body import parse_object, read_body


class AppealRequest(BaseModel):
    """Which decision was wrong, and why."""

    model_config = ConfigDict(extra="forbid", strict=True)

    case_id: Id = Field(description="The x-antiprompt-case of the reply.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    text: Passage | None = Field(None, description="The text itself, for when it is no longer kept.")
    end_user: Id | None = Field(None, description="Whom the appeal is from; kept as a digest.")


router = APIRouter(responses=ERRORS)


@router.post(
    "/v1/appeals",
    status_code=202,
    response_model=FlagReply,
    dependencies=with_key,
    openapi_extra=json_body(AppealRequest.model_json_schema()),
)
async def appeal(request: Request, idempotency_key: Annotated[str | None, Header(max_length=200)] = None) -> Response:
    """Ask for a person to look at a decision again; ``GET /v1/flags/{id}`` tells what became of it.

    A dismissed flag means that the text was fine: it becomes a benign exemplar, and passes from then on.
    """
    parts = parts_of(request)
    principal = await parts.authenticator.principal(request.headers, peer(request))
    raw = await read_body(request, parts.settings.limits)
    asked = validated(AppealRequest, parse_object(raw, parts.settings.limits.max_json_depth))
    end_user = parts.redis.end_user_digest(asked.end_user) if asked.end_user else None
    await parts.quotas.take_flag(tenant=principal.tenant, key_id=principal.key_id, end_user=end_user)
    case = await parts.cases.get(asked.case_id, tenant=principal.tenant)
    texts = await parts.cases.exchange(case.id, tenant=principal.tenant)
    side = case.side or "request"
    kept = None if texts is None else "\n".join(texts.reply) if side == "response" else texts.acted_on(case)
    flag = Flag(
        tenant=principal.tenant,
        source=Source.APPEAL,
        side=side,
        text=asked.text or kept,
        prompt=texts.prompt if texts is not None and side == "response" else None,
        reason=asked.reason,
        hazard=case.hazard,
        risk=case.risk,
        case_id=case.id,
        completion_id=case.completion_id,
        bank_version=case.bank_version,
        exemplar=case.exemplar,
        end_user=end_user,
    )
    fingerprint = parts.redis.digest("appeal body", raw.decode("utf-8"))
    flag_id, state = await parts.flags.add(flag, idempotency_key=idempotency_key, fingerprint=fingerprint)
    parts.metrics.flags.labels("appeal").inc()
    return json_reply({"id": flag_id, "state": str(state)}, 202)
