"""This release starts on the state that earlier ones left, and tells of it what they told; so does it of their backups.

``make`` lays such a state down, once for each release.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.datastructures import Headers

from antiprompt_bank import BankStore, State
from gateway.accounts import AccountStore
from gateway.auth import Authenticator
from gateway.backup import restore
from gateway.bank_versions import BankVersions
from gateway.client_keys import ClientKeyStore
from gateway.overlay import Overlay
from gateway.overlay_entries import EntryStore
from gateway.redis_client import RedisClient
from gateway.retraining_queue import RetrainingQueue
from gateway.screening import Screener, Subject
from gateway.settings import BankSettings, RedisSettings, ScreeningSettings, Settings
from gateway.telemetry import Metrics
from tests.conftest import RealRedis, running
from tests.gateway.banks import StoredEncoder
from tests.upgrade.told import told

RELEASES = sorted(path.parent.name for path in Path(__file__).parent.glob("*/told.json"))
CONFIRMED = "Drink a cup of bleach and you will feel fine."
QUESTION = "What helps against a headache?"


@pytest.fixture(params=RELEASES)
def left(request: pytest.FixtureRequest) -> Iterator[Path]:
    """What a release left, where it may be changed; its path is short enough for a unix socket."""
    root = Path(tempfile.mkdtemp(prefix="ap-")) / "left"
    shutil.copytree(Path(__file__).parent / request.param, root)
    yield root
    shutil.rmtree(root.parent)


def expected(root: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((root / "told.json").read_text("utf-8"))
    return read


async def hold(redis: RedisClient, root: Path, bank: Path) -> None:
    """Everything that was told of the state is told of it now, and what it is for still works."""
    was = expected(root)
    token, password = was.pop("token"), was.pop("password")
    now = await told(redis, bank, root / "policy.yaml")
    assert json.loads(json.dumps(now)) == was
    caller = Headers({"authorization": f"Bearer {token}"})
    assert (await Authenticator(ClientKeyStore(redis)).principal(caller, "127.0.0.1")).tenant == "acme"
    assert await AccountStore(redis).authenticate("ada", password) is not None
    taken = await RetrainingQueue(redis).claim_left("a-worker-of-today", idle_ms=0)
    assert len(taken) == 1  # what a worker of then had taken and not finished


def test_there_is_a_state_of_at_least_one_release():
    assert RELEASES


async def test_a_data_folder_of_then_is_one_of_now(left: Path):
    async with running(RedisClient(RedisSettings(), left / "data")) as redis:
        await hold(redis, left, left / "bank")


async def test_a_backup_of_then_is_restored_by_now(left: Path, redis_server: RealRedis, tmp_path: Path):
    settings = Settings(
        data_dir=tmp_path / "data",
        redis=RedisSettings(url=SecretStr(redis_server.url)),
        bank=BankSettings(path=tmp_path / "bank"),
        policy_file=tmp_path / "policy.yaml",
    )
    async with running(RedisClient(settings.redis, settings.data_dir)) as redis:
        await restore(redis, settings, left / "backup")
        await hold(redis, left, tmp_path / "bank")


async def test_a_bank_of_then_decides_with_what_people_added_then(left: Path):
    encoder = StoredEncoder(left / "encoder")
    async with running(RedisClient(RedisSettings(), left / "data")) as redis:
        screener = Screener(ScreeningSettings(), Metrics())
        versions, store = BankVersions(redis, left / "bank"), BankStore(left / "bank")
        overlay = Overlay(
            redis, screener, versions, lambda version, _: store.load(version, encoder=encoder), name="now"
        )
        screener.start()
        try:
            bank = await overlay.begin()
            (score,) = await screener.screen([Subject(CONFIRMED, "response", QUESTION)], tenant="acme")
        finally:
            await screener.close()
        live = [entry for entry in await EntryStore(redis).all() if entry.record.state is State.LIVE]
    assert overlay.state.problem is None
    assert bank.base_version == expected(left)["bank"][0]
    assert {entry.id for entry in live} <= {record.id for record in bank.records}
    assert score.risk > 0.9
