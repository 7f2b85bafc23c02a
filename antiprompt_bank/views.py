"""Views: what a text says once the usual ways of hiding it are undone.

A text passes through one chain of undoings, more than once, so that what is hidden in what is hidden (base64 of leet,
say) comes to light as well. Each undoing that changes the text adds a view, and the next builds on it: the last view
has everything undone. The raw text always stays a view of its own, so that a wrong guess can hide nothing.

``characters`` undoes what hides in single characters, ``decoders`` encoded fragments, ``ciphers`` text turned round
or written in other letters; ``letters`` holds the statistics that tell language from its disguise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from antiprompt_bank import characters, ciphers, decoders, letters


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a text: ``name`` says what was undone last ("raw": nothing), ``text`` is what is then read."""

    name: str
    text: str


_Stage = tuple[tuple[str, Callable[[str], str]], ...]

_ENCODED: Final[_Stage] = (
    # First what the invisible characters say: normalising takes them away.
    ("tags", characters.tags),
    ("selectors", characters.selectors),
    ("overrides", characters.overrides),
    ("deletions", characters.deletions),
    ("upside_down", characters.upside_down),
    ("normalised", characters.normalised),
    ("folded", characters.folded),
    ("escapes", decoders.escapes),
    ("entities", decoders.entities),
    ("url", decoders.percent),
    ("hex", decoders.hexadecimal),
    ("codes", decoders.character_codes),
    ("base64", decoders.base64_text),
    ("morse", decoders.morse),
    ("spaced", decoders.spaced),
)
_ENCIPHERED: Final[_Stage] = (
    ("leet", ciphers.leet),
    ("reversed", ciphers.reversed_text),
    ("rot13", ciphers.rot13),
    ("caesar", ciphers.caesar),
)
# What is judged by its letters comes when no code is left: to a cipher's statistics, base64 is a strange language.
_STAGES: Final = (_ENCODED, _ENCODED, _ENCIPHERED, _ENCODED, _ENCIPHERED)

_UNUSUAL: Final = re.compile("[^A-Za-z \\n.,;:'\"?!()\u2010-\u2015\u2018-\u201f\u2026-]")
_SET_APART: Final = re.compile(r"[ .\n-][A-Za-z][ .\n-]{1,8}+[A-Za-z][ .\n-]{1,8}+[A-Za-z][ .\n-]")
"""What plain prose has not: other characters than these, letters set apart. Two patterns, as one is slower."""


def views(text: str, *, max_views: int = 8, max_chars: int = 1_000_000) -> tuple[View, ...]:
    """The readings of a text: the raw one first, then what it says with ever more undone; no two alike.

    Beyond ``max_views``, the readings between the raw one and the most undone ones are left out: each is contained in
    a later one. Linear in the length of the text; a view is at most 18 times as long as its text (NFKC's bound).

    Raises ``ValueError`` for a text of more than ``max_chars`` characters (nothing is cut in silence), or if
    ``max_views`` < 1.
    """
    if max_views < 1:
        raise ValueError(f"max_views is {max_views}, not 1 or more")
    if len(text) > max_chars:
        raise ValueError(f"the text has {len(text)} characters, more than max_chars allows ({max_chars})")
    raw = View("raw", text)
    if max_views == 1 or not (_UNUSUAL.search(text) or _SET_APART.search(text) or not letters.is_plain(text)):
        return (raw,)
    names: dict[str, str] = {}
    settled: dict[_Stage, str] = {}
    for stage in _STAGES:
        if settled.get(stage) == text:
            continue
        before = text
        for name, undo in stage:
            undone = undo(text)
            if undone != text:
                names.setdefault(undone, name)
                text = undone
        if text == before:
            settled[stage] = text
    names.pop(raw.text, None)
    undone_views = [View(name, read) for read, name in names.items() if read.strip()]
    return (raw, *undone_views[-(max_views - 1) :])
