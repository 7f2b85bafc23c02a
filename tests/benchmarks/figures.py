"""What a run gives: figures beside their aims, as a table for people and as JSON for comparison over time."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

RESULTS = Path("bench-results")

DATA = RESULTS / "data"
"""What is kept between runs, so that only the first one builds the bank and exports the encoder."""

_WIDTH = 120
"""Columns of the table where it does not go to a terminal."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured: direct to the fake model, through the gateway, and through a peer where there is one.

    ``aim`` is the bound that ``gateway`` should keep, on the side that ``bound`` names; None: measured for the record.
    """

    name: str
    unit: str
    gateway: float
    direct: float | None = None
    peer: float | None = None
    aim: float | None = None
    bound: Literal["at most", "at least"] = "at most"

    @property
    def ratio(self) -> float | None:
        """Gateway over direct."""
        return self.gateway / self.direct if self.direct else None

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.gateway <= self.aim if self.bound == "at most" else self.gateway >= self.aim


@dataclass(frozen=True, slots=True)
class Speed:
    """One thing measured of a part, beside what the machine could do at best.

    ``limit`` is in the same unit: the time that the arithmetic or the reading of memory takes by itself, or the rate
    that this allows. ``aim`` as in ``Figure``.
    """

    name: str
    unit: str
    value: float
    limit: float | None = None
    aim: float | None = None
    bound: Literal["at most", "at least"] = "at most"

    @property
    def ratio(self) -> float | None:
        """How many times the limit it takes: 1 is the best there is."""
        if not self.limit or not self.value:
            return None
        return self.limit / self.value if self.unit.endswith("/s") else self.value / self.limit

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.value <= self.aim if self.bound == "at most" else self.value >= self.aim


def speeds_table(figures: Sequence[Speed], title: str = "Screening, beside what the machine allows") -> Table:
    """Speeds as a person reads them."""
    made = Table(title=title, box=SIMPLE, title_justify="left")
    made.add_column("figure", no_wrap=True)
    made.add_column("unit")
    for column in ("measured", "limit", "times", "aim"):
        made.add_column(column, justify="right", no_wrap=True)
    for figure in figures:
        numbers = [figure.value, figure.limit, figure.ratio]
        made.add_row(figure.name, figure.unit, *map(_number, numbers), _aim(figure))
    return made


def table(figures: Sequence[Figure], peer: str | None) -> Table:
    """The figures as a person reads them."""
    made = Table(title="Direct to a fake model server, and through the gateway", box=SIMPLE, title_justify="left")
    made.add_column("figure", no_wrap=True)
    made.add_column("unit")
    for column in ("direct", "gateway", "ratio", *([peer] if peer else []), "aim"):
        made.add_column(column, justify="right", no_wrap=True)
    for figure in figures:
        numbers = [figure.direct, figure.gateway, figure.ratio, *([figure.peer] if peer else [])]
        made.add_row(figure.name, figure.unit, *map(_number, numbers), _aim(figure))
    return made


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _aim(figure: Figure | Speed) -> str:
    if figure.aim is None:
        return ""
    colour, verdict = ("green", "met") if figure.met else ("red", "missed")
    return f"{figure.bound} {_number(figure.aim)} [{colour}]{verdict:>6}[/]"


def document(figures: Sequence[Figure] | Sequence[Speed], **conditions: Any) -> dict[str, Any]:
    """A run as JSON: where and when it was made, and every figure with its ratio."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        **conditions,
        "figures": [{**asdict(figure), "ratio": figure.ratio, "met": figure.met} for figure in figures],
    }


def keep(run: dict[str, Any], path: Path | None = None) -> Path:
    """Write a run to ``path``, or to a file of its own under bench-results/."""
    path = path or RESULTS / f"{run['at'].replace(':', '').replace('+0000', 'Z')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_told(run), indent=2, allow_nan=False) + "\n")
    return path


def show(run_figures: Sequence[Figure], console: Console, peer: str | None = None) -> None:
    console.print(table(run_figures, peer))
    say_missed(run_figures, console)


def say_missed(run_figures: Sequence[Figure] | Sequence[Speed], console: Console) -> None:
    """Name what missed its aim."""
    missed = [figure.name for figure in run_figures if figure.met is False]
    if missed:
        console.print(f"[red]Missed:[/] {'; '.join(missed)}")


def open_console() -> Console:
    """The terminal, or wherever else the output goes, wide enough for the table."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


@contextmanager
def step(console: Console, name: str) -> Iterator[None]:
    """Say what is under way, and afterwards how long it took."""
    start_s = time.monotonic()
    with console.status(f"{name} ..."):
        yield
    console.print(f"[dim]{name}: {time.monotonic() - start_s:.1f} s[/]", highlight=False)


def _commit() -> str | None:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _told(value: Any) -> Any:
    """JSON has no infinity: what never came is null."""
    if isinstance(value, dict):
        return {name: _told(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_told(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
