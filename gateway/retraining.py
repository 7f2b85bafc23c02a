"""Retraining: the worker that learns from reviews, and one attempt at a new version, by it or by hand.

A worker reads the stream of reviews as one of a consumer group. Learning a review means: keep it beside the versions
(``reviews/``, one file each), and note its exemplars as due. When enough are due, or the oldest has waited long enough,
one worker builds a candidate, holds it against the gate and publishes it, or writes down why not.

Whatever dies whenever, nothing is lost and nothing is half done: a review leaves the stream in the transaction that
notes its exemplars; a version is in its folder whole or not at all; publishing is one transaction. What was confirmed
acts through the overlay all the while, and a build that died is begun again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from antiprompt_bank import Bank, BankStore
from antiprompt_bank.layers import Layers
from gateway.bank_versions import BankVersions
from gateway.chosen_bank import load_version, remote_versions, versions_folder
from gateway.errors import Conflict, NotFound, StateUnavailable
from gateway.overlay_entries import EntryStore
from gateway.overlay_records import BankEntry
from gateway.redis_client import RedisClient, end_tasks
from gateway.retraining_candidate import Tell, build_candidate, confirmed_by_people
from gateway.retraining_gate import GateReport, Material, compare
from gateway.retraining_material import held_out
from gateway.retraining_queue import LEASE_MS, Delivery, RetrainingQueue, Run
from gateway.review_records import Decision, Review
from gateway.reviews import ReviewStore
from gateway.settings import Settings
from gateway.telemetry import logger

POLL_S: Final = 0.5
BY: Final = "antiprompt worker"


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class NotDue(Exception):
    """There is nothing to build from; the message says so."""


@dataclass(frozen=True, slots=True)
class _Built:
    candidate: Bank
    report: GateReport


class Retraining:
    """One attempt at a new version. ``once`` is what the worker and ``antiprompt retrain --once`` do."""

    def __init__(self, redis: RedisClient, settings: Settings) -> None:
        self.queue = RetrainingQueue(redis)
        self._settings = settings
        self._entries = EntryStore(redis)
        self._store = BankStore(versions_folder(settings))
        self._versions = BankVersions(
            redis, self._store.root, pinned=settings.bank.version, remote=remote_versions(settings)
        )

    async def once(self, *, by: str = BY, tell: Tell = quiet) -> Run:
        """Build a candidate from all that was decided, and publish it if the gate lets it through.

        Raises ``Conflict`` where another worker builds or settings pin a version, ``NotDue`` where no entry differs
        from the version in force, and ``BankError`` or ``StateUnavailable``.
        """
        if self._versions.pinned is not None:
            raise Conflict(f"settings pin bank.version to {self._versions.pinned}, so no new one is made")
        token = await self.queue.take_build()
        if token is None:
            raise Conflict("another worker is building a version now")
        keeping = asyncio.create_task(self._keep(token))
        try:
            return await self._build(token, by, tell)
        finally:
            await end_tasks(keeping)
            with suppress(StateUnavailable):  # the lease runs out by itself
                await self.queue.end_build(token)

    async def _build(self, token: str, by: str, tell: Tell) -> Run:
        began_s = time.time()
        entries = list(await self._entries.all())
        current = await self._versions.current()
        base = await asyncio.to_thread(load_version, self._settings, None if current is None else current.version, None)
        _say("building", base=base.version, entries=len(entries))
        built = await asyncio.to_thread(self._judged, base, entries, tell)
        version, report = built.candidate.version, built.report
        _say("judged", candidate=version, passed=report.passed, refused=list(report.refused))
        await self._versions.keep_scores(version, report.to_json())
        if report.passed:
            if not await self.queue.keep_build(token):
                raise Conflict("the build took too long without a sign of life, and another worker has begun one")
            held = await self._versions.current()
            if held != current:
                raise Conflict("another version was published meanwhile; the next build starts from it")
            await self._versions.publish(version, by=by, note=f"{len(entries)} entries since {base.version}")
            _say("published", version=version)
        outcome = "published" if report.passed else "refused"
        run = Run(time.time(), outcome, base.version, version, report.refused, report.to_json())
        await self.queue.finish(run, until=began_s)
        return run

    def _judged(self, base: Bank, entries: list[BankEntry], tell: Tell) -> _Built:
        layers = Layers(base)
        in_force = layers.with_records([entry.record for entry in entries if not entry.awaits_second])
        if in_force is base:
            raise NotDue(f"nothing was decided that {base.version} does not hold already")
        candidate = build_candidate(base, entries, self._store, self._settings, tell)
        _say("built", candidate=candidate.version)
        material = Material(*held_out(self._settings, candidate), confirmed_by_people(base.records, entries))
        promise = self._settings.retraining.max_false_positives
        report = compare(base, in_force, candidate, material, promise=promise, tell=tell)
        return _Built(candidate, report)

    async def _keep(self, token: str) -> None:
        while True:
            await asyncio.sleep(LEASE_MS / 4000)
            with suppress(StateUnavailable):
                await self.queue.keep_build(token)


class Worker:
    """Learns reviews until ``stop``; any number of them share the work."""

    def __init__(self, redis: RedisClient, settings: Settings, *, name: str | None = None) -> None:
        self._redis = redis
        self._settings = settings.retraining
        self._name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._retraining = Retraining(redis, settings)
        self._queue = self._retraining.queue
        self._reviews = ReviewStore(redis)
        self._folder = versions_folder(settings) / "reviews"
        self._stopping = asyncio.Event()
        self._left_s = 0.0
        self._not_before_s = 0.0

    def stop(self) -> None:
        """End after what is under way; a build is left to end, or to be begun again by another worker."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until ``stop``. Redis may come and go."""
        _say("working", worker=self._name)
        while not self._stopping.is_set():
            try:
                worked = await self._learn_some()
                await self._retrain_if_due()
            except StateUnavailable:
                worked = False
            except Exception as error:  # noqa: BLE001  # the loop outlives whatever one round meets, and says what
                logger().error("a round of the worker failed", error=type(error).__name__, exc_info=error)
                worked = False
            if not worked:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._stopping.wait()
        _say("stopped", worker=self._name)

    async def _learn_some(self) -> bool:
        deliveries = list(await self._queue.read(self._name))
        if time.monotonic() >= self._left_s:
            idle_ms = int(self._settings.claim_after_s * 1000)
            deliveries += await self._queue.claim_left(self._name, idle_ms=idle_ms)
            self._left_s = time.monotonic() + self._settings.claim_after_s / 2
        for delivery in deliveries:
            await self._learn(delivery)
            if self._stopping.is_set():
                break  # the others stay pending, for another worker
        return bool(deliveries)

    async def _learn(self, delivery: Delivery) -> None:
        try:
            review = await self._reviews.review(delivery.review_id)
            await asyncio.to_thread(archive, self._folder, review)
        except (NotFound, OSError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            logger().error("a review was not learned", review=delivery.review_id, tries=delivery.tries, reason=reason)
            if delivery.tries >= self._settings.max_tries:
                await self._queue.bury(delivery, reason)
            return  # it stays pending, and is tried again once it is claimed
        due = review.entry_ids if review.decision is not Decision.ESCALATE else ()
        _say("learning", review=review.id)
        await self._queue.done(delivery, due)
        _say("learned", review=review.id)

    async def _retrain_if_due(self) -> None:
        if time.monotonic() < self._not_before_s:
            return
        due = await self._queue.due()
        waited_s = 0.0 if due.since is None else time.time() - due.since
        if not due.exemplars or (due.exemplars < self._settings.min_exemplars and waited_s < self._settings.max_wait_s):
            return
        began_s = time.time()
        try:
            await self._retraining.once()
        except Conflict:
            self._not_before_s = time.monotonic() + LEASE_MS / 1000
        except NotDue as nothing:
            run = Run(time.time(), "nothing", "", None, (str(nothing),))
            await self._queue.finish(run, until=began_s)
        except StateUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  # a build that fails is told, and tried again later
            logger().error("a build failed", error=type(error).__name__, exc_info=error)
            self._not_before_s = time.monotonic() + self._settings.retry_s
            run = Run(time.time(), "failed", "", None, (f"{type(error).__name__}: {error}",))
            await self._queue.finish(run, until=0.0)


def archive(folder: Path, review: Review) -> Path:
    """Keep a review beside the versions, one file each, there whole or not at all; again changes nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{review.id}.json"
    content = review.to_json().encode()
    handle, made = tempfile.mkstemp(prefix=".new-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(place)
    except OSError:
        Path(made).unlink(missing_ok=True)
        raise
    return place


def read_archive(folder: Path) -> list[Review]:
    """The reviews that were kept, by id."""
    return [Review.from_row({"review": path.read_text("utf-8")}) for path in sorted(folder.glob("*.json"))]


def _say(event: str, **values: object) -> None:
    logger().info(event, **values)
