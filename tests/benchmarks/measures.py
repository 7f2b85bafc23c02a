"""The benchmarks: each takes a run and gives its figures. What is asked direct and through the gateway is the same."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from tests.benchmarks.clients import Streamed, calling, chat, load, streams
from tests.benchmarks.figures import Figure
from tests.benchmarks.processes import Served
from tests.benchmarks.texts import prompt

_CLIENTS: Final = 32
_ROUND: Final = 50
"""Calls in a row to one side before the other has its turn, so that a machine that slows down slows both."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    calls: int = 1000
    new_prompts: int = 400
    load_s: float = 6.0
    first_texts: int = 30
    paced_streams: int = 8
    relay_streams: int = 50
    crowd: int = 200
    crowd_chunks: int = 200


QUICK: Final = Sizes(200, 100, 2.0, 10, 4, 20, 200, 60)
"""Enough to see whether something is broken, too little to compare."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is measured: the fake model, the gateway in front of it, and perhaps a peer beside the gateway."""

    model_port: int
    gateway: Served
    peer: Served | None = None
    sizes: Sizes = Sizes()


def cached(run: Run) -> list[Figure]:
    """The same prompt again and again: every verdict is remembered."""
    body = chat(prompt(0))
    ports = [run.model_port, run.gateway.port, *([run.peer.port] if run.peer else [])]
    waits_ms = _take_turns(ports, lambda number: body, run.sizes.calls)
    medians = [statistics.median(waits) for waits in waits_ms]
    loads = [load(port, body, clients=_CLIENTS, seconds=run.sizes.load_s) for port in ports]
    many = f"cached, {_CLIENTS} clients"
    return [
        _side_by_side("cached, 1 client: median", "ms", medians),
        replace(
            _side_by_side("cached, 1 client: added", "ms", [median - medians[0] for median in medians]),
            direct=None,
            aim=1.5,
        ),
        replace(_side_by_side(many, "requests/s", [got.requests_per_s for got in loads]), aim=1160, bound="at least"),
        _side_by_side(f"{many}: median", "ms", [got.median_ms for got in loads]),
    ]


def new_prompts(run: Run) -> list[Figure]:
    """A prompt of one window that was never seen, each time, with the gateway on one core; the reply is the same."""
    unseen = time.time_ns()
    with run.gateway.on_one_core():
        ports = (run.model_port, run.gateway.port)
        direct_ms, through_ms = _take_turns(ports, lambda number: chat(prompt(unseen + number)), run.sizes.new_prompts)
    direct = statistics.median(direct_ms)
    return [
        Figure("new prompt, 1 core: median", "ms", statistics.median(through_ms), direct),
        Figure("new prompt, 1 core: added", "ms", statistics.median(through_ms) - direct, aim=8.0),
        Figure("new prompt, 1 core: 99 %", "ms", _percentile(through_ms, 99), _percentile(direct_ms, 99)),
    ]


def first_text(run: Run) -> list[Figure]:
    """How long a stream's first text takes: where the model is as fast as it can, and at 20 chunks a second."""
    figures = []
    for pace, rate, count in (
        ("at full speed", 0, run.sizes.first_texts),
        ("at 20/s", 20, run.sizes.paced_streams),
    ):
        direct, through = (
            _first_texts(port, rate, count, together=rate > 0) for port in (run.model_port, run.gateway.port)
        )
        figures += [
            Figure(f"stream {pace}: first text", "ms", through, direct),
            Figure(f"stream {pace}: added to first text", "ms", through - direct),
        ]
    return figures


def relay_cost(run: Run) -> list[Figure]:
    """Processor time of the gateway for each chunk that it relays on its own, the text's verdicts being remembered."""
    chunks, rate = 160, 40
    bodies = [_stream_body(seed=1, chunks=chunks, rate=rate)] * run.sizes.relay_streams
    streams(run.gateway.port, bodies[:1])
    before_s = run.gateway.cpu_s()
    done = streams(run.gateway.port, bodies, apart_s=1 / rate / len(bodies))
    used_s = run.gateway.cpu_s() - before_s
    return [Figure("stream: CPU of the gateway a chunk", "us", used_s / sum(len(s.arrivals) for s in done) * 1e6)]


def crowd(run: Run) -> list[Figure]:
    """Many streams of new text at 20 chunks a second: do they fall behind?

    A chunk's lag is from the model's sending it to the client's having it, which holds what hold-back waits for on
    purpose; ``growth`` is what the last quarter of each stream lags more than the second.
    """
    rate = 20
    results = []
    for port in (run.model_port, run.gateway.port):
        unseen = time.time_ns()
        bodies = [_stream_body(unseen + i, run.sizes.crowd_chunks, rate) for i in range(run.sizes.crowd)]
        patience_s = run.sizes.crowd_chunks / rate + 10
        results.append(streams(port, bodies, apart_s=1 / rate / len(bodies), within_s=patience_s))
    direct, through = results
    name = f"{run.sizes.crowd} streams at {rate}/s"
    return [
        Figure(f"{name}: unfinished", "streams", _unfinished(through), _unfinished(direct), aim=0),
        Figure(f"{name}: lag, median", "ms", _lag(through, 50), _lag(direct, 50)),
        Figure(f"{name}: lag, 99 %", "ms", _lag(through, 99), _lag(direct, 99)),
        Figure(f"{name}: growth of the lag", "ms", _growth(through), aim=100),
        Figure(f"{name}: end after last chunk, 99 %", "ms", _end_lag(through), _end_lag(direct)),
    ]


def start(run: Run) -> list[Figure]:
    """From the start of the process until it is ready, everything that can be kept having been exported before."""
    return [Figure("start until ready", "s", run.gateway.start_s, peer=run.peer.start_s if run.peer else None, aim=5.0)]


def memory(run: Run) -> list[Figure]:
    """What the gateway's processes hold after all that was asked of them."""
    return [
        Figure(
            "memory after the run",
            "MB",
            run.gateway.memory_mb(),
            peer=run.peer.memory_mb() if run.peer else None,
            aim=700,
        )
    ]


MEASURES: Final[Mapping[str, Callable[[Run], list[Figure]]]] = MappingProxyType(
    {
        "start": start,
        "cached": cached,
        "new-prompts": new_prompts,
        "first-text": first_text,
        "relay-cost": relay_cost,
        "crowd": crowd,
        "memory": memory,
    }
)
"""Every benchmark by name, in the order in which they run."""


def _side_by_side(name: str, unit: str, values: Sequence[float]) -> Figure:
    """``values`` are direct, through the gateway and, perhaps, through the peer."""
    return Figure(name, unit, values[1], direct=values[0], peer=values[2] if len(values) > 2 else None)


def _take_turns(ports: Sequence[int], body: Callable[[int], bytes], calls: int) -> list[list[float]]:
    """Waits in milliseconds, port by port. ``body`` gives the n-th body; the first round only warms up."""
    waits_ms: list[list[float]] = [[] for _ in ports]
    for begin in range(-_ROUND, calls, _ROUND):
        for port, waits in zip(ports, waits_ms, strict=True):
            with calling(port) as caller:
                took_ms = [caller.ask(body(number)) for number in range(begin, min(begin + _ROUND, calls))]
            if begin >= 0:
                waits += took_ms
    return waits_ms


def _stream_body(seed: int, chunks: int, rate: float) -> bytes:
    return chat(prompt(0), stream=True, seed=seed, max_tokens=chunks, chunks_per_s=rate)


def _first_texts(port: int, rate: float, count: int, *, together: bool) -> float:
    """Median milliseconds until the first text of ``count`` streams of new text."""
    unseen = time.time_ns()
    bodies = [_stream_body(unseen + number, 60, rate) for number in range(count)]
    done = streams(port, bodies) if together else [streams(port, [body])[0] for body in bodies]
    return statistics.median(stream.first_text_ms for stream in done)


def _unfinished(done: Sequence[Streamed]) -> int:
    return sum(stream.ended_s is None for stream in done)


def _lag(done: Sequence[Streamed], percent: int) -> float:
    return _percentile([lag for stream in done for lag in stream.lags_ms], percent)


def _end_lag(done: Sequence[Streamed]) -> float:
    return _percentile([stream.end_lag_ms for stream in done if stream.ended_s is not None], 99)


def _growth(done: Sequence[Streamed]) -> float:
    early, late = [], []
    for stream in done:
        quarter = len(stream.lags_ms) // 4
        early += stream.lags_ms[quarter : 2 * quarter]
        late += stream.lags_ms[-quarter:]
    return statistics.median(late) - statistics.median(early) if late else math.inf


def _percentile(values: Sequence[float], percent: int) -> float:
    if not values:  # nothing arrived, or no stream came to its end
        return math.inf
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]
