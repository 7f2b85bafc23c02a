from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from antiprompt_bank import Bank, BankStore
from gateway.cli import app
from gateway.redis_client import RedisClient
from gateway.retraining_queue import RetrainingQueue
from tests.bank.conftest import bank_cache, encoder, exemplars, small_bank  # noqa: F401  # one small bank for all


@pytest.fixture(autouse=True)
def environment(small_bank: Bank, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    store = BankStore(tmp_path / "bank")
    store.publish(store.save(small_bank))
    monkeypatch.setenv("ANTIPROMPT_REDIS__URL", redis_url)
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ANTIPROMPT_BANK__PATH", str(store.root))
    monkeypatch.setenv("ANTIPROMPT_BANK__DEVICE", "cpu")


def once(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["retrain", "--once", "--by", "schedule", *arguments])


def test_nothing_to_build_from_is_a_failure_unless_that_is_foreseen() -> None:
    assert once().exit_code == 1
    foreseen = once("--if-any")
    assert foreseen.exit_code == 0, foreseen.output
    assert "nothing was decided" in foreseen.output


async def test_so_is_another_build(redis_client: RedisClient) -> None:
    assert await RetrainingQueue(redis_client).take_build() is not None
    assert (await asyncio.to_thread(once)).exit_code == 1
    foreseen = await asyncio.to_thread(once, "--if-any")
    assert foreseen.exit_code == 0, foreseen.output
    assert "another worker is building" in foreseen.output
