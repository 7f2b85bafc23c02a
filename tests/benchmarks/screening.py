"""How fast a text is screened: ``python -m tests.benchmarks.screening``.

Encoder and search apart and together, from token ids and from text, alone and at rising load, against banks of vectors
in clusters; each figure beside what the arithmetic or the memory of this machine allows (``limits``), measured in the
same run. On a CPU everything runs on one thread, as it does in the gateway for a single text.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank import Antiprompt, Bank, Label, build_bank
from antiprompt_bank.encoder import Encoder, export_encoder, open_encoder
from antiprompt_bank.encoder_cuda import TorchEncoder
from antiprompt_bank.index import Index, SearchDevice, device_beside
from antiprompt_bank.index_faiss import FlatIndex
from antiprompt_bank.model_files import DEFAULT_MODEL, default_id
from antiprompt_bank.neighbours import NEIGHBOURS
from tests.benchmarks.arrivals import Work, open_loop, peak
from tests.benchmarks.figures import DATA, Speed, document, keep, open_console, say_missed, speeds_table, step
from tests.benchmarks.limits import Limits, measure
from tests.benchmarks.texts import one_window
from tests.vectors import Clusters, asked, ranked

_TOKENS: Final = 64
_SPECIAL: Final = 2
_LOADS: Final = (25, 50, 75, 100)
_BATCH: Final = {"cpu": 32, "cuda": 2048}
"""Windows in a batch: the gateway's default, and enough for a GPU."""

_IN_FLIGHT: Final = {"cpu": 1, "cuda": 2}
"""Batches under way at once, as in the gateway: while a GPU works on one, the next is prepared."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. ``items`` different windows and texts go round; at each load they arrive for some
    ``seconds``, and ``least`` of them at least."""

    rows: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    seconds: float = 3.0
    items: int = 4096
    alone: int = 300
    least: int = 100


QUICK: Final = Sizes((1_000, 30_000), 0.3, 64, 20, 20)
"""Enough to see whether something is broken, too little to compare."""

LARGE_ROWS: Final = 10_000_000


class Screening:
    """What is measured: an encoder, the same one's small bank, and the machine's limits."""

    def __init__(self, encoder: Encoder, sizes: Sizes) -> None:
        self.encoder = encoder
        self.sizes = sizes
        self.device: SearchDevice = device_beside(encoder.runtime)
        self.batch, self.in_flight = _BATCH[self.device], _IN_FLIGHT[self.device]
        self.limits: Limits = measure(self.device, "bf16" if "bf16" in encoder.runtime else "f32")
        self.bank: Bank = build_bank([exemplar(number) for number in range(12)], encoder)
        self.texts = [one_window(1000 + number) for number in range(sizes.items)]
        self.inputs: list[Any] = [np.array([*encoder.tokenize(text).ids] * 2)[:_TOKENS] for text in self.texts]

    def encoding(self) -> Iterator[Speed]:
        """The encoder by itself, from token ids."""
        limit = self.limits.windows_per_s(self.encoder, _TOKENS + _SPECIAL)
        yield from self._loaded(f"encode {_TOKENS} tokens", "windows/s", self._encode, limit)

    def new_text(self) -> Iterator[Speed]:
        """A text of one window that was never seen, judged by a bank of a dozen, beside encoding that window alone."""
        unseen = time.time_ns()
        texts = [one_window(unseen + number) for number in range(self.sizes.alone)]
        windows = [self.bank.prepare(text, side="request").cut[0].ids for text in texts]
        judged_ms, bare_ms = _in_turns(
            lambda at: self.bank.score([texts[at]], side="request"),
            lambda at: self.encoder.encode([windows[at]]),
            len(texts),
        )
        yield Speed("new text of one window: median", "ms", judged_ms, bare_ms)
        yield Speed("new text over its bare encoding", "times", judged_ms / bare_ms, aim=1.3)

    def searching(self, rows: int) -> Iterator[Speed]:
        """A bank of so many rows: the search by itself, then behind the encoder, from token ids and from text."""
        clusters = Clusters(rows, self.encoder.dimensions)
        stored, queries = clusters.vectors(), clusters.others(self.sizes.items)
        start_s = time.perf_counter()
        index = Index(stored, device=self.device)
        name = f"{rows:,} rows"
        yield Speed(f"{name}, {index.kind}: build", "s", time.perf_counter() - start_s)
        yield self._one_query(name, rows, index, queries)
        if index.kind == "coarse":
            yield Speed(
                f"{name}: recall at {NEIGHBOURS}", "", _recall(index, stored, queries[:200]), aim=0.99, bound="at least"
            )
        if self.device == "cpu" and rows <= 100_000:  # as a bank without an adapter stores them
            shelf = Index(ranked(stored))
            yield self._one_query(f"{name} of a shelf, {shelf.kind}", rows, shelf, asked(queries))
            del shelf
        del stored

        def search(these: NDArray[np.int64]) -> object:
            return index.search(queries[these], NEIGHBOURS)

        limit = self.batch / self.limits.search_s(rows, self.encoder.dimensions, self.batch)
        yield from self._loaded(f"{name}: search", "windows/s", search, limit)
        aims = (100_000.0, 5.0) if self.device == "cuda" and rows == 100_000 else (None, None)
        both = 1 / (1 / limit + 1 / self.limits.windows_per_s(self.encoder, _TOKENS + _SPECIAL))
        yield from self._loaded(
            f"{name}: from ids", "windows/s", lambda these: index.search(self._encode(these), NEIGHBOURS), both, aims
        )
        yield from self._loaded(
            f"{name}: from text", "texts/s", lambda these: index.search(self._read(these), NEIGHBOURS)
        )

    def _one_query(self, name: str, rows: int, index: Index, queries: NDArray[np.float32]) -> Speed:
        took_s = []
        for at in range(self.sizes.alone):
            start_s = time.perf_counter()
            index.search(queries[at % len(queries)][None], NEIGHBOURS)
            took_s.append(time.perf_counter() - start_s)
        limit_ms = self.limits.search_s(rows, self.encoder.dimensions, 1) * 1e3
        aim = 1.5 * limit_ms if self.device == "cuda" and rows == 1_000_000 else None
        if self.device == "cpu" and rows <= 100_000:
            aim = 1.0
        return Speed(f"{name}: one query, median", "ms", float(np.median(took_s)) * 1e3, limit_ms, aim)

    def _encode(self, these: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.encoder.encode([self.inputs[at] for at in these.tolist()])

    def _read(self, these: NDArray[np.int64]) -> NDArray[np.float32]:
        prepared = [self.bank.prepare(self.texts[at], side="request") for at in these.tolist()]
        return self.encoder.encode([window.ids for text in prepared for window in text.cut])

    def _loaded(
        self,
        name: str,
        unit: str,
        work: Work,
        limit: float | None = None,
        aims: tuple[float | None, float | None] = (None, None),
    ) -> Iterator[Speed]:
        """The most that is done, and how long it takes at parts of that; ``aims`` are for the most, and for the 99 %
        at half of that aim."""
        sizes = self.sizes
        work(np.arange(self.batch) % sizes.items)
        most = peak(work, sizes.items, batch=self.batch, seconds=sizes.seconds, in_flight=self.in_flight)
        yield Speed(name, unit, most, limit, aims[0], "at least")
        for percent in _LOADS:
            yield from self._waits(f"{name}, {percent} % load", work, most * percent / 100)
        if aims[0] is not None:
            yield from self._waits(f"{name}, {aims[0] / 2:,.0f} {unit}", work, aims[0] / 2, aims[1])

    def _waits(self, name: str, work: Work, per_s: float, aim: float | None = None) -> Iterator[Speed]:
        arrivals = max(self.sizes.least, int(per_s * self.sizes.seconds))
        waits = open_loop(
            work, self.sizes.items, per_s=per_s, batch=self.batch, arrivals=arrivals, in_flight=self.in_flight
        )
        yield Speed(f"{name}: median", "ms", waits.median_ms)
        yield Speed(f"{name}: 99 %", "ms", waits.p99_ms, aim=aim)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    sizes = QUICK if chosen.quick else Sizes()
    if chosen.seconds is not None:
        sizes = replace(sizes, seconds=chosen.seconds)
    if chosen.rows:
        sizes = replace(sizes, rows=tuple(chosen.rows))
    if chosen.large:
        sizes = replace(sizes, rows=(*sizes.rows, LARGE_ROWS))
    console = open_console()
    with step(console, "start"):
        name = default_id() if chosen.model == DEFAULT_MODEL else Path(chosen.model).name
        folder = export_encoder((chosen.data or DATA) / "encoders" / name.replace(":", "-"), chosen.model)
        encoder = TorchEncoder(folder, device="cuda", packed=False) if chosen.padded else None
        run = Screening(encoder or open_encoder(folder, device=chosen.device), sizes)
    figures: list[Speed] = []
    parts: dict[str, Callable[[], Iterator[Speed]]] = {"new text": run.new_text, "encoder": run.encoding}
    for rows in sizes.rows:
        parts[f"{rows:,} rows"] = lambda rows=rows: run.searching(rows)  # type: ignore[misc]
    for name, part in parts.items():
        with step(console, name):
            figures += part()
    console.print(speeds_table(figures))
    say_missed(figures, console)
    made = document(figures, sizes=asdict(sizes), encoder=run.encoder.runtime, limits=asdict(run.limits))
    console.print(f"Kept in {keep(made, chosen.json)}")
    return 0


def _in_turns(first: Callable[[int], object], second: Callable[[int], object], count: int) -> tuple[float, float]:
    """Median milliseconds of two things done in turns, so that a machine that slows down slows both."""
    took_s = np.empty((2, count))
    for at in range(count):
        for which, work in enumerate((first, second)):
            start_s = time.perf_counter()
            work(at)
            took_s[which, at] = time.perf_counter() - start_s
    medians = np.median(took_s, axis=1) * 1e3
    return float(medians[0]), float(medians[1])


def _recall(index: Index, stored: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
    _, found = index.search(queries, NEIGHBOURS)
    _, exact = FlatIndex(stored).search(queries, NEIGHBOURS)
    return float(np.mean([np.isin(mine, theirs).mean() for mine, theirs in zip(exact, found, strict=True)]))


def exemplar(number: int) -> Antiprompt:
    label = Label.BENIGN if number % 2 else Label.HARMFUL
    return Antiprompt(text=one_window(number), label=label, side="request", hazard="privacy")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.screening", description=__doc__)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a sentence-transformers model (%(default)s)")
    parser.add_argument("--padded", action="store_true", help="on a GPU: texts padded, none packed")
    parser.add_argument("--quick", action="store_true", help="measure little, to see whether all works")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each load lasts (3)")
    parser.add_argument("--rows", type=int, nargs="+", metavar="N", help="banks of these sizes (1000 to 1000000)")
    parser.add_argument("--large", action="store_true", help=f"a bank of {LARGE_ROWS:,} rows too (64 GB of memory)")
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"where the exported encoder is kept ({DATA})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures (bench-results/)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
