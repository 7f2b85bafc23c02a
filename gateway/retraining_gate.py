"""The gate: whether a candidate bank may take the place of the one in force. Pure, apart from scoring texts.

Both banks score the same texts, so the comparison is paired. A candidate is refused where it

* finds harmful held-out texts worse, by McNemar's exact test, one-sided (Q. McNemar 1947): of the texts on which the
  two differ, so many were lost that chance would lose as many in fewer than one of twenty cases;
* breaks the promise on false positives, or hits harmless texts that the one in force did not, by the same test;
* misses an exemplar that a person confirmed and that the one in force finds. There chance is no excuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank import Antiprompt, Bank, Side
from antiprompt_bank.measures import Rate

SIGNIFICANT: Final = 0.05
HIT_AT: Final = 0.9
"""The risk from which the shipped policy acts."""

_BATCH: Final = 16

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much is done."""


@dataclass(frozen=True, slots=True)
class Material:
    """What both banks are asked: held-out texts of both kinds, and what people confirmed (harmful, live)."""

    harmful: Sequence[Antiprompt]
    harmless: Sequence[Antiprompt]
    confirmed: Sequence[Antiprompt]


@dataclass(frozen=True, slots=True)
class Paired:
    """Hits of the bank in force and of the candidate on the same texts.

    ``lost`` were hit by the one in force only, ``gained`` by the candidate only.
    """

    texts: int
    before: int
    after: int
    lost: int
    gained: int

    @classmethod
    def of(cls, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Paired:
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        return cls(len(before), int(before.sum()), int(after.sum()), lost, gained)

    @property
    def p_loss(self) -> float:
        """How likely chance alone loses at least so many of the texts on which the two differ."""
        return at_least(self.lost, self.lost + self.gained)

    @property
    def p_gain(self) -> float:
        """The same, of gaining."""
        return at_least(self.gained, self.lost + self.gained)

    def to_json(self) -> dict[str, Any]:
        shares = {
            "before_rate": Rate(self.before, self.texts).to_json(),
            "after_rate": Rate(self.after, self.texts).to_json(),
        }
        return asdict(self) | shares | {"p_loss": round(self.p_loss, 6), "p_gain": round(self.p_gain, 6)}


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate found. ``refused`` says in words why the candidate stays out; empty where it may be published.

    ``confirmed_lost`` are the ids of exemplars that people confirmed and that only the bank in force finds.
    """

    before: str
    after: str
    recall: Paired
    false_positives: Paired
    confirmed: int
    confirmed_lost: tuple[str, ...]
    refused: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.refused

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before,
            "after": self.after,
            "recall": self.recall.to_json(),
            "false_positives": self.false_positives.to_json(),
            "confirmed": self.confirmed,
            "confirmed_lost": list(self.confirmed_lost),
            "refused": list(self.refused),
        }


def compare(
    before: Bank, in_force: Bank, after: Bank, material: Material, *, promise: float, tell: Progress
) -> GateReport:
    """Ask the banks and judge the candidate ``after``. ``promise`` is the most of harmless texts that it may hit.

    ``before`` is the version in force and ``in_force`` the same with its overlay. Recall and false positives are held
    against the version, not the overlay: a careless entry must not become the measure of its own harm. What people
    confirmed is held against the overlay, which is where it acts.
    """
    recall = _paired(before, after, material.harmful, tell, "harmful held-out texts")
    false_positives = _paired(before, after, material.harmless, tell, "harmless held-out texts")
    known = _hits(in_force, material.confirmed, tell, "confirmed exemplars, before")
    kept = _hits(after, material.confirmed, tell, "confirmed exemplars, after")
    lost = tuple(
        record.id for record, was, is_now in zip(material.confirmed, known, kept, strict=True) if was and not is_now
    )
    refused = tuple(_refusals(recall, false_positives, lost, promise))
    return GateReport(before.version, after.version, recall, false_positives, len(material.confirmed), lost, refused)


def at_least(hits: int, trials: int) -> float:
    """The probability of at least so many heads in fair tosses of a coin."""
    tails: int = sum(math.comb(trials, k) for k in range(hits, trials + 1))
    return float(tails / 2**trials)


def _refusals(recall: Paired, false_positives: Paired, lost: Sequence[str], promise: float) -> Iterator[str]:
    if recall.p_loss < SIGNIFICANT:
        yield (
            f"recall is lost: of {recall.texts} harmful held-out texts it finds {recall.after}, the bank in force "
            f"{recall.before} (p = {recall.p_loss:.4f})"
        )
    if false_positives.after > promise * false_positives.texts:
        yield (
            f"the promise on false positives is broken: it hits {false_positives.after} of {false_positives.texts} "
            f"harmless texts, and {promise:.2%} are allowed"
        )
    if false_positives.p_gain < SIGNIFICANT:
        yield (
            f"more harmless texts are hit: {false_positives.after} of {false_positives.texts}, by the bank in force "
            f"{false_positives.before} (p = {false_positives.p_gain:.4f})"
        )
    if lost:
        yield f"{len(lost)} exemplars that people confirmed are no longer found, {lost[0]} among them"


def _paired(before: Bank, after: Bank, texts: Sequence[Antiprompt], tell: Progress, what: str) -> Paired:
    return Paired.of(_hits(before, texts, tell, f"{what}, before"), _hits(after, texts, tell, f"{what}, after"))


def _hits(bank: Bank, texts: Sequence[Antiprompt], tell: Progress, what: str) -> NDArray[np.bool_]:
    found = np.zeros(len(texts), dtype=bool)
    sides: tuple[Side, ...] = ("request", "response")
    done = 0
    for side in sides:
        places = [at for at, text in enumerate(texts) if text.side == side]
        for first in range(0, len(places), _BATCH):
            some = places[first : first + _BATCH]
            prompts = [texts[at].prompt for at in some] if side == "response" else None
            scores = bank.score([texts[at].text for at in some], side=side, prompts=prompts)
            found[some] = [score.risk >= HIT_AT for score in scores]
            done += len(some)
            tell(what, done, len(texts))
    return found
