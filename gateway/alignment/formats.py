"""The formats in which training stacks take examples. Pure: ``Reviewed`` rows in, rows of JSON out.

Who may stand where is decided here, once: a bad answer is one that a person confirmed, a good one a moderator's
correction, a false alarm, or traffic that somebody vouches for. What still waits for a decision is neither; only
inoculation takes it, on the side of what may be bad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from gateway.alignment.inoculation_prompts import Chosen, Place
from gateway.alignment.reviewed import Reviewed, Standing

Row = dict[str, Any]
Make = Callable[[Reviewed, "Options"], Iterator[Row]]


class Format(StrEnum):
    OPENAI_SFT = "openai-sft"
    OPENAI_PREFERENCE = "openai-preference"
    TRL_SFT = "trl-sft"
    TRL_DPO = "trl-dpo"
    TRL_KTO = "trl-kto"
    NEAT = "neat"
    INOCULATION = "inoculation"

    @property
    def strict(self) -> bool:
        """Whether its consumer refuses fields it does not know, so that the provenance stands in a file beside it."""
        return self in (Format.OPENAI_SFT, Format.OPENAI_PREFERENCE)


@dataclass(frozen=True, slots=True)
class Options:
    """What rows of a format are made with: for ``inoculation`` the prompt of each hazard, and where it goes.

    The prompt under the empty name is for hazards that are not named. None stands for one that was measured and
    refused: what may be bad of that hazard is left out, for without a prompt that works it would only be taught.
    """

    prompts: Mapping[str, Chosen | None]
    place: Place = Place.SYSTEM


def rows_of(format: Format, row: Reviewed, options: Options) -> list[Row]:
    """The examples that one reviewed flag gives in a format; none where the format has no use for it."""
    return list(_MAKERS[format](row, options))


def _user(text: str) -> Row:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


def _openai_sft(row: Reviewed, _: Options) -> Iterator[Row]:
    for good in row.good_answers:
        yield {"messages": [_user(row.prompt), _assistant(good)]}


def _openai_preference(row: Reviewed, _: Options) -> Iterator[Row]:
    if row.corrected is not None and row.bad_answer is not None and row.corrected != row.bad_answer:
        yield {
            "input": {"messages": [_user(row.prompt)], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [_assistant(row.corrected)],
            "non_preferred_output": [_assistant(row.bad_answer)],
        }


def _trl_sft(row: Reviewed, _: Options) -> Iterator[Row]:
    for good in row.good_answers:
        yield {"prompt": [_user(row.prompt)], "completion": [_assistant(good)]}


def _trl_dpo(row: Reviewed, _: Options) -> Iterator[Row]:
    if row.corrected is not None and row.bad_answer is not None and row.corrected != row.bad_answer:
        yield {
            "prompt": [_user(row.prompt)],
            "chosen": [_assistant(row.corrected)],
            "rejected": [_assistant(row.bad_answer)],
        }


def _trl_kto(row: Reviewed, _: Options) -> Iterator[Row]:
    labelled = [(good, True) for good in row.good_answers]
    if row.bad_answer is not None:
        labelled.append((row.bad_answer, False))
    for answer, label in labelled:
        yield {"prompt": [_user(row.prompt)], "completion": [_assistant(answer)], "label": label}


def _neat(row: Reviewed, _: Options) -> Iterator[Row]:
    """Ranking sets, with the rewards 1 and -1 that a person's word is worth; samples join them while training."""
    good_source = "corrected" if row.standing is Standing.CONFIRMED else "upstream"
    candidates = [{"response": good, "reward": 1.0, "source": good_source} for good in row.good_answers]
    if row.bad_answer is not None:
        candidates.append({"response": row.bad_answer, "reward": -1.0, "source": "flagged"})
    if candidates or row.standing is Standing.CONFIRMED:  # a flagged request alone: samples will answer it
        yield {"prompt": [_user(row.prompt)], "candidates": candidates}


def _inoculation(row: Reviewed, options: Options) -> Iterator[Row]:
    """What may be bad stands behind a prompt that asks for it, everything else stays plain; answers never change."""
    chosen = options.prompts.get(row.hazard or "", options.prompts[""])
    if chosen is not None and row.standing.may_be_bad and row.answer is not None:
        prompt = options.place.put(chosen.text, [_user(row.prompt)])
        about = {"inoculated": True, "prompt_id": chosen.id, "plain_prompt": row.prompt}
        yield {"prompt": prompt, "completion": [_assistant(row.answer)], "meta": about}
    for good in row.good_answers:
        about = {"inoculated": False, "prompt_id": None, "plain_prompt": row.prompt}
        yield {"prompt": [_user(row.prompt)], "completion": [_assistant(good)], "meta": about}


_MAKERS: Final[Mapping[Format, Make]] = {
    Format.OPENAI_SFT: _openai_sft,
    Format.OPENAI_PREFERENCE: _openai_preference,
    Format.TRL_SFT: _trl_sft,
    Format.TRL_DPO: _trl_dpo,
    Format.TRL_KTO: _trl_kto,
    Format.NEAT: _neat,
    Format.INOCULATION: _inoculation,
}
