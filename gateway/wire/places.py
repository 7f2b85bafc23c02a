"""Texts inside a JSON body by their place: read one, replace several, list every one below a value.

A place is the path from the body's root (see ``gateway.wire.surface``). Two steps in it are markers instead of keys:
``JSON`` steps into a string that itself holds JSON (tool-call arguments), and ``KEY`` names a key of an object, as in
``("properties", KEY, "city")``, because a model reads the keys of a schema as well as its values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from gateway.errors import BadRequest
from gateway.wire.surface import JSON, Json, Place

KEY = "\x00key"

MAX_NAME_CHARS = 40
"""A key longer than this, or with white space in it, is read as text; others are taken for plain names."""

_SURROGATE = re.compile("[\ud800-\udfff]")

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
    A text that is replaced by itself changes nothing, not even the spacing of the JSON that holds it. Beside a text
    that does change, ``logprobs`` (they spell it out token by token) become None and ``annotations`` (they point into
    it by position) become empty. Raises ``LookupError`` or ``TypeError`` for a place that ``body`` does not have.
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
    edited: Json = _edited(body, root)
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


def _edited(value: Any, edits: Mapping[str | int, Any] | str) -> Any:
    """``value`` with ``edits`` applied; ``value`` itself (the same object) where they change nothing."""
    if isinstance(edits, str):
        if not isinstance(value, str):
            raise TypeError("an edit names something that is no text")
        return value if value == edits else edits
    if JSON in edits:
        decoded = json.loads(value)
        changed = _edited(decoded, edits[JSON])
        return value if changed is decoded else json.dumps(changed, ensure_ascii=False)
    changes = {step: _edited(value[step], edit) for step, edit in edits.items() if step != KEY}
    changes = {step: new for step, new in changes.items() if new is not value[step]}
    names = {_own_key(value, old): new for old, new in edits.get(KEY, {}).items() if old != new}
    if not changes and not names:
        return value
    if isinstance(value, list):
        return [changes.get(index, item) for index, item in enumerate(value)]
    copy = {names.get(key, key): changes.get(key, item) for key, item in value.items()}
    if isinstance(copy.get("logprobs"), dict | list):
        copy["logprobs"] = None
    if "annotations" not in changes and isinstance(copy.get("annotations"), list):
        copy["annotations"] = []
    return copy
