"""What the columns of an imported file mean: as a published set has them, as was given, or guessed by their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from antiprompt_bank.public_sets import OPENAI_FLAGS, PublicSet

_MEANS: Final[Mapping[str, tuple[str, ...]]] = {
    "text": (
        "text",
        "goal",
        "question",
        "instruction",
        "prompt_text",
        "request",
        "query",
        "input",
        "content",
        "prompt",
    ),
    "prompt": ("prompt", "question", "request", "instruction"),
    "label": ("label", "is_harmful", "harmful", "unsafe", "toxicity"),
    "side": ("side",),
    "category": ("category", "semanticcategory", "types_of_harm", "topic"),
    "hazard": ("hazard",),
    "language": ("language", "lang", "locale"),
    "group": ("group", "family"),
    "source": ("source",),
    "licence": ("licence", "license"),
    "soft": ("soft",),
}
"""Column names, in lower case, that are taken for what they say, the likeliest first."""

_ANSWERS: Final = ("response", "answer", "completion", "output")
GAP: Final = "[INSERT PROMPT HERE]"
"""By which GPTFuzzer's templates are recognised."""


def check_mapping(columns: Mapping[str, str]) -> None:
    """Raises ``ValueError`` when a column is mapped to something that a row does not have."""
    unknown = set(columns) - set(_MEANS)
    if unknown:
        raise ValueError(f"no column can be mapped to {sorted(unknown)[0]!r}, only to {', '.join(_MEANS)}")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which value of a row is its text, its label and so on; ``given`` names columns (``{"text": "goal"}``)."""

    known: PublicSet | None = None
    given: Mapping[str, str] = field(default_factory=dict)

    def values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a row says: text, prompt, label, side, category, hazard, language, group, source, licence, soft."""
        if self.known is not None:
            return _known_values(self.known, row)
        found = self.found(row)
        value = {what: row.get(name) for what, name in found.items()}
        if found.get("text", "").casefold() in _ANSWERS:
            value.setdefault("side", "response")
        return value

    def found(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Which column of a row holds what, those that were given first."""
        columns = {name.casefold(): name for name in row}
        found = {what: columns.get(name.casefold(), name) for what, name in self.given.items()}
        for what, names in _MEANS.items():
            likely = ("text", *_ANSWERS, *names[1:]) if what == "text" else names
            name = next(
                (columns[name] for name in likely if name in columns and columns[name] not in found.values()), None
            )
            if name is not None:
                found.setdefault(what, name)
        return found


def _known_values(known: PublicSet, row: Mapping[str, Any]) -> dict[str, Any]:
    columns = {name.casefold(): value for name, value in row.items()}
    value = {
        "text": columns.get(known.text),
        "prompt": columns.get(known.prompt or ""),
        "label": columns.get(known.label_column or ""),
        "language": columns.get(known.language_column or ""),
        "category": "/".join(str(columns.get(name) or "") for name in known.category),
    }
    if known.name == "gptfuzzer_responses" and str(value["prompt"]).strip().isdigit():
        value["prompt"] = None  # the number of a question in another file
    elif known.name == "openai_moderation":
        flags = [flag for flag in OPENAI_FLAGS if str(columns.get(flag.casefold())) in ("1", "1.0", "True")]
        value |= {"category": ",".join(flags), "label": "unsafe" if flags else "safe"}
    elif known.name == "xstest":
        contrast = str(value["category"]).startswith("contrast")
        value["label"] = columns.get("label") or ("unsafe" if contrast else "safe")
    return value
