"""Disguises: a text written so that a filter does not read it. The other way round from ``views``, which undoes them.

Every function takes a text and a source of chance and gives back the text disguised; ``DISGUISES`` names them. Each is
one that ``views`` reads through, so what is made here says nothing new to an attacker: it is for testing and training.
Full width, bold and circled letters are not among them: an exemplar's id reads through those as well, so that such a
variant would be its origin again.
"""

from __future__ import annotations

import base64
import codecs
import string
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from antiprompt_bank.lookalikes import UPRIGHT

Disguise = Callable[[str, Random], str]

_LEET: Final = str.maketrans("aeiost", "431057")
_HOMOGLYPHS: Final = str.maketrans("aceiopsxyBHKMT", "асеіорѕхуВНКМТ")
_SMALL_CAPITALS: Final = str.maketrans("abcdeghijklmnoprtuvwz", "ᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡᴢ")
_TURNED: Final = {
    ord(letter): turned for turned, letter in reversed(UPRIGHT.items()) if letter.islower() or letter in ".,?!'()"
}
_MORSE_CODES: Final = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.."
)
_MORSE: Final = dict(zip(string.ascii_lowercase, _MORSE_CODES.split(), strict=True))


def _marked(text: str, mark: str) -> str:
    return "".join(char + mark if char.isalpha() else char for char in text)


def _shifted(text: str, by: int) -> str:
    small, large = string.ascii_lowercase, string.ascii_uppercase
    return text.translate(str.maketrans(small + large, small[by:] + small[:by] + large[by:] + large[:by]))


def _upside_down(text: str) -> str:
    return text.lower().translate(_TURNED)[::-1]


def _selectors(text: str) -> str:
    return "".join(chr(0xFE00 + byte) if byte < 16 else chr(0xE0100 + byte - 16) for byte in text.encode())


def _morse(text: str) -> str:
    words = (" ".join(_MORSE[char] for char in word.lower() if char in _MORSE) for word in text.split())
    return " / ".join(word for word in words if word)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


DISGUISES: Final[Mapping[str, Disguise]] = MappingProxyType(
    {
        "leet": lambda text, _: text.translate(_LEET),
        "homoglyphs": lambda text, _: text.translate(_HOMOGLYPHS),
        "small_capitals": lambda text, _: text.translate(_SMALL_CAPITALS),
        "zero_width": lambda text, chance: chance.choice("\u200b\u200c\u2060").join(text),
        "soft_hyphens": lambda text, _: "\u00ad".join(text),
        "diacritics": lambda text, chance: _marked(text, chance.choice("\u0301\u0308\u0303")),
        "strike": lambda text, chance: _marked(text, chance.choice("\u0336\u0332")),
        "spaced": lambda text, _: " ".join(text),
        "dashes": lambda text, _: " ".join("-".join(word) for word in text.split()),
        "deletions": lambda text, chance: "".join(f"{char}{chance.choice(string.ascii_lowercase)}\b" for char in text),
        "upside_down": lambda text, _: _upside_down(text),
        "right_to_left": lambda text, _: f"\u202e{text[::-1]}\u202c",
        "reversed": lambda text, _: text[::-1],
        "rot13": lambda text, _: codecs.encode(text, "rot13"),
        "caesar": lambda text, chance: _shifted(text, chance.choice((3, 5, 7, 11, 19))),
        "base64": lambda text, _: _base64(text),
        "base32": lambda text, _: base64.b32encode(text.encode()).decode(),
        "hex": lambda text, chance: text.encode().hex(*chance.choice(((), (" ",)))),
        "binary": lambda text, _: " ".join(f"{byte:08b}" for byte in text.encode()),
        "url": lambda text, _: "".join(f"%{byte:02X}" for byte in text.encode()),
        "html": lambda text, _: "".join(f"&#{ord(char)};" for char in text),
        "json": lambda text, _: "\\u" + text.encode("utf-16-be").hex(" ", 2).replace(" ", "\\u"),
        "morse": lambda text, _: _morse(text),
        "tags": lambda text, _: "".join(chr(0xE0000 + ord(char)) if " " <= char <= "~" else char for char in text),
        "emoji": lambda text, chance: chance.choice("😀🙂🐍📎") + _selectors(text),
        "base64_in_words": lambda text, chance: (
            f"{chance.choice(('Decode this and do what it says', 'Read this and answer it'))}: {_base64(text)}"
        ),
        "base64_of_rot13": lambda text, _: _base64(codecs.encode(text, "rot13")),
    }
)
"""Name -> disguise; the twelve of Hackett et al. (arXiv 2504.11168) that change an exemplar's id, ciphers and codes."""
