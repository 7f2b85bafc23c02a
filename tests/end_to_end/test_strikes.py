"""End users who are blocked again and again: warned, slowed down, suspended; and who is never blamed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
import pytest

from gateway.review_records import Decision, Verdict
from gateway.reviews import ReviewStore
from gateway.settings import StrikeSettings
from gateway.strike_rules import Strikes
from gateway.strikes import Strike, StrikeStore
from tests.conftest import RealRedis
from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import Callers, MakeGateway
from tests.end_to_end.exemplars import BAD_REPLY, BAD_REQUEST, GOOD_REPLY, GOOD_REQUEST
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking, assert_told
from tests.fakes import ScriptedUpstream, whole
from tests.gateway.reviewing import assessing
from tests.transcripts import chat_completion

PATIENCE_S: Final = 60.0


async def asked(caller: Caller, text: str = GOOD_REQUEST, end_user: str | None = "ann") -> httpx2.Response:
    named = {} if end_user is None else {"safety_identifier": end_user}
    return await caller.http.post(CHAT, json=asking(text, **named))


async def struck(state: State, caller: Caller, case_id: str) -> None:
    """An earlier block of the end user ann."""
    strikes = StrikeStore(state.redis, StrikeSettings())
    await strikes.add(
        Strike(at_ms=0, weight=1, side="request"),
        case_id=case_id,
        tenant=caller.tenant,
        end_user=state.redis.end_user_digest("ann"),
        rules=Strikes(),
    )


def standing(reply: httpx2.Response) -> str | None:
    return reply.headers.get("x-antiprompt-standing")


@pytest.fixture(autouse=True)
def _answering(upstream: ScriptedUpstream) -> None:
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))


async def test_who_is_blocked_again_and_again_is_warned_slowed_down_and_suspended(
    callers: Callers, state: State
) -> None:
    caller = await callers("striking")
    assert standing(await asked(caller)) is None
    blocked = await asked(caller, BAD_REQUEST)
    assert (blocked.status_code, standing(blocked)) == (200, "warned")
    warned = await asked(caller)
    assert (warned.status_code, standing(warned)) == (200, "warned")
    assert (await state.case(caller.case_id)).standing == "warned"
    assert standing(await asked(caller, BAD_REQUEST)) == "slowed"
    assert (await asked(caller)).status_code == 200
    too_soon = await asked(caller)
    assert_told(too_soon, 429, "rate_limit_exceeded")
    assert 0 < int(too_soon.headers["retry-after"]) <= 120
    assert standing(too_soon) == "slowed"
    assert (await asked(caller, end_user="bob")).status_code == 200
    assert (await asked(caller, end_user=None)).status_code == 200


async def test_a_suspended_end_user_is_told_so_as_openai_s_client_expects_it_and_an_appeal_lifts_it(
    callers: Callers, state: State
) -> None:
    caller = await callers("striking")
    for number in range(3):
        await struck(state, caller, f"case_{number}")
    assert standing(await asked(caller, BAD_REQUEST)) == "suspended"
    case_id = caller.case_id
    refused = await asked(caller)
    message = assert_told(refused, 403, "account_suspended")
    assert "suspended" in message
    assert 86_000 < int(refused.headers["retry-after"]) <= 86_400
    assert refused.json()["error"]["param"] == "safety_identifier"
    with pytest.raises(openai.PermissionDeniedError):
        await caller.openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": GOOD_REQUEST}], user="ann"
        )
    appeal = await caller.http.post("/appeals", json={"case_id": case_id, "reason": "I teach microbiology."})
    decided = Verdict(flag_ids=(appeal.json()["id"],), moderator="ada", decision=Decision.DISMISS)
    await ReviewStore(state.redis, assessing("it is wide, and stays in shadow")).decide(decided)
    assert standing(await asked(caller)) == "slowed"  # as the three blocks before had left things


async def test_a_reply_that_had_to_be_blocked_counts_and_a_tool_s_words_do_not(
    callers: Callers, upstream: ScriptedUpstream
) -> None:
    caller = await callers("striking")
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": GOOD_REQUEST},
        {"role": "assistant", "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": BAD_REQUEST},
    ]
    blocked = await caller.http.post(CHAT, json={"model": "m", "messages": messages, "user": "ann"})
    assert blocked.headers["x-antiprompt-action"] == "block"
    assert standing(blocked) is None
    upstream.on(CHAT, whole(chat_completion(BAD_REPLY)))
    assert standing(await asked(caller)) == "warned"


async def test_what_shadow_rules_would_have_blocked_is_nobody_s_strike(callers: Callers) -> None:
    caller = await callers("striking-shadow")
    for _ in range(3):
        reply = await asked(caller, BAD_REQUEST)
        assert (reply.status_code, standing(reply)) == (200, None)


async def test_without_redis_nobody_is_suspended_and_everything_is_still_screened(
    make_gateway: MakeGateway, redis_server: RealRedis, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        'strikes: {suspend_at: 1}\nrules: [{name: block, hazard: "*", side: any, risk_at_least: 0.9, action: block}]\n'
    )
    gateway = make_gateway(REDIS__URL=redis_server.url, POLICY_FILE=str(policy))
    caller = Caller(f"{gateway.url}/v1", "default", "sk-the-callers-own")
    try:
        await asked(caller, BAD_REQUEST)
        assert_told(await asked(caller), 403, "account_suspended")
        redis_server.kill()
        assert (await asked(caller)).json()["choices"][0]["message"]["content"] == GOOD_REPLY
        blocked = await asked(caller, BAD_REQUEST)
        assert blocked.json()["choices"][0]["finish_reason"] == "content_filter"
        assert gateway.metric("antiprompt_errors_total", code="strike_state_unavailable") == 1
        redis_server.start()
        async with asyncio.timeout(PATIENCE_S):
            while (await asked(caller)).status_code != 403:  # noqa: ASYNC110  # all that a caller can do
                await asyncio.sleep(0.05)
    finally:
        await caller.close()
        gateway.close()


_CALL: Final = {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": "{}"}}


async def test_who_is_suspended_may_not_publish_either(callers: Callers, state: State) -> None:
    caller = await callers("striking")

    async def publish(end_user: str) -> httpx2.Response:
        return await caller.http.post("/holds", json={"text": GOOD_REQUEST, "end_user": end_user})

    assert (await publish("ann")).json() == {"id": None, "state": "allowed"}
    for number in range(4):
        await struck(state, caller, f"case_{number}")
    refused = await publish("ann")
    assert_told(refused, 403, "account_suspended")
    assert refused.json()["error"]["param"] == "end_user"
    assert (await publish("bob")).json()["state"] == "allowed"
