"""Manifest: what a version says of itself, sealed so that a flipped byte in it is noticed too."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from antiprompt_bank.bank import Bank
from antiprompt_bank.errors import BankCorrupt
from antiprompt_bank.neighbours import Rows

MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """``files`` maps each file's path in the version's folder to its sha256; ``counts`` counts records by kind.

    ``parent`` is the version it was made from; ``encoder`` the id whose vectors it holds; ``created_at`` is UTC.
    """

    version: str
    parent: str | None
    created_at: str
    encoder: str
    counts: Mapping[str, int]
    files: Mapping[str, str]
    rows: Rows

    @classmethod
    def of(cls, bank: Bank, parent: str | None, files: Mapping[str, str]) -> Manifest:
        counts = Counter(f"{record.side} {record.label}" for record in bank.records)
        counts.update(record.state.value for record in bank.records)
        return cls(
            version=bank.version,
            parent=parent,
            created_at=datetime.strptime(bank.version[:18] + "000+0000", "%Y%m%dT%H%M%S%f%z").isoformat(),
            encoder=bank.encoder.id,
            counts={"records": len(bank.records), "rows": len(bank.vectors)} | dict(sorted(counts.items())),
            files=files,
            rows=bank.rows,
        )

    def to_bytes(self) -> bytes:
        """The file's bytes; they end in the hash of all that stands before it."""
        row = {
            "format": _FORMAT,
            "version": self.version,
            "parent": self.parent,
            "created_at": self.created_at,
            "encoder": self.encoder,
            "counts": dict(self.counts),
            "files": dict(self.files),
            "rows": {"record": self.rows.record.tolist(), "pair": self.rows.pair.astype(int).tolist()},
        }
        return _sealed(row)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises ``BankCorrupt`` when the manifest is missing, of another format, or not what was written."""
        path = folder / MANIFEST
        try:
            found = path.read_bytes()
            row: dict[str, Any] = json.loads(found)
            row.pop("seal", None)
            if _sealed(row) != found:
                raise BankCorrupt(f"{path} was changed after it was written")
            if row["format"] != _FORMAT:
                raise BankCorrupt(f"{path} has format {row['format']}, but this release reads {_FORMAT}")
            rows = Rows(np.array(row["rows"]["record"], dtype=np.int32), np.array(row["rows"]["pair"], dtype=bool))
            return cls(
                row["version"], row["parent"], row["created_at"], row["encoder"], row["counts"], row["files"], rows
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BankCorrupt(f"{path} cannot be read: {error}") from error


def _sealed(row: Mapping[str, Any]) -> bytes:
    def text(content: Mapping[str, Any]) -> bytes:
        return (json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n").encode()

    return text({**row, "seal": hashlib.sha256(text(row)).hexdigest()})
