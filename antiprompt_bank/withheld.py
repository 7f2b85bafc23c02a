"""Withheld: exemplars of which only the vectors are known, and how they stay in a bank that is built anew.

In the records such an exemplar has a stand-in for its text, one for each window. Building encodes texts; for a stand-in
it is given the vector instead, that of the file or that of the bank before. A bank with another encoder has no use for
them: there they are left out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.additions import Progress, prompt_ids
from antiprompt_bank.bank import Bank
from antiprompt_bank.building import build_bank
from antiprompt_bank.encoder import Around, Encoder
from antiprompt_bank.records import Antiprompt, State

MAX_WINDOWS: Final = 1024
_STAND_IN: Final = re.compile(r"\[withheld (?:prompt )?[0-9a-f]{24}\]")
_KEPT: Final = ("label", "side", "hazard", "kind", "severity", "language", "source", "licence", "created_at")

Vector = NDArray[np.float32]
"""``(dimensions,)`` a unit vector."""

Given = Mapping[str, Vector]
"""Vectors by the stand-in for their text."""


def is_withheld(record: Antiprompt) -> bool:
    """Whether only vectors are known of a record."""
    return _STAND_IN.fullmatch(record.text) is not None


def vectors_row(bank: Bank, at: int) -> dict[str, Any]:
    """Record number ``at`` as a row without its words: what it stands for, and its vectors (float32, base64).

    ``windows`` holds one vector after another, ``prompt`` one where a response was exported with its prompt.
    """
    record, rows = bank.records[at], bank.rows
    on = rows.record == at
    fields = {name: value for name, value in record.to_json().items() if name in _KEPT}
    made = {**fields, "windows": _encoded(bank.vectors[on & ~rows.pair])}
    prompts = bank.vectors[on & rows.pair]
    return made | ({"prompt": _encoded(prompts[:1])} if len(prompts) else {})


def read_vectors_row(
    row: Mapping[str, Any], dimensions: int, *, source: str
) -> tuple[list[Antiprompt], dict[str, Vector]]:
    """The records of a row, one for each window and all in quarantine, and the vectors by stand-in.

    Raises ``ValueError`` for a row that is none.
    """
    windows, prompts = _decoded(row.get("windows"), dimensions), _decoded(row.get("prompt", ""), dimensions)
    if not 1 <= len(windows) <= MAX_WINDOWS or len(prompts) > 1:
        raise ValueError(f"{len(windows)} windows and {len(prompts)} prompts: not 1 to {MAX_WINDOWS}, and at most one")
    unknown = set(row) - {*_KEPT, "windows", "prompt"}
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    fields: dict[str, Any] = {key: value for key, value in row.items() if key in _KEPT}
    prompt = f"[withheld prompt {_name(prompts)}]" if len(prompts) else None
    given = {f"[withheld {_name(vector, prompts)}]": vector for vector in windows}
    family = _name(windows, prompts)
    records = [
        Antiprompt(
            **{**fields, "text": text, "prompt": prompt, "family": family, "state": State.QUARANTINE, "source": source}
        )
        for text in given
    ]
    return records, given if prompt is None else {**given, prompt: prompts[0]}


def build_with_withheld(
    records: Sequence[Antiprompt],
    encoder: Encoder,
    *,
    base: Bank | None = None,
    given: Given | None = None,
    progress: Progress | None = None,
    harmless: Sequence[Antiprompt] = (),
) -> Bank:
    """What ``build_bank`` makes; stand-ins get their vectors of ``given``, or those they have in ``base``.

    Those of which no vector of this encoder is known are left out.
    """
    vectors = dict(given or {})
    if base is not None and base.encoder.id == encoder.id:
        vectors = {**dict(_vectors_of(base)), **vectors}
    kept = [record for record in records if not is_withheld(record) or _known(record, vectors)]
    if not any(is_withheld(record) for record in kept):
        return build_bank(kept, encoder, progress=progress, harmless=harmless)
    made = build_bank(kept, _Standing(encoder, vectors), progress=progress, harmless=harmless)
    made.encoder = encoder
    return made


def _known(record: Antiprompt, vectors: Given) -> bool:
    return record.text in vectors and (record.prompt is None or record.prompt in vectors)


def _vectors_of(bank: Bank) -> Iterator[tuple[str, Vector]]:
    """The vectors of the stand-ins in a bank."""
    for at, record in enumerate(bank.records):
        if is_withheld(record):
            on = bank.rows.record == at
            yield record.text, bank.vectors[on & ~bank.rows.pair][0]
            if record.prompt is not None:
                yield record.prompt, bank.vectors[on & bank.rows.pair][0]


class _Standing(Around):
    """An encoder that knows the vectors of stand-ins."""

    def __init__(self, encoder: Encoder, vectors: Given) -> None:
        super().__init__(encoder)
        self._vectors = {prompt_ids(text, encoder): vector for text, vector in vectors.items()}

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        asked = [tuple(each) for each in ids]
        unknown = [each for each in asked if each not in self._vectors]
        made = dict(zip(unknown, self._encoder.encode(unknown), strict=True)) if unknown else {}
        return np.stack([self._vectors[each] if each in self._vectors else made[each] for each in asked])


def _name(*vectors: NDArray[np.float32]) -> str:
    return hashlib.sha256(b"".join(each.tobytes() for each in vectors)).hexdigest()[:24]


def _encoded(vectors: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(vectors, dtype="<f4").tobytes()).decode()


def _decoded(text: Any, dimensions: int) -> NDArray[np.float32]:
    """``(n, dimensions)`` unit vectors. Raises ``ValueError``."""
    try:
        flat = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except (TypeError, ValueError, binascii.Error):
        raise ValueError("the vectors cannot be read") from None
    if len(flat) % dimensions:
        raise ValueError(f"the vectors are not of {dimensions} dimensions")
    vectors: NDArray[np.float32] = flat.reshape(-1, dimensions)
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):  # also where one is not finite
        raise ValueError("a vector has not the length of one")
    return vectors
