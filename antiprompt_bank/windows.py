"""Windows: a view's tokens cut into overlapping pieces that an encoder can read whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from antiprompt_bank.views import View


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
    """One piece of a view: characters ``[start, end)`` of its text, whose first token is number ``token_start``."""

    view: str
    start: int
    end: int
    token_start: int
    ids: tuple[int, ...]


def windows(view: View, encoding: TokenSpans, *, window_tokens: int = 64, overlap: float = 0.25) -> list[Window]:
    """Cut a view into windows of ``window_tokens`` tokens; neighbours share at least the share ``overlap`` of them.

    Every token is in a window. A text that fits gives exactly one; of a longer one, all windows are full, the last
    reaching back to be so. A window begins at a word where the overlap leaves room to move back to one. A text
    without tokens (only white space, say) gives none.

    Raises ``ValueError`` if ``window_tokens`` < 1 or ``overlap`` is not in [0, 0.5].
    """
    if window_tokens < 1:
        raise ValueError(f"window_tokens is {window_tokens}, not 1 or more")
    if not 0 <= overlap <= 0.5:
        raise ValueError(f"overlap is {overlap}, not in [0, 0.5]")
    ids, offsets = encoding.ids, encoding.offsets
    if not ids:
        return []
    return [
        Window(
            view=view.name,
            start=offsets[first][0],
            end=offsets[min(first + window_tokens, len(ids)) - 1][1],
            token_start=first,
            ids=tuple(ids[first : first + window_tokens]),
        )
        for first in _starts(view.text, offsets, window_tokens, round(window_tokens * overlap))
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
