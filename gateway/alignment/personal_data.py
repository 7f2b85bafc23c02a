"""Personal data in texts that leave the gateway: found by their form, and put out of sight.

What has no form (names, addresses, a story that only one person can tell) stays: an export is still to be treated as
what users wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

_EMAIL: Final = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD: Final = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")
_ADDRESS: Final = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4})(?![\w:])"
)
_SOCIAL: Final = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
_PHONE: Final = re.compile(
    r"(?<![\w.])(?:\+|00)?\(?\d{1,4}\)?(?:[ ./-]\(?\d{2,8}\)?){1,5}(?!\w)|(?<![\w.])\+\d{8,15}\b"
)
_NO_PHONE: Final = re.compile(r"\d{4}-\d{2}-\d{2}\b|\d{1,2}[./-]\d{1,2}[./-]\d{4}\b|\d{1,3}(?:\.\d{1,3}){3}$")
_SECRET: Final = re.compile(r"\b(?:sk|pk|ghp|gho|xox[abp]|AKIA)[-_A-Za-z0-9]{16,200}\b")
_MIN_PHONE_DIGITS: Final = 8
_MIN_LOCAL_DIGITS: Final = 10
_MIN_ADDRESS_DIGITS: Final = 4


def redacted(text: str) -> str:
    """The text with e-mail addresses, phone, card, account and social security numbers, network addresses and keys
    replaced by what they are, in square brackets. Numbers with a check digit are only taken where it is right."""
    for pattern, name, is_one in _KINDS:
        pieces, end = [], 0
        for found in pattern.finditer(text):
            if is_one(found[0]):
                pieces += [text[end : found.start()], f"[{name}]"]
                end = found.end()
        text = "".join([*pieces, text[end:]])
    return text


def _always(_: str) -> bool:
    return True


def _is_card(text: str) -> bool:
    """Luhn's check (ISO/IEC 7812-1)."""
    digits = [int(letter) for letter in reversed(text) if letter.isdigit()]
    doubled = [digit if at % 2 == 0 else sum(divmod(2 * digit, 10)) for at, digit in enumerate(digits)]
    return sum(doubled) % 10 == 0


def _is_iban(text: str) -> bool:
    """The check of ISO 13616: letters as numbers, modulo 97."""
    plain = text.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _is_address(text: str) -> bool:
    if sum(letter not in ".:" for letter in text) < _MIN_ADDRESS_DIGITS:
        return False  # a name of C++, say: a::b is an address too
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_phone(text: str) -> bool:
    """Fewer digits are enough where they begin as phone numbers do; a date or a version is none."""
    begins = text[0] in "+(0"
    digits = sum(letter.isdigit() for letter in text)
    return _NO_PHONE.match(text) is None and digits >= (_MIN_PHONE_DIGITS if begins else _MIN_LOCAL_DIGITS)


_KINDS: Final[tuple[tuple[re.Pattern[str], str, Callable[[str], bool]], ...]] = (
    (_SECRET, "key", _always),
    (_EMAIL, "email", _always),
    (_IBAN, "iban", _is_iban),
    (_CARD, "card", _is_card),
    (_ADDRESS, "ip", _is_address),
    (_SOCIAL, "ssn", _always),
    (_PHONE, "phone", _is_phone),
)
