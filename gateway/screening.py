"""Screener: texts -> scores, through the cache, the batcher and the bank; and the swap to a new bank.

A score is cached by tenant, side, text and prompt, and belongs to one bank (version, overlay, encoder and adapter are
all of the bank's making) and the calibration that goes with it: each bank has a cache of its own. What to do about a
score is not cached: policy decides that anew each time. The tenant is part of the key so that the time an answer
takes never tells one tenant what another has sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from antiprompt_bank import Bank, Prepared, Score, Side
from antiprompt_bank.index import device_beside
from gateway.batching import Batcher
from gateway.calibration import CalibrationInForce, CalibrationStale
from gateway.errors import ScreeningUnavailable, TooLarge
from gateway.settings import ScreeningSettings
from gateway.telemetry import Metrics, logger
from gateway.tracing import Trace, current, step

_INLINE_CHARS: Final = 1500
"""Texts up to this length are cut and tokenised on the event loop (under 0.5 ms); longer ones in a thread."""

_LONGEST_TOKEN_CHARS: Final = 24
"""Few tokens stand for more characters, so a longer text cannot fit into the windows allowed: it is not even cut."""

_WINDOW_TOKENS: Final = 64

_BATCHES_ON_A_GPU: Final = 2
"""Batches under way at once, whatever the number of threads: while a GPU works on one, the next is prepared."""


OnScored = Callable[[Bank, Prepared, Score], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """One text to screen: which way it travels and, for a reply, the prompt that it answers."""

    text: str
    side: Side
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    bank: Bank
    calibration: CalibrationInForce
    prepared: Prepared
    trace: Trace | None


class Screener:
    """Screens texts against the bank in force. ``start`` it inside the event loop, ``close`` it at the end.

    ``calibration_for`` finds the calibration of a bank, at each swap anew. ``on_scored`` is told of each text that was
    scored, in the thread that scored it; it must be quick, and must not raise.
    """

    def __init__(
        self,
        settings: ScreeningSettings,
        metrics: Metrics,
        *,
        calibration_for: Callable[[Bank], CalibrationInForce] = lambda bank: CalibrationInForce(),
        on_scored: OnScored | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._calibration_for = calibration_for
        self._calibration = CalibrationInForce()
        self._bank: Bank | None = None
        self._cache = ScoreCache(settings.cache_entries)
        self._cutter = ThreadPoolExecutor(1, thread_name_prefix="cut")
        self._batcher: Batcher[_Job, Score] = Batcher(
            partial(_score_jobs, on_scored),
            cost=lambda job: max(1, job.prepared.windows),
            threads=settings.threads,
            max_batch=settings.max_batch_windows,
            max_queue=settings.max_queue_windows,
            timeout_s=settings.timeout_s,
            metrics=metrics,
        )

    @property
    def bank(self) -> Bank | None:
        """The bank in force; None until one has been loaded."""
        return self._bank

    @property
    def in_force(self) -> Bank:
        """The bank in force. Raises ``ScreeningUnavailable`` until one has been loaded."""
        if self._bank is None:
            raise ScreeningUnavailable("the gateway is still loading its bank; try again", retry_after_s=2)
        return self._bank

    @property
    def calibration(self) -> CalibrationInForce:
        """The calibration in force."""
        return self._calibration

    def start(self) -> None:
        self._batcher.start()

    async def close(self) -> None:
        await self._batcher.close()
        self._cutter.shutdown(wait=False, cancel_futures=True)

    def swap(self, bank: Bank) -> None:
        """Put ``bank`` in force from the next request on; what is under way ends with the bank it began with.

        Raises ``BankError`` where its calibration cannot be used; then the bank before it stays in force.
        """
        try:
            calibration = self._calibration_for(bank)
        except CalibrationStale:
            self._metrics.calibration_stale.set(1)
            raise
        self._metrics.calibration_stale.set(calibration.stale)
        if calibration.reason is not None and calibration != self._calibration:
            logger().warning("the calibration is stale", calibration=calibration.status, reason=calibration.reason)
        if device_beside(bank.encoder.runtime) == "cuda":
            self._batcher.widen(_BATCHES_ON_A_GPU)
        self._bank, self._calibration = bank, calibration
        self._cache = ScoreCache(self._settings.cache_entries)
        harmful = sum(record.harmful for record in bank.records)
        benign = len(bank.records) - harmful
        self._metrics.name_bank(bank.version, bank.base_version, bank.encoder.id, harmful, benign)

    async def screen(self, subjects: Sequence[Subject], *, tenant: str) -> list[Score]:
        """One score for each subject.

        Raises ``ScreeningUnavailable`` where a text could not be screened, ``Overloaded`` where the queue is full and
        ``TooLarge`` where the texts need more windows than one request may have.
        """
        bank, calibration, cache = self.in_force, self._calibration, self._cache
        keys = [_key(tenant, subject) for subject in subjects]
        found = [cache.get(key) for key in keys]
        missing = {key: at for at, (key, score) in enumerate(zip(keys, found, strict=True)) if score is None}
        self._count_lookups(len(subjects), len(missing))
        if missing:
            started_s = time.perf_counter()
            scored = await self._score(bank, calibration, [subjects[at] for at in missing.values()], tenant)
            fresh = dict(zip(missing, scored, strict=True))
            for key, score in fresh.items():
                cache.put(key, score)
            found = [fresh[key] if score is None else score for key, score in zip(keys, found, strict=True)]
            side = subjects[next(iter(missing.values()))].side
            self._metrics.screening.labels(side).observe(time.perf_counter() - started_s)
        return [score for score in found if score is not None]

    async def known(self, subjects: Sequence[Subject], *, tenant: str) -> list[Score | None]:
        """For each subject the known antiprompts that it holds word for word; None where it holds none.

        Needs no encoder, so it still answers where ``screen`` cannot. What could not be cut in time, and any text
        before a bank is loaded, gets None: this says what is harmful, never what is not.
        """
        bank, calibration = self._bank, self._calibration
        found: list[Score | None] = []
        for subject in subjects:
            try:
                score = None if bank is None else bank.known(await self._prepare(bank, subject, tenant))
            except ScreeningUnavailable:
                score = None
            found.append(None if score is None else calibration.applied(score, subject.side))
        return found

    async def _score(
        self, bank: Bank, calibration: CalibrationInForce, subjects: Sequence[Subject], tenant: str
    ) -> list[Score]:
        self._check_length(sum(len(subject.text) for subject in subjects))
        with step("views", texts=len(subjects), side=subjects[0].side):
            prepared = [await self._prepare(bank, subject, tenant) for subject in subjects]
        windows = sum(item.windows for item in prepared)
        if windows > self._settings.max_windows:
            raise TooLarge(
                f"the texts need {windows} windows, and {self._settings.max_windows} is the most for one request"
            )
        jobs = [_Job(bank, calibration, item, current()) for item in prepared]
        if windows <= self._settings.max_batch_windows:
            return await self._batcher.run(jobs)
        return [await self._score_long(job) for job in jobs]

    async def _score_long(self, job: _Job) -> Score:
        """A long text goes piece by piece, each queued when the one before is done: others get their turn between."""
        scores: list[Score] = []
        for piece in job.prepared.split(self._settings.max_batch_windows):
            scores += await self._batcher.run([replace(job, prepared=piece)])
        return Score.worst(scores)

    async def _prepare(self, bank: Bank, subject: Subject, tenant: str) -> Prepared:
        prepare = partial(bank.prepare, subject.text, side=subject.side, prompt=subject.prompt, scope=tenant)
        loop = asyncio.get_running_loop()
        try:
            if len(subject.text) <= _INLINE_CHARS:
                return prepare()
            async with asyncio.timeout(self._settings.timeout_s):
                return await loop.run_in_executor(self._cutter, prepare)
        except TimeoutError:
            raise ScreeningUnavailable("the text was not cut into windows in time; try again") from None
        except Exception as error:  # noqa: BLE001  # whatever a reading of it met, this text was not screened
            logger().error("a text could not be cut", error=type(error).__name__, characters=len(subject.text))
            raise ScreeningUnavailable("the text could not be screened") from None

    def _check_length(self, chars: int) -> None:
        most = self._settings.max_windows * _WINDOW_TOKENS * _LONGEST_TOKEN_CHARS
        if chars > most:
            raise TooLarge(f"the texts are {chars} characters long, and {most} is the most for one request")

    def _count_lookups(self, asked: int, missed: int) -> None:
        if asked > missed:
            self._metrics.cache_lookups.labels("hit").inc(asked - missed)
        if missed:
            self._metrics.cache_lookups.labels("miss").inc(missed)


class ScoreCache:
    """The scores of one bank, least recently used first to go. Holds digests, never texts."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._scores: OrderedDict[bytes, Score] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, key: bytes) -> Score | None:
        score = self._scores.get(key)
        if score is not None:
            self._scores.move_to_end(key)
        return score

    def put(self, key: bytes, score: Score) -> None:
        self._scores[key] = score
        if len(self._scores) > self._most:
            self._scores.popitem(last=False)


def _key(tenant: str, subject: Subject) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in (tenant, subject.side, subject.prompt, subject.text):
        # Lengths keep the parts apart; no prompt and an empty one are different.
        raw = b"" if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % (-1 if part is None else len(raw)))
        digest.update(raw)
    return digest.digest()


def _score_jobs(on_scored: OnScored | None, jobs: list[_Job]) -> list[Score]:
    """Score a batch; around a swap it can hold jobs of two banks."""
    of_one_bank = all(job.bank is jobs[0].bank for job in jobs)
    scores = _scores(jobs) if of_one_bank else [_scores([job])[0] for job in jobs]
    found = [job.calibration.applied(score, job.prepared.side) for job, score in zip(jobs, scores, strict=True)]
    if on_scored is not None:
        for job, score in zip(jobs, found, strict=True):
            on_scored(job.bank, job.prepared, score)
    return found


def _scores(jobs: list[_Job]) -> list[Score]:
    """Score jobs of one bank; where some are traced, encoding and searching are timed apart."""
    bank, prepared = jobs[0].bank, [job.prepared for job in jobs]
    traces = {job.trace for job in jobs if job.trace is not None and job.trace.recording}
    if not traces:
        return bank.score_prepared(prepared)
    began_s = time.perf_counter()
    vectors = bank.vectors_for(prepared)
    encoded_s = time.perf_counter()
    scores = bank.score_prepared(prepared, vectors)
    ended_s, windows = time.perf_counter(), sum(item.windows for item in prepared)
    for trace in traces:
        trace.add("encode", began_s, encoded_s, windows=windows)
        trace.add("search", encoded_s, ended_s, windows=windows)
    return scores
