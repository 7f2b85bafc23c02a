"""What traces cost the event loop: ``python -m tests.benchmarks.tracing`` prints microseconds a request.

A request here is what the gateway does of tracing for one exchange with a whole reply: twelve steps, most of them by
``with``. The collector is a real one on a socket of its own, so that what is sent is sent meanwhile.
"""

from __future__ import annotations

import asyncio
import time

from gateway.settings import TracingSettings
from gateway.tracing import Tracing, current, step, under
from tests.collector import Collector

REQUESTS = 5000
ROUNDS = 5
BY_WITH = ("auth", "views", "decide", "upstream", "views", "decide")
AFTERWARDS = ("queue", "encode", "search") * 2


def one(tracing: Tracing) -> None:
    """All that one request does of tracing."""
    trace = tracing.begin(())
    if trace is None:
        walk()
        return
    with under(trace):
        walk()
    trace.note(case="case_0", tenant="t", surface="chat", action="allow")
    trace.answered(200)
    trace.end("/v1/chat/completions")


def walk() -> None:
    for name in BY_WITH:
        with step(name, texts=1):  # type: ignore[arg-type]
            pass
    now_s = time.perf_counter()
    for name in AFTERWARDS:
        if (trace := current()) is not None:
            trace.add(name, now_s, now_s, windows=1)  # type: ignore[arg-type]


async def microseconds(settings: TracingSettings) -> float:
    """The best of some rounds, a request."""
    tracing, best_s = Tracing(settings), float("inf")
    async with tracing.running():
        for _ in range(ROUNDS):
            began_s = time.perf_counter()
            for _ in range(REQUESTS):
                one(tracing)
            best_s = min(best_s, time.perf_counter() - began_s)
    return best_s / REQUESTS * 1e6


async def main() -> None:
    print(f"off            {await microseconds(TracingSettings()):8.1f} us a request")
    with Collector() as collector:
        for share in (0.0, 0.1, 1.0):
            settings = TracingSettings(endpoint=collector.url, share=share, max_queue_spans=1_000_000)
            print(f"on, share {share:<4} {await microseconds(settings):8.1f} us a request")


if __name__ == "__main__":
    asyncio.run(main())
