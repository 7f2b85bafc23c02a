"""Reading the files that are imported: JSON lines, JSON, CSV and plain lines as rows of named values.

Only local files; one row at a time, except for JSON, which is read whole. Every bound has an error that names it. A row
that cannot be read is given out as ``Unreadable``, so that whoever reads on can count it and say where it is.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

MAX_ROWS: Final = 500_000
MAX_FIELD_CHARS: Final = 100_000
"""Characters of one value; below the 131,072 at which Python's CSV reader gives up."""

_MAX_LINE_CHARS: Final = 1_000_000
_MAX_JSON_CHARS: Final = 256 << 20
_SURROGATES: Final = re.compile("[\ud800-\udfff]")

LAYOUTS: Final = ("jsonl", "json", "csv", "lines")
_LAYOUT_OF: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "lines",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the line where it begins (of JSON, its number), its values by column as the file names them."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that is none, and why."""

    line: int
    reason: str


def layout_of(path: Path) -> str:
    """How a file is laid out, by its ending (``.gz`` aside). Raises ``ValueError`` when the ending says nothing."""
    suffix = (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()
    if suffix not in _LAYOUT_OF:
        raise ValueError(f"{path}: the ending {suffix!r} does not say what it is; name a format ({', '.join(LAYOUTS)})")
    return _LAYOUT_OF[suffix]


def rows(path: Path, layout: str, *, max_rows: int = MAX_ROWS) -> Iterator[Row | Unreadable]:
    """The rows of a file, empty lines left out.

    Raises ``OSError``, and ``ValueError`` with the file's name where it has more than ``max_rows`` rows, is no such
    layout at all, or a bound is passed.
    """
    read = {"jsonl": _json_lines, "json": _json, "csv": _csv, "lines": _lines}[layout]
    with _opened(path) as file:
        try:
            for number, row in enumerate(read(file, path), start=1):
                if number > max_rows:
                    raise ValueError(f"{path} has more than {max_rows} rows; split it, or allow more")
                yield _checked(row) if isinstance(row, Row) else row
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}") from error


def _opened(path: Path) -> IO[str]:
    # What is no UTF-8 comes in as surrogates, so that it spoils its own row only.
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _bounded(file: IO[str], path: Path) -> Iterator[str]:
    """The lines of a file with their ends, none longer than is read."""
    number = 0
    while line := file.readline(_MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > _MAX_LINE_CHARS:
            raise ValueError(f"{path}, line {number} has more than {_MAX_LINE_CHARS} characters")
        yield line


def _json_lines(file: IO[str], path: Path) -> Iterator[Row | Unreadable]:
    for number, line in enumerate(_bounded(file, path), start=1):
        if line.strip():
            yield _json_row(number, line)


def _json_row(number: int, line: str) -> Row | Unreadable:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Unreadable(number, f"not JSON ({getattr(error, 'msg', 'nested too deep')})")
    return Row(number, values) if isinstance(values, dict) else Unreadable(number, "not a JSON object")


def _json(file: IO[str], path: Path) -> Iterator[Row | Unreadable]:
    text = file.read(_MAX_JSON_CHARS + 1)
    if len(text) > _MAX_JSON_CHARS:
        raise ValueError(f"{path} has more than {_MAX_JSON_CHARS} characters, too many for JSON: use JSON lines")
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    for number, item in enumerate(_leaves(whole), start=1):
        yield Row(number, item) if isinstance(item, dict) else Unreadable(number, "neither a text nor an object")


def _leaves(whole: Any, above: tuple[str, ...] = ()) -> Iterator[Any]:
    """The rows of a JSON document: objects of a list, or texts under their categories (CatQA, HarmfulQA)."""
    if isinstance(whole, dict) and all(isinstance(part, dict | list) for part in whole.values()):
        for name, part in whole.items():
            yield from _leaves(part, (*above, name))
        return
    for item in whole if isinstance(whole, list) else [whole]:
        if isinstance(item, str):
            yield {"text": item, **({"category": "/".join(above)} if above else {})}
        elif isinstance(item, dict) and above:
            yield {"category": "/".join(above), **item}
        else:
            yield item


def _csv(file: IO[str], path: Path) -> Iterator[Row | Unreadable]:
    tabs = path.name.lower().removesuffix(".gz").endswith(".tsv")
    reader = csv.reader(_bounded(file, path), delimiter="\t" if tabs else ",", strict=True)
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header) or len(set(header)) < len(header):
            raise ValueError(f"{path} has no row of different column names at its top")
        line = reader.line_num + 1
        for values in reader:
            if any(values):
                yield _csv_row(line, header, values)
            line = reader.line_num + 1
    except csv.Error as error:
        # Where one quote is amiss, nothing after it can be trusted.
        raise ValueError(f"{path}, line {line}: not CSV ({error})") from error


def _csv_row(line: int, header: list[str], values: list[str]) -> Row | Unreadable:
    if len(values) != len(header):
        return Unreadable(line, f"{len(values)} values for {len(header)} columns")
    return Row(line, dict(zip(header, values, strict=True)))


def _lines(file: IO[str], path: Path) -> Iterator[Row | Unreadable]:
    for number, line in enumerate(_bounded(file, path), start=1):
        if line.strip():
            yield Row(number, {"text": line.strip()})


def _checked(row: Row) -> Row | Unreadable:
    for name, value in row.values.items():
        for text in _texts(value):
            if len(text) > MAX_FIELD_CHARS:
                return Unreadable(row.line, f"{name} has {len(text)} characters, more than {MAX_FIELD_CHARS}")
            if _SURROGATES.search(text):
                return Unreadable(row.line, f"{name} is not UTF-8")
    return row


def _texts(value: Any) -> Iterable[str]:
    return (value,) if isinstance(value, str) else ()
