"""Forms: what a browser sends, read within limits. A field that is missing or wrong is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request

from gateway.errors import BadRequest
from gateway.request_body import read_body
from gateway.settings import LimitSettings

MAX_FIELDS: Final = 2000
FORM_TYPE: Final = "application/x-www-form-urlencoded"


class Form:
    """The fields of one form or query string; each may stand several times."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self._fields = fields

    @classmethod
    def of_query(cls, request: Request) -> Form:
        """The query string's fields. Raises ``BadRequest`` where there are too many."""
        return cls(_parsed(request.scope["query_string"]))

    @classmethod
    async def of_body(cls, request: Request, limits: LimitSettings) -> Form:
        """The posted fields. Raises ``BadRequest`` for anything but a form, and ``TooLarge``."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != FORM_TYPE:
            raise BadRequest(f"the dashboard takes forms ({FORM_TYPE})")
        return cls(_parsed(await read_body(request, limits)))

    def text(self, name: str, *, most: int = 200) -> str | None:
        """A field without the white space around it; None where it is missing or empty.

        Raises ``BadRequest`` where it is longer than ``most`` characters.
        """
        value = next(iter(self._fields.get(name, ())), "").replace("\r\n", "\n").strip()
        if len(value) > most:
            raise BadRequest(f"{name} is longer than {most} characters", param=name)
        return value or None

    def raw(self, name: str, *, most: int) -> str:
        """A field exactly as it was typed, as passwords need it; empty where it is missing, cut after ``most``."""
        return next(iter(self._fields.get(name, ())), "")[:most]

    def needed(self, name: str, *, most: int = 200) -> str:
        """As ``text``; raises ``BadRequest`` where it is missing, too."""
        value = self.text(name, most=most)
        if value is None:
            raise BadRequest(f"{name} is missing", param=name)
        return value

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a field, once each, in order."""
        return tuple(dict.fromkeys(value for value in self._fields.get(name, ()) if value))

    def names(self) -> tuple[str, ...]:
        return tuple(self._fields)

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """A field that must be one of ``choices``; None where it is missing. Raises ``BadRequest``."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise BadRequest(f"{name} must be one of {', '.join(choices)}", param=name)
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number from ``least`` to ``most``; None where it is missing. Raises ``BadRequest``."""
        value = self.text(name, most=40)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            raise BadRequest(f"{name} must be a number", param=name) from None
        if not least <= number <= most:
            raise BadRequest(f"{name} must be from {least:g} to {most:g}", param=name)
        return number

    def whole(self, name: str, least: int, most: int) -> int | None:
        """As ``number``, without a fraction."""
        number = self.number(name, least, most)
        if number is not None and number != int(number):
            raise BadRequest(f"{name} must be a whole number", param=name)
        return None if number is None else int(number)

    def way_back(self, otherwise: str) -> str:
        """Where the field ``back`` wants to go, if that is a page of the dashboard, and ``otherwise`` if not."""
        wanted = self.text("back", most=2000)
        if wanted is None or not wanted.startswith("/review/") or "\\" in wanted or not wanted.isprintable():
            return otherwise
        parts = urlsplit(wanted)
        return wanted if not parts.scheme and not parts.netloc else otherwise


def _parsed(raw: bytes) -> dict[str, list[str]]:
    try:
        text = raw.decode("ascii")
        return parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("the form is not valid UTF-8, written in percent signs") from None
    except ValueError:
        raise BadRequest(f"the form has more than {MAX_FIELDS} fields") from None
