"""Load that does not wait: texts arrive at their own rate, and one worker takes all that are there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Work = Callable[[NDArray[np.int64]], object]
"""Does the items with these numbers, in one batch."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long items took from their arrival to their end, and how many a second were done."""

    median_ms: float
    p99_ms: float
    per_s: float


def peak(work: Work, items: int, *, batch: int, seconds: float) -> float:
    """Items a second when there is always a full batch of the ``items`` waiting."""
    start_s, done = time.perf_counter(), 0
    while True:
        work(np.arange(done, done + batch) % items)
        done += batch
        took_s = time.perf_counter() - start_s
        if took_s >= seconds:
            return done / took_s


def open_loop(work: Work, items: int, *, per_s: float, batch: int, arrivals: int) -> Waits:
    """What items wait that arrive at random, ``per_s`` a second, whether or not those before them are done.

    The worker takes up to ``batch`` of those that are there, as the gateway's does.
    """
    arrived_s = np.cumsum(np.random.default_rng(0).exponential(1 / per_s, arrivals))
    waits_s = np.empty(arrivals)
    start_s, done = time.perf_counter(), 0
    while done < arrivals:
        now_s = time.perf_counter() - start_s
        there = min(int(np.searchsorted(arrived_s, now_s, side="right")), done + batch)
        if there == done:
            time.sleep(max(0.0, arrived_s[done] - now_s))
            continue
        work(np.arange(done, there) % items)
        waits_s[done:there] = time.perf_counter() - start_s - arrived_s[done:there]
        done = there
    took_s = time.perf_counter() - start_s
    median_s, p99_s = np.percentile(waits_s, [50, 99])
    return Waits(float(median_s * 1e3), float(p99_s * 1e3), arrivals / took_s)
