"""Glosses: a text in another language word by word in English, for an encoder that reads nothing else.

Such an encoder sees signs in place of Chinese and fragments in place of Turkish. "how to make bomb without be
discovered" is no good English, but lies where "How do I build a bomb without getting caught?" lies: on left-out
questions word by word glosses brought Chinese from 1 % found to four fifths of what is found in English
(``RESULTS.md``). The lexicons, ``glosses/<language>.tsv`` (word, tab, gloss; ``-`` leaves the word out), were written
for this project.

Writing tells the language of most scripts, and what is glossed there takes the place of what the encoder cannot read.
Latin runs within it stay as they are, so that nothing of a mixed text is lost. A text in Latin letters is read in the
language whose common words it has, beside the text as it stands: words of several languages look alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from antiprompt_bank.model_files import DEFAULT_MODEL
from antiprompt_bank.views import View

GLOSS: Final = "gloss"
"""The name of a view that is one."""

_ENGLISH_ONLY: Final = f"{DEFAULT_MODEL}@"
"""How the ids of encoders begin that know nothing but English."""

LEXICONS: Final = Path(__file__).parent / "glosses"

_HAN: Final = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_KANA: Final = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_SCRIPTS: Final = (
    ("han", f"[{_HAN}{_KANA}]"),
    ("hangul", "[\u1100-\u11ff\uac00-\ud7af]"),
    ("thai", "[\u0e00-\u0e7f]"),
    ("devanagari", "[\u0900-\u097f]"),
    ("bengali", "[\u0980-\u09ff]"),
    ("arabic", "[\u0600-\u06ff\u0750-\u077f]"),
    ("cyrillic", "[\u0400-\u04ff]"),
    ("greek", "[\u0370-\u03ff\u1f00-\u1fff]"),
)
_RUN: Final = re.compile(
    "|".join(f"(?P<{name}>{signs}+(?:[ \u00a0\u200c\u200d'’-]{signs}+)*)" for name, signs in _SCRIPTS)
)
_UNSPACED: Final = frozenset({"zh", "ja", "th"})

_HAS_KANA: Final = re.compile(f"[{_KANA}]")
_HAS_PERSIAN: Final = re.compile("[پچژگ]")
_HAS_UKRAINIAN: Final = re.compile("[іїєґІЇЄҐ]")
_ONLY: Final[Mapping[str, str]] = {"hangul": "ko", "thai": "th", "devanagari": "hi", "bengali": "bn", "greek": "el"}

_LATIN: Final = ("vi", "tr", "es", "fr", "de", "it", "pt", "nl", "pl", "id", "sv")
_LATIN_WORD: Final = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_LATIN_RUN: Final = re.compile(r"[^\W\d_]+(?:[ \u00a0'’-][^\W\d_]+)*")
_LOOKED_AT: Final = 80
_LOOKED_AT_CHARS: Final = 800
"""Words, and characters that hold them, that tell the language of a text in Latin letters."""

_ENGLISH_WORDS: Final = (
    "the of and to a in is that it for on you with as are be this was have or at not by from your can how what do i "
    "my me we they if an but all when who which will would there their has more about out so up no them then into could"
)
_ENGLISH: Final = frozenset(_ENGLISH_WORDS.split())
_MOST_ENGLISH: Final = 0.2
_FEWEST_WORDS: Final = 4
_LEAST_OF_LANGUAGE: Final = 0.4
_LEAST_KNOWN: Final = 0.45
"""The share of a text's letters that must be in words of the lexicon: below, the gloss says too little."""

_SHORTEST_STEM: Final = 3
_LEAST_STEM: Final = 0.6
_MOST_WORDS: Final = 5
_ARABIC_PREFIXES: Final = ("وال", "بال", "كال", "فال", "لل", "ال", "و", "ب", "ل", "ف", "ك")
_LEAVE_OUT: Final = "-"
_MARKS: Final = str.maketrans("，、。！？；：（）「」『』《》؟،؛।।", ',,.!?;:()""""""?,;..')


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The words of a language and their glosses; ``longest`` in characters where it has no spaces, in words else."""

    language: str
    words: Mapping[str, str]
    longest: int

    def read(self, run: str) -> tuple[list[str], int]:
        """The glosses of a run of letters, and how many of its letters were in words that are known."""
        return self._unspaced(run) if self.language in _UNSPACED else self._spaced(run)

    def _unspaced(self, run: str) -> tuple[list[str], int]:
        found: list[str] = []
        known = at = 0
        while at < len(run):
            for length in range(min(self.longest, len(run) - at), 0, -1):
                gloss = self.words.get(run[at : at + length])
                if gloss is not None:
                    found.append(gloss)
                    known += length
                    at += length
                    break
            else:
                at += 1
        return found, known

    def _spaced(self, run: str) -> tuple[list[str], int]:
        words = _LATIN_WORD.findall(run) if run.isascii() else re.split("[ \u00a0]+", run)
        found: list[str] = []
        known = at = 0
        while at < len(words):
            for length in range(min(self.longest, len(words) - at), 0, -1):
                gloss = self.words.get(" ".join(words[at : at + length]))
                if gloss is None and length == 1:
                    gloss = self._of_form(words[at])
                if gloss is not None:
                    found.append(gloss)
                    known += sum(map(len, words[at : at + length]))
                    at += length
                    break
            else:
                found.append(words[at])  # a name, or a word that English has too
                at += 1
        return found, known

    def _of_form(self, word: str) -> str | None:
        """The gloss of an inflected word: that of its longest stem."""
        stems = [word]
        if self.language in ("ar", "fa"):
            stems += [word[len(prefix) :] for prefix in _ARABIC_PREFIXES if word.startswith(prefix)]
        for stem in stems:
            if stem is not word and stem in self.words:
                return self.words[stem]
            least = max(_SHORTEST_STEM, -(-len(stem) * 6 // 10))
            for end in range(len(stem) - 1, least - 1, -1):
                if stem[:end] in self.words:
                    return self.words[stem[:end]]
        return None


def read_by(encoder_id: str, view: View) -> tuple[View, ...]:
    """What an encoder reads of a view: the view itself, unless it knows only English and the view is something else."""
    if not encoder_id.startswith(_ENGLISH_ONLY):
        return (view,)
    if not view.text.isascii():
        said = gloss(view.text)
        if said is not None:
            return (View(GLOSS, said),)
    said = _latin(view.text)
    return (view,) if said is None else (view, View(GLOSS, said))


def gloss(text: str) -> str | None:
    """The text with all runs of other scripts read word by word; None where there are none, or too little is known.

    Linear in the length of the text.
    """
    clean = unicodedata.normalize("NFC", text).lower()
    parts: list[str] = []
    letters = known = end = 0
    lexicons: dict[str, Lexicon | None] = {}
    for match in _RUN.finditer(clean):
        script = match.lastgroup or ""
        if script not in lexicons:  # looks through all of the text, so once a script
            lexicons[script] = lexicon_of(_language(script, clean))
        lexicon = lexicons[script]
        if lexicon is None:
            continue
        found, its = lexicon.read(match[0])
        letters += sum(char.isalpha() for char in match[0])
        known += its
        parts += [clean[end : match.start()], *_spoken(found)]
        end = match.end()
    if not letters or known < _LEAST_KNOWN * letters:
        return None
    return _joined([*parts, clean[end:]])


@cache
def lexicon_of(language: str) -> Lexicon | None:
    """The lexicon of a language, read once; None where there is none."""
    path = LEXICONS / f"{language}.tsv"
    if not path.is_file():
        return None
    rows = (line.split("\t") for line in path.read_text("utf-8").splitlines() if line)
    words = {unicodedata.normalize("NFC", row[0]).lower(): row[1] for row in rows}
    if language in _UNSPACED:
        return Lexicon(language, words, max(map(len, words)))
    return Lexicon(language, words, min(_MOST_WORDS, max(word.count(" ") + 1 for word in words)))


def _language(script: str, text: str) -> str:
    if script == "han":
        return "ja" if _HAS_KANA.search(text) else "zh"
    if script == "arabic":
        return "fa" if _HAS_PERSIAN.search(text) else "ar"
    if script == "cyrillic":
        return "uk" if _HAS_UKRAINIAN.search(text) else "ru"
    return _ONLY[script]


def _latin(text: str) -> str | None:
    """A text in Latin letters, where its first words are those of a language with a lexicon and not of English."""
    start = unicodedata.normalize("NFC", text[:_LOOKED_AT_CHARS]).lower()
    first = _LATIN_WORD.findall(start)[:_LOOKED_AT]
    if len(first) < _FEWEST_WORDS or sum(word in _ENGLISH for word in first) >= _MOST_ENGLISH * len(first):
        return None
    shares = {lexicon.language: sum(word in lexicon.words for word in first) for lexicon in _latin_lexicons()}
    language = max(shares, key=lambda name: shares[name], default=None)
    lexicon = None if language is None else lexicon_of(language)
    if lexicon is None or shares[lexicon.language] < _LEAST_OF_LANGUAGE * len(first):
        return None
    clean = unicodedata.normalize("NFC", text).lower()
    parts: list[str] = []
    letters = known = end = 0
    for match in _LATIN_RUN.finditer(clean):
        found, its = lexicon.read(match[0])
        letters += sum(char.isalpha() for char in match[0])
        known += its
        parts += [clean[end : match.start()], *_spoken(found)]
        end = match.end()
    return _joined([*parts, clean[end:]]) if letters and known >= _LEAST_KNOWN * letters else None


def _latin_lexicons() -> Iterator[Lexicon]:
    for language in _LATIN:
        lexicon = lexicon_of(language)
        if lexicon is not None:
            yield lexicon


def _spoken(glosses: list[str]) -> list[str]:
    return [each for each in glosses if each != _LEAVE_OUT]


def _joined(parts: list[str]) -> str:
    text = re.sub(r"[^\S\n]+", " ", " ".join(parts)).translate(_MARKS)
    return re.sub(r" ?\n ?", "\n", re.sub(r" ([,.!?;:)])", r"\1", text)).strip()
