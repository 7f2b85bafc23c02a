"""Batcher: joins concurrent calls into batches for a worker thread; bounded, and it always answers its waiters."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from gateway.errors import Overloaded, ScreeningUnavailable
from gateway.telemetry import Metrics, logger
from gateway.tracing import Trace, current

T = TypeVar("T")
R = TypeVar("R")

MOST_WIDENED: Final = 4
"""Batches at once that ``widen`` may ask for."""


@dataclass(slots=True)
class _Waiting(Generic[T, R]):
    items: Sequence[T]
    cost: int
    answer: asyncio.Future[list[R]]
    since_s: float
    trace: Trace | None


class Batcher(Generic[T, R]):
    """Runs ``work`` over batches of items on ``threads`` worker threads, each with a batch of its own.

    ``work`` takes a list of items and returns one result each, in order. ``max_batch`` and ``max_queue`` are in the
    unit of ``cost``, what one item costs. A call's items stay together in one batch, so a call should bring at most
    ``max_batch`` of cost. Callers that left are skipped. If ``work`` fails, or returns a wrong number of results,
    every caller of that batch gets ``ScreeningUnavailable``: a text that could not be screened is never a clean one.
    """

    def __init__(
        self,
        work: Callable[[list[T]], Sequence[R]],
        *,
        cost: Callable[[T], int] = lambda _: 1,
        threads: int,
        max_batch: int,
        max_queue: int,
        timeout_s: float,
        metrics: Metrics,
    ) -> None:
        self._work = work
        self._cost = cost
        self._threads = threads
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._queued = 0
        self._arrived = asyncio.Event()
        # Its threads are made when there is work for them.
        self._executor = ThreadPoolExecutor(max(threads, MOST_WIDENED), thread_name_prefix="encode")
        self._workers: list[asyncio.Task[None]] = []
        self._started = False

    def start(self) -> None:
        """Start the workers; needs a running loop."""
        self._started = True
        self._add_workers()

    def widen(self, threads: int) -> None:
        """From now on run at least so many batches at once, up to ``MOST_WIDENED``; in the loop of ``start``."""
        self._threads = max(self._threads, min(threads, MOST_WIDENED))
        if self._started:
            self._add_workers()

    def _add_workers(self) -> None:
        for number in range(len(self._workers), self._threads):
            self._workers.append(asyncio.create_task(self._serve(), name=f"batcher-{number}"))

    async def close(self) -> None:
        """Stop the workers; whoever still waits is told that screening is unavailable."""
        self._started = False
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        _refuse(self._waiting, "the gateway is shutting down; try again")
        self._waiting.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, items: Sequence[T]) -> list[R]:
        """One result for each item. Raises ``Overloaded`` at once when the queue is full, ``ScreeningUnavailable``
        when the work failed or did not end in time."""
        cost = sum(map(self._cost, items))
        if self._queued + cost > self._max_queue:
            raise Overloaded("the screening queue is full; try again shortly", retry_after_s=1)
        answer = asyncio.get_running_loop().create_future()
        call: _Waiting[T, R] = _Waiting(items, cost, answer, time.perf_counter(), current())
        self._waiting.append(call)
        self._queued += call.cost
        self._metrics.queue_windows.set(self._queued)
        self._arrived.set()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call.answer
        except TimeoutError:
            raise ScreeningUnavailable("the text was not screened in time; try again") from None

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._next_batch()
            if not batch:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            items = [item for call in batch for item in call.items]
            self._metrics.batch_windows.observe(sum(call.cost for call in batch))
            try:
                results = await loop.run_in_executor(self._executor, self._work, items)
                if len(results) != len(items):
                    raise RuntimeError(f"{len(items)} items gave {len(results)} results")
            except asyncio.CancelledError:
                _refuse(batch, "the gateway is shutting down; try again")
                raise
            except Exception as error:  # noqa: BLE001  # whatever the work raised, its waiters must be answered
                logger().error("screening failed", error=type(error).__name__, items=len(items))
                _refuse(batch, "the text could not be screened; try again")
                continue
            at = 0
            for call in batch:
                if not call.answer.done():
                    call.answer.set_result(list(results[at : at + len(call.items)]))
                at += len(call.items)

    def _next_batch(self) -> list[_Waiting[T, R]]:
        batch: list[_Waiting[T, R]] = []
        size = 0
        now_s = time.perf_counter()
        while self._waiting:
            call = self._waiting[0]
            left = call.answer.done()
            if batch and not left and size + call.cost > self._max_batch:
                break
            self._waiting.popleft()
            self._queued -= call.cost
            if left:
                continue
            self._metrics.queue.observe(now_s - call.since_s)
            if call.trace is not None:
                call.trace.add("queue", call.since_s, now_s, windows=call.cost)
            batch.append(call)
            size += call.cost
        self._metrics.queue_windows.set(self._queued)
        return batch


def _refuse(calls: Iterable[_Waiting[T, R]], reason: str) -> None:
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(ScreeningUnavailable(reason))
