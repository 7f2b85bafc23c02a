"""Letter statistics: does a text read like a language, or only once it is turned round or shifted?

The measure is the likelihood of neighbouring letters. A hypothesis ("this stretch is reversed") is a table of what
each pair of letters says for it, in nats; the cumulative sum of a text's pairs, restarted whenever it falls to zero,
rises over exactly the stretch where the hypothesis holds (E. S. Page, "Continuous inspection schemes", Biometrika
1954). The limit grows with the logarithm of the length, which keeps the rate of false alarms per text level.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Final

import numpy as np
from numpy.typing import NDArray

_BITS: Final = (
    "ca88eb9a9da786bad78799cd9b6"
    "9bfe8fffaefaffaffacdafffcfb"
    "8eaf8ff88faaff8ff9c9afffdf9"
    "8fec7def8ffdee8ffabfacffcf7"
    "8a889aac9db886bac678a9b9bc5"
    "afffaaff9ffbff9ffaccafefef8"
    "afff8fca9febfbaef9cdafffdf8"
    "8fff7fff9fecdc9ffbeabfefcf8"
    "9a89899defb89689c978d9feda8"
    "bfffbfffffffffcfffffbfffffc"
    "afff9ffdaffcfcbffcccbfffef9"
    "8eda7dcf8fd8ce8cdfaaadffaf7"
    "8aff7fdf9ffdaf99ffbeafffbf8"
    "8e978b7b8dbcda9dfe87abffbc6"
    "cba9c8acbec987aad7997a9ece7"
    "9fef8ffbaff9ef9bf8caafffdf9"
    "ffffffffffffffffffff8fffffe"
    "7caa6cbd7fbbaa8cda99acdfad6"
    "9e9c8dea8fbcbd89de979fcfbf6"
    "8fcb7ee77ffbce7ef89a9ecfad6"
    "abab8bbdafc997dbf889fcfccd8"
    "afff8fff9fffffaffbffeeffffc"
    "afff9ff99fedfcaffddfdfffffa"
    "dfefdfffdffffffbfffcffffffb"
    "beefbfffdffddd9cfebddfffff7"
    "afffbfffaffeffdfffffbfeffbc"
    "67767888799778779866798d8b0"
)
"""Bits of information in a pair of neighbouring characters: row, then column; a to z, then anything else.

One hexadecimal digit each, 15 meaning 15 or more. Derived from public texts, the share of each language in brackets:
English (0.5: OASST, XQuAD, StrategyQA, CLINC, Self-Instruct, GPTeacher, UltraChat), German, Spanish (0.09 each:
XQuAD, CyberSecEval), French (0.09: AILuminate, CyberSecEval), Italian, Portuguese (0.07, 0.06: CyberSecEval),
Turkish, Indonesian (0.03), Vietnamese, Tagalog (0.02); accents dropped, half of each set's rows held back to measure.
"""

_OTHER: Final = 26
_CERTAINTY: Final = 7.5
"""Nats of evidence, on top of the logarithm of the length; what it lets through is measured in ``ciphers``."""

_LONGEST_WORD: Final = 40
_KNOWN: Final = "abcdefghijklmnopqrstuvwxyz"


def _latin1_codes() -> NDArray[np.intp]:
    bases = (unicodedata.normalize("NFD", chr(code))[0].lower() for code in range(256))
    return np.array([_KNOWN.find(base) if base in _KNOWN else _OTHER for base in bases], dtype=np.intp)


_CODES: Final = _latin1_codes()
_LIKELIHOOD: Final = -math.log(2) * np.array([int(bits, 16) for bits in _BITS], dtype=np.float64).reshape(27, 27)


def _gain(hypothesis: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each pair says for a hypothesis against plain language, in nats, flat (729,)."""
    gain = hypothesis - _LIKELIHOOD
    gain[_OTHER, _OTHER] = 0
    return gain.ravel()


def _random() -> NDArray[np.float64]:
    """Letters drawn evenly, words as long as usual."""
    space = np.exp(_LIKELIHOOD[:, _OTHER])[:_OTHER].sum()
    share = np.append(np.full(_OTHER, (1 - space) / _OTHER), space)
    return np.log(np.outer(share, share))


def gain(letters: NDArray[np.intp], *, backwards: bool = False) -> NDArray[np.float64]:
    """The hypothesis that a text is language once each letter ``n`` is read as ``letters[n]``, or from its end too."""
    likelihood = _LIKELIHOOD[np.ix_(codes := np.append(letters, _OTHER), codes)]
    return _gain(likelihood.T if backwards else likelihood)


REVERSED: Final = gain(np.arange(26), backwards=True)
SHIFTED_13: Final = gain((np.arange(26) + 13) % 26)
RANDOM: Final = _gain(_random())
_ALARMS: Final = np.stack([REVERSED, SHIFTED_13, RANDOM])


def _pairs(text: str) -> NDArray[np.intp]:
    """The neighbouring characters of a text as indices of a flat table, (characters - 1,)."""
    codes = _CODES[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]
    pairs = codes[:-1] * 27
    pairs += codes[1:]
    return pairs


def limit(pairs: int) -> float:
    """How far a sum must rise to count as evidence in a text of so many pairs of neighbours, in nats."""
    return _CERTAINTY + math.log(pairs)


def is_plain(text: str) -> bool:
    """Whether no stretch of a text reads better reversed, shifted by 13 or as random letters."""
    if len(text) < 2:
        return True
    pairs = _pairs(text)
    sums = _ALARMS.take(pairs, axis=1).cumsum(axis=1)
    sums -= np.minimum.accumulate(sums, axis=1)
    return bool(sums.max() <= limit(len(pairs)))


def stretches(text: str, hypothesis: NDArray[np.float64]) -> list[tuple[int, int]]:
    """The stretches ``[start, end)`` of a text, whole words, where a hypothesis holds.

    ``hypothesis`` is ``RANDOM`` or what ``gain`` makes, flat (729,). Short pieces beside a stretch that are not clearly
    plain go with it.
    """
    if len(text) < 2:
        return []
    gains = hypothesis.take(_pairs(text))
    enough = limit(len(gains))
    sums = gains.cumsum()
    if (sums - np.minimum(np.minimum.accumulate(sums), 0.0)).max() <= enough:
        return []
    sums = np.append(0.0, sums)
    found: list[tuple[int, int]] = []
    start = peak = 0
    total = best = 0.0
    for position, value in enumerate([*gains.tolist(), -math.inf]):
        total += value
        if total > best:
            best, peak = total, position
        if total <= 0 or total < best - enough:
            if best > enough:
                found.append(_whole_words(text, start, peak + 2))
            start, total, best = position + 1, 0.0, 0.0
    return _joined(found, sums)


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    # Bounded: a stretch that begins deep in a very long word stays where the statistics put it.
    first, last = max(0, start - _LONGEST_WORD), min(len(text), end + _LONGEST_WORD)
    while start > first and text[start - 1].isalpha():
        start -= 1
    while end < last and text[end].isalpha():
        end += 1
    return start, end


def _joined(found: list[tuple[int, int]], sums: NDArray[np.float64]) -> list[tuple[int, int]]:
    """The same stretches, grown over what lies before, between and behind them unless that is clearly plain."""
    joined = [(0, 0)]
    for start, end in [*found, (len(sums), len(sums))]:
        before = joined[-1][1]
        if start <= before or sums[start - 1] - sums[before] > -_CERTAINTY:
            joined[-1] = joined[-1][0], max(end, before)
        else:
            joined.append((start, end))
    return [(start, end) for start, end in joined if start < end and start < len(sums)]


def total_gains(text: str, gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a whole text says for each of several hypotheses, (hypotheses, 729) -> (hypotheses,), in nats."""
    counts = np.bincount(_pairs(text), minlength=gains.shape[1])
    return np.asarray(gains @ counts, dtype=np.float64)


def bits_per_pair(text: str) -> float:
    """The mean information of a text's neighbouring characters within words, in bits; 0 if it has no letters.

    About 7.5 for prose in a European language, 12 for random letters.
    """
    pairs = _pairs(f" {text} ")
    pairs = pairs[pairs != _OTHER * 27 + _OTHER]
    return float(-_LIKELIHOOD.ravel().take(pairs).mean() / math.log(2)) if len(pairs) else 0.0
