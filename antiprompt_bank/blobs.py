"""Blobs: long passages that look encoded and that no view could read. What they say cannot be judged, only that they
are there.

Two kinds: runs without spaces in the letters of base64 or hexadecimal, wrapped or not, and random-looking words. What
everyday text has of such a kind is passed over: hashes, keys, tokens, certificates, pictures and addresses by what
stands around them or in them; paths, names, compounds and other languages by their letters; genes and proteins by
their alphabets. It is a signal, not a wall: who knows these rules can dress a blob up as a key. Measured on 28,000
harmless texts of public sets (18 languages, code, mail, forum posts): one was hit, rightly, an enciphered post.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import pairwise
from typing import Final

from antiprompt_bank import letters
from antiprompt_bank.views import View

_HALF_SCORE: Final = 256
"""Characters of a blob that is scored 0.5: what could hold a short paragraph."""

_MOST_BLOBS: Final = 256
"""Passages that are looked into; each is looked up in every view."""

_LEAST_RUN: Final = 80
"""Characters of the shortest run. Passwords, identifiers and most keys are shorter."""

_LEAST_HEX: Final = 130
"""Digits of the shortest hexadecimal run: SHA-512 has 128."""

_LEAST_LETTERS: Final = 64
_LEAST_BITS: Final = 10.0
"""Bits to a pair of letters from which a passage is no language (prose: 7.5, a rare language or names: 9, random
letters: 12)."""

_MOST_BITS: Final = 9.5
"""And up to which it has become one."""

_LEAST_RUN_BITS: Final = 9.4
"""The same for runs, whose digits and signs hide letters: long names reach 8.4, of 1,000 pieces of base64 998 have more
than 9.4."""

_LEAST_ENTROPY: Final = 3.5
"""Bits to a character, of its own frequencies: 2 for genes, less for a rule; hexadecimal has 4, base64 6."""

_LONGEST_KEY: Final = 2048
_BEFORE: Final = 120  # characters before a run that may say what it is

_RUN: Final = re.compile(
    r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{60,}+={0,2}(?:[ \t]*\r?\n[ \t]*[A-Za-z0-9+/_-]{60,}+={0,2})*+"
    r"(?:[ \t]*\r?\n[ \t]*[A-Za-z0-9+/_-]{1,59}+={1,2})?"
)
_HEX_PAIRS: Final = re.compile(r"(?<![0-9A-Za-z])(?:(?:0x)?[0-9A-Fa-f]{2}[\s,:;-]{1,2}+){65,}+")
_WORD: Final = re.compile(r"(?<!\S)[\"'(]?[A-Za-z]{2,40}+(?:[-'’][A-Za-z]{1,40}+)?[\"').,;:!?]{0,2}(?!\S)")
_HEX: Final = re.compile(r"(?:0x|[0-9A-Fa-f\s,:;-])++")
_PROTEIN: Final = re.compile(r"\b[ACDEFGHIKLMNPQRSTVWY]{8,}+\b")
_HASH_LENGTHS: Final = frozenset({32, 40, 56, 64, 96, 128})

_NAMED: Final = re.compile(
    r"(?i)(?:key|token|secret|passw(?:or)?d|auth\w*|signature|sig|hash|digest|sha-?\d{1,3}|md5|checksum|integrity|cert\w*"
    r"|fingerprint|nonce|salt|session\w*|cookie|csrf\w*|etag)\w{0,12}[\"'`]?\s{0,3}(?:[:=]|=>)\s{0,3}[\"'`]?$"
    r"|(?:bearer|basic|ssh-\w+|ecdsa-\S+)\s{1,3}$"
)
_KEY: Final = re.compile(
    r"(?:sk|pk|rk|gh[opsur]|github_pat|glpat|xox[abeprs]|ya29|hf|npm|pypi|dop_v1|SG|shp[a-z]{2}|sha\d{3})[-_]"
    r"|AKIA|ASIA|AIza|AAAAB3NzaC1|AAAAC3NzaC1|AAAAE2Vj"
)
_PEM: Final = "-----BEGIN "
_PICTURE: Final = re.compile(r"data:(?:image|font|audio|video)/[\w.+-]+;base64,$")
_FILES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF", b"RIFF", b"wOF", b"OggS", b"ID3")
"""How the files begin that are pasted as base64."""

_ADDRESS: Final = re.compile(
    r"\w://|^[\"'(<]*(?:\.{0,2}(?:/[a-z][\w.-]{1,30}){2}/|~/|[A-Za-z]:\\|www\.)|^\W*eyJ[\w-]+\.|=eyJ"
)
"""What begins with this is an address, a path or a JSON Web Token, down to its last character."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Characters ``[start, end)`` of a text that look encoded and that nothing could read.

    ``score`` in (0, 1) grows with their number: 0.5 for 256 of them.
    """

    start: int
    end: int
    score: float


def blobs(text: str, views: Sequence[View] = ()) -> list[Blob]:
    """The unreadable passages of a text, in order; ``views`` are its views, as ``views.views`` gives them.

    Linear in the length of the text, 20 us for plain ones of 100 characters. None for a text of less than 64
    characters, at most the 256 longest.
    """
    if len(text) < _LEAST_LETTERS:
        return []
    found = _passages(text)
    if found and len(views) > 1:
        # What became of a code may be a blob again.
        hidden_still = any(views[-1].text[start:end] not in text for start, end in _passages(views[-1].text))
        found = [(start, end) for start, end in found if not _was_read(text[start:end], views, hidden_still)]
    return [Blob(start, end, (end - start) / (end - start + _HALF_SCORE)) for start, end in found]


def _was_read(passage: str, views: Sequence[View], hidden_still: bool) -> bool:
    """Whether a later view has something readable in the place of a passage of the raw text."""
    for before, after in pairwise(views):
        if passage not in after.text:
            if len(before.text) != len(after.text):  # decoded
                return not hidden_still
            place = before.text.find(passage)  # deciphered letter by letter, or a part of it by mistake
            reading = after.text[place : place + len(passage)]
            return sum(map(str.isalpha, reading)) >= 0.6 * len(reading) and letters.bits_per_pair(reading) <= _MOST_BITS
    return False


def _passages(text: str) -> list[tuple[int, int]]:
    """What looks encoded, the longest ones where there are very many: characters ``[start, end)``, in order."""
    runs = [match.span() for match in _RUN.finditer(text)]
    runs += _apart(runs, (match.span() for match in _HEX_PAIRS.finditer(text)))
    strange = sorted(span for span in runs if _is_strange(text[slice(*span)]) and not _is_explained(text, *span))
    spans = [*strange, *_apart(strange, _random_words(text))]
    return sorted(nlargest(_MOST_BLOBS, spans, key=lambda span: span[1] - span[0]))


def _apart(spans: Sequence[tuple[int, int]], others: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of the others that overlap none of the spans, which are in order and apart."""
    starts = [start for start, _ in spans]
    behind = ((bisect_left(starts, end), start, end) for start, end in others)
    return [(start, end) for at, start, end in behind if at == 0 or spans[at - 1][1] <= start]


def _is_strange(run: str) -> bool:
    """Whether a run without spaces has the length and the frequencies of something encoded."""
    characters = "".join(run.split())
    digits = re.sub("0x|[^0-9A-Fa-f]", "", run)
    if _HEX.fullmatch(run) and not digits.isdigit():
        lines = {len(line) for line in run.split()}
        return len(digits) >= _LEAST_HEX and _entropy(digits) >= _LEAST_ENTROPY and not lines <= _HASH_LENGTHS
    return (
        len(characters) >= _LEAST_RUN
        and _entropy(characters) >= _LEAST_ENTROPY
        and letters.bits_per_pair(characters) >= _LEAST_RUN_BITS
        and not _PROTEIN.fullmatch(characters)
    )


def _is_explained(text: str, start: int, end: int) -> bool:
    """Whether what stands around a run, or how it begins, says that it is a key, a file or part of an address."""
    before = text[max(0, start - _BEFORE) : start]
    if _PEM in before or _PICTURE.search(before) or _begins_a_file(text[start:end]):
        return True
    if end - start <= _LONGEST_KEY and (_NAMED.search(before) or _KEY.match(text, start)):
        return True
    token = (before.split() or [""])[-1] if before and not before[-1].isspace() else ""
    return _ADDRESS.search(token + text[start : start + _LEAST_RUN]) is not None


def _begins_a_file(run: str) -> bool:
    try:
        data = base64.b64decode(run[:16])
    except binascii.Error:
        return False
    return data.startswith(_FILES) or (data[:2] == b"0\x82" and data[4:5] == b"0")  # the last: a certificate


def _random_words(text: str) -> Iterator[tuple[int, int]]:
    """Stretches of words whose letters follow each other as in no language."""
    for start, end in letters.stretches(text, letters.RANDOM):
        if end - start < _LEAST_LETTERS:
            continue
        words = " ".join(re.sub("[^A-Za-z]", "", word) for word in _WORD.findall(text, start, end))
        words = _PROTEIN.sub("", words)
        plain = words.replace(" ", "")
        if (
            len(plain) >= max(_LEAST_LETTERS, 0.6 * sum(map(str.isalnum, text[start:end])))
            and _entropy(plain.lower()) >= _LEAST_ENTROPY
            and letters.bits_per_pair(words) >= _LEAST_BITS
        ):
            yield start, end


def _entropy(characters: str) -> float:
    """Bits to a character of a text, by the frequencies of its characters."""
    return -sum(count / len(characters) * math.log2(count / len(characters)) for count in Counter(characters).values())
