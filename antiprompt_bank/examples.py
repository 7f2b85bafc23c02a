"""Examples: labelled texts that measure a detector, and the folds that say which sources are left out together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from antiprompt_bank.public_sets import hazard_of
from antiprompt_bank.records import Side

Role = Literal["harmful", "jailbreak", "lookalike", "everyday", "response", "response_safe", "never"]
"""What a source is for: its safe rows are benign whatever its role, but only everyday ones set a threshold."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)

FOLDS: Final = "folds.json"


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text. ``prompt`` is what a response answers; ``category`` the set's own, ``hazard`` ours for it.

    Rows of one ``group`` (translations, attacks on one goal) belong together. ``soft`` marks a weak label, ``payload``
    is the part of a harmful document that is harmful.
    """

    text: str
    side: Side
    harmful: bool
    source: str
    prompt: str | None = None
    category: str = ""
    hazard: str | None = None
    language: str = "en"
    group: str | None = None
    soft: bool = False
    payload: str | None = None


@dataclass(frozen=True, slots=True)
class Fold:
    """Sources that are left out together, by their role."""

    name: str
    sources: Mapping[Role, tuple[str, ...]]

    def of(self, *roles: Role) -> tuple[str, ...]:
        return tuple(dict.fromkeys(source for role in roles for source in self.sources.get(role, ())))

    @property
    def left_out(self) -> frozenset[str]:
        return frozenset(self.of(*ROLES))


@dataclass(frozen=True, slots=True)
class Folds:
    """The folds of a folder, and each source's role in them (``never``: on no training side)."""

    folds: tuple[Fold, ...]
    roles: Mapping[str, Role]

    def named(self, names: Sequence[str]) -> tuple[Fold, ...]:
        """Raises ``ValueError`` for a name that no fold has."""
        by_name = {fold.name: fold for fold in self.folds}
        for name in names:
            if name not in by_name:
                raise ValueError(f"there is no fold {name!r}; there are {', '.join(by_name)}")
        return tuple(by_name[name] for name in names) or self.folds

    def whole(self, name: str) -> Fold:
        """One fold that leaves out every source."""
        return Fold(name, {role: tuple(source for source, its in self.roles.items() if its == role) for role in ROLES})


def read_examples(folder: Path) -> dict[str, list[Example]]:
    """The rows of all ``*.jsonl`` files of a folder by their source (its form: ``shared/data/README.md``).

    Raises ``ValueError`` with file and line for a row that cannot be read, or when there is no row at all.
    """
    found: dict[str, list[Example]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for example in _rows(file):
            found.setdefault(example.source, []).append(example)
    if not found:
        raise ValueError(f"there are no labelled texts (*.jsonl) in {folder}")
    return found


def read_folds(folder: Path, examples: Mapping[str, Sequence[Example]]) -> Folds:
    """The folds in ``folds.json``; without that file none, and roles by what the rows of each source are.

    Raises ``ValueError`` when the file is not of its form.
    """
    path = folder / FOLDS
    roles: dict[str, Role] = {}
    folds: tuple[Fold, ...] = ()
    if path.is_file():
        try:
            given = json.loads(path.read_text("utf-8"))
            roles |= dict.fromkeys(given.get("never", ()), "never")
            folds = tuple(_fold(name, row) for name, row in given["folds"].items())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} does not say which sources are left out: {error!r}") from error
    for fold in folds:
        for role in ROLES:
            for source in fold.of(role):
                roles.setdefault(source, role)
    for source, rows in examples.items():
        roles.setdefault(source, _role(rows))
    return Folds(folds, roles)


def _fold(name: str, row: Mapping[str, Any]) -> Fold:
    unknown = set(row) - set(ROLES)
    if unknown:
        raise ValueError(f"fold {name!r} has the unknown role {sorted(unknown)[0]!r}")
    return Fold(name, {role: tuple(row.get(role, ())) for role in ROLES})


def _role(rows: Sequence[Example]) -> Role:
    harmful = any(example.harmful for example in rows)
    if rows[0].side == "response":
        return "response" if harmful else "response_safe"
    return "harmful" if harmful else "everyday"


def _rows(file: Path) -> Iterator[Example]:
    # Not splitlines: texts hold U+2028 and its like.
    for number, line in enumerate(file.read_text("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            example = _example(json.loads(line), file.stem)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file.name}, line {number}: {error!r}") from error
        if example.text.strip():
            yield example


def _example(row: Mapping[str, Any], stem: str) -> Example:
    if row["label"] not in ("safe", "unsafe") or row["side"] not in ("request", "response"):
        raise ValueError(f"label {row['label']!r}, side {row['side']!r}")
    source, category = str(row.get("source", stem)), str(row.get("category", ""))
    # A request's prompt is the system prompt it attacks, which a detector of requests doesn't see.
    prompt = row.get("prompt") if row["side"] == "response" else None
    return Example(
        text=str(row["text"]),
        side=row["side"],
        harmful=row["label"] == "unsafe",
        source=source,
        prompt=prompt if prompt and prompt.strip() else None,
        category=category,
        hazard=hazard_of(category, source),
        language=str(row.get("lang", "en")),
        group=None if row.get("group") is None else f"{source}:{row['group']}",
        soft=bool(row.get("soft", False)),
        payload=row.get("payload") or None,
    )
