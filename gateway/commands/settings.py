"""``antiprompt settings``: what is in force, where each value can be set, secrets masked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr

from gateway.commands.console import AsJson, print_json, print_table, settings_or_fail
from gateway.settings import PREFIX, Settings


def show_settings(as_json: AsJson = False) -> None:
    """List every setting: its value, its variable, what it does."""
    settings = settings_or_fail()
    if as_json:
        print_json(settings.model_dump(mode="json"))
        return
    rows = [(variable, value, description) for variable, value, description in described(settings)]
    print_table(("variable", "value", "meaning"), rows, empty="")


def described(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Variable, value and meaning of every setting."""
    yield from _described(settings, PREFIX)


def _described(group: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in type(group).model_fields.items():
        value: Any = getattr(group, name)
        if isinstance(value, BaseModel):
            yield from _described(value, f"{prefix}{name.upper()}__")
        else:
            shown = "" if value is None else "********" if isinstance(value, SecretStr) else str(value)
            yield f"{prefix}{name.upper()}", shown, field.description or ""
