"""Text turned round or written in other letters: reversed, ROT13, Caesar, leet. Undone where it then reads better.

Every function takes a text and gives back the text as it reads once undone, or the very same text if nothing in it
reads better so. All run in linear time. What "better" means is in ``letters``.
"""

from __future__ import annotations

import math
import re
import string
from dataclasses import dataclass
from typing import Final

import numpy as np

from antiprompt_bank import letters

_WHOLE_SHARE: Final = 0.9
_SHORTEST_CAESAR: Final = 24
"""Letters that Caesar's cipher needs to show: with 53 keys to try, a row of acronyms reads well by one of them."""

_FEWEST_LETTERS: Final = 8
_MAX_BITS: Final = 9.0
"""What is deciphered may carry this many bits a pair of letters: 99 in 100 pieces of 20 letters of prose stay below
(English 8.6, German 8.7, Turkish 9.2)."""

_PUNCTUATION_BEHIND: Final = re.compile(r"\w[.,;:?!](?:\s|$)")
_PUNCTUATION_BEFORE: Final = re.compile(r"(?:\s|^)[.,;:?!]\w")
_TURNED_CAPITAL: Final = re.compile(r"[a-z][A-Z]\W*$")
_LEET_WORD: Final = re.compile(r"(?<![\w@$.])[\w@$](?:[\w@$]|!(?=\w)){0,23}(?![\w@$]|\.\w)")
_LEET_CORE: Final = re.compile(r"[A-Za-z][0-9@$]+[A-Za-z]|[a-z]![a-z]|^[0-9][A-Za-z]{3}|[A-Za-z]{3}0$")
_LEET: Final = {
    "0": "o",
    "1": "il",
    "2": "z",
    "3": "e",
    "4": "a",
    "5": "s",
    "6": "g",
    "7": "t",
    "8": "b",
    "9": "g",
    "@": "a",
    "$": "s",
    "!": "i",
}
_LEET_BITS: Final = 9.5
"""A word read from digits may carry this many bits a pair of letters, at most, to count as language."""


@dataclass(frozen=True, slots=True)
class _Cipher:
    """Letters that stand for others (``letters[n]`` is what letter ``n`` decodes to), written backwards or not."""

    letters: tuple[int, ...]
    backwards: bool

    def read(self, text: str) -> str:
        alphabet = string.ascii_lowercase
        decoded = "".join(alphabet[letter] for letter in self.letters)
        text = text.translate(str.maketrans(alphabet + alphabet.upper(), decoded + decoded.upper()))
        return _turned(text) if self.backwards else text


_SHIFTS: Final = [tuple((letter + shift) % 26 for letter in range(26)) for shift in range(26)]
_ATBASH: Final = tuple(range(25, -1, -1))
_REVERSED: Final = _Cipher(_SHIFTS[0], backwards=True)
_ROT13: Final = _Cipher(_SHIFTS[13], backwards=False)
_CIPHERS: Final = [_Cipher(alphabet, backwards) for alphabet in (*_SHIFTS, _ATBASH) for backwards in (False, True)][1:]
_GAINS: Final = np.stack(
    [letters.gain(np.array(cipher.letters), backwards=cipher.backwards) for cipher in _CIPHERS],
)
_GAIN_OF: Final = dict(zip(_CIPHERS, _GAINS, strict=True))


def reversed_text(text: str) -> str:
    """Turn round what is written backwards, letter by letter or each word in its place."""
    return _deciphered(text, _REVERSED)


def rot13(text: str) -> str:
    """Undo ROT13."""
    return _deciphered(text, _ROT13)


def caesar(text: str) -> str:
    """Undo Caesar's cipher, by any shift, and Atbash, backwards too, where the letters look random as they stand."""
    unlike_language = letters.stretches(text, letters.RANDOM)
    if not unlike_language:
        return text
    start, end = max(unlike_language, key=lambda stretch: stretch[1] - stretch[0])
    cipher = _likeliest(text[start:end])
    return text if cipher is None else _deciphered(text, cipher, shortest=_SHORTEST_CAESAR)


def _likeliest(text: str) -> _Cipher | None:
    """The cipher that makes most of a text, if it makes enough of it."""
    totals = letters.total_gains(text, _GAINS)
    best = int(totals.argmax())
    # Among so many hypotheses, one looks good by chance that many times as often.
    return _CIPHERS[best] if totals[best] > letters.limit(len(text)) + math.log(len(_CIPHERS)) else None


def _deciphered(text: str, cipher: _Cipher, *, shortest: int = 0) -> str:
    """``text`` with the stretches read that are likelier in this cipher than plain, or in any other."""
    found = []
    for start, end in letters.stretches(text, _GAIN_OF[cipher]):
        part = text[start:end]
        if sum(map(str.isalpha, part)) >= shortest and _likeliest(part) == cipher and _reads_well(cipher, part):
            found.append((start, end))
    if sum(end - start for start, end in found) >= _WHOLE_SHARE * len(text):
        return cipher.read(text)
    parts = []
    done = 0
    for start, end in found:
        parts += [text[done:start], cipher.read(text[start:end])]
        done = end
    return "".join(parts) + text[done:]


def _reads_well(cipher: _Cipher, part: str) -> bool:
    """Whether what a cipher makes of a stretch is language: not an acronym or a Roman numeral that is likelier so."""
    if cipher.letters != _REVERSED.letters:
        known = part.encode("latin-1", "ignore")
        if len(known) < len(part) or len(set(part.lower())) < _FEWEST_LETTERS:
            return False
    return letters.bits_per_pair(cipher.read(part)) <= _MAX_BITS


def _turned(text: str) -> str:
    """``text`` from its end to its beginning, or each word turned in its place if the words stand in order."""
    if _in_order(text):
        return re.sub(r"\w+", lambda word: word.group()[::-1], text)
    return text[::-1]


def _in_order(text: str) -> bool:
    """Whether turned words stand in their order, as far as punctuation and capitals tell."""
    words = text.split() or [""]
    first, last = words[0], words[-1]
    behind, before = len(_PUNCTUATION_BEHIND.findall(text)), len(_PUNCTUATION_BEFORE.findall(text))
    in_order = (behind > before) + bool(_TURNED_CAPITAL.search(first)) + bool(_PUNCTUATION_BEFORE.match(last))
    turned = (before > behind) + bool(_TURNED_CAPITAL.search(last)) + bool(_PUNCTUATION_BEFORE.match(first))
    return in_order > turned


def leet(text: str) -> str:
    """Read digits and signs inside words as the letters they resemble ("b0mb", "k1ll"), if words come of it.

    Where a good part of the words is so written, words without any letter ("70" for "to") are read too.
    """
    words = set(_LEET_WORD.findall(text))
    hits = [word for word in words if _LEET_CORE.search(word) and len(word) > 3 and _is_word(_unleeted(word))]
    # Names in programs mix cases too ("Point3D"): one of those says little.
    if len(hits) < 3 and not any(word.isupper() or word[1:].islower() for word in hits):
        return text
    dense = len(hits) * 4 >= len(words)
    return _LEET_WORD.sub(lambda word: _leet_word(word.group(), dense=dense), text)


def _leet_word(word: str, *, dense: bool) -> str:
    if word.isalpha() or (word.isdigit() and len(word) > 3):
        return word
    read = _unleeted(word)
    return read if dense or (_LEET_CORE.search(word) and _is_word(read)) else word


def _unleeted(word: str) -> str:
    read = "".join(_LEET.get(char, char)[0] for char in word)
    for position, char in enumerate(word):
        other = _LEET.get(char, "")[1:]
        if other:
            read = min(read, read[:position] + other + read[position + 1 :], key=letters.bits_per_pair)
    return read


def _is_word(word: str) -> bool:
    return word.isalpha() and letters.bits_per_pair(word) <= _LEET_BITS
