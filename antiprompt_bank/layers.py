"""Layers: what people add to a version between two builds, laid over it again and again at little cost."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.bank import Bank
from antiprompt_bank.encoder import Around, Encoder
from antiprompt_bank.records import Antiprompt, State


class Layers:
    """A base version, over which records are laid. What was encoded once is not encoded again.

    The same records over the same base give the same version and the same decisions, on every machine and whatever was
    laid over it before. Not safe for calls from several threads at once.
    """

    def __init__(self, base: Bank) -> None:
        self.base = base
        self._encoder = _Remembering(base.encoder)
        # with_records encodes by the bank's encoder. Texts are never scored by the remembering one: what it knows
        # would show in the time that a score takes.
        self._under = copy.copy(base)
        self._under.encoder = self._encoder

    def with_records(self, records: Sequence[Antiprompt]) -> Bank:
        """The base with these records, each in place of the base's own of that id; the base itself without any.

        Left out is what changes nothing: a record that the base has just so, one that the base has not and that is
        neither live nor in shadow.
        """
        known = {record.id: record for record in self.base.records}
        laid = [
            record
            for record in sorted(records, key=lambda record: record.id)
            if record != known.get(record.id) and (record.id in known or record.state in (State.LIVE, State.SHADOW))
        ]
        if not laid:
            return self.base
        made = self._under.with_records(laid)
        made.encoder = self.base.encoder
        self._encoder.forget_unused()
        return made


class _Remembering(Around):
    """An encoder that keeps the vectors that it was asked for last time round."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self._known: dict[tuple[int, ...], NDArray[np.float32]] = {}
        self._used: dict[tuple[int, ...], NDArray[np.float32]] = {}

    def encode(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        keys = [tuple(each) for each in ids]
        missing = [key for key in dict.fromkeys(keys) if key not in self._known and key not in self._used]
        if missing:
            self._used.update(zip(missing, self._encoder.encode(missing), strict=True))
        self._used.update({key: self._known[key] for key in keys if key not in self._used})
        return np.stack([self._used[key] for key in keys])

    def forget_unused(self) -> None:
        self._known, self._used = self._used, {}
