"""What is telling in a harmful document: the passages that its harmless twins do not have.

An order to the model that is hidden in a mail is a sentence; the mail around it is a mail. As an exemplar the whole
document would teach that mails are harmful, unless its twin, the same mail without the order, tells which part it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from antiprompt_bank.encoder import Encoder
from antiprompt_bank.glossing import read_by
from antiprompt_bank.records import Antiprompt
from antiprompt_bank.views import View
from antiprompt_bank.windows import Window, windows

_RUN: Final = 5
_LEAST_NEW: Final = 6
"""Runs of five tokens that a window has and no twin: so many that a name or a date changed does not count."""

_Runs = frozenset[tuple[int, ...]]


class Telling:
    """The windows of records that say what each record is for: all of a harmless one, and of a harmful one those that
    its harmless twins (of its family and side, among ``records``) do not share. Never none of a text with tokens."""

    def __init__(self, records: Sequence[Antiprompt], encoder: Encoder, *, window_tokens: int) -> None:
        self._encoder = encoder
        self._window_tokens = window_tokens
        self._twins: dict[tuple[str, str], list[Antiprompt]] = {}
        self._runs: dict[tuple[str, str], _Runs] = {}
        for record in records:
            if not record.harmful and record.family is not None:
                self._twins.setdefault((record.side, record.family), []).append(record)

    def windows(self, record: Antiprompt) -> list[Window]:
        cut = [
            window
            for view in read_by(self._encoder.id, View("raw", record.text))
            for window in windows(view, self._encoder.tokenize(view.text), window_tokens=self._window_tokens)
        ]
        if not record.harmful or record.family is None or len(cut) < 2:
            return cut
        shared = self._shared((record.side, record.family))
        if not shared:
            return cut
        new = [len(_runs(window.ids) - shared) for window in cut]
        return [window for window, count in zip(cut, new, strict=True) if count >= _LEAST_NEW] or cut

    def _shared(self, family: tuple[str, str]) -> _Runs:
        if family not in self._runs:
            twins = self._twins.get(family, ())
            views = [view for twin in twins for view in read_by(self._encoder.id, View("raw", twin.text))]
            self._runs[family] = frozenset().union(*(_runs(self._encoder.tokenize(view.text).ids) for view in views))
        return self._runs[family]


def _runs(ids: Sequence[int]) -> _Runs:
    return frozenset(tuple(ids[at : at + _RUN]) for at in range(len(ids) - _RUN + 1))
