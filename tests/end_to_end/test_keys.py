"""Client keys: who is let in, what each may ask for, and that no key goes where it does not belong."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import openai
import pytest

from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import UPSTREAM_KEY, Callers, MakeGateway
from tests.end_to_end.running_gateway import PATIENCE_S, RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking, assert_still_serves, assert_told, raised_for
from tests.fakes import ScriptedUpstream, whole
from tests.transcripts import chat_completion

NO_KEYS: Final = {
    "none": {},
    "another scheme": {"authorization": "Basic dXNlcjpwYXNz"},
    "no token": {"authorization": "Bearer"},
    "a model server's": {"authorization": "Bearer sk-proj-0123456789"},
    "malformed": {"authorization": "Bearer agk_short"},
    "unknown": {"authorization": "Bearer agk_0123456789abcdef_0123456789abcdef0123456789abcdef0123456789a"},
    "in another header": {"x-api-key": "TOKEN"},
}


@pytest.mark.parametrize("headers", [*NO_KEYS.values()], ids=[*NO_KEYS])
async def test_without_a_valid_key_nothing_is_answered(
    headers: dict[str, str], callers: Callers, upstream: ScriptedUpstream
) -> None:
    caller = await callers("refusal")
    del caller.http.headers["authorization"]
    sent = {name: value.replace("TOKEN", caller.token) for name, value in headers.items()}
    for path in (CHAT, "/flags", "/moderations", "/responses", "/embeddings"):
        message = assert_told(await caller.http.post(path, json=asking(), headers=sent), 401, "invalid_api_key")
        assert caller.token not in message
        assert "0123456789" not in message
    assert_told(await caller.http.get("/models", headers=sent), 401, "invalid_api_key")
    assert upstream.requests == []


async def test_a_key_with_one_character_changed_is_401(callers: Callers, upstream: ScriptedUpstream) -> None:
    caller = await callers("refusal")
    await assert_still_serves(caller, upstream)
    last = "a" if caller.token[-1] != "a" else "b"
    changed = {"authorization": f"Bearer {caller.token[:-1]}{last}"}
    assert_told(await caller.http.post(CHAT, json=asking(), headers=changed), 401, "invalid_api_key")


async def test_a_revoked_key_is_401_soon(
    gateway: RunningGateway, callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    caller = await callers("refusal")
    await assert_still_serves(caller, upstream)
    (key,) = [key for key in await state.keys.list() if key.tenant == caller.tenant]
    assert key.id in await asyncio.to_thread(gateway.command, "keys", "revoke", key.id)
    async with asyncio.timeout(PATIENCE_S):
        while (reply := await caller.http.post(CHAT, json=asking())).status_code == 200:  # noqa: ASYNC110  # a gateway
            await asyncio.sleep(0.1)
    assert_told(reply, 401, "invalid_api_key")
    listed = await asyncio.to_thread(gateway.json, "keys", "list")
    assert [each["revoked_at"] is not None for each in listed if each["id"] == key.id] == [True]
    assert caller.token not in str(listed)


async def limited(gateway: RunningGateway, state: State, **limits: Any) -> Caller:
    tenant, token = await state.new_key("refusal", **limits)
    return Caller(f"{gateway.url}/v1", tenant, token)


async def test_a_model_that_a_key_may_not_use_is_403(
    gateway: RunningGateway, state: State, upstream: ScriptedUpstream
) -> None:
    caller = await limited(gateway, state, models=("m",))
    await assert_still_serves(caller, upstream)
    before = len(upstream.requests)
    for other in ("gpt-5", "M", "m ", "", None, ["m"]):
        assert_told(await caller.http.post(CHAT, json=asking(model=other)), 403, "forbidden")
    with pytest.raises(openai.PermissionDeniedError):
        await caller.openai.chat.completions.create(**asking(model="gpt-5"))
    assert len(upstream.requests) == before
    await caller.close()


async def test_requests_over_a_keys_limit_are_429_and_say_when_to_come_back(
    gateway: RunningGateway, state: State, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello")))
    caller = await limited(gateway, state, requests_per_minute=2)
    for _ in range(2):
        assert (await caller.http.post(CHAT, json=asking())).status_code == 200
    refused = await caller.http.post(CHAT, json=asking())
    assert_told(refused, 429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    with pytest.raises(raised_for(429)):
        await caller.openai.chat.completions.create(**asking())
    assert len(upstream.requests) == 2
    other = await limited(gateway, state, requests_per_minute=2)  # another key is another account
    await assert_still_serves(other, upstream)
    await caller.close()
    await other.close()


async def test_tokens_over_a_keys_limit_are_429_from_the_next_request_on(
    gateway: RunningGateway, state: State, upstream: ScriptedUpstream
) -> None:
    used = chat_completion("Hello")["usage"]["total_tokens"]
    upstream.on(CHAT, whole(chat_completion("Hello")))
    caller = await limited(gateway, state, tokens_per_minute=2 * used)
    answered = 0
    async with asyncio.timeout(PATIENCE_S):  # use is counted a moment after the reply
        while (reply := await caller.http.post(CHAT, json=asking())).status_code == 200:
            answered += 1
    assert_told(reply, 429, "rate_limit_exceeded")
    assert 1 <= int(reply.headers["retry-after"]) <= 120
    assert answered == len(upstream.requests) >= 2
    await caller.close()


async def test_a_key_never_reaches_the_model_server(callers: Callers, upstream: ScriptedUpstream) -> None:
    caller = await callers("refusal")
    upstream.on(CHAT, whole(chat_completion("Hello")))
    more = {"x-api-key": caller.token, "api-key": caller.token, "cookie": f"key={caller.token}"}
    await caller.http.post(CHAT, json=asking(), headers=more)
    received = upstream.last
    assert received.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert all(caller.token not in value for _, value in received.raw_headers)
    assert caller.token.encode() not in received.body


# What does not start.


async def test_a_wide_host_without_keys_does_not_start_and_says_why(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(start=False, HOST="0.0.0.0")  # refused is what is tested
    said = await refused_start(gateway)
    assert "0.0.0.0" in said
    assert "antiprompt keys create" in said


async def test_keys_without_a_key_for_the_model_server_do_not_start_and_say_why(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(start=False)
    token = await asyncio.to_thread(gateway.key, "acme")
    said = await refused_start(gateway)
    assert "ANTIPROMPT_UPSTREAM__API_KEY" in said
    assert token not in said


async def refused_start(gateway: RunningGateway) -> str:
    """Start a gateway that ends with status 1; what it says."""
    gateway.start(until_ready=False)
    assert gateway.process is not None
    assert await asyncio.to_thread(gateway.process.wait, PATIENCE_S) == 1
    said = " ".join(gateway.log().split())
    assert "Traceback" not in said
    return said
