"""Views: what a text says once the usual ways of hiding it are undone."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a text: ``name`` says what was undone ("raw": nothing), ``text`` is what is then read."""

    name: str
    text: str


def views(text: str, *, max_views: int = 8, max_chars: int = 2_000_000) -> tuple[View, ...]:
    """The readings of a text, the raw one first; at most ``max_views``, no two alike.

    Raises ``ValueError`` for a text of more than ``max_chars`` characters: nothing is cut in silence.
    """
    if len(text) > max_chars:
        raise ValueError(f"the text has {len(text)} characters, more than max_chars {max_chars}")
    found = [View("raw", text)]
    normal = unicodedata.normalize("NFKC", text)
    if normal != text:
        found.append(View("normalised", normal))
    return tuple(found[:max_views])
