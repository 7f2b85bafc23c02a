"""Place: where in a text something was found, in characters and in tokens."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from antiprompt_bank.views import View
from antiprompt_bank.windows import TokenSpans


@dataclass(frozen=True, slots=True)
class Place:
    """Tokens ``[token_start, token_end)`` of a view; ``start`` and ``end`` are characters of the raw text.

    A decoded view's characters are no longer the raw text's, so there the place is all of it.
    """

    view: str
    start: int
    end: int
    token_start: int
    token_end: int

    @classmethod
    def of_tokens(cls, view: View, spans: TokenSpans, tokens: tuple[int, int], length: int) -> Place:
        """The place of a view's tokens ``[first, after)``, in a raw text of ``length`` characters."""
        first, after = tokens
        if view.name != "raw":
            return cls(view.name, 0, length, first, after)
        offsets = spans.offsets
        return cls(view.name, offsets[first][0], offsets[after - 1][1], first, after)

    @classmethod
    def of_characters(cls, spans: TokenSpans, start: int, end: int) -> Place:
        """The place of the raw text's characters ``[start, end)``: the tokens that begin in them."""
        starts = [first for first, _ in spans.offsets]
        return cls("raw", start, end, bisect_left(starts, start), bisect_left(starts, end))
