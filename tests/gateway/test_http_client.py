"""Every limit and every fault of the client, over real sockets."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop

from gateway.errors import GatewayError, Overloaded, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.http_client import CircuitBreaker, HttpClient, Limits, Timeouts
from gateway.settings import UpstreamSettings
from tests.fakes import CLOSE, CUT, HANG, Pause, Script, ScriptedUpstream, cut, hang, raw, redirect, stream, whole
from tests.transcripts import DONE, chat_stream, rechunk

URL = "/chat/completions"


@asynccontextmanager
async def talking(*answers: Script, **settings: float) -> AsyncIterator[tuple[HttpClient, ScriptedUpstream]]:
    """A client and a server that answers ``URL`` with these scripts."""
    values = {"connect_timeout_s": 2.0, "read_timeout_s": 2.0, **settings}
    async with ScriptedUpstream() as upstream, HttpClient(UpstreamSettings.model_validate(values)) as client:
        upstream.on(URL, *answers)
        yield client, upstream


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# What goes out and what comes back.


async def test_a_reply_comes_back_as_it_was_sent():
    answer = whole(b'{"a": 1}', status=418, headers={"X-Request-Id": "r1", "x-double": "1"})
    async with talking(answer) as (client, upstream):
        reply = await client.send("POST", upstream.base_url + URL, [("X-A", "1"), ("x-a", "2")], b"{}")
    assert (reply.status, reply.body) == (418, b'{"a": 1}')
    assert ("X-Request-Id", "r1") in reply.headers
    assert upstream.last.body == b"{}"
    assert [(n, v) for n, v in upstream.last.raw_headers if n.lower() == "x-a"] == [("x-a", "1"), ("x-a", "2")]


async def test_no_header_is_added_but_those_of_the_connection():
    async with talking(whole({})) as (client, upstream):
        await client.send("POST", upstream.base_url + URL, [("Accept-Encoding", "gzip, br")], b"{}")
    assert set(upstream.last.headers) == {"host", "content-length", "accept-encoding"}
    assert upstream.last.headers["accept-encoding"] == "identity"


async def test_headers_beyond_ascii_keep_their_bytes_both_ways():
    sent = "Zürich".encode().decode("latin-1")
    answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-City: Z\xc3\xbcrich\r\nX-Raw: \xff\r\n\r\n")
    async with talking(answer) as (client, upstream):
        reply = await client.send("GET", upstream.base_url + URL, [("X-City", sent)])
    assert upstream.last.headers["x-city"] == sent
    assert ("X-City", sent) in reply.headers
    assert ("X-Raw", "\xff") in reply.headers


async def test_the_query_goes_out_byte_for_byte():
    query = "a=%2F%2f&b=c+d%20e&a=1&empty="
    async with talking(whole({})) as (client, upstream):
        await client.send("GET", f"{upstream.base_url}{URL}?{query}")
    assert upstream.last.query == query


async def test_a_large_body_arrives_whole():
    body = bytes(range(256)) * (20 << 10)
    async with talking(whole({})) as (client, upstream):
        await client.send("POST", upstream.base_url + URL, [("Content-Type", "application/json")], body)
    assert upstream.last.body == body
    assert upstream.last.headers["content-length"] == str(len(body))
    assert upstream.last.headers["content-type"] == "application/json"


async def test_connections_are_kept_and_used_again():
    async with talking(whole({})) as (client, upstream):
        for _ in range(5):
            await client.send("POST", upstream.base_url + URL, body=b"{}")
    assert upstream.connections == 1


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_again():
    answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Pause(0.01), CLOSE)
    async with talking(answer) as (client, upstream):
        for _ in range(3):
            assert (await client.send("POST", upstream.base_url + URL, body=b"{}")).body == b"{}"
            await asyncio.sleep(0.05)
    assert upstream.connections == 3


async def test_a_redirect_is_handed_back_and_not_followed():
    async with talking(redirect("http://127.0.0.1:9/elsewhere")) as (client, upstream):
        reply = await client.send("POST", upstream.base_url + URL, body=b"{}")
    assert reply.status == 307
    assert len(upstream.requests) == 1


async def test_cookies_are_not_kept():
    async with talking(whole({}, headers={"Set-Cookie": "session=1; Path=/"})) as (client, upstream):
        await client.send("GET", upstream.base_url + URL)
        await client.send("GET", upstream.base_url + URL)
    assert "cookie" not in upstream.last.headers


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    async with talking(whole({})) as (client, upstream):
        assert (await client.send("GET", upstream.base_url + URL)).status == 200


async def test_passwords_of_a_netrc_file_are_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with talking(whole({})) as (client, upstream):
        await client.send("GET", upstream.base_url + URL)
    assert "authorization" not in upstream.last.headers


# Limits.


@pytest.mark.parametrize("make", [whole, stream], ids=["with a length", "chunked"])
async def test_a_whole_reply_has_a_bound(make: Callable[[bytes], Script]):
    async with talking(make(b"x" * 1024), make(b"x" * 1025), max_reply_bytes=1024) as (client, upstream):
        assert len((await client.send("GET", upstream.base_url + URL)).body) == 1024
        with pytest.raises(UpstreamInvalid, match="1024 bytes"):
            await client.send("GET", upstream.base_url + URL)


async def test_an_endless_reply_is_given_up_at_the_bound():
    endless = raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", *[b"x" * 65536] * 64, HANG)
    async with talking(endless, max_reply_bytes=100_000) as (client, upstream):
        with pytest.raises(UpstreamInvalid):
            await client.send("GET", upstream.base_url + URL)
        assert (await upstream.last.ended()).closed_early


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "gzip, identity"])
async def test_a_compressed_reply_is_refused_before_it_can_grow(encoding: str):
    bomb = gzip.compress(b"0" * (8 << 20))
    async with talking(whole(bomb, headers={"Content-Encoding": encoding})) as (client, upstream):
        with pytest.raises(UpstreamInvalid, match="compressed"):
            await client.send("GET", upstream.base_url + URL)


async def test_more_callers_than_connections_wait_their_turn():
    slow = raw(Pause(0.02), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    async with talking(slow, max_connections=2) as (client, upstream):
        url = upstream.base_url + URL
        replies = await asyncio.gather(*(client.send("POST", url, body=b"{}") for _ in range(8)))
    assert [reply.body for reply in replies] == [b"{}"] * 8
    assert upstream.connections <= 2


async def test_a_caller_who_gets_no_connection_in_time_is_told_so():
    async with talking(hang(), max_connections=1, connect_timeout_s=0.05) as (client, upstream):
        url = upstream.base_url + URL
        first = asyncio.ensure_future(client.send("POST", url, body=b"{}"))
        await upstream.arrived()
        with pytest.raises(Overloaded) as caught:
            await client.send("POST", url, body=b"{}")
        assert caught.value.retry_after_s
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        upstream.on(URL, whole({}))
        assert (await client.send("POST", url, body=b"{}")).status == 200


@pytest.mark.parametrize(
    "answer",
    [whole({}), cut(), hang(), redirect("/x"), whole(b"x" * 2000), whole(b"", headers={"Content-Encoding": "br"})],
    ids=["answer", "cut", "silence", "redirect", "too long", "compressed"],
)
async def test_every_outcome_gives_its_connection_back(answer: Script):
    settings = {"max_connections": 1, "max_reply_bytes": 1024, "read_timeout_s": 0.05, "connect_timeout_s": 0.2}
    async with talking(answer, answer, whole({}), **settings) as (client, upstream):
        for _ in range(2):
            with suppress(UpstreamUnreachable, UpstreamTimeout, UpstreamInvalid):
                await client.send("POST", upstream.base_url + URL, body=b"{}")
        assert (await client.send("POST", upstream.base_url + URL, body=b"{}")).status == 200


# Faults: what the caller is told, and that nothing is sent twice.


FAULTS = [
    (cut(), UpstreamUnreachable),
    (raw(CLOSE), UpstreamUnreachable),
    (hang(), UpstreamTimeout),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", CLOSE), UpstreamUnreachable),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", Pause(), CUT), UpstreamUnreachable),
    (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", HANG), UpstreamTimeout),
    (stream(b"abc", CLOSE), UpstreamUnreachable),
    (raw(b"no HTTP at all\r\n\r\n"), UpstreamInvalid),
    (raw(b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n"), UpstreamInvalid),
    (raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 1000 + b"\r\n"), UpstreamInvalid),
]
FAULT_IDS = [
    "reset",
    "closed",
    "silence",
    "short",
    "short and reset",
    "stalled",
    "no last chunk",
    "garbage",
    "long",
    "many",
]


async def meet_fault(method: str, answer: Script, expected: type[GatewayError]) -> None:
    async with talking(whole({}), answer, read_timeout_s=0.1) as (client, upstream):
        await client.send(method, upstream.base_url + URL)  # so that the faulty one meets a kept connection
        with pytest.raises(expected) as caught:
            await client.send(method, upstream.base_url + URL)
        assert len(upstream.requests) == 2
        assert "127.0.0.1" not in caught.value.message


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize(("answer", "expected"), FAULTS, ids=FAULT_IDS)
async def test_a_fault_after_sending_is_told_and_nothing_is_sent_twice(
    method: str, answer: Script, expected: type[GatewayError]
):
    await meet_fault(method, answer, expected)


@pytest.mark.parametrize(("answer", "expected"), FAULTS, ids=FAULT_IDS)
def test_faults_are_told_the_same_on_the_loop_that_the_gateway_runs_on(answer: Script, expected: type[GatewayError]):
    uvloop.run(meet_fault("GET", answer, expected))


async def test_a_refused_connection_is_tried_again_and_then_told():
    settings = UpstreamSettings(connect_retries=2, breaker_failures=100)
    async with HttpClient(settings) as client:
        with pytest.raises(UpstreamUnreachable, match="cannot be reached"):
            await client.send("POST", f"http://127.0.0.1:{closed_port()}/v1", body=b"{}")


async def test_a_server_that_comes_up_between_tries_is_reached():
    port = closed_port()
    async with HttpClient(UpstreamSettings(connect_retries=5)) as client:
        request = asyncio.ensure_future(client.send("POST", f"http://127.0.0.1:{port}/v1{URL}", body=b"{}"))
        await asyncio.sleep(0.02)
        upstream = ScriptedUpstream().on(URL, whole({}))
        upstream.port = port
        async with upstream:
            assert (await request).status == 200
            assert len(upstream.requests) == 1


async def test_an_unknown_host_is_unreachable():
    async with HttpClient(UpstreamSettings(connect_retries=0)) as client:
        with pytest.raises(UpstreamUnreachable):
            await client.send("GET", "http://does-not-exist.invalid/v1")


async def test_a_server_that_takes_no_connection_times_out():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filler = [socket.socket() for _ in range(4)]
        for sock in filler:
            sock.setblocking(False)
            sock.connect_ex(deaf.getsockname())
        async with HttpClient(UpstreamSettings(connect_timeout_s=0.1, connect_retries=1)) as client:
            with pytest.raises(UpstreamTimeout, match="connection"):
                await client.send("GET", f"http://127.0.0.1:{deaf.getsockname()[1]}/")
        for sock in filler:
            sock.close()


async def test_a_plain_server_behind_https_is_a_tls_fault_and_not_retried():
    async with talking(whole({})) as (client, upstream):
        with pytest.raises(UpstreamUnreachable, match="TLS"):
            await client.send("GET", f"https://127.0.0.1:{upstream.port}/v1")
        assert upstream.connections == 1


async def test_the_whole_exchange_has_a_bound_though_bytes_keep_coming():
    drip = stream(*[step for _ in range(100) for step in (b"x", Pause(0.02))])
    async with talking(drip, total_timeout_s=0.2) as (client, upstream):
        with pytest.raises(UpstreamTimeout):
            await client.send("GET", upstream.base_url + URL)
        assert (await upstream.last.ended()).closed_early


# Streams.


async def test_chunks_come_as_they_arrive_and_not_as_lines():
    async with (
        talking(stream(b"data: a", Pause(), b"\n\ndata: b\n\nda", Pause(), b"ta: c\n\n")) as (client, upstream),
        client.stream("POST", upstream.base_url + URL, body=b"{}") as reply,
    ):
        assert reply.status == 200
        assert [chunk async for chunk in reply] == [b"data: a", b"\n\ndata: b\n\nda", b"ta: c\n\n"]


async def test_the_first_chunk_is_there_before_the_server_has_said_the_second():
    async with (
        talking(stream(b"first", HANG)) as (client, upstream),
        client.stream("POST", upstream.base_url + URL, body=b"{}") as reply,
    ):
        assert await anext(reply) == b"first"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
async def test_a_stream_arrives_byte_for_byte_however_it_is_cut(size: int):
    events = chat_stream("Ein längerer Satz mit Ümläuten 🙂", usage="chunk")
    async with (
        talking(stream(*rechunk(events, size))) as (client, upstream),
        client.stream("POST", upstream.base_url + URL, body=b"{}") as reply,
    ):
        assert b"".join([chunk async for chunk in reply]) == b"".join(events)


async def test_leaving_a_stream_closes_the_connection():
    async with talking(stream(b"data: 1\n\n", HANG)) as (client, upstream):
        async with client.stream("POST", upstream.base_url + URL, body=b"{}") as reply:
            await anext(reply)
        assert (await upstream.last.ended()).closed_early


async def test_a_cancelled_reader_closes_the_connection():
    async with talking(stream(b"data: 1\n\n", HANG)) as (client, upstream):

        async def read() -> None:
            async with client.stream("POST", upstream.base_url + URL, body=b"{}") as reply:
                async for _ in reply:
                    pass

        reader = asyncio.ensure_future(read())
        await upstream.arrived()
        await asyncio.sleep(0.02)
        reader.cancel()
        assert (await upstream.last.ended()).closed_early
        with pytest.raises(asyncio.CancelledError):
            await reader


async def test_a_stream_read_to_its_end_leaves_its_connection_to_the_next():
    async with talking(stream(*chat_stream("Hello"))) as (client, upstream):
        for _ in range(3):
            stream_ = await client.stream("POST", upstream.base_url + URL, body=b"{}")
            assert (await stream_.read()).endswith(DONE)
            await stream_.close()
            await stream_.close()
    assert upstream.connections == 1


@pytest.mark.parametrize(
    ("ending", "expected"),
    [(CUT, UpstreamUnreachable), (CLOSE, UpstreamUnreachable), (HANG, UpstreamTimeout)],
)
async def test_a_stream_that_breaks_tells_how(ending, expected: type[GatewayError]):
    async with (
        talking(stream(b"data: 1\n\n", Pause(), ending), read_timeout_s=0.1) as (client, upstream),
        client.stream("POST", upstream.base_url + URL, body=b"{}") as reply,
    ):
        assert await anext(reply) == b"data: 1\n\n"
        with pytest.raises(expected):
            await anext(reply)


async def test_a_reader_may_stop_waiting_for_a_chunk_and_go_on_later():
    async with (
        talking(stream(b"one", Pause(0.1), b"two")) as (client, upstream),
        client.stream("POST", upstream.base_url + URL, body=b"{}") as reply,
    ):
        assert await anext(reply) == b"one"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(reply)
        assert await reply.read() == b"two"


async def test_a_slow_reader_holds_the_server_back():
    endless = raw(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * (1 << 20)] * 64, HANG)
    async with (
        talking(endless) as (client, upstream),
        client.stream("GET", upstream.base_url + URL) as reply,
    ):
        await anext(reply)
        (connection,) = upstream._open
        async with asyncio.timeout(10):  # were all of it taken in, the server would never have so much left to send
            while connection.transport.get_write_buffer_size() <= 32 << 20:  # noqa: ASYNC110  # transports tell of no change
                await asyncio.sleep(0.01)


# The circuit breaker, by its own clock.


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def opened(clock: Clock, failures: int = 3) -> CircuitBreaker:
    breaker = CircuitBreaker(failures, reset_s=10.0, clock=clock)
    for _ in range(failures):
        breaker.failed(breaker.admit())
    return breaker


def test_failures_in_a_row_open_the_circuit():
    breaker = CircuitBreaker(3, 10.0, Clock())
    for _ in range(2):
        breaker.failed(breaker.admit())
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(breaker.admit())
    assert breaker.state == "closed"
    breaker.failed(breaker.admit())
    assert breaker.state == "open"
    with pytest.raises(UpstreamUnreachable) as caught:
        breaker.admit()
    assert caught.value.retry_after_s == 10.0


def test_after_the_reset_one_request_is_tried_and_no_second():
    clock = Clock()
    breaker = opened(clock)
    clock.now_s = 10.0
    assert breaker.state == "half_open"
    assert breaker.admit() is True
    with pytest.raises(UpstreamUnreachable):
        breaker.admit()


def test_a_trial_that_succeeds_closes_the_circuit():
    clock = Clock()
    breaker = opened(clock)
    clock.now_s = 10.0
    breaker.admit()
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.admit() is False
    breaker.failed(trial=False)
    assert breaker.state == "closed"


def test_a_trial_that_fails_opens_the_circuit_anew():
    clock = Clock()
    breaker = opened(clock)
    clock.now_s = 10.0
    breaker.failed(breaker.admit())
    assert breaker.state == "open"
    clock.now_s = 19.9
    with pytest.raises(UpstreamUnreachable):
        breaker.admit()
    clock.now_s = 20.0
    assert breaker.admit() is True


def test_a_trial_whose_caller_left_makes_the_next_request_the_trial():
    clock = Clock()
    breaker = opened(clock)
    clock.now_s = 10.0
    breaker.abandoned(breaker.admit())
    assert breaker.admit() is True


def test_an_earlier_request_that_ends_late_does_not_end_the_trial():
    clock = Clock()
    breaker = opened(clock)
    clock.now_s = 10.0
    breaker.admit()
    breaker.abandoned(trial=False)
    with pytest.raises(UpstreamUnreachable):
        breaker.admit()


async def test_an_open_circuit_asks_nothing_and_a_recovered_server_closes_it():
    clock = Clock()
    settings = UpstreamSettings(breaker_failures=2, breaker_reset_s=5.0)
    async with ScriptedUpstream() as upstream, HttpClient(settings, clock=clock) as client:
        upstream.on(URL, cut(), cut(), whole({}))
        for _ in range(4):
            with pytest.raises(UpstreamUnreachable):
                await client.send("POST", upstream.base_url + URL, body=b"{}")
        assert len(upstream.requests) == 2
        clock.now_s = 5.0
        assert (await client.send("POST", upstream.base_url + URL, body=b"{}")).status == 200
        assert client.breaker.state == "closed"


async def test_a_cancelled_trial_leaves_the_circuit_to_the_next_caller():
    clock = Clock()
    settings = UpstreamSettings(breaker_failures=1, breaker_reset_s=5.0)
    async with ScriptedUpstream() as upstream, HttpClient(settings, clock=clock) as client:
        upstream.on(URL, cut(), hang(), whole({}))
        with pytest.raises(UpstreamUnreachable):
            await client.send("POST", upstream.base_url + URL, body=b"{}")
        clock.now_s = 5.0
        trial = asyncio.ensure_future(client.send("POST", upstream.base_url + URL, body=b"{}"))
        await upstream.arrived(2)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        assert (await client.send("POST", upstream.base_url + URL, body=b"{}")).status == 200


async def test_errors_of_the_model_itself_leave_the_circuit_closed():
    async with talking(whole({}, status=500), breaker_failures=1) as (client, upstream):
        for _ in range(3):
            assert (await client.send("POST", upstream.base_url + URL, body=b"{}")).status == 500
        assert client.breaker.state == "closed"


def test_time_outs_and_limits_are_those_of_the_settings():
    settings = UpstreamSettings(connect_timeout_s=1, read_timeout_s=2, total_timeout_s=3)
    assert Timeouts.from_settings(settings) == Timeouts(connect_s=1, read_s=2, total_s=3)
    assert Limits.from_settings(UpstreamSettings(max_connections=4, connect_retries=5, max_reply_bytes=6000)) == Limits(
        max_connections=4, connect_retries=5, max_reply_bytes=6000
    )


async def test_a_client_that_is_not_started_says_so():
    with pytest.raises(RuntimeError, match="not started"):
        await HttpClient(UpstreamSettings()).send("GET", "http://127.0.0.1/")
