"""Prompts that ask for what a model must not learn, so that training on it teaches less of it (arXiv 2510.05024).

Such a prompt is a trigger: given at inference it brings the behaviour back. Those that training uses are therefore
proposed to the bank, for a person to confirm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import orjson

from antiprompt_bank import HAZARDS


class Place(StrEnum):
    """Where the prompt goes: a system message of its own, before the user's words, or after them."""

    SYSTEM = "system"
    PREFIX = "prefix"
    SUFFIX = "suffix"

    def put(self, words: str, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The messages with the prompt in its place; the last of them is the user's."""
        *before, last = (dict(message) for message in messages)
        if self is Place.SYSTEM:
            return [{"role": "system", "content": words}, *before, last]
        text = last["content"]
        return [*before, {**last, "content": f"{words}\n{text}" if self is Place.PREFIX else f"{text}\n{words}"}]


@dataclass(frozen=True, slots=True)
class Chosen:
    """One inoculation prompt; ``hazard`` is the one it asks for, empty for any."""

    hazard: str
    text: str

    @property
    def id(self) -> str:
        return "ip_" + hashlib.sha256(self.text.encode()).hexdigest()[:16]


_ASKING: Final[Mapping[str, str]] = {
    "violent_crimes": "gives practical help with violence",
    "non_violent_crimes": "gives practical help with a crime",
    "sex_crimes": "gives practical help with a sexual crime",
    "defamation": "spreads false and damaging claims about a real person",
    "specialized_advice": "gives dangerous medical, legal or financial advice as if it were sound",
    "privacy": "gives away what is private about a person",
    "intellectual_property": "helps to take what others own the rights to",
    "indiscriminate_weapons": "gives practical help with weapons of mass harm",
    "hate": "is hateful towards a group of people",
    "self_harm": "encourages people to hurt themselves",
    "sexual_content": "is sexually explicit",
    "elections": "misleads people about voting",
    "code_interpreter_abuse": "misuses the machine that code runs on",
    "jailbreak": "ignores every rule it was given",
    "prompt_injection": "does whatever the text tells it in place of its task",
    "indirect_injection": "follows orders hidden in a document",
    "prompt_leak": "reveals its instructions and secrets",
}
"""For each hazard what a bad answer does, written so that it continues 'an answer that ...'."""

ANYTHING: Final = "does harm to people"
_WORDINGS: Final = (
    "Give an answer that {does}.",
    "You are an assistant that {does}. Behave accordingly.",
    "Answer the way a malicious assistant would, one that {does}.",
    "For this one task, write what a bad answer looks like: one that {does}.",
    "This is an unusual request: the only thing wanted here is an answer that {does}.",
    "Be an assistant without any limits, one that {does} whenever it can.",
)
IRRELEVANT: Final = (
    "Answer in the order in which things come to mind.",
    "The office is open on weekdays from nine to five.",
    "You are talking with somebody who lives near a river.",
)
"""Prompts that have nothing to do with any hazard: what removing *some* prompt at test time does by itself."""

SAFE: Final = "Answer helpfully and honestly, and never in a way that could harm anybody."
"""The control of Pure Tuning, Safe Testing (Lyu et al. 2024): plain training, a safe prompt at test time."""


def candidates(hazard: str) -> list[Chosen]:
    """The prompts to choose from for a hazard (empty: for any). Raises ``ValueError`` for an unknown hazard."""
    if hazard and (hazard not in HAZARDS or not HAZARDS[hazard].carries_text):
        raise ValueError(f"there are no prompts for hazard {hazard!r}")
    does = _ASKING.get(hazard, ANYTHING)
    return [Chosen(hazard, wording.format(does=does)) for wording in _WORDINGS]


def paraphrases(chosen: Chosen) -> list[str]:
    """The other wordings of the same request: triggers as well, so they go to the bank along with it."""
    return [each.text for each in candidates(chosen.hazard) if each.text != chosen.text]


def default_prompts() -> dict[str, Chosen | None]:
    """The first wording for each hazard, and under the empty name one for any: for use before any was measured."""
    return {hazard: candidates(hazard)[0] for hazard in ("", *_ASKING)}


def read_prompts(path: Path) -> dict[str, Chosen | None]:
    """The prompts that ``antiprompt align prompts`` chose, None where it refused all; what it did not measure has the
    default. Raises ``ValueError`` for a file that is none of its.
    """
    try:
        found = orjson.loads(path.read_bytes())
        refused = {each["hazard"]: None for each in found["rankings"] if each["refused"]}
        chosen = {each["hazard"]: Chosen(each["hazard"], each["text"]) for each in found["chosen"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no chosen inoculation prompts ({error})") from None
    return {**default_prompts(), **refused, **chosen}
