"""Load that does not wait: texts arrive at their own rate, and the workers take all that are there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

Work = Callable[[NDArray[np.int64]], object]
"""Does the items with these numbers, in one batch."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long items took from their arrival to their end, and how many a second were done."""

    median_ms: float
    p99_ms: float
    per_s: float


def peak(work: Work, items: int, *, batch: int, seconds: float, in_flight: int = 1) -> float:
    """Items a second when there is always a full batch of the ``items`` waiting, for each of ``in_flight`` workers."""
    taken, lock = count(0, batch), threading.Lock()
    start_s = time.perf_counter()

    def serve() -> int:
        done = 0
        while time.perf_counter() - start_s < seconds:
            with lock:
                first = next(taken)
            work(np.arange(first, first + batch) % items)
            done += batch
        return done

    done = sum(_by(in_flight, serve))
    return done / (time.perf_counter() - start_s)


def open_loop(work: Work, items: int, *, per_s: float, batch: int, arrivals: int, in_flight: int = 1) -> Waits:
    """What items wait that arrive at random, ``per_s`` a second, whether or not those before them are done.

    Each of ``in_flight`` workers takes up to ``batch`` of those that are there, as the gateway's do.
    """
    arrived_s = np.cumsum(np.random.default_rng(0).exponential(1 / per_s, arrivals))
    waits_s = np.empty(arrivals)
    lock, taken, start_s = threading.Lock(), 0, time.perf_counter()

    def serve() -> None:
        nonlocal taken
        while True:
            with lock:
                first, now_s = taken, time.perf_counter() - start_s
                there = min(int(np.searchsorted(arrived_s, now_s, side="right")), first + batch)
                taken = max(first, there)
            if first == arrivals:
                return
            if there <= first:
                time.sleep(max(0.0, arrived_s[first] - now_s))
                continue
            work(np.arange(first, there) % items)
            waits_s[first:there] = time.perf_counter() - start_s - arrived_s[first:there]

    _by(in_flight, serve)
    took_s = time.perf_counter() - start_s
    median_s, p99_s = np.percentile(waits_s, [50, 99])
    return Waits(float(median_s * 1e3), float(p99_s * 1e3), arrivals / took_s)


def _by(workers: int, serve: Callable[[], T]) -> list[T]:
    if workers == 1:
        return [serve()]
    with ThreadPoolExecutor(workers) as pool:
        return [each.result() for each in [pool.submit(serve) for _ in range(workers)]]
