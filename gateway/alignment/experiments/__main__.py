"""``python -m gateway.alignment.experiments``: all experiments.

``--size toy`` (122,176 weights) takes a process for each core; ``--size large`` (13 million, several seeds side by
side) is made for a GPU, and on a CPU runs models of a few thousand weights, to show that it runs. Exit status 1 where a
mark does not hold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from gateway.alignment.experiments import inoculation, large, ranking, toy
from gateway.alignment.experiments.results import add_outcome, begin_outcomes, read_outcomes, write_results

SITUATIONS = (ranking.T1, ranking.T2, ranking.T3)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="experiments", description="Inoculation prompting and NEAT on a toy.")
    parser.add_argument("--size", choices=("toy", "large"), default="toy")
    parser.add_argument("--seeds", help="numbers with commas; 0,1,2 for the toy, else 0 to 15")
    parser.add_argument("--to", type=Path, default=Path("experiments"), help="folder for figures and plots")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of the toy")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the large size")
    parser.add_argument("--together", type=int, default=8, help="seeds that stand side by side in the large size")
    parser.add_argument("--minutes", type=float, default=60.0, help="after these the large size begins nothing new")
    parser.add_argument(
        "--tables-only", action="store_true", help="of what --to holds already, after a run was cut off"
    )
    chosen = parser.parse_args(arguments)
    seeds = [int(seed) for seed in (chosen.seeds or ("0,1,2" if chosen.size == "toy" else _numbers(16))).split(",")]
    began = time.monotonic()
    machine = f"{platform.machine()}, torch {torch.__version__}, size {chosen.size}"
    if not chosen.tables_only:
        if chosen.size == "toy":
            found, used = _toy(seeds, chosen.processes), f"{chosen.processes} processes"
        else:
            device = torch.device(chosen.device if torch.cuda.is_available() else "cpu")
            torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length, and there are many
            late = began + 60 * chosen.minutes
            found = in_rounds(seeds, device, chosen.together, lambda: time.monotonic() > late)
            used = torch.cuda.get_device_name() if device.type == "cuda" else "one process"
        begin_outcomes(chosen.to)
        for each in found:
            name = add_outcome(chosen.to, each)  # what is measured is kept, whatever becomes of the rest
            sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
        machine = f"{machine}, {used}; {(time.monotonic() - began) / 60:.1f} minutes"
    holds = write_results(chosen.to, *read_outcomes(chosen.to), machine=machine)
    sys.stdout.write((chosen.to / "figures.md").read_text("utf-8"))
    return 0 if holds else 1


def _numbers(most: int) -> str:
    return ",".join(map(str, range(most)))


def _toy(seeds: Sequence[int], processes: int) -> Iterator[inoculation.Outcome | ranking.Outcome]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=toy.one_thread) as pool:
        first = [pool.submit(inoculation.run, seed, inoculation.Size()) for seed in seeds]
        second = [
            pool.submit(ranking.run, seed, situation, ranking.Size()) for situation in SITUATIONS for seed in seeds
        ]
        waiting: list[Future[Any]] = [*first, *second]
        for each in as_completed(waiting):
            yield each.result()


def in_rounds(
    seeds: Sequence[int], device: torch.device, together: int, late: Callable[[], bool]
) -> Iterator[inoculation.Outcome | ranking.Outcome]:
    """The large size, some seeds at a time; nothing new is begun once it is ``late``."""
    size = large.LARGE if device.type == "cuda" else large.TINY
    for first in range(0, len(seeds), together):
        some = seeds[first : first + together]
        if late():
            return
        yield from large.run_inoculation(some, size, device)
        stages = large.run_ranking(some, SITUATIONS, size, device)
        while not late() and (found := next(stages, None)) is not None:
            yield from found


if __name__ == "__main__":
    sys.exit(main())
