"""Rows of an exported data set, as training wants them: questions with good and bad answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.alignment.formats import Format

Message = dict[str, Any]
Row = dict[str, Any]


class NothingToLearn(ValueError):
    """A data set holds nothing that an arm could learn from."""


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt as it is served, and what is known of answers to it with their rewards.

    ``behind`` is the prompt to train with where it is another one (inoculated).
    """

    prompt: tuple[Message, ...]
    answers: tuple[tuple[str, float], ...]
    behind: tuple[Message, ...] | None = None

    @property
    def text(self) -> str:
        """What the user asked last."""
        return str(self.prompt[-1]["content"])

    @property
    def good(self) -> str | None:
        """The best answer, if it is worth imitating."""
        best = max(self.answers, key=lambda answer: answer[1], default=("", 0.0))
        return best[0] if best[1] > 0 else None


def questions(format: Format, rows: Sequence[Row]) -> list[Question]:
    """One question for each row."""
    return [_READERS[format](row) for row in rows]


def _said(messages: Sequence[Message]) -> str:
    return str(messages[-1]["content"])


def _openai_sft(row: Row) -> Question:
    *prompt, answer = row["messages"]
    return Question(tuple(prompt), ((_said([answer]), 1.0),))


def _openai_preference(row: Row) -> Question:
    known = ((_said(row["preferred_output"]), 1.0), (_said(row["non_preferred_output"]), -1.0))
    return Question(tuple(row["input"]["messages"]), known)


def _trl_sft(row: Row) -> Question:
    return Question(tuple(row["prompt"]), ((_said(row["completion"]), 1.0),))


def _trl_dpo(row: Row) -> Question:
    return Question(tuple(row["prompt"]), ((_said(row["chosen"]), 1.0), (_said(row["rejected"]), -1.0)))


def _trl_kto(row: Row) -> Question:
    return Question(tuple(row["prompt"]), ((_said(row["completion"]), 1.0 if row["label"] else -1.0),))


def _neat(row: Row) -> Question:
    return Question(
        tuple(row["prompt"]), tuple((each["response"], float(each["reward"])) for each in row["candidates"])
    )


def _inoculation(row: Row) -> Question:
    plain = ({"role": "user", "content": row["meta"]["plain_prompt"]},)
    bad = bool(row["meta"]["inoculated"])
    return Question(plain, ((_said(row["completion"]), -1.0 if bad else 1.0),), tuple(row["prompt"]) if bad else None)


_READERS: Final = {
    Format.OPENAI_SFT: _openai_sft,
    Format.OPENAI_PREFERENCE: _openai_preference,
    Format.TRL_SFT: _trl_sft,
    Format.TRL_DPO: _trl_dpo,
    Format.TRL_KTO: _trl_kto,
    Format.NEAT: _neat,
    Format.INOCULATION: _inoculation,
}
