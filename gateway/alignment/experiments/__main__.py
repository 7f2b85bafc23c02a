"""``python -m gateway.alignment.experiments``: all experiments, a process for each core.

Exit status 1 where a mark does not hold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from gateway.alignment.experiments import inoculation, ranking, toy
from gateway.alignment.experiments.results import write_outcome, write_results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="experiments", description="Inoculation prompting and NEAT on a toy.")
    parser.add_argument("--seeds", default="0,1,2", help="numbers with commas")
    parser.add_argument("--to", type=Path, default=Path("experiments"), help="folder for figures and plots")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.processes, mp_context=spawn, initializer=toy.one_thread) as pool:
        first = [pool.submit(inoculation.run, seed, inoculation.Size()) for seed in seeds]
        second = [
            pool.submit(ranking.run, seed, situation, ranking.Size())
            for situation in (ranking.T1, ranking.T2, ranking.T3)
            for seed in seeds
        ]
        waiting: list[Future[Any]] = [*first, *second]
        for done, each in enumerate(as_completed(waiting), 1):
            name = write_outcome(chosen.to, each.result())  # what is measured is kept, whatever becomes of the rest
            sys.stderr.write(f"{name}: {done} of {len(waiting)} runs, {time.monotonic() - began:.0f} s\n")
    machine = f"{platform.machine()}, {chosen.processes} processes, torch {torch.__version__}"
    holds = write_results(
        chosen.to,
        [each.result() for each in first],
        [each.result() for each in second],
        seconds=time.monotonic() - began,
        machine=machine,
    )
    sys.stdout.write((chosen.to / "figures.md").read_text("utf-8"))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
