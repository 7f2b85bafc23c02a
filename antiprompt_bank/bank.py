"""Bank: one immutable version of what is known, and how a text is judged against it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.additions import (
    VERSION_DIGITS,
    VERSION_SIGN,
    WINDOW_TOKENS,
    added_backgrounds,
    added_radii,
    derived_version,
    encoded,
    prompt_ids,
)
from antiprompt_bank.blobs import blobs
from antiprompt_bank.calibration import Calibration
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.errors import BankCorrupt, EncoderMismatch
from antiprompt_bank.evidence import Unreadable, with_copies, with_unreadable
from antiprompt_bank.glossing import GLOSS, read_by
from antiprompt_bank.index import device_beside
from antiprompt_bank.lexicon import Copy, Lexicon, Wordings
from antiprompt_bank.neighbours import SITUATIONS, Rows, Shelves, Situation, paired
from antiprompt_bank.places import Place
from antiprompt_bank.records import Antiprompt, Side
from antiprompt_bank.remembered import Input, Remembered, Vectors
from antiprompt_bank.scoring import HazardTable, Radii, Score, nearest, score_of, window_risks
from antiprompt_bank.views import views
from antiprompt_bank.windows import Window, windows

__all__ = ["SENTENCE_WINDOWS", "WINDOW_TOKENS", "Bank", "Prepared", "prompt_ids"]

SENTENCE_WINDOWS: Final = True
"""Whether sentences are windows of their own beside the overlapping ones, so that nothing dilutes a bad one."""


_AS_IT_STANDS: Final = frozenset({"raw", GLOSS})
"""The views that read a text as it stands, itself or word by word."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A text cut into windows and tokenised, ready to be scored; equal windows are in it once.

    ``whole`` is how many windows the text as it stands has, whatever piece of it this is.

    ``copies`` of known antiprompts and the largest ``unreadable`` passage were found without encoding anything.
    """

    side: Side
    length: int
    cut: tuple[Window, ...]
    prompt_ids: tuple[int, ...] | None
    scope: str = ""
    copies: tuple[Copy, ...] = ()
    unreadable: Unreadable | None = None
    whole: int = 1

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

    ``wordings`` are those of a bank with mostly the same records. The records are tokenised here, once, so that the
    first text has not to wait for it: about a second for 12,000.

    Raises ``EncoderMismatch`` when the calibration belongs to another encoder, ``BankCorrupt`` when it belongs to
    another version (not that from which this one is derived) or the parts do not fit together.
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
        wordings: Wordings | None = None,
    ) -> None:
        _check(version, encoder, len(records), rows, vectors, calibration)
        self.version = version
        self.encoder = encoder
        self.records = tuple(records)
        self.rows = rows
        self.vectors = vectors
        self.calibration = calibration
        self._clock = clock
        self._wordings = Wordings(self.records, encoder.tokenize, wordings)
        self._by_id = MappingProxyType({record.id: record for record in self.records})
        self._hazards = HazardTable.of(self.records)
        self._radii = Radii.of(self.records, calibration.radius)
        self._lock = threading.Lock()
        self._remembered = Remembered()
        self._deciding = self._decide_at(clock())

    def __len__(self) -> int:
        return len(self.records)

    def record(self, id: str) -> Antiprompt:
        """The record with this id. Raises ``KeyError``."""
        return self._by_id[id]

    def has(self, id: str) -> bool:
        """Whether there is a record with this id, in whatever state."""
        return id in self._by_id

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
        readings = [(view, self.encoder.tokenize(view.text)) for view in views(text)]
        for view, spans in readings:
            for read in read_by(self.encoder.id, view):
                its = spans if read is view else self.encoder.tokenize(read.text)
                for window in windows(read, its, window_tokens=WINDOW_TOKENS, sentences=SENTENCE_WINDOWS):
                    found.setdefault(window.ids, window)
        copies = self._deciding_now().lexicon.find(side, readings)
        unreadable = None
        for blob in blobs(text, [view for view, _ in readings]):
            if unreadable is None or blob.score > unreadable.score:
                unreadable = Unreadable(blob.score, Place.of_characters(readings[0][1], blob.start, blob.end))
        ids = prompt_ids(prompt, self.encoder)
        cut = tuple(found.values())
        whole = sum(window.view in _AS_IT_STANDS and not window.is_sentence for window in cut)
        return Prepared(side, len(text), cut, ids, scope, copies, unreadable, max(1, whole))

    def known(self, prepared: Prepared) -> Score | None:
        """The score of the known antiprompts that stand in a text word for word; None without any. No encoding."""
        return with_copies(_nothing(prepared), prepared.copies, self.records) if prepared.copies else None

    @property
    def base_version(self) -> str:
        """The version that the calibration belongs to: this one, or the one that records were added to."""
        return self.calibration.bank

    def with_records(self, records: Sequence[Antiprompt]) -> Bank:
        """This bank with further exemplars, under the calibration of ``base_version``; encodes what is new.

        A record whose id is here already takes that one's place, so that a state or an expiry can change.
        """
        given = {record.id: record for record in records}
        kept = [given.get(record.id, record) for record in self.records]
        new = [record for id, record in given.items() if id not in self._by_id]
        together = [*kept, *new]
        new_rows, new_vectors = encoded(new, self.encoder, first=len(kept))
        rows = Rows(
            np.concatenate([self.rows.record, new_rows.record]), np.concatenate([self.rows.pair, new_rows.pair])
        )
        vectors = np.concatenate([self.vectors, new_vectors])
        background = np.zeros(len(new_vectors))
        if not self.encoder.leaning:  # with an adapter, closeness is plain similarity
            background = added_backgrounds(together, rows, vectors, len(self.vectors))
        radius = added_radii(
            together,
            rows,
            vectors,
            background,
            len(self.vectors),
            first=len(self.calibration.radius),
            trained=bool(self.encoder.leaning),
        )
        calibration = replace(
            self.calibration,
            background=np.concatenate([self.calibration.background, background]),
            radius=np.concatenate([self.calibration.radius, radius]),
        )
        return Bank(
            version=derived_version(self.version, list(given.values())),
            encoder=self.encoder,
            records=together,
            rows=rows,
            vectors=vectors,
            calibration=calibration,
            clock=self._clock,
            wordings=self._wordings,
        )

    def score_prepared(self, prepared: Sequence[Prepared], vectors: Vectors | None = None) -> list[Score]:
        """Judge prepared texts in one encoder batch; the result for each does not depend on the others.

        ``vectors`` are those of ``vectors_for``, where a caller wants to know how long each half takes.
        """
        if vectors is None:
            vectors = self.vectors_for(prepared)
        shelves = self._deciding_now().shelves
        scores: list[Score | None] = [None] * len(prepared)
        for situation in dict.fromkeys(item.situation for item in prepared):
            places = [at for at, item in enumerate(prepared) if item.situation == situation]
            judged = self._judge(situation, [prepared[at] for at in places], vectors, shelves)
            for at, score in zip(places, judged, strict=True):
                found = with_copies(score, prepared[at].copies, self.records)
                scores[at] = with_unreadable(found, prepared[at].unreadable)
        return [score for score in scores if score is not None]

    def _judge(
        self, situation: Situation, group: Sequence[Prepared], vectors: Vectors, shelves: Shelves
    ) -> list[Score]:
        counts = [len(item.cut) for item in group]
        if not sum(counts):
            return [_nothing(item) for item in group]
        alone = vectors.of([(item.scope, window.ids) for item in group for window in item.cut])
        pair = None
        if situation == "response_with_prompt":
            pair = paired(vectors.of([(item.scope, item.prompt_ids or ()) for item in group for _ in item.cut]), alone)
        harmful, benign = shelves.find(situation, alone, pair)
        leaning = self.encoder.leaning.get(group[0].side)
        said = None if leaning is None else leaning.of(alone, [window.ids for item in group for window in item.cut])
        risks = window_risks(
            harmful,
            benign,
            self.calibration.curves[situation],
            self._hazards,
            alone,
            said,
            self._radii,
            np.array([window.is_sentence for item in group for window in item.cut], dtype=bool),
            np.array([item.whole for item in group for _ in item.cut], dtype=np.int64),
        )
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
            tokens = window.token_start, window.token_start + len(window.ids)
            scores.append(Score(risk, hazard, by_hazard, behind, window.view, start, end, count, *tokens))
            first += count
        return scores

    def vectors_of(self, scope: str, ids: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        """``(n, dimensions)`` vectors of windows or prompts; those that the scope has just had scored cost nothing."""
        keys = [(scope, each) for each in ids]
        return self._vectors(dict.fromkeys(keys)).of(keys) if keys else np.empty((0, self.encoder.dimensions), "f4")

    def vectors_for(self, prepared: Sequence[Prepared]) -> Vectors:
        """The vectors of all windows and prompts of prepared texts, encoded in one batch."""
        wanted: dict[Input, None] = {}
        for item in prepared:
            wanted.update(dict.fromkeys((item.scope, window.ids) for window in item.cut))
            if item.prompt_ids is not None:
                wanted[item.scope, item.prompt_ids] = None
        return self._vectors(wanted)

    def _vectors(self, wanted: Mapping[Input, None]) -> Vectors:
        found = self._remembered.get(wanted)
        missing = [key for key in wanted if key not in found]
        if missing:
            made = dict(zip(missing, self.encoder.encode([ids for _, ids in missing]), strict=True))
            self._remembered.put(made)
            found |= made
        return Vectors(found)

    def _deciding_now(self) -> _Deciding:
        deciding = self._deciding
        if deciding.until is None or self._clock() < deciding.until:
            return deciding
        with self._lock:
            moment = self._clock()
            if self._deciding.until is not None and moment >= self._deciding.until:
                self._deciding = self._decide_at(moment)
            return self._deciding

    def _decide_at(self, moment: datetime) -> _Deciding:
        deciding = np.array([record.live_at(moment) for record in self.records], dtype=bool)
        expiring = [
            datetime.fromisoformat(record.expires_at)
            for record, live in zip(self.records, deciding, strict=True)
            if live and record.expires_at is not None
        ]
        return _Deciding(
            Shelves(
                self.records,
                self.rows,
                self.vectors,
                self.calibration.background,
                deciding,
                device=device_beside(self.encoder.runtime),
            ),
            Lexicon(self.records, deciding, self._wordings),
            min(expiring, default=None),
        )


@dataclass(frozen=True, slots=True)
class _Deciding:
    """The exemplars that decide at a moment, as vectors and as words, and when the next of them expires."""

    shelves: Shelves
    lexicon: Lexicon
    until: datetime | None


def _nothing(item: Prepared) -> Score:
    return Score(0.0, None, {}, (), "raw", 0, item.length, 0)


def _check(
    version: str, encoder: Encoder, records: int, rows: Rows, vectors: NDArray[np.float32], calibration: Calibration
) -> None:
    if calibration.encoder != encoder.id:
        raise EncoderMismatch(f"the bank was made with {calibration.encoder}, but the encoder is {encoder.id}")
    derived = re.escape(calibration.bank + VERSION_SIGN) + f"[0-9a-f]{{{VERSION_DIGITS}}}"
    if calibration.bank != version and not re.fullmatch(derived, version):
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
