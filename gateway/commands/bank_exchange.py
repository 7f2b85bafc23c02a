"""``antiprompt bank export --signed`` and ``import --trust``: exemplars from one installation to another, proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from antiprompt_bank import Antiprompt, Bank, State
from antiprompt_bank.public_sets import about_children
from antiprompt_bank.signed import ExchangeRefused, Head, public_key, read_signed, signed_file
from antiprompt_bank.withheld import is_withheld, read_vectors_row, vectors_row

_MAX_SOURCE = 300
_WORDS = ("licence", "source", "language", "hazard", "kind", "prompt", "desired_response", "twin", "family")


def exported(bank: Bank, key: Ed25519PrivateKey, *, origin: str, vectors: bool, licences: Sequence[str] = ()) -> bytes:
    """A signed file of the live exemplars of a bank, those of ``licences`` only if any are named.

    Raises ``ExchangeRefused`` where nothing is left, ``ValueError`` for an origin that says nothing.
    """
    chosen = [
        at
        for at, record in enumerate(bank.records)
        if record.state is State.LIVE and (not licences or record.licence in licences)
    ]
    if vectors:
        rows: list[dict[str, Any]] = [row for at in chosen if (row := vectors_row(bank, at))["windows"]]
    else:
        records = [bank.records[at] for at in chosen]
        rows = [record.to_json() for record in records if not is_withheld(record)]
    if not rows:
        raise ExchangeRefused("no live exemplar has such a licence; `antiprompt bank stats` counts them")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    encoder = bank.encoder.id if vectors else None
    return signed_file(rows, key, origin=origin, created_at=now, encoder=encoder)


@dataclass(frozen=True, slots=True)
class Received:
    """A file whose signature holds; its ``rows`` have not been looked at."""

    path: Path
    head: Head
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file brings: exemplars in quarantine, vectors by stand-in, and how many rows are never carried."""

    records: Sequence[Antiprompt]
    given: Mapping[str, NDArray[np.float32]]
    refused: int


def received(files: Sequence[Path], trusted: Sequence[Path]) -> list[Received]:
    """Signed files, each by one of the ``trusted`` keys. Raises ``ExchangeRefused`` where one is not."""
    keys = [public_key(each) for each in trusted]
    return [Received(path, *read_signed(path, keys)) for path in files]


def imported(file: Received, bank: Bank) -> Imported:
    """The exemplars of a signed file. Raises ``ExchangeRefused`` for a row that is none, or another encoder's vectors.

    Rows about the sexual exploitation of children are counted and left out, as every import does.
    """
    path, head = file.path, file.head
    if head.encoder not in (None, bank.encoder.id):
        raise ExchangeRefused(
            f"{path} holds vectors of {head.encoder}, which cannot be compared with this bank's, of {bank.encoder.id}"
        )
    records: list[Antiprompt] = []
    given: dict[str, NDArray[np.float32]] = {}
    refused = 0
    for number, row in enumerate(file.rows, start=2):
        try:
            source = f"{row['source']} by {head.origin}"[:_MAX_SOURCE]
            for name in _WORDS:
                if not isinstance(row.get(name), str | None):
                    raise ValueError(f"{name} is no text")
            if not (row["licence"] or "").strip():
                raise ValueError("it names no licence")
            if head.encoder is not None:
                made, vectors = read_vectors_row(row, bank.encoder.dimensions, source=source)
                records += made
                given |= vectors
                continue
            record = replace(Antiprompt.from_json(row), state=State.QUARANTINE, source=source)
        except KeyError as error:
            raise ExchangeRefused(f"{path}, line {number}: {error} is missing") from None
        except (ValueError, TypeError) as error:
            raise ExchangeRefused(f"{path}, line {number}: {error}") from None
        if record.harmful and about_children(f"{record.prompt or ''} {record.text}"):
            refused += 1
        elif is_withheld(record):
            raise ExchangeRefused(f"{path}, line {number}: a stand-in for a text, without its vectors")
        else:
            records.append(record)
    return Imported(records, given, refused)
