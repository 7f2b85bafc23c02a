"""Instances of the ``openai`` package's own types, with a marker of its own in every string.

So the tests of a surface follow the package: a field or type that a later version adds is tested by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from openai import BaseModel
from openai.types.responses import Response

_numbers = itertools.count()

MARKER = "marked text "
"""With spaces, so that no marker can pass for an identifier."""


def samples(annotation: Any) -> list[Any]:
    """JSON values of a type: every member of a union, and of every field's union, occurs in one of them at least."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return samples(get_args(annotation)[0])
    if origin is Union:
        return [value for each in get_args(annotation) if each is not type(None) for value in samples(each)]
    if origin is Literal:
        return [get_args(annotation)[0]]
    if origin is list:
        return [[value] for value in samples(get_args(annotation)[0])]
    if origin is dict:
        return [{"key": value} for value in samples(get_args(annotation)[1])]
    if annotation is Response:
        return _responses()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _objects(annotation)
    return [_PLAIN[annotation]()]


_PLAIN = {
    str: lambda: f"{MARKER}{next(_numbers)}",
    int: lambda: 1,
    float: lambda: 0.5,
    bool: lambda: True,
    object: lambda: {"free": f"{MARKER}{next(_numbers)}"},
    type(None): lambda: None,
}


def _objects(model: type[BaseModel]) -> list[dict[str, Any]]:
    fields = {field.alias or name: samples(field.annotation) for name, field in model.model_fields.items()}
    base = {name: values[0] for name, values in fields.items()}
    return [base, *({**base, name: value} for name, values in fields.items() for value in values[1:])]


def _responses() -> list[dict[str, Any]]:
    """Responses without what they repeat of the request."""
    base = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    outputs = samples(Response.model_fields["output"].annotation)
    errors = samples(Response.model_fields["error"].annotation)
    return [*({**base, "output": output} for output in outputs), *({**base, "output": [], "error": e} for e in errors)]


def markers(value: Any, without: Collection[str] = ()) -> Iterator[str]:
    """Every marker in a JSON value, except those at or below a key of ``without``."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key not in without:
                yield from markers(child, without)
    elif isinstance(value, list):
        for child in value:
            yield from markers(child, without)
    elif isinstance(value, str) and value.startswith(MARKER):
        yield value
