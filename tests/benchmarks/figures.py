"""What a run gives: figures beside their aims, as a table for people and as JSON for comparison over time."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

RESULTS = Path("bench-results")


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


def _aim(figure: Figure) -> str:
    if figure.aim is None:
        return ""
    colour, verdict = ("green", "met") if figure.met else ("red", "missed")
    return f"{figure.bound} {_number(figure.aim)} [{colour}]{verdict:>6}[/]"


def document(figures: Sequence[Figure], **conditions: Any) -> dict[str, Any]:
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
    path.write_text(json.dumps(run, indent=2) + "\n")
    return path


def show(run_figures: Sequence[Figure], console: Console, peer: str | None = None) -> None:
    console.print(table(run_figures, peer))
    missed = [figure.name for figure in run_figures if figure.met is False]
    if missed:
        console.print(f"[red]Missed:[/] {'; '.join(missed)}")


def _commit() -> str | None:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
