"""Parts: everything a gateway process is made of, built once, started and stopped in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from antiprompt_bank import Bank, Prepared, Score
from gateway.accounts import AccountStore
from gateway.archive import Archive
from gateway.auth import Authenticator
from gateway.bank_versions import BankVersions
from gateway.bookkeeping import Bookkeeper
from gateway.calibration import Status, calibration_for
from gateway.cases import CaseStore
from gateway.chosen_bank import load_version, remote_versions, versions_folder
from gateway.client_keys import ClientKeyStore
from gateway.conduct import EndUsers
from gateway.exemplar_hits import ExemplarHits
from gateway.flags import FlagStore
from gateway.history import TenantHistory
from gateway.hold_webhooks import HoldWebhooks
from gateway.http_client import HttpClient
from gateway.influence import Influence, shipped_harmless
from gateway.judgement import Judge
from gateway.moderator_sessions import SessionStore
from gateway.observing import Observer
from gateway.oidc import IdentityProvider
from gateway.overlay import Overlay
from gateway.overlay_entries import EntryStore
from gateway.policy_store import PolicyStore
from gateway.proxy import Proxy
from gateway.quotas import Quotas
from gateway.redis_client import RedisClient, end_tasks
from gateway.replies import Replies
from gateway.retraining_queue import RetrainingQueue
from gateway.reviews import ReviewStore
from gateway.screening import Screener, Subject
from gateway.settings import Settings
from gateway.spool import Spool
from gateway.strikes import StrikeStore
from gateway.telemetry import Metrics, logger
from gateway.traffic import Traffic
from gateway.upstream import Upstream


@dataclass(slots=True)
class Readiness:
    """Whether traffic should come: the bank is loaded and has judged a text. ``failure`` says why it never will."""

    bank: str | None = None
    screener: Screener | None = None
    failure: str | None = None
    redis: RedisClient | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ready(self) -> bool:
        return self.bank is not None and self.failure is None

    def report(self) -> dict[str, Any]:
        """For /readyz: no addresses, no settings, no keys."""
        status = "ready" if self.ready else "failed" if self.failure else "starting"
        redis = "up" if self.redis is not None and self.redis.available else "away"
        calibration: Status | None = None
        bank = self.bank
        if self.screener is not None and self.screener.bank is not None:
            calibration = self.screener.calibration.status
            bank = self.screener.bank.version if self.ready else None
        return {
            "status": status,
            "bank": bank,
            "calibration": calibration,
            "redis": redis,
            "reason": self.failure,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one gateway process."""

    settings: Settings
    metrics: Metrics
    redis: RedisClient
    keys: ClientKeyStore
    authenticator: Authenticator
    quotas: Quotas
    strikes: StrikeStore
    end_users: EndUsers
    webhooks: HoldWebhooks
    hits: ExemplarHits
    policies: PolicyStore
    screener: Screener
    judge: Judge
    http: HttpClient
    history: TenantHistory
    cases: CaseStore
    flags: FlagStore
    bookkeeper: Bookkeeper
    proxy: Proxy
    accounts: AccountStore
    sessions: SessionStore
    identity: IdentityProvider
    reviews: ReviewStore
    entries: EntryStore
    versions: BankVersions
    overlay: Overlay
    traffic: Traffic
    influence: Influence
    retraining: RetrainingQueue
    archive: Archive
    observer: Observer
    readiness: Readiness = field(default_factory=Readiness)


def build(settings: Settings, metrics: Metrics, base_url: str) -> Parts:
    """Put the parts together; nothing is started. ``base_url`` is the model server's."""
    redis = RedisClient(settings.redis, settings.data_dir)
    keys = ClientKeyStore(redis)
    authenticator = Authenticator(keys, allowed_hosts=settings.routes.allowed_hosts)
    quotas = Quotas(redis, settings.flags)
    policies = PolicyStore(redis, settings.policy_file)
    traffic, hits = Traffic(redis, settings.retention), ExemplarHits(redis)

    def scored(bank: Bank, prepared: Prepared, score: Score) -> None:
        traffic.note(bank, prepared, score)
        hits.note_scored(bank, prepared, score)

    screener = Screener(
        settings.screening, metrics, calibration_for=partial(calibration_for, settings), on_scored=scored
    )
    influence = Influence(lambda: screener.in_force, traffic, shipped_harmless)
    versions = BankVersions(
        redis, versions_folder(settings), pinned=settings.bank.version, remote=remote_versions(settings)
    )
    overlay = Overlay(
        redis,
        screener,
        versions,
        partial(load_version, settings, threads=settings.screening.threads),
        name=f"{socket.gethostname()}:{settings.port}",
        calibration_for=partial(calibration_for, settings),
    )
    judge = Judge(screener, metrics)
    http = HttpClient(settings.upstream)
    history = TenantHistory(redis)

    def dropped(cause: str, count: int) -> None:
        metrics.dropped_cases.labels(cause).inc(count)

    cases = CaseStore(redis, settings.retention, on_dropped=dropped)
    flags = FlagStore(redis, Spool(settings.data_dir / "spool", max_bytes=settings.flags.max_spool_bytes))
    strikes = StrikeStore(redis, settings.strikes)
    bookkeeper = Bookkeeper(cases, flags, history, quotas, strikes, hits, metrics)
    upstream = Upstream(http, base_url, settings.upstream.api_key, trace_context=settings.tracing.to_upstream)
    replies = Replies(settings, upstream, judge, screener, history, bookkeeper, metrics)
    end_users = EndUsers(strikes, quotas)
    proxy = Proxy(
        settings,
        authenticator,
        quotas,
        end_users,
        policies,
        screener,
        judge,
        replies,
        history,
        bookkeeper,
        redis,
        metrics,
    )
    accounts, retraining = AccountStore(redis), RetrainingQueue(redis)
    observer = Observer(
        metrics=metrics,
        redis=redis,
        flags=flags,
        cases=cases,
        policies=policies,
        screener=screener,
        overlay=overlay,
        retraining=retraining,
    )
    return Parts(
        settings=settings,
        metrics=metrics,
        redis=redis,
        keys=keys,
        authenticator=authenticator,
        quotas=quotas,
        strikes=strikes,
        end_users=end_users,
        hits=hits,
        webhooks=HoldWebhooks(redis, settings.holds, metrics),
        policies=policies,
        screener=screener,
        judge=judge,
        http=http,
        history=history,
        cases=cases,
        flags=flags,
        bookkeeper=bookkeeper,
        proxy=proxy,
        accounts=accounts,
        sessions=SessionStore(redis, accounts, settings.review),
        identity=IdentityProvider(settings.review, redis),
        traffic=traffic,
        influence=influence,
        retraining=retraining,
        archive=Archive(redis, settings),
        observer=observer,
        reviews=ReviewStore(redis, influence.assess),
        entries=EntryStore(redis),
        versions=versions,
        overlay=overlay,
        readiness=Readiness(screener=screener, redis=redis),
    )


@asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """Start the parts in their order, and stop them in the opposite one. The bank loads in the background."""
    async with AsyncExitStack() as stack:
        await parts.redis.start()
        stack.push_async_callback(parts.redis.close)
        await parts.policies.start()
        await parts.flags.start()
        stack.push_async_callback(parts.flags.close)
        await parts.cases.start()
        stack.push_async_callback(parts.cases.close)
        await parts.history.start()
        stack.push_async_callback(parts.history.close)
        stack.push_async_callback(parts.bookkeeper.close)
        await parts.http.start()
        stack.push_async_callback(parts.http.close)
        await parts.webhooks.start()
        stack.push_async_callback(parts.webhooks.close)
        await parts.identity.start()
        stack.push_async_callback(parts.identity.close)
        parts.screener.start()
        stack.push_async_callback(parts.screener.close)
        following = (
            _warm_up(parts),
            parts.policies.follow(),
            parts.overlay.follow(),
            parts.traffic.follow(),
            parts.archive.follow(),
            parts.hits.follow(),
            parts.webhooks.follow(),
            parts.observer.follow(),
        )
        tasks = [asyncio.create_task(work) for work in following]
        for task in tasks:
            task.add_done_callback(_tell_failure)
        stack.push_async_callback(_cancel, tasks)
        yield


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    await end_tasks(*tasks)
    await asyncio.gather(*tasks, return_exceptions=True)


def _tell_failure(task: asyncio.Task[None]) -> None:
    """What runs beside the requests must not end unnoticed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger().error("a background task ended", error=type(error).__name__, exc_info=error)


async def _warm_up(parts: Parts) -> None:
    """Load the bank and judge one text on each side. A gateway that cannot is not ready, and says why."""
    try:
        bank = await parts.overlay.begin()
        subjects = [Subject("Is anybody there?", "request"), Subject("Yes.", "response", "Is anybody there?")]
        await parts.screener.screen(subjects, tenant="")
    except Exception as error:  # noqa: BLE001  # whatever it is, /readyz must tell
        parts.readiness.failure = f"{type(error).__name__}: {error}"
        parts.readiness.settled.set()
        logger().error("the bank could not be loaded", error=parts.readiness.failure)
        return
    parts.readiness.bank = bank.version
    parts.readiness.settled.set()
    calibration = parts.screener.calibration.status
    logger().info(
        "ready", bank=bank.version, encoder=bank.encoder.id, records=len(bank.records), calibration=calibration
    )
