"""Prints what the project depends on, one requirement a line, so that an image installs it before the code.

    python3 requirements.py EXTRA... [--without NAME]...

Reads ``pyproject.toml`` beside it, needs nothing but Python. Exit status 1 for an extra or a name that is not there.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path


def requirements(pyproject: Path, extras: Sequence[str], without: Collection[str] = ()) -> list[str]:
    """The project's dependencies with those of ``extras``, less the distributions named ``without``.

    Raises ``ValueError`` for an extra that the project does not have, or a name that was not among them.
    """
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    found: list[str] = list(project["dependencies"])
    for extra in extras:
        if extra not in project["optional-dependencies"]:
            raise ValueError(f"there is no extra {extra!r}")
        found += project["optional-dependencies"][extra]
    left_out = set(without)
    if unknown := left_out - {name_of(line) for line in found}:
        raise ValueError(f"nothing depends on {', '.join(sorted(unknown))}")
    return [line for line in found if name_of(line) not in left_out]


def name_of(requirement: str) -> str:
    """The distribution that a requirement names."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return found.group()


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what the project depends on.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    parser.add_argument("--without", action="append", default=[], metavar="NAME")
    asked = parser.parse_args()
    try:
        lines = requirements(Path(__file__).with_name("pyproject.toml"), asked.extras, asked.without)
    except ValueError as error:
        sys.exit(f"requirements.py: {error}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
