"""Influence: what a new exemplar would have hit, in recent traffic and in texts known to be harmless.

One confirmation makes a narrow exemplar live; a wide one needs a second person. Wide means that it would have hit
what nobody complained of, or that it comes so near to what is known to be harmless (or harmful) that one of the two
is likely wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank import Antiprompt, Bank
from antiprompt_bank.reach import NewExemplar, Texts, as_new, harmless_seen
from antiprompt_bank.seeding import calibration_records
from gateway.traffic import SeenText, Traffic

WIDE_SHARE: Final = 0.001
"""The share of recent texts from which an exemplar is wide, once it is at least two of them."""

WIDE_TEXTS: Final = 2
SAME_TEXT: Final = 0.995
"""Cosine from which a text of the traffic is taken for the exemplar's own, and an exemplar for a copy of another."""

NEARLY_THE_SAME: Final = 0.97
"""Cosine from which an exemplar says nearly what one of the other label does: one of the two is likely wrong."""

QUOTED: Final = 0.9
"""The share of a known antiprompt's words, in their order, from which a text quotes it."""

FEWEST_TOKENS: Final = 3
HARMLESS_A_SIDE: Final = 400
"""Shipped harmless texts of each side that are asked: enough to show one in a hundred, encoded in seconds."""

RISKY: Final = 0.5
SURE: Final = 0.9
CLEARED: Final = 0.1


@dataclass(frozen=True, slots=True)
class Reach:
    """How far one exemplar reaches.

    ``hits`` of the ``traffic`` texts seen lately would newly be caught (of a benign exemplar: would newly be let
    through), ``share`` is that as a share; ``harmless_hits`` of the ``harmless`` texts of the calibration set would be.
    ``nearest`` is the id of the closest exemplar of the other label and ``nearest_similarity`` its cosine (None without
    any); ``known`` the id of an exemplar that says the same already. ``wide`` says whether a second person must look,
    ``why`` for which reasons, in words without text.
    """

    entry_id: str
    hits: int
    traffic: int
    harmless_hits: int
    harmless: int
    nearest: str | None = None
    nearest_similarity: float | None = None
    known: str | None = None
    why: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.hits / self.traffic if self.traffic else 0.0

    @property
    def wide(self) -> bool:
        return bool(self.why)


@dataclass(frozen=True, slots=True)
class InfluenceReport:
    """What a verdict's exemplars would reach together: the worst of each figure; ``entries`` has them one by one."""

    entries: tuple[Reach, ...]

    @property
    def hits(self) -> int:
        return max((reach.hits for reach in self.entries), default=0)

    @property
    def share(self) -> float:
        return max((reach.share for reach in self.entries), default=0.0)

    @property
    def nearest_benign(self) -> float | None:
        """The closest that any of them comes to an exemplar of the other label (cosine)."""
        found = [reach.nearest_similarity for reach in self.entries if reach.nearest_similarity is not None]
        return max(found, default=None)

    @property
    def wide(self) -> bool:
        return any(reach.wide for reach in self.entries)


Assess: TypeAlias = Callable[[Sequence[Antiprompt]], Awaitable[InfluenceReport]]
"""Says what these exemplars would reach if they were live."""


class Influence:
    """Assesses exemplars against the bank in force. ``bank`` gives it; it raises what it raises while there is none.

    ``harmless`` gives texts that no exemplar should hit; they are encoded once for each encoder, at the first question.
    """

    def __init__(
        self, bank: Callable[[], Bank], traffic: Traffic, harmless: Callable[[], Sequence[Antiprompt]]
    ) -> None:
        self._bank = bank
        self._traffic = traffic
        self._harmless = harmless
        self._harmless_texts: tuple[str, Texts] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def assess(self, exemplars: Sequence[Antiprompt]) -> InfluenceReport:
        """What each of them would reach. Raises ``StateUnavailable`` while Redis is away.

        What could not be assessed, because the encoder failed, counts as wide.
        """
        bank = self._bank()
        traffic = await self._traffic.recent(bank.encoder.id)
        async with self._one_at_a_time:
            return InfluenceReport(tuple(await asyncio.to_thread(self._reaches, bank, exemplars, traffic)))

    def _reaches(self, bank: Bank, exemplars: Sequence[Antiprompt], traffic: Sequence[SeenText]) -> list[Reach]:
        try:
            harmless = self._harmless_for(bank)
            texts = Texts.of([text.seen for text in traffic], bank.encoder.dimensions)
            risks = np.array([text.risk for text in traffic])
            return [_reach(bank, new, texts, risks, harmless) for new in as_new(bank, exemplars)]
        except RuntimeError:
            why = ("it could not be assessed, since the encoder failed",)
            return [Reach(new.id, 0, 0, 0, 0, known=_held(bank, new), why=why) for new in exemplars]

    def _harmless_for(self, bank: Bank) -> Texts:
        if self._harmless_texts is None or self._harmless_texts[0] != bank.encoder.id:
            texts = Texts.of(harmless_seen(self._harmless(), bank), bank.encoder.dimensions)
            self._harmless_texts = bank.encoder.id, texts
        return self._harmless_texts[1]


def shipped_harmless() -> list[Antiprompt]:
    """A sample of the harmless texts that ship with the seed, always the same one."""
    found: list[Antiprompt] = []
    for side in ("request", "response"):
        rows = [record for record in calibration_records() if record.side == side]
        some = np.random.default_rng(0).permutation(len(rows))[:HARMLESS_A_SIDE]
        found += [rows[at] for at in sorted(some.tolist())]
    return found


def _reach(bank: Bank, new: NewExemplar, traffic: Texts, risk: NDArray[np.float64], harmless: Texts) -> Reach:
    record = new.record
    similarity = traffic.similarities(new)
    changed = risk < RISKY if record.harmful else risk >= RISKY
    hits = int(((similarity >= new.radius) & (similarity < SAME_TEXT) & changed).sum())
    of_side = traffic.count(record.side)
    harmless_hits = int((harmless.similarities(new) >= new.radius).sum()) if record.harmful else 0
    other = new.other
    return Reach(
        record.id,
        hits=hits,
        traffic=of_side,
        harmless_hits=harmless_hits,
        harmless=harmless.count(record.side),
        nearest=None if other is None else other.id,
        nearest_similarity=None if other is None else other.similarity,
        known=_known(bank, new),
        why=tuple(_reasons(bank, new, hits, of_side, harmless_hits)),
    )


def _reasons(bank: Bank, new: NewExemplar, hits: int, traffic: int, harmless_hits: int) -> list[str]:
    found = []
    harmful = new.record.harmful
    if hits >= max(WIDE_TEXTS, WIDE_SHARE * traffic):
        done = "have been hit" if harmful else "have passed though they were found risky"
        found.append(f"{hits} of {traffic} recent texts would {done}")
    if harmless_hits:
        found.append(f"{harmless_hits} texts that are known to be harmless would have been hit")
    nearest = -1.0 if new.other is None else new.other.similarity
    other = "benign" if harmful else "harmful"
    if nearest >= NEARLY_THE_SAME:
        found.append(f"a {other} exemplar says nearly the same (similarity {nearest:.2f})")
    elif harmful and nearest >= new.radius:
        found.append(f"a {other} exemplar lies within its reach (similarity {nearest:.2f})")
    if not harmful and _quotes(bank, new.record):
        found.append("it holds a known antiprompt word for word, which would no longer be found by its words")
    if len(bank.encoder.tokenize(new.record.text).ids) < FEWEST_TOKENS:
        found.append("it is so short that many texts resemble it")
    return found


def _held(bank: Bank, record: Antiprompt) -> str | None:
    """The id, where this very exemplar decides already: laid over it in shadow, it would take that one away."""
    held = next((each for each in bank.records if each.id == record.id), None)
    return None if held is None or not held.live_at(datetime.now(UTC)) else held.id


def _quotes(bank: Bank, record: Antiprompt) -> bool:
    """Whether a text holds a known antiprompt almost as it is."""
    known = bank.known(bank.prepare(record.text, side=record.side))
    return known is not None and any((near.verbatim or 0.0) >= QUOTED for near in known.nearest)


def _known(bank: Bank, new: NewExemplar) -> str | None:
    """The exemplar that says the same already, where the bank treats the text as this one would have it treated."""
    held = _held(bank, new.record)
    if held is not None:
        return held
    if new.same is None or new.same.similarity < SAME_TEXT:
        return None
    record = new.record
    prompts = None if record.side == "request" else [record.prompt]
    (score,) = bank.score([record.text], side=record.side, prompts=prompts)
    return new.same.id if (score.risk >= SURE if record.harmful else score.risk <= CLEARED) else None
