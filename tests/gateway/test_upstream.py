"""What reaches the model server, what comes back, and what never leaves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from gateway.errors import UnknownRoute, UpstreamInvalid, UpstreamUnreachable
from gateway.http_client import HttpClient
from gateway.settings import UpstreamSettings
from gateway.upstream import Call, Upstream, reply_headers, request_headers
from tests.fakes import HANG, Script, ScriptedUpstream, cut, error, raw, redirect, stream, whole
from tests.transcripts import chat_completion, chat_stream

PATH = "/chat/completions"


@asynccontextmanager
async def model(
    *answers: Script, api_key: str | None = None, max_connections: int = 10
) -> AsyncIterator[tuple[Upstream, ScriptedUpstream]]:
    """The upstream as the gateway sees it, and the scripted server behind it."""
    settings = UpstreamSettings(max_connections=max_connections, connect_timeout_s=0.5)
    async with ScriptedUpstream() as server, HttpClient(settings) as client:
        server.on(PATH, *answers)
        yield Upstream(client, server.base_url, SecretStr(api_key) if api_key else None), server


def call(*headers: tuple[str, str], credentials: bool = False, query: str = "", path: str = PATH) -> Call:
    return Call("POST", path, headers, b'{"model":"m"}', query=query, callers_credentials=credentials)


# Where it goes.


async def test_path_and_query_follow_the_base_url_as_the_caller_sent_them():
    async with model(whole(chat_completion("hi"))) as (upstream, server):
        await upstream.ask(call(query="api-version=2024%2D10&x=a+b"))
    assert (server.last.method, server.last.path) == ("POST", "/v1" + PATH)
    assert server.last.query == "api-version=2024%2D10&x=a+b"
    assert server.last.body == b'{"model":"m"}'


@pytest.mark.parametrize(
    "path",
    ["/../admin", "/files/../../admin", "/%2e%2e/admin", "/a/%2E%2e%2Fb", "/./a", "/..\\admin", "/a?b", "/a#b", "a"],
)
async def test_a_path_that_leads_out_of_the_api_is_refused_and_not_sent(path: str):
    async with model(whole({})) as (upstream, server):
        with pytest.raises(UnknownRoute):
            await upstream.ask(call(path=path))
        assert server.requests == []


async def test_an_id_with_dots_is_a_path_like_any_other():
    async with model() as (upstream, server):
        server.on("/responses/resp_1.2..3", whole({"id": "x"}))
        assert (await upstream.ask(Call("GET", "/responses/resp_1.2..3"))).status == 200


# Credentials.

KEYS = (
    ("authorization", "Bearer caller"),
    ("api-key", "caller"),
    ("x-api-key", "caller"),
    ("x-goog-api-key", "caller"),
    ("ocp-apim-subscription-key", "caller"),
)


@pytest.mark.parametrize("credentials", [False, True])
async def test_with_an_upstream_key_no_key_of_the_caller_leaves(credentials: bool):
    async with model(whole({}), api_key="sk-upstream") as (upstream, server):
        await upstream.ask(call(*KEYS, credentials=credentials))
    assert server.last.headers["authorization"] == "Bearer sk-upstream"
    assert "caller" not in str(server.last.raw_headers)


async def test_without_client_keys_the_callers_own_credentials_go_on():
    async with model(whole({})) as (upstream, server):
        await upstream.ask(call(*KEYS, credentials=True))
    assert set(KEYS) <= set(server.last.raw_headers)


async def test_a_gateway_key_never_leaves_though_no_upstream_key_is_set():
    async with model(whole({})) as (upstream, server):
        await upstream.ask(call(*KEYS))
    assert "caller" not in str(server.last.raw_headers)


# Request headers.

PASSED = (
    ("content-type", "application/json"),
    ("accept", "application/json"),
    ("user-agent", "OpenAI/Python 3.52"),
    ("openai-organization", "org"),
    ("openai-project", "proj"),
    ("openai-beta", "responses=v1"),
    ("idempotency-key", "k1"),
    ("x-stainless-retry-count", "0"),
    ("x-request-id", "r1"),
    ("x-unheard-of", "as it is"),
)

DROPPED = (
    "Connection",
    "Keep-Alive",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Host",
    "Content-Length",
    "Content-Encoding",
    "Accept-Encoding",
    "Expect",
    "Cookie",
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Anything",
    "X-Real-IP",
    "CF-Connecting-IP",
    "X-Antiprompt-Case",
    "X-Antiprompt-Policy",
    "Content-MD5",
    "Traceparent",
    "Tracestate",
    "Baggage",
)


def test_headers_of_the_api_and_unknown_ones_pass_in_their_order():
    assert request_headers(PASSED, credentials=False) == PASSED


@pytest.mark.parametrize("name", DROPPED)
def test_headers_that_are_not_for_the_model_server_stay_here(name: str):
    assert request_headers(((name, "v"), (name.lower(), "v"), *PASSED), credentials=True) == PASSED


def test_headers_that_the_connection_names_stay_here():
    sent = (("Connection", "close, X-Hop"), ("connection", "x-second"), ("x-hop", "1"), ("X-Second", "2"), *PASSED)
    assert request_headers(sent, credentials=True) == PASSED


async def test_what_is_sent_is_exactly_what_the_rules_say():
    async with model(whole({}), api_key="sk") as (upstream, server):
        await upstream.ask(call(*((name, "1") for name in DROPPED if name != "Connection"), *PASSED))
    sent = dict(PASSED) | {
        "host": f"127.0.0.1:{server.port}",
        "content-length": "13",
        "accept-encoding": "identity",
        "authorization": "Bearer sk",
    }
    assert server.last.headers == sent


# What comes back.


def test_reply_headers_of_the_api_pass_and_those_of_the_connection_and_the_origin_do_not():
    passed = (
        ("Content-Type", "application/json"),
        ("openai-processing-ms", "12"),
        ("x-ratelimit-remaining-tokens", "9"),
        ("Retry-After", "3"),
        ("x-request-id", "r1"),
        ("WWW-Authenticate", "Bearer"),
    )
    dropped = (
        "Transfer-Encoding",
        "Keep-Alive",
        "Content-Length",
        "Content-Encoding",
        "Set-Cookie",
        "Server",
        "Date",
        "Alt-Svc",
        "Strict-Transport-Security",
        "Access-Control-Allow-Origin",
        "Location",
        "ETag",
        "X-Antiprompt-Action",
    )
    connection = (("Connection", "keep-alive, X-Hop"), ("x-hop", "1"))
    assert reply_headers((*connection, *((name, "v") for name in dropped), *passed)) == passed


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (400, {}),
        (401, {"WWW-Authenticate": "Bearer"}),
        (404, {}),
        (429, {"Retry-After": "7", "x-ratelimit-remaining-requests": "0"}),
        (500, {"x-request-id": "r9"}),
        (503, {"retry-after-ms": "250"}),
    ],
)
async def test_errors_of_the_model_server_arrive_as_they_are(status: int, headers: dict[str, str]):
    async with model(error(status, "so it is", code="c", headers=headers)) as (upstream, _):
        reply = await upstream.ask(call())
        opened = await upstream.open_stream(call())
        streamed = await opened.read()
        await opened.close()
    assert (reply.status, opened.status) == (status, status)
    assert b"so it is" in reply.body
    assert reply.body == streamed
    assert reply.headers == opened.headers == (("Content-Type", "application/json"), *headers.items())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_refused_and_their_connection_given_back(status: int):
    async with model(redirect("http://127.0.0.1:1/", status), max_connections=1) as (upstream, server):
        for _ in range(2):
            with pytest.raises(UpstreamInvalid, match="redirect"):
                await upstream.ask(call())
            with pytest.raises(UpstreamInvalid, match="redirect"):
                await upstream.open_stream(call())
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [101, 999])
async def test_a_status_that_no_reply_has_is_refused(status: int):
    head = f"HTTP/1.1 {status} Odd\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".encode()
    async with model(raw(head)) as (upstream, _):
        with pytest.raises(UpstreamInvalid, match=str(status)):
            await upstream.open_stream(call())


async def test_a_stream_arrives_with_clean_headers_and_every_byte():
    events = chat_stream("Hello there", usage="chunk")
    async with model(stream(*events, headers={"Set-Cookie": "a=1", "openai-version": "1"})) as (upstream, _):
        opened = await upstream.open_stream(call())
        async with opened:
            assert b"".join([chunk async for chunk in opened]) == b"".join(events)
    assert dict(opened.headers) == {"Content-Type": "text/event-stream; charset=utf-8", "openai-version": "1"}


async def test_closing_a_stream_early_closes_the_call():
    async with model(stream(b"data: {}\n\n", HANG)) as (upstream, server):
        opened = await upstream.open_stream(call())
        await anext(opened)
        await opened.close()
        assert (await server.last.ended()).closed_early


async def test_a_model_server_that_drops_the_call_is_unreachable():
    async with model(cut()) as (upstream, server):
        with pytest.raises(UpstreamUnreachable):
            await upstream.ask(call())
        with pytest.raises(UpstreamUnreachable):
            await upstream.open_stream(call())
    assert len(server.requests) == 2
