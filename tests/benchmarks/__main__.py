"""``python -m tests.benchmarks``: measure, show the table, keep the JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from tests.benchmarks.clients import Unexpected
from tests.benchmarks.figures import DATA, RESULTS, Figure, document, keep, open_console, show, step
from tests.benchmarks.measures import MEASURES, QUICK, Run, Sizes
from tests.benchmarks.processes import NotStarted, fake_model, gateway, litellm


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    console = open_console()
    names = [name for name in MEASURES if not chosen.only or name in chosen.only]
    sizes = QUICK if chosen.quick else Sizes()
    try:
        figures = _measure(names, sizes, chosen.peer, console)
    except (NotStarted, Unexpected) as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False)
        return 1
    show(figures, console, chosen.peer)
    path = keep(document(figures, sizes=asdict(sizes), peer=chosen.peer), chosen.json)
    console.print(f"Kept in {path}")
    return 0


def _measure(names: Sequence[str], sizes: Sizes, peer: str | None, console: Console) -> list[Figure]:
    DATA.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    with ExitStack() as servers:
        port = servers.enter_context(fake_model())
        with step(console, "a first start, which builds what is kept"), gateway(port, DATA):
            pass
        with step(console, "start"):
            served = servers.enter_context(gateway(port, DATA))
        beside = None
        if peer:
            with step(console, peer):
                beside = servers.enter_context(litellm(port, DATA))
        run = Run(port, served, beside, sizes)
        for name in names:
            with step(console, name):
                figures += MEASURES[name](run)
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(MEASURES), metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--peer", choices=("litellm",), help="measure this gateway beside ours, if it is installed")
    parser.add_argument("--quick", action="store_true", help="measure little, to see whether all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"where to keep the figures (default: {RESULTS}/)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
