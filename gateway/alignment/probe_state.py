"""What a probe has learned so far, on disk: a run that was killed goes on where it stood.

One JSON line says what is being measured, each further one holds one answer. A line counts once it is synced; a torn
last one, which a crash leaves, is cut off and its question asked again. The file holds what the model answered, so it
is readable to its owner alone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final

import orjson

from gateway.alignment.probe_judging import Verdict

_FORMAT: Final = "antiprompt-probe-1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question, answered and judged."""

    id: str
    answer: str
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "answer": self.answer, **asdict(self.verdict)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Outcome:
        """Raises ``TypeError`` or ``KeyError`` for another row."""
        rest = dict(row)
        id, answer = rest.pop("id"), rest.pop("answer")
        return cls(id, answer, Verdict(**rest))


class StateFile:
    """The answers of one probe. ``what`` says in JSON what it measures: another probe's file is refused.

    Synchronous; ``add`` waits for the disk. Use it as a context manager.
    """

    def __init__(self, path: Path, what: Mapping[str, Any]) -> None:
        self.path = path
        self._what = orjson.loads(orjson.dumps({"format": _FORMAT, **what}))
        self._outcomes: dict[str, Outcome] = {}
        self._file: IO[bytes] | None = None

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """By the id of the question, in the order in which they were answered."""
        return MappingProxyType(self._outcomes)

    def __enter__(self) -> StateFile:
        """Lock and read the file, or begin it.

        Raises ``ValueError`` where another process writes it, where it belongs to another probe, or where it is
        damaged; ``OSError`` where it cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(handle, "r+b")
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Keep one answer; it is on the disk when this returns. Raises ``OSError``."""
        self._write(outcome.to_json())
        self._outcomes[outcome.id] = outcome

    def remove(self) -> None:
        """The run is over and told: nothing is left to go on with."""
        self.path.unlink(missing_ok=True)

    def _lock(self) -> None:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another probe writes {self.path}; wait for it or choose another --state") from None

    def _read(self) -> None:
        assert self._file is not None
        whole = 0
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n"):
                break
            try:
                row = orjson.loads(line)
                if number:
                    outcome = Outcome.from_json(row)
                    self._outcomes[outcome.id] = outcome
                else:
                    self._check(row)
            except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{self.path}, line {number + 1}, is not a probe's: choose another --state") from error
            whole += len(line)
        self._file.seek(whole)
        self._file.truncate()
        if not whole:
            self._write(self._what)

    def _check(self, found: Mapping[str, Any]) -> None:
        for name in {**self._what, **found}:
            mine, theirs = self._what.get(name), found.get(name)
            if mine != theirs:
                raise ValueError(
                    f"{self.path} belongs to another probe: its {name} is {theirs!r}, and this one's {mine!r}; "
                    "choose another --state, or delete it"
                )

    def _write(self, row: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(orjson.dumps(row) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
