"""Bank: one immutable version of what is known, and how a text is judged against it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.calibration import Calibration
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.errors import BankCorrupt, EncoderMismatch
from antiprompt_bank.neighbours import SITUATIONS, Rows, Shelves, Situation, paired
from antiprompt_bank.records import Antiprompt, Side
from antiprompt_bank.scoring import HazardTable, Score, nearest, score_of, window_risks
from antiprompt_bank.views import views
from antiprompt_bank.windows import Window, windows

WINDOW_TOKENS: Final = 64
"""Tokens of a window. Short enough that one bad sentence is not diluted, long enough to hold an instruction."""


_MOST_REMEMBERED: Final = 4096
"""Vectors kept: about 10 MB."""

_Input = tuple[str, tuple[int, ...]]
"""What was encoded: its scope and its token ids."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A text cut into windows and tokenised, ready to be scored; equal windows are in it once."""

    side: Side
    length: int
    cut: tuple[Window, ...]
    prompt_ids: tuple[int, ...] | None
    scope: str = ""

    @property
    def windows(self) -> int:
        """What scoring it costs: inputs of the encoder, of its windows and of the prompt."""
        return len(self.cut) + (self.prompt_ids is not None)

    def split(self, most: int) -> Iterator[Prepared]:
        """The same text in pieces of at most ``most`` windows; ``Score.worst`` puts their scores together."""
        for first in range(0, len(self.cut), most):
            yield replace(self, cut=self.cut[first : first + most])

    @property
    def situation(self) -> Situation:
        if self.side == "request":
            return "request"
        return "response" if self.prompt_ids is None else "response_with_prompt"


class Bank:
    """One version of the bank: records, their vectors, the encoder they came from and its calibration.

    ``vectors`` is ``(n, dimensions)`` float32, one unit vector for each row of ``rows``. Only records that are live
    and not expired at the moment of a decision take part in it; ``clock`` tells the moment (UTC). Nothing of a bank
    changes; all methods may be called from several threads.

    Raises ``EncoderMismatch`` when the calibration belongs to another encoder, ``BankCorrupt`` when it belongs to
    another version or the parts do not fit together.
    """

    def __init__(
        self,
        *,
        version: str,
        encoder: Encoder,
        records: Sequence[Antiprompt],
        rows: Rows,
        vectors: NDArray[np.float32],
        calibration: Calibration,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        _check(version, encoder, len(records), rows, vectors, calibration)
        self.version = version
        self.encoder = encoder
        self.records = tuple(records)
        self.rows = rows
        self.vectors = vectors
        self.calibration = calibration
        self._clock = clock
        self._by_id = MappingProxyType({record.id: record for record in self.records})
        self._hazards = HazardTable.of(self.records)
        self._lock = threading.Lock()
        self._remembered = _Remembered()
        self._deciding = self._decide_at(clock())

    def __len__(self) -> int:
        return len(self.records)

    def record(self, id: str) -> Antiprompt:
        """The record with this id. Raises ``KeyError``."""
        return self._by_id[id]

    def score(self, texts: Sequence[str], *, side: Side, prompts: Sequence[str | None] | None = None) -> list[Score]:
        """Judge texts, each with the prompt it answers where that is known (responses only).

        Raises ``ValueError`` for an unknown side, prompts of another number than texts, or prompts of requests.
        """
        if prompts is not None and len(prompts) != len(texts):
            raise ValueError(f"{len(prompts)} prompts for {len(texts)} texts")
        pairs = zip(texts, prompts if prompts is not None else [None] * len(texts), strict=True)
        return self.score_prepared([self.prepare(text, side=side, prompt=prompt) for text, prompt in pairs])

    def prepare(self, text: str, *, side: Side, prompt: str | None = None, scope: str = "") -> Prepared:
        """Cut a text into the windows of its views. No encoding; time grows with the text, so cap its length first.

        Vectors are remembered for a while, a scope's apart from all others': the time a score takes tells nobody
        outside the scope what was scored before.

        Raises ``ValueError`` for an unknown side, or a prompt of a request.
        """
        if side not in get_args(Side):
            raise ValueError(f"side is {side!r}, not 'request' or 'response'")
        if prompt is not None and side == "request":
            raise ValueError("prompts belong to responses only")
        found: dict[tuple[int, ...], Window] = {}
        for view in views(text):
            for window in windows(view, self.encoder.tokenize(view.text), window_tokens=WINDOW_TOKENS):
                found.setdefault(window.ids, window)
        return Prepared(side, len(text), tuple(found.values()), prompt_ids(prompt, self.encoder), scope)

    def score_prepared(self, prepared: Sequence[Prepared]) -> list[Score]:
        """Judge prepared texts in one encoder batch; the result for each does not depend on the others."""
        vectors = self._encode(prepared)
        shelves = self._shelves()
        scores: list[Score | None] = [None] * len(prepared)
        for situation in dict.fromkeys(item.situation for item in prepared):
            places = [at for at, item in enumerate(prepared) if item.situation == situation]
            judged = self._judge(situation, [prepared[at] for at in places], vectors, shelves)
            for at, score in zip(places, judged, strict=True):
                scores[at] = score
        return [score for score in scores if score is not None]

    def _judge(
        self, situation: Situation, group: Sequence[Prepared], vectors: _Vectors, shelves: Shelves
    ) -> list[Score]:
        counts = [len(item.cut) for item in group]
        if not sum(counts):
            return [_nothing(item) for item in group]
        alone = vectors.of([(item.scope, window.ids) for item in group for window in item.cut])
        pair = None
        if situation == "response_with_prompt":
            pair = paired(vectors.of([(item.scope, item.prompt_ids or ()) for item in group for _ in item.cut]), alone)
        harmful, benign = shelves.find(situation, alone, pair)
        risks = window_risks(harmful, benign, self.calibration.curves[situation], self._hazards, alone)
        scores, first = [], 0
        for item, count in zip(group, counts, strict=True):
            if not count:
                scores.append(_nothing(item))
                continue
            mine = risks[first : first + count]
            worst = int(mine.max(axis=1, initial=0.0).argmax())
            risk, hazard, by_hazard = score_of(mine.max(axis=0), self._hazards.slugs)
            window = item.cut[worst]
            start, end = (window.start, window.end) if window.view == "raw" else (0, item.length)
            behind = nearest(harmful, benign, first + worst, self.records)
            scores.append(Score(risk, hazard, by_hazard, behind, window.view, start, end, count))
            first += count
        return scores

    def _encode(self, prepared: Sequence[Prepared]) -> _Vectors:
        wanted: dict[_Input, None] = {}
        for item in prepared:
            wanted.update(dict.fromkeys((item.scope, window.ids) for window in item.cut))
            if item.prompt_ids is not None:
                wanted[item.scope, item.prompt_ids] = None
        found = self._remembered.get(wanted)
        missing = [key for key in wanted if key not in found]
        if missing:
            made = dict(zip(missing, self.encoder.encode([ids for _, ids in missing]), strict=True))
            self._remembered.put(made)
            found |= made
        return _Vectors(found)

    def _shelves(self) -> Shelves:
        shelves, until = self._deciding
        if until is None or self._clock() < until:
            return shelves
        with self._lock:
            moment = self._clock()
            if self._deciding[1] is not None and moment >= self._deciding[1]:
                self._deciding = self._decide_at(moment)
            return self._deciding[0]

    def _decide_at(self, moment: datetime) -> tuple[Shelves, datetime | None]:
        """The rows that decide at ``moment``, and when the next of them expires."""
        deciding = np.array([record.live_at(moment) for record in self.records], dtype=bool)
        expiring = [
            datetime.fromisoformat(record.expires_at)
            for record, live in zip(self.records, deciding, strict=True)
            if live and record.expires_at is not None
        ]
        shelves = Shelves(self.records, self.rows, self.vectors, self.calibration.background, deciding)
        return shelves, min(expiring, default=None)


class _Vectors:
    """Vectors by what was encoded."""

    def __init__(self, vectors: Mapping[_Input, NDArray[np.float32]]) -> None:
        self._vectors = vectors

    def of(self, keys: Sequence[_Input]) -> NDArray[np.float32]:
        return np.stack([self._vectors[key] for key in keys])


class _Remembered:
    """The vectors used last: a prompt was a request a moment ago, and a text comes back with every turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vectors: OrderedDict[_Input, NDArray[np.float32]] = OrderedDict()

    def get(self, keys: Iterable[_Input]) -> dict[_Input, NDArray[np.float32]]:
        with self._lock:
            found = {key: self._vectors[key] for key in keys if key in self._vectors}
            for key in found:
                self._vectors.move_to_end(key)
        return found

    def put(self, vectors: Mapping[_Input, NDArray[np.float32]]) -> None:
        with self._lock:
            # Copies, because each is a slice that would keep its whole batch in memory.
            self._vectors.update((key, vector.copy()) for key, vector in vectors.items())
            while len(self._vectors) > _MOST_REMEMBERED:
                self._vectors.popitem(last=False)


def prompt_ids(prompt: str | None, encoder: Encoder) -> tuple[int, ...] | None:
    """The last window of a prompt, where the question stands as a rule; None where there is nothing to read.

    It is the window that screening the prompt as a request encodes too.
    """
    if prompt is None or not prompt.strip():
        return None
    # Few tokens have more than 24 characters: no need to read all of a long prompt to know how it ends.
    return tuple(encoder.tokenize(prompt[-24 * WINDOW_TOKENS :]).ids[-WINDOW_TOKENS:]) or None


def _nothing(item: Prepared) -> Score:
    return Score(0.0, None, {}, (), "raw", 0, item.length, 0)


def _check(
    version: str, encoder: Encoder, records: int, rows: Rows, vectors: NDArray[np.float32], calibration: Calibration
) -> None:
    if calibration.encoder != encoder.id:
        raise EncoderMismatch(f"the bank was made with {calibration.encoder}, but the encoder is {encoder.id}")
    if calibration.bank != version:
        raise BankCorrupt(f"the calibration belongs to version {calibration.bank}, not {version}")
    if set(calibration.curves) != set(SITUATIONS):
        raise BankCorrupt(f"the calibration has curves for {sorted(calibration.curves)}, not {sorted(SITUATIONS)}")
    if vectors.shape != (len(rows.record), encoder.dimensions) or vectors.dtype != np.float32:
        raise BankCorrupt(
            f"vectors are {vectors.dtype} {vectors.shape}, not float32 {(len(rows.record), encoder.dimensions)}"
        )
    if len(calibration.background) != len(vectors):
        raise BankCorrupt(f"the calibration knows {len(calibration.background)} rows, but there are {len(vectors)}")
    if len(rows.pair) != len(rows.record) or (
        len(rows.record) and not 0 <= rows.record.min() <= rows.record.max() < records
    ):
        raise BankCorrupt("a row of the vectors belongs to no record")
