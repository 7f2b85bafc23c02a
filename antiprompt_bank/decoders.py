"""Encoded fragments of a text, replaced by what they decode to: escapes, entities, hex, base64, spaced letters.

Every function takes a text and gives back the text with its fragments decoded, or the very same text if there is
none that decodes to something readable. All run in linear time: the patterns never give back what they matched
(``++``), and none looks further than it takes.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote_plus

from antiprompt_bank.letters import bits_per_pair

_ESCAPE: Final = re.compile(
    r"(?:\\x[0-9A-Fa-f]{2})++|[\\%]u[0-9A-Fa-f]{4}|\\u\{[0-9A-Fa-f]{1,6}\}|\\U[0-9A-Fa-f]{8}|\\[01][0-7]{2}"
    r"|U\+[0-9A-Fa-f]{4,6}\b(?: (?=U\+))?"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ENTITY: Final = re.compile(r"&(?:#\d{1,10}|#[xX][0-9A-Fa-f]{1,8}|[A-Za-z][A-Za-z0-9]{1,31});?")
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_PERCENT_IN_WORD: Final = re.compile(r"[^\W\d_]%[0-9A-Fa-f]{2}[^\W\d_]")
_HEX: Final = re.compile(r"(?<![0-9A-Za-z])(?:(?:0x)?[0-9A-Fa-f]{2}[\s,:;-]{0,2}+){4,}+")
_BINARY: Final = re.compile(r"(?<!\d)(?:[01]{8}[\s,]{0,2}+){3,}+")
_DECIMAL: Final = re.compile(r"(?<!\d)\d{2,3}(?:[\s,;]{1,2}+\d{2,3}(?!\d)){3,}+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}+(?:\r?\n[A-Za-z0-9+/_-]{4,}+)*+(?:\r?\n[A-Za-z0-9+/_-]{2,3}=)?={0,2}")
_BASE32: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z2-7]{16,}+={0,6}")
_MORSE: Final = re.compile(r"(?<!\S)[.·-]{1,6}(?:[ /|]{1,3}+[.·-]{1,6}(?![^\s/|])){3,}+")
_SPACED: Final = re.compile(
    # Up to eight: between words, two spaces between letters are five. Invisible characters and marks may be among them.
    r"(?<![^\W_])[^\W_](?:[ \n.*_~|\u0300-\u036f\u200b-\u200d\u2060-]{1,8}+"
    r"(?:[^\W_](?![^\W_])|[,;:?!'](?!\S))){4,}+(?: {1,4}\.(?!\S))?",
)
_GAP: Final = re.compile(r"[ \n.*_~|\u0300-\u036f\u200b-\u200d\u2060-]+")

_MORSE_CODES: Final = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.. "
    "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."
)
_MORSE_LETTERS: Final = dict(zip(_MORSE_CODES.split(), "abcdefghijklmnopqrstuvwxyz0123456789", strict=True))
_LONG_ENOUGH_BYTES: Final = 12
"""From here on, chance makes neither well-formed UTF-8 nor a run of printable ASCII; a long word might before."""

_LONG_ENOUGH_BASE64: Final = 16
_LONG_NUMBER: Final = 48
_LONG_SPACED: Final = 24
_WRITTEN: Final = frozenset({"Mn", "Mc", "Me", "Cf"})
_MAX_BITS: Final = 11.0
"""A decoded fragment with more bits to a pair of letters than this is no language (prose: 7.5, random letters: 12)."""


def _readable(data: bytes, *, evident: bool = True) -> str | None:
    """The text in ``data``, if it reads as such: UTF-8, or the UTF-16 of ASCII that shells write.

    With ``evident``, a longer run of nothing but printable ASCII will do, language or not.
    """
    if len(data) >= 8 and len(data) % 2 == 0 and not any(data[1::2]):
        data = data[::2]
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if len(data) < _LONG_ENOUGH_BYTES and not text.isascii():
        return None
    written = sum(map(_is_written, text))
    printable = written + sum(char.isprintable() and not _is_written(char) for char in text)
    if printable < 0.95 * len(text):
        return None
    if written >= 0.7 * len(text) and bits_per_pair(text) <= _MAX_BITS:
        return text
    # Chance makes no such run of printable ASCII: a code in the code.
    return text if evident and len(data) >= _LONG_ENOUGH_BYTES and text.isascii() else None


def _is_written(char: str) -> bool:
    """Whether words are written with it: a letter, a mark, white space, or (hidden once more) what is invisible."""
    return char.isalpha() or char.isspace() or char in "\b\x7f" or unicodedata.category(char) in _WRITTEN


def _read(text: str, pattern: re.Pattern[str], decode: Callable[[str], str | None]) -> str:
    """``text`` with each fragment that ``decode`` can read replaced by its reading."""

    def reading(match: re.Match[str]) -> str:
        decoded = decode(match.group())
        return match.group() if decoded is None else decoded

    return pattern.sub(reading, text)


def escapes(text: str) -> str:
    r"""Decode the escapes of JSON, programs and scripts: ``\u0068``, ``\x68``, ``\150``, ``U+0068``, ``%u0068``."""
    decoded = _read(text, _ESCAPE, _escape)
    if decoded != text and _SURROGATE.search(decoded):
        decoded = decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return decoded


def _escape(run: str) -> str | None:
    if run.startswith("\\x"):
        data = bytes.fromhex(run.replace("\\x", ""))
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.decode("latin-1")
    number = run.strip("\\%uU+{} ")
    code = int(number, 8 if run[1].isdigit() else 16)
    return chr(code) if code <= 0x10FFFF else None


def entities(text: str) -> str:
    """Decode HTML entities, if any of them stands for a letter or digit (``&amp;`` alone hides nothing)."""
    if "&" not in text or not any(html.unescape(entity)[:1].isalnum() for entity in _ENTITY.findall(text)):
        return text
    return _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)


def percent(text: str) -> str:
    """Decode URL percent escapes; in a word that has them, ``+`` is a space."""
    if not _PERCENT.search(text):
        return text
    return "".join(map(_unquoted, re.split(r"(\s+)", text)))


def _unquoted(word: str) -> str:
    found = _PERCENT.findall(word)
    if found and word.count("+") > 1:
        return unquote_plus(word)
    if len(found) < 2 and not _PERCENT_IN_WORD.search(word):
        return word
    if len(found) < 3 and all(code[1:].isdigit() and code != "%20" for code in found):
        return word  # "%25-%30" is how Turkish writes a share
    return unquote_plus(word)


def character_codes(text: str) -> str:
    """Decode letters written as binary or decimal codes."""
    return _read(_read(text, _BINARY, _binary), _DECIMAL, _decimal)


def _binary(run: str) -> str | None:
    return _readable(bytes(int(code, 2) for code in re.findall("[01]{8}", run)))


def hexadecimal(text: str) -> str:
    """Decode bytes written in hexadecimal, in one run or apart."""
    return _read(text, _HEX, _hex)


def _hex(run: str) -> str | None:
    digits = re.sub(r"0x|[^0-9A-Fa-f]", "", run)
    digits = digits[: len(digits) & ~1]
    decoded = _readable(bytes.fromhex(digits)) or _readable(bytes.fromhex(digits[::-1]), evident=False)
    if decoded is None:
        return None
    if digits.isdigit() and len(digits) < _LONG_NUMBER and not re.fullmatch(r"[A-Za-z]+( [A-Za-z]+)+", decoded):
        return None  # rather a list of numbers, or an account's
    # The pattern takes the space behind the last code along.
    return decoded + run[len(run.rstrip()) :]


def _decimal(run: str) -> str | None:
    codes = [int(code) for code in re.findall(r"\d+", run)]
    # Low numbers are far more often numbers than control characters.
    return _readable(bytes(codes), evident=False) if max(codes) < 127 and 8 not in codes else None


def base64_text(text: str) -> str:
    """Decode base64 (standard or URL-safe, wrapped or not, padded or not) and base32."""
    text = _read(text, _BASE32, _base32)
    return _read(text, _BASE64, _base64)


def _base64(run: str) -> str | None:
    first, newline, rest = run.partition("\n")
    whole = _base64_line(re.sub(r"[\r\n]", "", run))
    if whole is not None or not newline:
        return whole
    # Not a wrapped block, then: lines of their own.
    lines = [line if (read := _base64_line(line.rstrip("\r"))) is None else read for line in (first, *rest.split("\n"))]
    return "\n".join(lines)


def _base64_line(run: str) -> str | None:
    digits = run.rstrip("=").replace("-", "+").replace("_", "/")
    if len(digits) % 4 == 1:
        return None
    padding = "=" * (-len(digits) % 4)
    # No statistics of letters tell that a code was turned round or shifted: only decoding it does.
    disguised = (_readable(base64.b64decode(read + padding), evident=False) for read in _undisguised(digits))
    try:
        return _readable(base64.b64decode(digits + padding)) or next(filter(None, disguised), None)
    except binascii.Error:  # an equals sign in the middle: two codes in a row, or none
        return None


def _undisguised(digits: str) -> Iterator[str]:
    if len(digits) >= _LONG_ENOUGH_BASE64:
        yield digits[::-1]
        yield codecs.encode(digits, "rot13")


def _base32(run: str) -> str | None:
    digits = run.rstrip("=")
    try:
        return _readable(base64.b32decode(digits + "=" * (-len(digits) % 8)))
    except binascii.Error:
        return None


def morse(text: str) -> str:
    """Decode Morse code; words are kept apart by ``/``, ``|`` or more than one space."""
    return _read(text, _MORSE, _morse)


def _morse(run: str) -> str | None:
    if "-" not in run or not {".", "·"} & set(run):
        return None  # a rule or a row of dots
    words = [
        "".join(_MORSE_LETTERS.get(code.replace("·", "."), "") for code in word.split())
        for word in re.split(r" *[/|] *| {2,}", run)
    ]
    decoded = " ".join(words)
    return decoded if bits_per_pair(decoded) <= _MAX_BITS else None


def spaced(text: str) -> str:
    """Join letters set apart by spaces, dots, dashes or lines ("d r i n k"); a wider or other gap parts words."""
    return _read(text, _SPACED, _joined)


def _joined(run: str) -> str | None:
    written = sum(map(str.isalnum, run))
    # A long run may have letters written as digits too.
    if sum(map(str.isalpha, run)) < (0.6 if written < _LONG_SPACED else 0.4) * written:
        return None
    gaps = Counter(_GAP.findall(run))
    between_letters = gaps.most_common(1)[0][0]
    body = run.rstrip(" .")
    return _GAP.sub(lambda gap: "" if gap.group() == between_letters else " ", body) + "." * run.endswith(".")
