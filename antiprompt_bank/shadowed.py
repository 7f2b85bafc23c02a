"""Shadowed: the exemplars in shadow, and which of them a screened text would have repeated had they decided."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.bank import Bank
from antiprompt_bank.neighbours import paired
from antiprompt_bank.reach import Seen
from antiprompt_bank.records import Side, State

MOST: Final = 500
"""Exemplars that are watched: those that joined last, so that a large bank in quarantine's place costs no time."""


class Shadowed:
    """A bank's exemplars in shadow, laid out so that one text is compared with all of them at once.

    Nothing is encoded: their vectors are the bank's, and the similarity from which a text repeats one is its radius.
    """

    def __init__(self, bank: Bank) -> None:
        numbers = [at for at, record in enumerate(bank.records) if record.state is State.SHADOW][-MOST:]
        records = [bank.records[number] for number in numbers]
        self.harmful = {record.id: record.harmful for record in records}
        self._ids = tuple(record.id for record in records)
        self._sides = np.array([record.side for record in records])
        self._radius = bank.calibration.radius[numbers]
        place = np.full(len(bank.records), -1)
        place[numbers] = np.arange(len(numbers))
        owner = place[bank.rows.record]
        alone, pair = (np.flatnonzero((owner >= 0) & (bank.rows.pair == is_pair)) for is_pair in (False, True))
        self._alone, self._alone_owner = bank.vectors[alone], owner[alone]
        self._pairs, self._pair_owner = paired(bank.vectors[pair], bank.vectors[bank.rows.answer[pair]]), owner[pair]
        self._has_prompt = np.isin(np.arange(len(numbers)), self._pair_owner)

    def __len__(self) -> int:
        return len(self._ids)

    def watches(self, side: Side) -> bool:
        """Whether any of them is for texts of this side."""
        return bool((self._sides == side).any())

    def hits(self, text: Seen) -> tuple[str, ...]:
        """The ids of those that the text repeats."""
        found = np.full(len(self._ids), -1.0)
        if not len(self._ids) or not len(text.windows):
            return ()
        np.maximum.at(found, self._alone_owner, _closest(text.windows, self._alone))
        if text.prompt is not None:
            found[self._has_prompt] = -1.0  # an answer with its question is compared as a pair alone
            prompts = np.broadcast_to(text.prompt, text.windows.shape)
            np.maximum.at(found, self._pair_owner, _closest(paired(prompts, text.windows), self._pairs))
        hit = (found >= self._radius) & (self._sides == text.side)
        return tuple(self._ids[at] for at in np.flatnonzero(hit))


def _closest(windows: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """``(rows,)`` the highest similarity of any window to each row."""
    closest: NDArray[np.float64] = (rows @ windows.T).max(axis=1, initial=-1.0).astype(np.float64)
    return closest
