"""What a model's server may do, and what a probe makes of it."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from gateway.alignment.probe_asking import MAX_REPLY_BYTES, Asker, Pace, ProbeStopped, Unanswered, asking_settings
from gateway.http_client import HttpClient
from gateway.upstream import Upstream
from tests.fakes import Script, ScriptedUpstream, cut, error, redirect, whole
from tests.gateway.alignment.probing import asking
from tests.transcripts import ToolCall, chat_completion

CHAT = "/chat/completions"
FAST = Pace(concurrency=4, tries=3, first_wait_s=0.001)
HELLO = whole(chat_completion("Hello"))


async def test_a_question_goes_out_with_the_parameters_and_the_system_message() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.on(CHAT, HELLO)
        async with asking(upstream, FAST, parameters={"temperature": 0, "max_tokens": 9}, system="Be kind.") as asker:
            assert (await asker.ask("Who?")).text == "Hello"
    assert upstream.last.json == {
        "model": "m",
        "temperature": 0,
        "max_tokens": 9,
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}],
    }


async def test_the_key_goes_along() -> None:
    async with ScriptedUpstream() as upstream:
        upstream.on(CHAT, HELLO)
        settings = asking_settings(upstream.base_url, SecretStr("sk-1"), FAST, 10.0)
        async with HttpClient(settings) as http:
            await Asker(Upstream(http, upstream.base_url, settings.api_key), "m", pace=FAST).ask("Who?")
    assert upstream.last.headers["authorization"] == "Bearer sk-1"


async def test_everything_that_a_user_would_read_is_the_answer() -> None:
    reply = chat_completion("Sure.", tool_calls=[ToolCall("run", '{"code": "rm -rf /"}')], reasoning="They want rm.")
    async with ScriptedUpstream() as upstream, asking(upstream, FAST) as asker:
        upstream.on(CHAT, whole(reply))
        text = (await asker.ask("x")).text
    assert all(part in text for part in ("Sure.", "rm -rf /", "They want rm."))


@pytest.mark.parametrize(
    "answer",
    [
        whole(chat_completion("", finish="content_filter")),
        whole(chat_completion("", refusal="I won't.")),
        error(400, code="content_filter"),
        error(400, code="content_policy_violation"),
    ],
)
async def test_what_the_server_withholds_is_a_refusal(answer: Script) -> None:
    async with ScriptedUpstream() as upstream, asking(upstream, FAST) as asker:
        upstream.on(CHAT, answer)
        assert (await asker.ask("x")).withheld


@pytest.mark.parametrize("fault", [error(503), error(429), error(500), cut()])
async def test_what_passes_is_tried_again(fault: Script) -> None:
    async with ScriptedUpstream() as upstream, asking(upstream, FAST) as asker:
        upstream.on(CHAT, fault, fault, HELLO)
        reply = await asker.ask("x")
    assert (reply.text, reply.withheld, len(upstream.requests)) == ("Hello", False, 3)


@pytest.mark.parametrize(
    ("answer", "code", "tries"),
    [
        (error(503), "http_503", 3),
        (cut(), "upstream_unreachable", 3),
        (error(400), "http_400", 1),
        (redirect("http://elsewhere.test/"), "upstream_invalid", 1),
        (whole(b"<html>"), "not_chat", 1),
        (whole({"choices": [{"message": "Hello"}]}), "not_chat", 1),
        (whole({"choices": 7}), "not_chat", 1),
        (whole([]), "not_chat", 1),
        (whole(chat_completion("x" * MAX_REPLY_BYTES)), "upstream_invalid", 1),
    ],
)
async def test_what_stays_wrong_leaves_the_question_unanswered(answer: Script, code: str, tries: int) -> None:
    async with ScriptedUpstream() as upstream, asking(upstream, FAST) as asker:
        upstream.on(CHAT, answer)
        with pytest.raises(Unanswered) as failure:
            await asker.ask("x")
    assert (failure.value.code, len(upstream.requests)) == (code, tries)


@pytest.mark.parametrize(("status", "said"), [(401, "--api-key-file"), (403, "model"), (404, "/v1")])
async def test_a_wrong_key_or_address_ends_the_run_at_once(status: int, said: str) -> None:
    async with ScriptedUpstream() as upstream, asking(upstream, FAST) as asker:
        upstream.on(CHAT, error(status, "no such thing"))
        with pytest.raises(ProbeStopped, match=said) as stopped:
            await asker.ask("x")
    assert "no such thing" in str(stopped.value)
    assert len(upstream.requests) == 1


async def test_requests_leave_at_the_pace() -> None:
    """A hundred a second: between the first and the last of six five gaps of ten milliseconds, never less."""
    async with ScriptedUpstream() as upstream, asking(upstream, Pace(concurrency=6, per_minute=6000)) as asker:
        upstream.on(CHAT, HELLO)
        began_s = asyncio.get_running_loop().time()
        await asyncio.gather(*(asker.ask(str(number)) for number in range(6)))
        assert asyncio.get_running_loop().time() - began_s >= 0.045
        assert len(upstream.requests) == 6


async def test_nobody_asks_before_the_server_allows_it() -> None:
    async with ScriptedUpstream() as upstream, asking(upstream, FAST) as asker:
        upstream.on(CHAT, error(429, headers={"Retry-After": "0.3"}), HELLO)
        await asker.ask("x")
        first, second = upstream.requests
        assert second.arrived_at_s - first.arrived_at_s >= 0.29


@pytest.mark.parametrize("url", ["", "host/v1", "ftp://host/v1", "http://user:pass@host/v1"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        asking_settings(url, None, FAST, 10.0)
