"""Refusals: what a person reads when a request or an answer is withheld, by hazard and language, with crisis help.

The texts stand in ``refusals.yaml``, one block for each language; adding a language is adding a block. They say what
cannot be done and what can, blame nobody, and never repeat what was asked.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from antiprompt_bank import HAZARDS

FALLBACK_LANGUAGE: Final = "en"
GENERAL: Final = "general"
REFUSALS_FILE: Final = Path(__file__).with_name("refusals.yaml")

_READ_CHARS: Final = 2000
"""How much of a text is read to find its language; more would not change the answer."""

_LEAST_POINTS: Final = 0.5
"""A word that two languages share, or one letter: less says nothing about a text."""

_SCRIPTS: Final = (
    # (language, first letter, last letter): scripts that name a language of ours by themselves
    ("ja", "\u3040", "\u30ff"),
    ("ko", "\u1100", "\u11ff"),
    ("ko", "\uac00", "\ud7af"),
    ("zh", "\u3400", "\u9fff"),
    ("ar", "\u0600", "\u06ff"),
    ("hi", "\u0900", "\u097f"),
    ("ru", "\u0400", "\u04ff"),
)
_OTHERS_LETTERS: Final = {
    # letters of the same script that our language does not have: another language is being written
    "ar": frozenset("پچژگکیٹڈڑںےہھۆێەڵڕ"),
    "ru": frozenset("іїєґўјљњћђџѓќѕңғқүұөһә"),
}


@dataclass(frozen=True, slots=True)
class _Language:
    """One block of the file: how to tell the language, and its texts."""

    words: frozenset[str]
    letters: frozenset[str]
    crisis: str
    texts: Mapping[str, str]


class Refusals:
    """All refusal texts. Built once; raises ``ValueError`` where the file lacks a text or names an unknown hazard."""

    def __init__(self, blocks: Mapping[str, Mapping[str, Any]]) -> None:
        self._languages = {code: _language(code, block) for code, block in blocks.items()}
        if FALLBACK_LANGUAGE not in self._languages:
            raise ValueError(f"refusals: the language {FALLBACK_LANGUAGE!r} is missing; all others fall back to it")
        # A word that several languages share says less about each of them.
        shared = Counter(word for language in self._languages.values() for word in language.words)
        self._weights = {word: 1 / count for word, count in shared.items()}

    @property
    def languages(self) -> tuple[str, ...]:
        """Their codes (ISO 639-1)."""
        return tuple(self._languages)

    def text(self, hazards: Sequence[str | None], language: str) -> str:
        """What is said when something is withheld: the text of the first hazard, the decisive one.

        Crisis help follows where any of them says that the person may be in danger. No hazard gets the general text, a
        language without texts gets English.
        """
        block = self._block(language)
        text = block.texts[(hazards[0] if hazards else None) or GENERAL]
        if any(hazard is not None and HAZARDS[hazard].person_at_risk for hazard in hazards):
            return f"{text}\n\n{block.crisis}"
        return text

    def crisis(self, language: str) -> str:
        """How to reach somebody now: emergency services and crisis lines where the language is spoken."""
        return self._block(language).crisis

    def _block(self, language: str) -> _Language:
        return self._languages.get(language, self._languages[FALLBACK_LANGUAGE])

    def language_of(self, text: str, accept_language: str | None = None) -> str:
        """The language to answer ``text`` in: by script, then by common words and letters.

        ``accept_language`` is the HTTP header of that name; it settles what the text leaves open (code, names, a
        script or language that we have no texts in). English is the last resort.
        """
        wished = self._wished(accept_language)
        sample = unicodedata.normalize("NFKC", text[:_READ_CHARS]).lower()
        script = _by_script(sample, wished)
        if script is not None:
            return script if script in self._languages else wished or FALLBACK_LANGUAGE
        return self._by_words(sample, wished)

    def _by_words(self, sample: str, wished: str | None) -> str:
        words = Counter(_words(sample))
        letters = Counter(sample)
        points = {
            code: sum(self._weights[word] * words[word] for word in language.words & words.keys())
            + sum(letters[letter] for letter in language.letters & letters.keys()) / 2
            for code, language in self._languages.items()
        }
        # Letters that none of our languages has speak for another one, such as Vietnamese or Czech.
        foreign = sum(count for letter, count in letters.items() if letter > "z" and self._is_foreign(letter))
        best = max(points, key=lambda code: (points[code], code == wished, code == FALLBACK_LANGUAGE))
        if points[best] < max(foreign, _LEAST_POINTS):
            return wished or FALLBACK_LANGUAGE
        return best

    def _is_foreign(self, letter: str) -> bool:
        return letter.isalpha() and not any(letter in language.letters for language in self._languages.values())

    def _wished(self, accept_language: str | None) -> str | None:
        """The best of the header's languages that we have (RFC 9110, section 12.5.4)."""
        wishes: list[tuple[float, str]] = []
        for item in (accept_language or "")[:_READ_CHARS].split(","):
            tag, _, parameter = item.partition(";")
            code = tag.strip().lower().partition("-")[0]
            quality = _quality(parameter)
            if code in self._languages and quality > 0:
                wishes.append((-quality, code))
        # sorted() would let the alphabet decide between equals; min keeps the header's order
        return min(wishes, key=lambda wish: wish[0])[1] if wishes else None


@cache
def shipped_refusals() -> Refusals:
    """The texts of ``refusals.yaml``, read once."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Refusals(yaml.load(REFUSALS_FILE.read_text("utf-8"), Loader=loader))  # noqa: S506 - a safe loader


def refusal_text(hazards: Sequence[str | None], language: str) -> str:
    """``Refusals.text`` of the shipped texts."""
    return shipped_refusals().text(hazards, language)


def crisis_help(language: str) -> str:
    """``Refusals.crisis`` of the shipped texts."""
    return shipped_refusals().crisis(language)


def language_of(text: str, accept_language: str | None = None) -> str:
    """``Refusals.language_of`` of the shipped texts: the language, of those we have, to answer ``text`` in."""
    return shipped_refusals().language_of(text, accept_language)


def _language(code: str, block: Mapping[str, Any]) -> _Language:
    texts = block["texts"]
    unknown = set(texts) - {GENERAL, *HAZARDS}
    if unknown:
        raise ValueError(f"refusals: {code} has a text for {sorted(unknown)[0]!r}, which is no hazard")
    missing = {GENERAL, *HAZARDS} - set(texts)
    if missing:
        raise ValueError(f"refusals: {code} has no text for {sorted(missing)[0]!r}")
    return _Language(
        words=frozenset(block.get("words", "").split()),
        letters=frozenset(block.get("letters", "")),
        crisis=block["crisis"],
        texts=MappingProxyType(dict(texts)),
    )


def _by_script(sample: str, wished: str | None) -> str | None:
    """The language of a script of its own, '' for a script that none of ours is written in, None for Latin letters."""
    found: Counter[str] = Counter()
    latin = 0
    for letter in sample:
        if not letter.isalpha():
            continue
        if letter < "\u0370":
            latin += 1
        else:
            found[next((code for code, first, last in _SCRIPTS if first <= letter <= last), "")] += 1
    # Latin names and code stand in texts of every script; other letters hardly ever stand in a Latin text.
    if not found or found.total() * 3 < latin:
        return None
    # Japanese mixes kana into Han characters; Chinese has them at most in a name.
    if found["ja"] * 5 > found["zh"] or (found["zh"] and wished == "ja"):
        return "ja"
    code = found.most_common(1)[0][0]
    foreign = sum(letter in _OTHERS_LETTERS.get(code, frozenset()) for letter in sample)
    return "" if foreign * 20 > found[code] else code


def _words(sample: str) -> list[str]:
    return "".join(letter if letter.isalpha() else " " for letter in sample).split()


def _quality(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0
