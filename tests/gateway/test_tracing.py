"""Traces leave for a real collector: the steps of a request, with their times, and nothing that anybody wrote."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import tracing
from gateway.settings import SettingsError, TracingSettings, load_settings
from gateway.telemetry import configure_logs, logger
from gateway.tracing import MOST_STEPS, Tracing, current, step, under
from tests.collector import Collector

CALLERS = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


def settings(collector: Collector, **values: Any) -> TracingSettings:
    return TracingSettings(endpoint=collector.url, **values)


def traceparent(flags: str = "01") -> tuple[bytes, bytes]:
    return b"traceparent", f"00-{CALLERS}-b7ad6b7169203331-{flags}".encode()


async def test_without_a_collector_nothing_is_traced_and_a_step_costs_nothing_to_make():
    made = Tracing(TracingSettings())
    async with made.running():
        assert made.begin([traceparent()]) is None
        assert current() is None
        assert step("auth") is step("decide", texts=3)  # one and the same nothing


async def test_the_steps_of_a_request_arrive_below_it_with_their_times(collector: Collector):
    made = Tracing(settings(collector, service_name="guard"), port=8080)
    async with made.running():
        trace = made.begin([])
        assert trace is not None
        with under(trace):
            with step("auth"):
                await asyncio.sleep(0.01)
            now_s = time.perf_counter()
            trace.add("queue", now_s - 0.25, now_s, windows=3)
        trace.note(action="block", hazard=None)
        trace.answered(200)
        trace.end("/v1/chat/completions")
        assert current() is None
    (root,) = collector.wait_for(1)
    queue, auth = collector.of(root)
    assert (root.name, root.trace, root.parent, root.failed) == ("/v1/chat/completions", trace.id, "", False)
    assert root.values == {"antiprompt.action": "block", "http.response.status_code": 200}
    assert (auth.name, auth.trace) == ("auth", trace.id)
    assert auth.ended_ns - auth.began_ns >= 9_000_000
    assert (queue.name, queue.values) == ("queue", {"antiprompt.windows": 3})
    assert round((queue.ended_ns - queue.began_ns) / 1e9, 3) == 0.25
    assert abs(queue.ended_ns - time.time_ns()) < 60e9  # since 1970, not since the machine began
    assert collector.resource["service.name"] == "guard"
    assert str(collector.resource["service.instance.id"]).endswith(":8080")


async def test_an_error_is_told_by_its_kind_and_never_in_its_words(collector: Collector):
    made = Tracing(settings(collector))
    async with made.running():
        trace = made.begin([])
        assert trace is not None
        with under(trace), pytest.raises(ValueError, match="a private word"), step("upstream"):
            raise ValueError("a private word")
        trace.answered(503)
        trace.end(None, KeyError("another private word"))
    (root,) = collector.wait_for(1)
    (upstream,) = collector.of(root)
    assert (upstream.failed, upstream.values) == (True, {"error.type": "ValueError"})
    assert (root.name, root.failed, root.values["error.type"]) == ("request", True, "KeyError")
    assert not any(b"private" in body for body in collector.bodies)


async def test_a_callers_trace_is_gone_on_with_only_where_settings_say_so(collector: Collector):
    for from_callers in (False, True):
        made = Tracing(settings(collector, from_callers=from_callers))
        async with made.running():
            trace = made.begin([traceparent()])
            assert trace is not None
            assert (trace.id == CALLERS) is from_callers
            trace.end(None)
    assert {root.parent for root in collector.wait_for(2)} == {"", "b7ad6b7169203331"}


@pytest.mark.parametrize(
    "headers",
    [
        [traceparent(), traceparent()],
        [(b"traceparent", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01")],
        [(b"traceparent", b"\xff\xfe")],
        [(b"traceparent", b"00-" + b"a" * 4000)],
        [(b"tracestate", b"a=1")],
    ],
)
async def test_what_is_no_trace_of_a_callers_begins_a_new_one(collector: Collector, headers: list[tuple[bytes, bytes]]):
    made = Tracing(settings(collector, from_callers=True))
    async with made.running():
        trace = made.begin(headers)
        assert trace is not None
        assert trace.id not in (None, CALLERS)
        trace.end(None)
    assert [root.parent for root in collector.wait_for(1)] == [""]


@pytest.mark.parametrize(("share", "headers"), [(0.0, []), (1.0, [traceparent("00")])])
async def test_a_request_that_is_not_sampled_leaves_nothing_but_can_be_followed_upstream(
    collector: Collector, share: float, headers: list[tuple[bytes, bytes]]
):
    made = Tracing(settings(collector, share=share, from_callers=True))
    async with made.running():
        trace = made.begin(headers)
        assert trace is not None
        with under(trace):
            assert step("auth") is step("decide")
            trace.add("queue", 0.0, 1.0)
        assert trace.id is None  # nobody would find it
        sent = dict(trace.headers())
        trace.end(None)
    assert int(sent["traceparent"][-2:], 16) & 1 == 0
    assert collector.bodies == []


async def test_what_goes_upstream_names_the_step_that_asks(collector: Collector):
    made = Tracing(settings(collector, from_callers=True))
    async with made.running():
        trace = made.begin([traceparent(), (b"tracestate", b"vendor=1")])
        assert trace is not None
        with under(trace), step("upstream"), step("decide"):  # as when the model is asked meanwhile
            sent = dict(trace.headers())
        trace.end(None)
    (root,) = collector.wait_for(1)
    upstream = next(each for each in collector.of(root) if each.name == "upstream")
    assert sent == {"traceparent": f"00-{CALLERS}-{upstream.id}-01", "tracestate": "vendor=1"}


async def test_a_long_stream_has_a_bounded_number_of_steps_and_says_how_many_are_missing(collector: Collector):
    made = Tracing(settings(collector))
    async with made.running():
        trace = made.begin([])
        assert trace is not None
        with under(trace):
            for _ in range(MOST_STEPS):
                with step("decide"):
                    pass
            trace.add("queue", 0.0, 1.0)
            trace.add("hold-back", 0.0, 1.0)  # the one that says how the stream was
        trace.end(None)
    (root,) = collector.wait_for(1)
    assert [each.name for each in collector.of(root)].count("decide") == MOST_STEPS
    assert {each.name for each in collector.of(root)} == {"decide", "hold-back"}
    assert root.values["antiprompt.steps_left_out"] == 1


async def test_a_collector_that_says_nothing_keeps_no_gateway_from_ending():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        made = Tracing(TracingSettings(endpoint=f"http://127.0.0.1:{port}/v1/traces", timeout_s=0.2))
        async with made.running():
            trace = made.begin([])
            assert trace is not None
            trace.end(None)
    assert made.begin([]) is None


async def test_every_line_that_is_logged_meanwhile_names_the_trace(collector: Collector):
    bytes_written = io.BytesIO()
    configure_logs(format="json", level="info", stream=io.TextIOWrapper(bytes_written, write_through=True))
    made = Tracing(settings(collector))
    async with made.running():
        trace = made.begin([])
        assert trace is not None
        with under(trace):
            logger().info("within")
        logger().info("after")
        trace.end(None)
    within, after = map(json.loads, bytes_written.getvalue().splitlines())
    assert (within["trace"], "trace" in after) == (trace.id, False)


async def test_the_collector_is_told_who_sends_and_nothing_from_the_environment(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    made = Tracing(settings(collector, authorization="Bearer key"))
    async with made.running():
        trace = made.begin([])
        assert trace is not None
        trace.end(None)
    collector.wait_for(1)
    assert collector.headers[0]["authorization"] == "Bearer key"


@pytest.mark.parametrize("url", ["ftp://host/v1/traces", "collector:4318", "http://user:secret@host/v1/traces"])
def test_a_collector_is_named_by_an_address_without_a_password(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANTIPROMPT_TRACING__ENDPOINT", url)
    with pytest.raises(SettingsError, match=r"tracing\.endpoint") as error:
        load_settings()
    assert "secret" not in str(error.value)


def test_the_steps_are_those_that_the_map_of_the_module_names():
    assert tracing.__doc__ is not None
    assert all(f"``{name}``" in tracing.__doc__ for name in tracing.Step.__args__)  # type: ignore[attr-defined]
