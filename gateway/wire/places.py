"""Texts inside a JSON body by their place: read one, replace several, list every one below a value.

A place is the path from the body's root (see ``gateway.wire.surface``). Two steps in it are markers instead of keys:
``JSON`` steps into a string that itself holds JSON (tool-call arguments), and ``KEY`` names a key of an object, as in
``("properties", KEY, "city")``, because a model reads the keys of a schema as well as its values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from gateway.errors import BadRequest
from gateway.wire.surface import JSON, Extracted, Json, Place, Role, Text, Unreadable

KEY = "\x00key"

MAX_NAME_CHARS = 40
"""A key longer than this, or with white space in it, is read as text; others are taken for plain names."""

_SURROGATE = re.compile("[\ud800-\udfff]")

_IDENTIFIERS = frozenset(("id", "type", "role", "tool_call_id", "$ref", "syntax", "format"))
_IDENTIFIER = re.compile(r"[\w.:/#$-]{0,64}", re.ASCII)
_SEALED = frozenset(("signature", "encrypted_content"))
_BASE64 = re.compile(r"[\w+/=-]*", re.ASCII)

_REPLY_ROOTS = frozenset(("choices", "output"))
"""What a reply says its texts in; no request has these fields."""

_T = TypeVar("_T")
_KINDS: dict[type, str] = {dict: "an object", list: "an array", str: "a string", int: "an integer"}


class Malformed(ValueError):
    """A body does not have the form that its surface describes."""

    def __init__(self, place: Place, problem: str) -> None:
        self.param = dotted(place)
        super().__init__(f"{self.param or 'The body'} {problem}.")

    def as_bad_request(self) -> BadRequest:
        """The same where a caller is to blame for it."""
        return BadRequest(str(self), param=self.param or None)


def expected(value: object, kind: type[_T], place: Place) -> _T:
    """``value`` if it is of ``kind`` (dict, list, str or int). Raises ``Malformed`` if not."""
    if isinstance(value, kind):
        return value
    raise Malformed(place, f"must be {_KINDS[kind]}")


def is_text(value: str) -> bool:
    """Whether there is something to screen: neither empty nor white space only."""
    return bool(value) and not value.isspace()


def read(body: Json, place: Place) -> str:
    """The text at ``place``. Raises ``LookupError`` or ``TypeError`` where there is none."""
    value: Any = body
    steps = iter(place)
    for step in steps:
        if step == JSON:
            value = json.loads(value)
        elif step == KEY:
            value = _own_key(value, next(steps))
        else:
            value = value[step]
    if not isinstance(value, str):
        raise TypeError(f"no text at {dotted(place)}")
    return value


def replace(body: Json, edits: Mapping[Place, str]) -> Json:
    """A copy of ``body`` with the text at each place of ``edits`` replaced.

    Only what lies on the way to an edit is copied; the rest is shared with ``body``, so treat both as read-only.
    A text that is replaced by itself changes nothing, not even the spacing of the JSON that holds it. In a reply,
    beside a text that does change, ``logprobs`` (they spell it out token by token) become None and ``annotations``
    (they point into it by position) become empty; an edit of ``logprobs`` themselves (the text they spell) drops them.
    Raises ``LookupError`` or ``TypeError`` for a place that ``body`` does not have.
    """
    root: dict[str | int, Any] = {}
    for place, text in edits.items():
        node = root
        for step in place[:-1]:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise TypeError(f"one edit lies inside another: {dotted(place)}")
        if isinstance(node.get(place[-1]), dict):
            raise TypeError(f"one edit lies inside another: {dotted(place)}")
        node[place[-1]] = text
    edited: Json = _edited(body, root, in_reply=not root.keys().isdisjoint(_REPLY_ROOTS))
    return edited


def dotted(place: Place) -> str:
    """The place as the API's own errors write it: ``messages[2].content[0].text``."""
    written = ""
    for step in place:
        if isinstance(step, int):
            written += f"[{step}]"
        elif step not in (JSON, KEY):
            written += f".{step}" if written else step
    return written


def leaves(value: object, place: Place) -> Iterator[tuple[Place, str]]:
    """Every string at or below ``value``, in reading order, keys that read as text included; blank ones are left out.

    Walks with a stack of its own: no nesting is too deep for it. Raises ``Malformed`` where a key is one of the two
    markers, so that no body can lead an edit astray.
    """
    stack: list[tuple[Place, object]] = [(place, value)]
    while stack:
        here, current = stack.pop()
        if isinstance(current, str):
            if is_text(current):
                yield here, current
        elif isinstance(current, dict):
            below: list[tuple[Place, object]] = []
            for key, child in current.items():
                if key in (JSON, KEY):
                    raise Malformed(place, "holds an object with a reserved key")
                if len(key) > MAX_NAME_CHARS or (not key.isalnum() and len(key.split(None, 1)) > 1):
                    below.append(((*here, KEY, key), key))
                if isinstance(child, str | dict | list):
                    below.append(((*here, key), child))
            stack.extend(reversed(below))
        elif isinstance(current, list):
            stack.extend(
                ((*here, index), current[index])
                for index in range(len(current) - 1, -1, -1)
                if isinstance(current[index], str | dict | list)
            )


def is_identifier(place: Place, text: str) -> bool:
    """Whether a string is named and looks like an identifier or a fixed word: a type, an id, a required property."""
    key = place[-1] if place else None
    if isinstance(key, int):
        return len(place) > 1 and place[-2] == "required" and _IDENTIFIER.fullmatch(text) is not None
    if key in _IDENTIFIERS:
        return _IDENTIFIER.fullmatch(text) is not None
    return key in _SEALED and _BASE64.fullmatch(text) is not None


def json_leaves(encoded: str, place: Place) -> list[tuple[Place, str]]:
    """The texts of a string that should hold JSON: its string leaves, or the string itself where that is not safe.

    Not safe: it does not parse, it is nested too deeply, a key occurs twice (readers differ in which one they take)
    or is a marker, or a text has half a surrogate pair.
    """
    whole = [(place, encoded)] if is_text(encoded) else []
    try:
        decoded = json.loads(encoded, object_pairs_hook=_unique, parse_constant=_no_constant)
        found = list(leaves(decoded, (*place, JSON)))
    except (ValueError, RecursionError):
        return whole
    if "\\u" in encoded and any(_SURROGATE.search(text) for _, text in found):
        return whole
    return found


class Collector:
    """Collects what a body holds for the screener. ``role``, ``turn`` and ``choice`` say of what is read now."""

    __slots__ = ("_texts", "_unreadable", "choice", "role", "turn")

    def __init__(self, role: Role) -> None:
        self._texts: list[Text] = []
        self._unreadable: list[Unreadable] = []
        self.role = role
        self.turn = -1
        self.choice = 0

    def text(self, place: Place, value: object, *, structured: bool = False) -> None:
        """One text. Raises ``Malformed`` where ``value`` is not a string."""
        text = expected(value, str, place)
        if is_text(text):
            self._texts.append(Text(place, text, self.role, self.turn, self.choice, structured))

    def all_below(self, place: Place, value: object, skip: Callable[[Place, str], bool] | None = None) -> None:
        """Every text at or below ``place`` but those that ``skip`` names."""
        for where, text in leaves(value, place):
            if skip is None or not skip(where, text):
                self._texts.append(Text(where, text, self.role, self.turn, self.choice))

    def encoded(self, place: Place, value: object) -> None:
        """The texts inside a string that should hold JSON, as tool-call arguments do; any JSON will also do."""
        found = json_leaves(value, place) if isinstance(value, str) else leaves(value, place)
        self._texts.extend(Text(where, text, self.role, self.turn, self.choice, True) for where, text in found)

    def unreadable(self, place: Place, kind: Literal["image", "audio", "file", "tokens", "other"]) -> None:
        """A part that carries no text to screen."""
        self._unreadable.append(Unreadable(place, kind))

    def extracted(self) -> Extracted:
        return Extracted(tuple(self._texts), tuple(self._unreadable))


def _own_key(value: object, key: object) -> object:
    if not isinstance(value, dict) or key not in value:
        raise KeyError(key)
    return key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) != len(pairs):
        raise ValueError("a key occurs twice")
    return decoded


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _edited(value: Any, edits: Mapping[str | int, Any] | str, *, in_reply: bool) -> Any:
    """``value`` with ``edits`` applied; ``value`` itself (the same object) where they change nothing."""
    if isinstance(edits, str):
        if not isinstance(value, str):
            raise TypeError("an edit names something that is no text")
        return value if value == edits else edits
    if JSON in edits:
        decoded = json.loads(value)
        changed = _edited(decoded, edits[JSON], in_reply=False)
        return value if changed is decoded else json.dumps(changed, ensure_ascii=False)
    changes: dict[str | int, Any] = {}
    for step, edit in edits.items():
        if step == KEY:
            continue
        old = value[step]
        spelt_out = in_reply and step == "logprobs" and isinstance(edit, str) and not isinstance(old, str)
        new = None if spelt_out else _edited(old, edit, in_reply=in_reply)
        if new is not old:
            changes[step] = new
    names = {_own_key(value, old): new for old, new in edits.get(KEY, {}).items() if old != new}
    if not changes and not names:
        return value
    if isinstance(value, list):
        return [changes.get(index, item) for index, item in enumerate(value)]
    copy = {names.get(key, key): changes.get(key, item) for key, item in value.items()}
    if in_reply and isinstance(copy.get("logprobs"), dict | list):
        copy["logprobs"] = None
    if in_reply and "annotations" not in changes and isinstance(copy.get("annotations"), list):
        copy["annotations"] = []
    return copy
