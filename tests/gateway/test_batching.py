"""The batcher joins calls, bounds its queue and always answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.batching import Batcher
from gateway.errors import Overloaded, ScreeningUnavailable
from gateway.telemetry import Metrics

Work = Callable[[list[int]], Sequence[int]]


@asynccontextmanager
async def batcher(
    work: Work, *, max_batch: int = 4, max_queue: int = 100, timeout_s: float = 5.0
) -> AsyncIterator[Batcher[int, int]]:
    made = Batcher(work, threads=1, max_batch=max_batch, max_queue=max_queue, timeout_s=timeout_s, metrics=Metrics())
    made.start()
    try:
        yield made
    finally:
        await made.close()


class Gate:
    """Work that waits until it is let through, and remembers its batches."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []

    @classmethod
    def opened(cls) -> Gate:
        made = cls()
        made.open.set()
        return made

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.entered.set()
        assert self.open.wait(5)
        return [item * 10 for item in items]


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 5)


async def test_each_caller_gets_the_results_of_its_own_items() -> None:
    async with batcher(lambda items: [item * 10 for item in items]) as made:
        answers = await asyncio.gather(*(made.run([n, n + 100]) for n in range(20)))
    assert answers == [[n * 10, (n + 100) * 10] for n in range(20)]


async def test_calls_that_wait_together_share_batches_within_the_limit() -> None:
    gate = Gate()
    async with batcher(gate) as made:
        first = asyncio.create_task(made.run([0]))
        await entered(gate)
        others = [asyncio.create_task(made.run([n])) for n in range(1, 7)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *others)
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_full_queue_refuses_at_once() -> None:
    gate = Gate()
    async with batcher(gate, max_queue=2) as made:
        running = asyncio.create_task(made.run([0]))
        await entered(gate)
        waiting = [asyncio.create_task(made.run([n])) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await made.run([3])
        gate.open.set()
        assert await running == [0]
        assert await asyncio.gather(*waiting) == [[10], [20]]


async def test_failed_work_is_unavailable_and_the_next_call_works() -> None:
    def work(items: list[int]) -> list[int]:
        if 13 in items:
            raise RuntimeError("no luck")
        return items

    async with batcher(work) as made:
        with pytest.raises(ScreeningUnavailable):
            await made.run([13])
        assert await made.run([1]) == [1]


async def test_a_wrong_number_of_results_is_unavailable_not_clean() -> None:
    async with batcher(lambda items: items[:-1]) as made:
        with pytest.raises(ScreeningUnavailable):
            await made.run([1, 2])


async def test_stalled_work_times_out_for_its_caller_without_blocking_the_loop() -> None:
    gate = Gate()
    async with batcher(gate, timeout_s=0.05) as made:
        with pytest.raises(ScreeningUnavailable):
            await made.run([1])
        gate.open.set()


async def test_a_caller_that_left_is_skipped() -> None:
    gate = Gate()
    async with batcher(gate) as made:
        first = asyncio.create_task(made.run([0]))
        await entered(gate)
        leaver = asyncio.create_task(made.run([1]))
        stayer = asyncio.create_task(made.run([2]))
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        gate.open.set()
        assert await asyncio.gather(first, stayer) == [[0], [20]]
    assert gate.batches == [[0], [2]]


@pytest.mark.parametrize("before", [True, False])
async def test_a_widened_batcher_fills_the_next_batch_while_one_is_under_way(before: bool) -> None:
    gates: list[Gate] = [Gate(), Gate()]
    free = iter(gates)

    def work(items: list[int]) -> list[int]:
        return next(free)(items)

    made = Batcher(work, threads=1, max_batch=2, max_queue=9, timeout_s=5, metrics=Metrics())
    if before:
        made.widen(2)
    made.start()
    if not before:
        made.widen(2)
    first = asyncio.create_task(made.run([1, 2]))
    await entered(gates[0])
    second = asyncio.create_task(made.run([3, 4]))
    await entered(gates[1])
    third = asyncio.create_task(made.run([5]))
    await asyncio.sleep(0)
    free = iter([Gate.opened()])
    gates[1].open.set()  # whichever is done first is answered first, and the next begins at once
    assert await second == [30, 40]
    assert await third == [50]
    assert not first.done()
    gates[0].open.set()
    assert await first == [10, 20]
    await made.close()


async def test_it_is_never_made_narrower_than_its_threads() -> None:
    gates = [Gate(), Gate()]
    free = iter(gates)
    made = Batcher(lambda items: next(free)(items), threads=2, max_batch=1, max_queue=9, timeout_s=5, metrics=Metrics())
    made.start()
    made.widen(1)
    calls = [asyncio.create_task(made.run([n])) for n in range(2)]
    for gate in gates:
        await entered(gate)
        gate.open.set()
    assert await asyncio.gather(*calls) == [[0], [10]]
    await made.close()


async def test_closing_answers_whoever_still_waits() -> None:
    gate = Gate()
    made = Batcher(gate, threads=1, max_batch=1, max_queue=9, timeout_s=5, metrics=Metrics())
    made.start()
    calls = [asyncio.create_task(made.run([n])) for n in range(3)]
    await entered(gate)
    await made.close()
    gate.open.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ScreeningUnavailable] * 3
