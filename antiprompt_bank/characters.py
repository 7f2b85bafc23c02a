"""What hides in single characters, undone: invisible text, reordered text, deletions, styled and look-alike letters.

Every function takes a text and gives back the text as it is then read, or the very same text if there is nothing to
undo. All run in linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Final, Literal

from anyascii import anyascii

from antiprompt_bank.lookalikes import LOOK_ALIKES, LOOSE, UPRIGHT

_TAGS: Final = re.compile("[\U000e0020-\U000e007e]+\U000e007f?")
_FLAG_TAGS: Final = frozenset({"gbeng", "gbsct", "gbwls"})
_SELECTORS: Final = re.compile("[^\\w\\s\ufe00-\ufe0f\U000e0100-\U000e01ef]?([\ufe00-\ufe0f\U000e0100-\U000e01ef]{3,})")
_SPREAD_SELECTORS: Final = re.compile(
    "[^\\w\\s\ufe00-\ufe0f\U000e0100-\U000e01ef]?[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
    "(?:[^\\w\ufe00-\ufe0f\U000e0100-\U000e01ef]{0,2}[\ufe00-\ufe0f\U000e0100-\U000e01ef]){3,}+"
)
_NO_SELECTOR: Final = re.compile("[^\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_BIDI_OPEN: Final = frozenset("\u202a\u202b\u202d\u202e\u2066\u2067\u2068")
_BIDI_CLOSE: Final = frozenset("\u202c\u2069")
_BIDI_MAX_DEPTH: Final = 125  # UAX #9, BD2: deeper ones are ignored, which also keeps the work linear
_RIGHT_TO_LEFT_OVERRIDE: Final = "\u202e"
_DELETIONS: Final = re.compile("[\b\x7f]")
_TURNED_LETTERS: Final = re.compile("[ɐɔǝəɟƃɥᴉɾʞɯɹʇʌʍʎ]")
_WORD: Final = re.compile(r"\w+")

_JOINERS: Final = frozenset("\u061c\u200b\u200c\u200d\u200e\u200f\ufe0e\ufe0f")
"""Invisible characters that Arabic, Indic and South-East Asian writing and emoji need."""

_JOINER_IN_WESTERN_WORD: Final = re.compile(
    "[0-9A-Za-z\u00c0-\u058f][\u061c\u200b-\u200f\ufe0e\ufe0f]+[0-9A-Za-z\u00c0-\u058f]"
)
_JOINER_BETWEEN_LETTERS: Final = re.compile(r"(?<=\w)[\u061c\u200b-\u200f\ufe0e\ufe0f]+(?=\w)")
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_SELECTOR_MARKS: Final = re.compile("[\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_STROKES: Final = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
"""Combining marks of no script: accents, underlines, strokes, enclosing circles."""

_FEWEST_LETTERS: Final = 4  # to judge a text's accents by
_MAX_MARKS: Final = 30  # what UAX #15 calls the stream-safe format; no language needs as many
_REAL_LETTERS: Final = frozenset("ßẞøØæÆœŒđĐłŁðÐþÞıħĦŋŊŧŦəƏɓƁɗƊƙƘɛƐɔƆʻʼªºĸſ")
"""Latin letters of living alphabets that no removal of accents turns into ASCII."""

_ENCLOSED: Final = re.compile(
    "[\U0001f150-\U0001f169\U0001f170-\U0001f189]"
    # Two regional letters are a flag; one alone or five on end spell something.
    "|(?<![\U0001f1e6-\U0001f1ff])[\U0001f1e6-\U0001f1ff](?![\U0001f1e6-\U0001f1ff])"
    "|[\U0001f1e6-\U0001f1ff]{5,}"
)
_ENGLISH_WORDS: Final = "the of and to how is what with you for that are my this it your not make tell"
_ENGLISH: Final = frozenset(_ENGLISH_WORDS.split())
_VIETNAMESE: Final = frozenset("đơưạảấầẩậắằặẹẻếềệọỏốồộớờợụủứừựỳỵỷ")


def tags(text: str) -> str:
    """Show what is written in Unicode's invisible tag characters (U+E0020 to U+E007E), except in flag emoji."""
    return _TAGS.sub(_tag_run, text)


def _tag_run(match: re.Match[str]) -> str:
    hidden = "".join(chr(ord(char) - 0xE0000) for char in match.group().rstrip("\U000e007f"))
    return match.group() if hidden in _FLAG_TAGS else hidden


def selectors(text: str) -> str:
    """Show the bytes smuggled in variation selectors behind a character, mostly an emoji.

    Selectors 1 to 256 stand for the bytes 0 to 255 of a text in UTF-8 (P. Butler, "Smuggling arbitrary data through
    an emoji", 2025). They may stand apart, each behind an emoji of its own, say, if what they say is printable: one
    is behind many an emoji anyway. A run that is no UTF-8 stays as it is.
    """
    if text.isascii():
        return text
    return _SPREAD_SELECTORS.sub(_spread_selectors, _SELECTORS.sub(_selector_run, text))


def _selector_run(match: re.Match[str]) -> str:
    hidden = _selected(match.group(1))
    return match.group() if hidden is None else hidden


def _spread_selectors(match: re.Match[str]) -> str:
    hidden = _selected(_NO_SELECTOR.sub("", match.group()))
    return match.group() if hidden is None or not hidden.isprintable() else hidden


def _selected(run: str) -> str | None:
    hidden = bytes(code - 0xFE00 if code < 0xE0000 else code - 0xE0100 + 16 for code in map(ord, run))
    try:
        return hidden.decode()
    except UnicodeDecodeError:
        return None


def overrides(text: str) -> str:
    """Put text under a right-to-left override (U+202E) into the order in which it is seen.

    Unicode's bidirectional algorithm (UAX #9) shows such a run backwards; an embedding or isolate inside it keeps
    its own order. An override that is never closed runs to the end of its line.
    """
    if _RIGHT_TO_LEFT_OVERRIDE not in text:
        return text
    return "".join(map(_displayed, text.splitlines(keepends=True)))


def _displayed(line: str) -> str:
    body = line.rstrip("\r\n")
    open_runs: list[tuple[str, list[str]]] = [("", [])]
    too_deep = 0
    for char in body:
        if char in _BIDI_OPEN:
            if len(open_runs) > _BIDI_MAX_DEPTH:
                too_deep += 1
            else:
                open_runs.append((char, []))
        elif char not in _BIDI_CLOSE:
            open_runs[-1][1].append(char)
        elif too_deep:
            too_deep -= 1
        elif len(open_runs) > 1:
            _close(open_runs)
    while len(open_runs) > 1:
        _close(open_runs)
    return "".join(open_runs[0][1]) + line[len(body) :]


def _close(open_runs: list[tuple[str, list[str]]]) -> None:
    kind, parts = open_runs.pop()
    open_runs[-1][1].append("".join(reversed(parts) if kind == _RIGHT_TO_LEFT_OVERRIDE else parts))


def deletions(text: str) -> str:
    """Apply backspace (U+0008) and delete (U+007F): each takes away the character before it."""
    if not _DELETIONS.search(text):
        return text
    kept: list[str] = []
    for char in text:
        if char not in "\b\x7f":
            kept.append(char)
        elif kept:
            kept.pop()
    return "".join(kept)


def upside_down(text: str) -> str:
    """Turn a text over that is set in turned letters ("ǝɯ llǝʇ"), if at least a quarter of its letters are turned."""
    turned = len(_TURNED_LETTERS.findall(text))
    if turned < 3 or turned * 4 < sum(map(str.isalpha, text)):
        return text
    return "\n".join("".join(UPRIGHT.get(char, char) for char in reversed(line)) for line in text.split("\n"))


def normalised(text: str) -> str:
    """NFKC without invisible characters, underlines and strokes; undoes full width, styled letters and zero width.

    A text whose words stay the same is returned as it was: a no-break space or an emoji's joiner hides nothing, and
    neither do the joiners with which Persian, Hindi or Thai are written.
    """
    invisible = {char for char in set(text) if _is_invisible(char)}
    if text.isascii() and not invisible:
        return text
    if invisible & _JOINERS and not _joiners_hide(text):
        invisible -= _JOINERS
    clean = text.translate(dict.fromkeys(map(ord, invisible))) if invisible else text
    if not invisible and unicodedata.is_normalized("NFKC", text) and not _STROKES.search(text):
        return text
    clean = _STROKES.sub("", _normal("NFKC", clean))
    # NFKC takes apart the vowel sign AM of Thai and Lao, which is how nobody writes it.
    clean = clean.replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")
    return text if _WORD.findall(clean) == _WORD.findall(_normal("NFC", text)) else clean


@lru_cache(maxsize=4096)
def _is_invisible(char: str) -> bool:
    if char in "\t\n\v\f\r":
        return False
    if unicodedata.category(char)[0] == "C":
        return True
    return char in _BLANK_LETTERS or _SELECTOR_MARKS.match(char) is not None


def _joiners_hide(text: str) -> bool:
    """Whether joiners cut up words: any in a Western one, or more in others than their writing needs."""
    if _JOINER_IN_WESTERN_WORD.search(text):
        return True
    return len(_JOINER_BETWEEN_LETTERS.findall(text)) * 4 > sum(map(str.isalpha, text))


def _normal(form: Literal["NFC", "NFKC"], text: str) -> str:
    """``text`` in a normal form, runs of combining marks cut to 30: CPython sorts each run in quadratic time."""
    marks = {char for char in set(text) if _is_mark(char)}
    if marks:
        kept = []
        run = 0
        for char in text:
            run = run + 1 if char in marks else 0
            if run <= _MAX_MARKS:
                kept.append(char)
        text = "".join(kept)
    return unicodedata.normalize(form, text)


@lru_cache(maxsize=4096)
def _is_mark(char: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", char)[0]) > 0


def folded(text: str) -> str:
    """Read look-alike, styled and needlessly accented letters as the ASCII letters they stand for.

    A word is folded if it mixes scripts or holds letters of no living alphabet; a word made of look-alikes only, if
    the text is mostly Latin; accents, if they sit on more letters than any language but Vietnamese puts them on (of
    XQuAD's languages: Turkish 26 %, Vietnamese 42 %) or the text is English without them. Text that is simply in
    another script stays as it is.
    """
    if text.isascii():
        return text
    composed = _ENCLOSED.sub(lambda run: anyascii(run.group()), _normal("NFC", text))
    kinds = {char: _kind(char) for char in set(composed) if char.isalpha()}
    present = set(kinds.values())
    fold: set[str] = set()
    if "styled" in present or (present & {"ascii", "accented"} and present & {"accented", "alike", "loose"}):
        fold = _disguised_words(composed, kinds)
    if not fold:
        return composed if _ENCLOSED.search(text) else text
    letters = {ord(char): _ascii_letter(char) for char in kinds if not char.isascii()}
    return _WORD.sub(lambda word: word.group().translate(letters) if word.group() in fold else word.group(), composed)


def _disguised_words(text: str, kinds: dict[str, str]) -> set[str]:
    words = Counter(_WORD.findall(text))
    shapes = {word: {kinds[char] for char in word if char in kinds} for word in words}
    latin = sum(count for word, count in words.items() if shapes[word] & {"ascii", "accented"})
    others = sum(count for word, count in words.items() if shapes[word] & {"foreign", "loose"})
    accents = _accents_hide(text, kinds)
    return {word for word in words if _is_disguised(shapes[word], accents=accents, mostly_latin=latin >= others)}


@lru_cache(maxsize=4096)
def _kind(letter: str) -> str:
    if letter.isascii():
        return "ascii"
    if letter in _REAL_LETTERS or unicodedata.normalize("NFD", letter)[0].isascii():
        return "accented"
    if _is_latin(letter):
        return "styled"
    base = unicodedata.normalize("NFD", letter)[0]
    return "alike" if base in LOOK_ALIKES else "loose" if base in LOOSE else "foreign"


def _is_latin(letter: str) -> bool:
    return any(
        first <= letter <= last for first, last in ("\u0180\u02af", "\u1d00\u1dbf", "\ua722\ua7ff", "\uab30\uab6f")
    )


def _is_disguised(shape: set[str], *, accents: bool, mostly_latin: bool) -> bool:
    if "foreign" in shape:
        return False
    if "styled" in shape or (accents and "accented" in shape):
        return True
    if shape & {"ascii", "accented"}:
        return bool(shape & {"alike", "loose"})
    return mostly_latin and shape == {"alike"}


def _accents_hide(text: str, kinds: dict[str, str]) -> bool:
    count = Counter(text)
    accented = sum(count[char] for char, kind in kinds.items() if kind == "accented")
    latin = accented + sum(count[char] for char, kind in kinds.items() if kind == "ascii")
    if not accented or latin < _FEWEST_LETTERS:
        return False
    if accented > 0.35 * latin and sum(count[char] for char in _VIETNAMESE) < 0.1 * latin:
        return True
    letters = {ord(char): _ascii_letter(char) for char, kind in kinds.items() if kind == "accented"}
    words = _WORD.findall(text.translate(letters).lower())
    return sum(word in _ENGLISH for word in words) > 0.12 * len(words)


def _ascii_letter(char: str) -> str:
    base = unicodedata.normalize("NFD", char)[0]
    return LOOK_ALIKES.get(base) or LOOSE.get(base) or anyascii(base)
