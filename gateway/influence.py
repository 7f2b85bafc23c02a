"""Influence: what a new exemplar would have hit, in recent traffic and in texts known to be harmless."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from antiprompt_bank import Antiprompt


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
