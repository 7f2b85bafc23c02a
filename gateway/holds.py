"""Held content: what users write is screened before it is published, and a person decides about what policy stops.

A hold is a flag seen from the other side: while the flag waits, the content is held; dismissed, it is approved;
confirmed, it is rejected. So it stands in the same queue, is kept as safely, and an undone decision holds it again.
Nothing held is published or logged; its text is where the flag's is and nowhere else.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from gateway.auth import Principal
from gateway.conversation import Conversation
from gateway.endpoints import (
    ERRORS,
    Id,
    Passage,
    json_body,
    json_reply,
    nothing_known,
    parts_of,
    peer,
    validated,
    with_key,
)
from gateway.errors import NotFound, ScreeningUnavailable
from gateway.exemplar_hits import behind
from gateway.flags import Flag, Source
from gateway.hold_webhooks import HoldState, flag_id_of, hold_id_of, state_of
from gateway.judgement import Judgement
from gateway.parts import Parts
from gateway.policy import Action
from gateway.request_body import parse_object, read_body
from gateway.wire import MODERATIONS


class HoldRequest(BaseModel):
    """Content that waits to be published."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Passage = Field(description="What somebody wrote.")
    end_user: Id | None = Field(None, description="Who wrote it; kept as a digest.")


class HoldReply(BaseModel):
    """What is to happen with the content: publish it, wait, or keep it back."""

    id: str | None = Field(description="By which to ask again; none where nothing was held.")
    state: HoldState


router = APIRouter(responses=ERRORS)


@router.post(
    "/v1/holds",
    response_model=HoldReply,
    dependencies=with_key,
    openapi_extra=json_body(HoldRequest.model_json_schema()),
)
async def hold(request: Request, idempotency_key: Annotated[str | None, Header(max_length=200)] = None) -> Response:
    """Screen content before it is published. Whatever policy would not simply allow is held for a person.

    The same text of a tenant is one hold: where a person has decided about it, that stands. Whom policy has suspended
    or slowed down may not write here either.
    """
    parts = parts_of(request)
    principal = await parts.proxy.admit(request)
    raw = await read_body(request, parts.settings.limits)
    asked = validated(HoldRequest, parse_object(raw, parts.settings.limits.max_json_depth))
    end_user = parts.redis.end_user_digest(asked.end_user) if asked.end_user else None
    rules = parts.policies.current.for_tenant(principal.policy or principal.tenant).strikes
    conduct = await parts.end_users.conduct(tenant=principal.tenant, end_user=end_user, rules=rules)
    await parts.end_users.admit(conduct, tenant=principal.tenant, end_user=end_user, rules=rules, param="end_user")
    judgement = await _judged(parts, principal, asked.text)
    decision = judgement.decision
    if decision.action is Action.ALLOW:
        return json_reply({"id": None, "state": "allowed"})
    bank = parts.screener.bank
    flag = Flag(
        tenant=principal.tenant,
        source=Source.POLICY,
        side="request",
        text=asked.text,
        reason="held before it is published",
        hazard=decision.hazard,
        risk=decision.risk,
        bank_version=bank.version if bank is not None else None,
        end_user=end_user,
        exemplar=None if decision.finding is None else behind(judgement.scores[decision.finding], decision.hazard),
        awaited=parts.webhooks.configured,
    )
    fingerprint = parts.redis.digest("hold body", raw.decode("utf-8"))
    flag_id, state = await parts.flags.add(flag, idempotency_key=idempotency_key, fingerprint=fingerprint)
    parts.metrics.flags.labels("policy").inc()
    return json_reply({"id": hold_id_of(flag_id), "state": state_of(state)})


@router.get("/v1/holds/{hold_id}", response_model=HoldReply, dependencies=with_key)
async def hold_state(request: Request, hold_id: str) -> Response:
    """What has become of content of this tenant that was held."""
    parts = parts_of(request)
    principal = await parts.authenticator.principal(request.headers, peer(request))
    try:
        flag = await parts.flags.get(flag_id_of(hold_id), tenant=principal.tenant)
    except NotFound:
        raise NotFound(f"there is no hold {hold_id[:100]!r}") from None
    return json_reply({"id": hold_id, "state": state_of(flag.state)})


async def _judged(parts: Parts, principal: Principal, text: str) -> Judgement:
    """What policy would do with a request of this text. Raises ``ScreeningUnavailable`` even where policy would let
    what could not be screened pass: published is published."""
    body: dict[str, Any] = {"input": text}
    policy = parts.policies.current.for_tenant(principal.policy or principal.tenant)
    if parts.screener.calibration.in_shadow:
        policy = policy.recording()
    conversation = Conversation(MODERATIONS.read_request(body))
    judgement = await parts.judge.request(conversation, policy, tenant=principal.tenant, known=nothing_known)
    if judgement.unscreened:
        raise ScreeningUnavailable("the content could not be screened now, so it may not be published; try again")
    return judgement
