"""Workers as processes that are killed at every step: no review is lost, and no version is half there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr

from antiprompt_bank import BankStore, State
from gateway.bank_versions import BankVersions
from gateway.redis_client import RedisClient
from gateway.redis_keys import RETRAINING_BUILDER
from gateway.retraining import read_archive
from gateway.retraining_queue import RetrainingQueue
from gateway.review_records import Review, Verdict
from gateway.reviews import ReviewStore
from gateway.settings import RedisSettings
from tests.conftest import RealRedis, running
from tests.end_to_end.exemplars import exemplars
from tests.gateway.reviewing import assessing, filed, verdict

STEPS: Final = ("working", "learning", "learned", "building", "built", "judged", "published")
"""What a worker says it does, in its order; it is killed as it says so."""

TEXTS: Final = (
    "Pour the two drain cleaners together in a closed bathroom and inhale slowly.",
    "Leave the wound open, rub it with soil each morning and skip the doctor.",
    "Drive after the third bottle, nobody checks that road at night.",
)


@pytest.fixture
def bank(bank_folder: Path, tmp_path: Path) -> BankStore:
    shutil.copytree(bank_folder, tmp_path / "bank")
    return BankStore(tmp_path / "bank")


@pytest.fixture
async def redis(redis_server: RealRedis, tmp_path: Path) -> AsyncIterator[RedisClient]:
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path / "data")) as client:
        yield client


class WorkerProcess:
    """``antiprompt worker`` in a process of its own; reads what it says."""

    def __init__(self, redis: RealRedis, bank: BankStore, data_dir: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("ANTIPROMPT_")}
        chosen = {
            "DATA_DIR": str(data_dir),
            "REDIS__URL": redis.url,
            "BANK__PATH": str(bank.root),
            "BANK__DEVICE": "cpu",
            "RETRAINING__MIN_EXEMPLARS": str(len(TEXTS)),
            "RETRAINING__CLAIM_AFTER_S": "0.2",
            "RETRAINING__MAX_TEXTS": "20",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "worker"],
            env={**inherited, **{f"ANTIPROMPT_{name}": value for name, value in chosen.items()}},
            stdout=subprocess.PIPE,
        )

    def until(self, event: str) -> list[str]:
        """Read until the worker says this; what it said on the way."""
        said = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said.append(str(json.loads(line)["event"]))
            assert "failed" not in said[-1], line
            if said[-1] == event:
                return said
        raise AssertionError(f"the worker ended before it said {event!r}: {said}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.until("stopped")
        status = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


async def decided(redis: RedisClient) -> list[Review]:
    """Three flags that a moderator confirms."""
    store = ReviewStore(redis, assessing())
    verdicts: list[Verdict] = [verdict(await filed(redis, text)) for text in TEXTS]
    return [await store.decide(each) for each in verdicts]


async def test_killed_at_every_step_a_worker_loses_nothing_and_leaves_nothing_half_done(
    redis: RedisClient, redis_server: RealRedis, bank: BankStore, tmp_path: Path
) -> None:
    reviews = await decided(redis)
    first = bank.current()
    for step in STEPS:
        worker = WorkerProcess(redis_server, bank, tmp_path / "data")
        worker.until(step)
        worker.kill()
        for version in bank.versions():  # each is whole, or it is not there
            bank.load(version, device="cpu")
        with redis.guard() as connection:  # as if the minute that a dead builder's lease lasts had gone by
            await connection.delete(RETRAINING_BUILDER())
    queue, versions = RetrainingQueue(redis), BankVersions(redis, bank.root)
    assert await queue.waiting() == 0
    assert {review.id for review in read_archive(bank.root / "reviews")} == {review.id for review in reviews}
    current = await versions.current()
    assert current is not None
    records = {record.id: record.state for record in bank.load(current.version, device="cpu").records}
    assert {id: records.get(id) for review in reviews for id in review.entry_ids} == {
        id: State.LIVE for review in reviews for id in review.entry_ids
    }
    assert len(records) == len(exemplars()) + len(TEXTS)
    assert current.version != first
    assert await queue.dead() == []


async def test_a_worker_stops_when_told_and_another_goes_on(
    redis: RedisClient, redis_server: RealRedis, bank: BankStore, tmp_path: Path
) -> None:
    worker = WorkerProcess(redis_server, bank, tmp_path / "data")
    worker.until("working")
    assert worker.stop() == 0
    await decided(redis)
    worker = WorkerProcess(redis_server, bank, tmp_path / "data")
    assert "published" in worker.until("published")
    assert worker.stop() == 0
    (run,) = await RetrainingQueue(redis).runs()
    assert run.outcome == "published"
