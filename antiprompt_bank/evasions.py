"""Evasions: what an attacker does to the letters of a text, to measure what it costs a detector. Pure functions.

The twelve techniques of Hackett et al., "Bypassing Prompt Injection and Jailbreak Detection in LLM Guardrails"
(arXiv 2504.11168), and the usual codes. ``disguises`` has most of them, with a source of chance; here chance is fixed,
so that a text has one disguise in every run. They work on Latin letters; what they don't know they leave as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from antiprompt_bank.disguises import DISGUISES

Evasion = Callable[[str], str]


def _disguised(name: str) -> Evasion:
    disguise = DISGUISES[name]
    return lambda text: disguise(text, Random(0))  # noqa: S311  # a fixed choice, not a secret


def _underlined(text: str) -> str:
    return "".join(char + "\u0332" if char.isalpha() else char for char in text)


def _full_width(text: str) -> str:
    return text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})


HACKETT: Final[Mapping[str, Evasion]] = MappingProxyType(
    {
        "emoji smuggling": _disguised("emoji"),
        "unicode tags": _disguised("tags"),
        "bidirectional": _disguised("right_to_left"),
        "numbers": _disguised("leet"),
        "upside down": _disguised("upside_down"),
        "zero width": _disguised("zero_width"),
        "homoglyphs": _disguised("homoglyphs"),
        "diacritics": _disguised("diacritics"),
        "full width": _full_width,
        "spaces": _disguised("spaced"),
        "underline": _underlined,
        "deletion characters": _disguised("deletions"),
    }
)
"""The twelve techniques, the most successful first."""

CODES: Final[Mapping[str, Evasion]] = MappingProxyType(
    {
        "base64": _disguised("base64"),
        "hex": _disguised("hex"),
        "url": _disguised("url"),
        "rot13": _disguised("rot13"),
        "reversed": _disguised("reversed"),
        "spaced by dashes": _disguised("dashes"),
    }
)

EVASIONS: Final[Mapping[str, Evasion]] = MappingProxyType({**HACKETT, **CODES})
