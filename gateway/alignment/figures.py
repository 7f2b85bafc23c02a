"""Pages that need nothing from outside: tables, and plots as inline SVG. Needs matplotlib (the ``train`` extra)."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

COLOURS: Final = ("#1f5fa8", "#c7693d", "#6a9a5b", "#e0a458", "#7a5ea8", "#8f98a5", "#3d8f8f", "#b3402a")
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2530; max-width: 1000px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #e3e7ec; text-align: right }
th:first-child, td:first-child { text-align: left }
th { color: #566373; font-weight: 600 } svg { max-width: 100%; height: auto }
.note { color: #566373; max-width: 46rem }
"""
_RC: Final = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "svg.fonttype": "path",
    "svg.hashsalt": "antiprompt",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page around parts that are HTML already."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    return f"{head}<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{''.join(parts)}</html>"


def heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape('' if cell is None else str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def svg(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    """What ``draw`` puts on a figure of this many inches, as SVG without a date: the same each time."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
