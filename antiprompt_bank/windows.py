"""Windows: a view's tokens cut into pieces that an encoder can read whole: overlapping ones, and sentences."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

from antiprompt_bank.views import View

_SENTENCE_END: Final = re.compile(
    # Marks of scripts that put a space behind them, unlike those in "3.5" or "example.com"; then all others.
    r"(?<![.!?…])[.!?…]++[\"')\]}»”’]*+(?=\s|$)|[。！？．｡।॥۔؟።။។]++[」』”’）》]*+|(?=[\n\r\u2028\u2029])"
)
_LEAST_SENTENCE: Final = (8, 12, 16, 24, 32)
"""Tokens that a window of sentences has at least, where the window allows; more where sentences are many."""

_TOKENS_A_SENTENCE: Final = 16
"""Windows of sentences: at most one for so many tokens of text. An input costs the encoder about as much as its
tokens and four more, so that they never cost more than the overlapping windows of 64 tokens beside them do."""


class TokenSpans(Protocol):
    """What a tokenizer says of one text: ``tokenizers.Encoding``, made without special tokens, is one.

    ``offsets[i]`` holds the characters ``[start, end)`` of the text that token ``i`` stands for.
    """

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def offsets(self) -> Sequence[tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class Window:
    """One piece of a view: characters ``[start, end)`` of its text, whose first token is number ``token_start``.

    ``is_sentence`` marks a piece that was cut by sentences, beside those that overlap.
    """

    view: str
    start: int
    end: int
    token_start: int
    ids: tuple[int, ...]
    is_sentence: bool = False


def windows(
    view: View, encoding: TokenSpans, *, window_tokens: int = 64, overlap: float = 0.25, sentences: bool = False
) -> list[Window]:
    """Cut a view into windows of ``window_tokens`` tokens; neighbours share at least the share ``overlap`` of them.

    Every token is in a window. A text that fits gives exactly one; of a longer one, all windows are full, the last
    reaching back to be so. A window begins at a word where the overlap leaves room to move back to one. A text
    without tokens (only white space, say) gives none.

    With ``sentences``, a text that does not fit gives further windows behind these, so that one bad sentence is not
    diluted by its harmless neighbours: its sentences, short ones together, each token in at most one of them, none
    longer than a window (what is, has its overlapping windows). At most one for 16 tokens of text (or a quarter of
    ``window_tokens``, where that is less), and one more.

    Raises ``ValueError`` if ``window_tokens`` < 1 or ``overlap`` is not in [0, 0.5].
    """
    if window_tokens < 1:
        raise ValueError(f"window_tokens is {window_tokens}, not 1 or more")
    if not 0 <= overlap <= 0.5:
        raise ValueError(f"overlap is {overlap}, not in [0, 0.5]")
    offsets = encoding.offsets
    if not offsets:
        return []
    starts = _starts(view.text, offsets, window_tokens, round(window_tokens * overlap))
    spans = {(first, min(first + window_tokens, len(offsets))): False for first in starts}
    if sentences and len(starts) > 1:
        spans |= {run: True for run in _sentence_runs(view.text, offsets, window_tokens) if run not in spans}
    ids = encoding.ids
    return [
        Window(view.name, offsets[first][0], offsets[after - 1][1], first, tuple(ids[first:after]), is_sentence)
        for (first, after), is_sentence in spans.items()
    ]


def _starts(text: str, offsets: Sequence[tuple[int, int]], length: int, shared: int) -> list[int]:
    """The first token of each window, ascending."""
    starts = [0]
    last = len(offsets) - length
    while starts[-1] < last:
        step = starts[-1] + length - shared
        if step >= last:
            starts.append(last)
        else:
            starts.append(_word_start(text, offsets, step, max(starts[-1] + 1, step - shared)))
    return starts


def _word_start(text: str, offsets: Sequence[tuple[int, int]], token: int, earliest: int) -> int:
    """The nearest token at or before ``token``, not before ``earliest``, that begins a word; else ``token``."""
    for candidate in range(token, earliest - 1, -1):
        start = offsets[candidate][0]
        # Some tokenizers count the space before a word as the token's first character.
        if start == 0 or text[start - 1].isspace() or text[start].isspace():
            return candidate
    return token


def _sentence_runs(text: str, offsets: Sequence[tuple[int, int]], longest: int) -> list[tuple[int, int]]:
    """Sentences, and short ones together, as tokens ``[first, after)``: the finest cut that is not too fine."""
    starts = [start for start, _ in offsets]
    ends = sorted({bisect_left(starts, match.end()) for match in _SENTENCE_END.finditer(text)} | {0, len(offsets)})
    most = 1 + len(offsets) // min(_TOKENS_A_SENTENCE, max(1, longest // 4))
    runs: list[tuple[int, int]] = []
    for least in _LEAST_SENTENCE:
        runs = _merged(pairwise(ends), min(least, max(1, longest // 2)), longest)
        if len(runs) <= most:
            break
    return runs


def _merged(sentences: Iterable[tuple[int, int]], least: int, longest: int) -> list[tuple[int, int]]:
    """Runs of sentences: what has less than ``least`` tokens goes with a neighbour where both fit a window.

    So two neighbouring runs always have ``least`` tokens together, which bounds their number.
    """
    runs: list[tuple[int, int]] = []
    for first, after in sentences:
        if runs and runs[-1][1] - runs[-1][0] < least and after - runs[-1][0] <= longest:
            runs[-1] = runs[-1][0], after
        else:
            _settle(runs, least, longest)
            runs.append((first, after))
    _settle(runs, least, longest)
    return [run for run in runs if run[1] - run[0] <= longest]


def _settle(runs: list[tuple[int, int]], least: int, longest: int) -> None:
    """What is still short and found no room behind it goes with the run before it, if that has room."""
    if len(runs) > 1 and runs[-1][1] - runs[-1][0] < least and runs[-1][1] - runs[-2][0] <= longest:
        runs[-2:] = [(runs[-2][0], runs[-1][1])]
