"""The hazards a text can carry, and how they map onto the field's published taxonomies.

Slugs are the only names used inside the project: in records, policies, metrics and logs. ``mlcommons`` is the
category of the MLCommons AILuminate taxonomy (S1-S13; S14 is Llama Guard 3's addition), ``openai`` names the
categories of OpenAI's moderation endpoint (omni-moderation) that a hit of this hazard switches on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Hazard:
    """One hazard.

    ``person_at_risk`` says that the person writing may be in danger, so that a refusal carries crisis help.
    ``carries_text`` is false for hazards that have no exemplars as text. ``signal`` marks what is no harm by itself.
    """

    slug: str
    title: str
    mlcommons: str | None
    openai: tuple[str, ...]
    person_at_risk: bool = False
    carries_text: bool = True
    signal: bool = False


UNREADABLE: Final = "unreadable"
"""The slug of what looks encoded and could not be read: nobody knows what it says."""

_ALL = (
    Hazard("violent_crimes", "Violent crimes", "S1", ("violence", "illicit/violent")),
    Hazard("non_violent_crimes", "Non-violent crimes", "S2", ("illicit",)),
    Hazard("sex_crimes", "Sex-related crimes", "S3", ("sexual", "illicit")),
    Hazard("child_exploitation", "Child sexual exploitation", "S4", ("sexual/minors",), carries_text=False),
    Hazard("defamation", "Defamation", "S5", ("harassment",)),
    Hazard("specialized_advice", "Dangerous specialised advice (medical, legal, financial)", "S6", ()),
    Hazard("privacy", "Privacy", "S7", ("illicit",)),
    Hazard("intellectual_property", "Intellectual property", "S8", ("illicit",)),
    Hazard("indiscriminate_weapons", "Indiscriminate weapons", "S9", ("illicit/violent",)),
    Hazard("hate", "Hate", "S10", ("hate", "hate/threatening", "harassment", "harassment/threatening")),
    Hazard(
        "self_harm",
        "Suicide and self-harm",
        "S11",
        ("self-harm", "self-harm/intent", "self-harm/instructions"),
        person_at_risk=True,
    ),
    Hazard("sexual_content", "Sexual content", "S12", ("sexual",)),
    Hazard("elections", "Elections", "S13", ()),
    Hazard("code_interpreter_abuse", "Code interpreter abuse", "S14", ("illicit",)),
    Hazard("jailbreak", "Jailbreak", None, ()),
    Hazard("prompt_injection", "Prompt injection", None, ()),
    Hazard("indirect_injection", "Indirect prompt injection (in documents and tool results)", None, ()),
    Hazard("prompt_leak", "Leak of instructions or secrets", None, ()),
    Hazard(UNREADABLE, "Unreadable encoded passage", None, (), carries_text=False, signal=True),
)

HAZARDS: Final[Mapping[str, Hazard]] = MappingProxyType({hazard.slug: hazard for hazard in _ALL})
"""Every hazard by slug, in the order of the MLCommons categories, attacks on the model behind them."""

OPENAI_CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""The categories of OpenAI's omni-moderation reply, in its order."""
