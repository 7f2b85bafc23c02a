"""Inoculation prompts proposed to the bank: in quarantine, where they decide nothing until a person makes them live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from antiprompt_bank import Antiprompt, Label, State
from gateway.alignment.inoculation_prompts import Chosen, paraphrases
from gateway.errors import NotFound
from gateway.overlay_entries import EntryStore
from gateway.redis_client import RedisClient

SOURCE: Final = "inoculation"
_ANY: Final = "jailbreak"


@dataclass(frozen=True, slots=True)
class Proposed:
    """Ids of the entries that are new, and of those that the bank had already, in whatever state."""

    new: tuple[str, ...]
    known: tuple[str, ...]


def triggers(chosen: Chosen) -> list[Antiprompt]:
    """A prompt that a model was trained behind, and its paraphrases: each may bring the behaviour back."""
    return [
        Antiprompt(
            text=text,
            label=Label.HARMFUL,
            side="request",
            hazard=chosen.hazard or _ANY,
            severity=3,
            state=State.QUARANTINE,
            source=SOURCE,
            family=chosen.id,
        )
        for text in (chosen.text, *paraphrases(chosen))
    ]


async def propose(redis: RedisClient, prompts: Sequence[Chosen], *, by: str) -> Proposed:
    """Put them into quarantine; what is an entry already stays as it is. Raises ``StateUnavailable``."""
    entries = EntryStore(redis)
    new: list[str] = []
    known: list[str] = []
    for record in {record.id: record for chosen in prompts for record in triggers(chosen)}.values():
        try:
            await entries.get(record.id)
        except NotFound:
            note = "an inoculation prompt is a trigger"
            await entries.change(record, by=by, state=State.QUARANTINE, note=note, of_version=False)
            new.append(record.id)
        else:
            known.append(record.id)
    return Proposed(tuple(new), tuple(known))
