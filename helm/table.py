"""The table of values in the chart's README, made from values.yaml: ``python helm/table.py`` writes it anew.

A comment that begins with two dashes describes the value below it, over as many lines as it takes; what stands below a
described value is its default, not a value of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parent / "antiprompt"
_BEGIN, _END = "<!-- values, made by helm/table.py -->", "<!-- end of values -->"
_KEY: Final = re.compile(r"( *)([A-Za-z]+):")


def rows(values_yaml: str) -> Iterator[tuple[str, str, str]]:
    """Name, default and description of each value. Raises ``ValueError`` for a value that nothing describes."""
    defaults = yaml.safe_load(values_yaml)
    path: list[str] = []
    described_at: int | None = None
    words: list[str] = []
    for number, line in enumerate(values_yaml.splitlines(), start=1):
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if text.startswith("# -- "):
            words = [text.removeprefix("# -- ")]
        elif text.startswith("#") and words:
            words.append(text.removeprefix("#").strip())
        if not text or text.startswith("#") or (described_at is not None and indent > described_at):
            continue
        key = _KEY.match(line)
        if key is None:
            raise ValueError(f"line {number} of values.yaml is no value: {text}")
        path = [*path[: indent // 2], key[2]]
        default = _at(defaults, path)
        described_at = indent if words else None
        if words:
            yield ".".join(path), json.dumps(default), " ".join(words)
        elif not isinstance(default, dict) or not default:
            raise ValueError(f"line {number} of values.yaml: nothing describes {'.'.join(path)}")
        words = []


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def table(values_yaml: str) -> str:
    """The table in Markdown."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for name, default, words in rows(values_yaml):
        cells = [cell.replace("|", r"\|") for cell in (f"`{name}`", f"`{default}`", words)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def readme(text: str, values_yaml: str) -> str:
    """``text`` with the table between its two marks made anew."""
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n\n{table(values_yaml)}\n\n{_END}{after}"


def main() -> None:
    page = CHART / "README.md"
    values_yaml = (CHART / "values.yaml").read_text("utf-8")
    page.write_text(readme(page.read_text("utf-8"), values_yaml), encoding="utf-8")


if __name__ == "__main__":
    main()
