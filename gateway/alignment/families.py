"""Look-alikes among reviewed flags: families, how many of each are kept, and the split that keeps families whole."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from antiprompt_bank.dedupe import NEAR_COPY, grams, normalised
from gateway.alignment.reviewed import Reviewed


def families(rows: Sequence[Reviewed]) -> list[str]:
    """For each row the name of its family: rows whose prompts, or answers, are near copies, and copies of those.

    (Five-character runs, Jaccard index above 0.7, as the bank finds duplicates.) The name is the smallest flag id.
    """
    parent = list(range(len(rows)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for texts in ([row.prompt for row in rows], [row.answer or "" for row in rows]):
        for one, other in _near_pairs(texts):
            parent[root(one)] = root(other)
    names: dict[int, str] = {}
    for at, row in enumerate(rows):
        names[root(at)] = min(names.get(root(at), row.flag_id), row.flag_id)
    return [names[root(at)] for at in range(len(rows))]


def _near_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of near copies. Two with an index above t share one of the rarest (1 - t) share of runs of each (prefix
    filtering, Chaudhuri et al. 2006), so only those are looked up."""
    runs = [grams(normalised(text)) if text else set() for text in texts]
    often = Counter(run for each in runs for run in each)
    holders: dict[str, list[int]] = defaultdict(list)
    pairs: list[tuple[int, int]] = []
    for at, mine in enumerate(runs):
        rarest = sorted(mine, key=lambda run: (often[run], run))[: len(mine) - math.ceil(NEAR_COPY * len(mine)) + 1]
        met = {held for run in rarest for held in holders[run]}
        pairs += [(at, other) for other in met if len(mine & runs[other]) > NEAR_COPY * len(mine | runs[other])]
        for run in rarest:
            holders[run].append(at)
    return pairs


@dataclass(frozen=True, slots=True)
class Diversity:
    """How varied rows are.

    ``near_copies`` is the share of rows that only repeat their family, in [0, 1]; ``hazard_bits`` the entropy of the
    hazards in bits, ``evenness`` the same over its largest possible value (1: all hazards alike; None with one).
    """

    rows: int
    families: int
    near_copies: float
    hazards: Mapping[str, int]
    hazard_bits: float
    evenness: float | None


def diversity(rows: Sequence[Reviewed], names: Sequence[str]) -> Diversity:
    hazards = Counter(row.hazard or "none" for row in rows)
    shares = [count / len(rows) for count in hazards.values()]
    bits = -sum(share * math.log2(share) for share in shares) + 0.0
    kinds = len(set(names))
    return Diversity(
        rows=len(rows),
        families=kinds,
        near_copies=round(1 - kinds / len(rows), 4) if rows else 0.0,
        hazards=dict(sorted(hazards.items())),
        hazard_bits=round(bits, 4),
        evenness=round(bits / math.log2(len(hazards)), 4) if len(hazards) > 1 else None,
    )


def capped(rows: Sequence[Reviewed], names: Sequence[str], most: int) -> list[int]:
    """The places of the rows that stay when a family keeps ``most`` rows: corrected ones, then decided ones, first."""
    taken: Counter[tuple[str, bool]] = Counter()
    order = sorted(
        range(len(rows)), key=lambda at: (rows[at].corrected is None, rows[at].role is None, rows[at].flag_id)
    )
    kept = []
    for at in order:
        family = (names[at], rows[at].standing.may_be_bad)  # false alarms do not push out what they resemble
        taken[family] += 1
        if taken[family] <= most:
            kept.append(at)
    return sorted(kept)


def held_out(rows: Sequence[Reviewed], names: Sequence[str], share: float, hazards: Collection[str]) -> list[bool]:
    """For each row whether it is held out: all of the given hazards, and of the others ``share`` of the families.

    A family is never on both sides: one that has a row of a held-out hazard is held out as a whole. Which families
    is drawn by their name's hash, so that it stays the same as more flags come in.
    """
    whole = {name for row, name in zip(rows, names, strict=True) if row.hazard in hazards}
    return [name in whole or _draw(name) < share for name in names]


def _draw(name: str) -> float:
    return int.from_bytes(hashlib.sha256(b"held out " + name.encode()).digest()[:8], "big") / 2**64
