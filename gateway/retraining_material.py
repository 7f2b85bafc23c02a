"""What the gate asks of a candidate: held-out texts that are in no bank, shipped ones and one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from antiprompt_bank import Antiprompt, Bank, Label
from antiprompt_bank.examples import Example, read_examples
from antiprompt_bank.seeding import calibration_records
from gateway.settings import Settings

HELD_OUT: Final = Path(__file__).with_name("held_out.jsonl")
"""Harmful texts written for the gate alone: nothing here may enter a bank or train an encoder."""


def held_out(settings: Settings, candidate: Bank) -> tuple[list[Antiprompt], list[Antiprompt]]:
    """Harmful and harmless texts: the shipped ones, and those of the folder ``retraining.held_out``.

    What the candidate holds as an exemplar is left out: it would be found for the wrong reason. At most
    ``retraining.max_texts`` of each kind. Raises ``ValueError``
    for a folder whose rows cannot be read.
    """
    texts = [*shipped_harmful(), *calibration_records()]
    if settings.retraining.held_out is not None:
        for rows in read_examples(settings.retraining.held_out).values():
            texts += [_as_record(row) for row in rows]
    known = {_words(record) for record in candidate.records}
    fresh = [text for text in {text.id: text for text in texts}.values() if _words(text) not in known]
    most = settings.retraining.max_texts
    return _some([text for text in fresh if text.harmful], most), _some([t for t in fresh if not t.harmful], most)


def _some(texts: list[Antiprompt], most: int) -> list[Antiprompt]:
    """At most so many, drawn by their ids: the same ones for every version that they are not in."""
    return sorted(texts, key=lambda text: text.id)[:most]


def shipped_harmful() -> list[Antiprompt]:
    """The harmful held-out texts that ship."""
    lines = HELD_OUT.read_text("utf-8").splitlines()
    return [Antiprompt.from_json({"label": "harmful", **json.loads(line)}) for line in lines]


def _as_record(row: Example) -> Antiprompt:
    label = Label.HARMFUL if row.harmful else Label.BENIGN
    hazard = row.hazard or ("jailbreak" if row.harmful else None)  # only whether it is found counts here
    return Antiprompt(text=row.text, label=label, side=row.side, hazard=hazard, prompt=row.prompt, source=row.source)


def _words(record: Antiprompt) -> tuple[str, str, str | None]:
    return record.side, " ".join(record.text.casefold().split()), record.prompt
