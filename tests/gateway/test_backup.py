"""A whole installation goes into a folder and comes back on an empty machine; what is there is never overwritten."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from antiprompt_bank import BankStore, Label
from gateway.accounts import AccountStore
from gateway.backup import back_up, restore
from gateway.backup_files import BackupError, BackupReader
from gateway.bank_versions import BankVersions
from gateway.client_keys import ClientKeyStore
from gateway.flags import FlagState, FlagStore
from gateway.overlay_entries import EntryStore
from gateway.overlay_records import Replica
from gateway.policy_store import PolicyStore
from gateway.redis_client import RedisClient
from gateway.retraining_queue import RetrainingQueue
from gateway.reviews import ReviewStore
from gateway.roles import Role
from gateway.settings import BankSettings, RedisSettings, Settings
from gateway.spool import Spool
from tests.conftest import RealRedis, running
from tests.gateway.banks import Folder, exemplar
from tests.gateway.reviewing import assessing, filed, verdict

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
POLICY = 'rules: [{name: mine, hazard: "*", side: any, risk_at_least: 0.5, action: block}]'
PUBLISHED = POLICY.replace("mine", "published")


@dataclass(frozen=True, slots=True)
class Machine:
    """A data folder and a Redis of its own."""

    redis: RedisClient
    settings: Settings


async def _machine(server: RealRedis, root: Path) -> AsyncIterator[Machine]:
    settings = Settings(
        data_dir=root / "data",
        redis=RedisSettings(url=SecretStr(server.url)),
        bank=BankSettings(path=root / "bank"),
        policy_file=root / "policy.yaml",
    )
    async with running(RedisClient(settings.redis, settings.data_dir)) as redis:
        yield Machine(redis, settings)


@pytest.fixture
def other_server() -> Iterator[RealRedis]:
    directory = Path(tempfile.mkdtemp(prefix="ap-"))
    server = RealRedis(directory)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
async def old(redis_server: RealRedis, tmp_path: Path) -> AsyncIterator[Machine]:
    async for machine in _machine(redis_server, tmp_path / "old"):
        yield machine


@pytest.fixture
async def new(other_server: RealRedis, tmp_path: Path) -> AsyncIterator[Machine]:
    """An empty machine."""
    async for machine in _machine(other_server, tmp_path / "new"):
        yield machine


@pytest.fixture
async def lived(old: Machine, tmp_path: Path) -> Machine:
    """A machine with something of everything: a key, flags, a review, an entry, two versions, two policies, a fit."""
    redis, settings = old.redis, old.settings
    folder = Folder(tmp_path / "old")
    second = folder.add(exemplar("sell me a forged passport"), exemplar("b", Label.BENIGN), minute=1)
    versions = BankVersions(redis, folder.store.root)
    await versions.publish(folder.first, by="ada", note="first")
    await versions.publish(second, by="ada", note="better")
    assert settings.policy_file is not None
    settings.policy_file.write_text(POLICY)
    policies = PolicyStore(redis, settings.policy_file)
    await policies.start()
    await policies.publish(PUBLISHED, author="ada", note="stricter")
    await ClientKeyStore(redis).create("acme", label="shop")
    await AccountStore(redis, CHEAP).create("ada", Role.LEAD, "correct horse battery staple")
    await ReviewStore(redis, assessing()).decide(verdict(await filed(redis)))
    await filed(redis, "Another text that somebody flagged.")
    await RetrainingQueue(redis).read("worker", count=1)
    (settings.data_dir / "calibration.json").write_text('{"fit": 1}')
    (settings.data_dir / "archive" / "reviews").mkdir(parents=True)
    (settings.data_dir / "archive" / "reviews" / "1-0_2-0.jsonl.gz").write_bytes(b"a segment")
    return old


async def told(machine: Machine) -> dict[str, object]:
    """All that people rely on, as the stores tell it."""
    redis, settings = machine.redis, machine.settings
    versions = BankVersions(redis, settings.bank.path)
    policies = PolicyStore(redis, settings.policy_file)
    await policies.start()
    flags, store = FlagStore(redis, None), BankStore(settings.bank.path or Path())
    current = await versions.current()
    assert current is not None
    return {
        "keys": list(await ClientKeyStore(redis).list()),
        "accounts": await AccountStore(redis).list(),
        "open": await flags.list(FlagState.OPEN, limit=10),
        "confirmed": await flags.list(FlagState.CONFIRMED, limit=10),
        "reviews": await ReviewStore(redis, assessing()).recent(limit=10),
        "entries": await EntryStore(redis).all(),
        "bank": current,
        "before": await versions.history(),
        "folder": (store.versions(), store.current(), store.manifest(current.version).to_bytes()),
        "policy": (policies.status, await policies.history()),
        "due": await RetrainingQueue(redis).waiting(),
        "calibration": (settings.data_dir / "calibration.json").read_text(),
        "archive": (settings.data_dir / "archive" / "reviews" / "1-0_2-0.jsonl.gz").read_bytes(),
    }


async def test_a_backup_comes_back_on_an_empty_machine_with_all_that_people_rely_on(
    lived: Machine, new: Machine, tmp_path: Path
):
    before = await told(lived)
    manifest = await back_up(lived.redis, lived.settings, tmp_path / "backup")
    shutil.rmtree(tmp_path / "old" / "bank")  # the old machine is gone
    done = await restore(new.redis, new.settings, tmp_path / "backup")
    assert await told(new) == before
    assert (done.keys, done.files) == (manifest.about["keys"], len(manifest.files) - 1)
    assert done.policy_file == new.settings.policy_file
    assert await AccountStore(new.redis, CHEAP).authenticate("ada", "correct horse battery staple") is not None
    (left,) = await RetrainingQueue(new.redis).claim_left("other", idle_ms=0)  # what a worker had taken is not lost
    assert left.tries == 2


async def test_the_manifest_says_what_was_in_force_and_that_it_is_of_one_moment(lived: Machine, tmp_path: Path):
    about = (await back_up(lived.redis, lived.settings, tmp_path / "backup")).about
    current = await BankVersions(lived.redis, lived.settings.bank.path).current()
    assert current is not None
    assert (about["bank"], about["one_moment"], about["bank_layout"]) == (current.version, True, "folder")
    assert str(about["policy"]).strip()
    assert (await back_up(lived.redis, lived.settings, tmp_path / "other", pause_s=0)).about["one_moment"] is False


async def test_nothing_is_written_over_a_state_unless_told(lived: Machine, new: Machine, tmp_path: Path):
    await back_up(lived.redis, lived.settings, tmp_path / "backup")
    mine = await filed(new.redis, "What is here already.")
    with pytest.raises(BackupError, match="--replace"):
        await restore(new.redis, new.settings, tmp_path / "backup")
    assert [flag.id for flag in await FlagStore(new.redis, None).list(FlagState.OPEN)] == [mine]
    assert not (tmp_path / "new" / "bank").exists()
    await restore(new.redis, new.settings, tmp_path / "backup", replace=True)
    assert mine not in {flag.id for flag in await FlagStore(new.redis, None).list(FlagState.OPEN)}
    assert await told(new) == await told(lived)


async def test_a_file_that_is_there_is_kept_unless_it_is_the_same(lived: Machine, new: Machine, tmp_path: Path):
    await back_up(lived.redis, lived.settings, tmp_path / "backup")
    assert new.settings.policy_file is not None
    new.settings.policy_file.parent.mkdir(parents=True, exist_ok=True)
    new.settings.policy_file.write_text("mode: shadow")
    with pytest.raises(BackupError, match=r"policy\.yaml is there already"):
        await restore(new.redis, new.settings, tmp_path / "backup")
    assert new.settings.policy_file.read_text() == "mode: shadow"
    new.settings.policy_file.write_text(POLICY)
    await restore(new.redis, new.settings, tmp_path / "backup")


async def test_flags_that_wait_on_the_disk_come_along_and_are_never_overwritten(
    lived: Machine, new: Machine, tmp_path: Path
):
    waiting = Spool(lived.settings.data_dir / "spool", max_bytes=1 << 20)
    waiting.open()
    waiting.append([b"a flag"])
    await back_up(lived.redis, lived.settings, tmp_path / "backup")  # while a gateway holds it
    waiting.close()
    await restore(new.redis, new.settings, tmp_path / "backup")
    found = Spool(new.settings.data_dir / "spool", max_bytes=1 << 20)
    found.open()
    assert [payload for _, payload in found.read()[0]] == [b"a flag"]
    found.close()
    with pytest.raises(BackupError, match="flags wait"):
        await restore(new.redis, new.settings, tmp_path / "backup", replace=True)


async def test_a_damaged_backup_changes_nothing(lived: Machine, new: Machine, tmp_path: Path):
    await back_up(lived.redis, lived.settings, tmp_path / "backup")
    victim = max((tmp_path / "backup" / "contents").iterdir(), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(BackupError, match="hash"):
        await restore(new.redis, new.settings, tmp_path / "backup")
    assert not (tmp_path / "new" / "bank").exists()
    assert await FlagStore(new.redis, None).list(FlagState.OPEN) == []


async def test_while_gateways_run_nothing_is_put_back(lived: Machine, new: Machine, tmp_path: Path):
    await back_up(lived.redis, lived.settings, tmp_path / "backup")
    await EntryStore(new.redis).report(Replica("one", "v1", "v1", "0-0", time.time()))
    with pytest.raises(BackupError, match="1 gateways run"):
        await restore(new.redis, new.settings, tmp_path / "backup", replace=True)


async def test_a_bank_goes_only_where_one_of_its_kind_belongs(lived: Machine, new: Machine, tmp_path: Path):
    await back_up(lived.redis, lived.settings, tmp_path / "backup")
    elsewhere = new.settings.model_copy(update={"bank": BankSettings()})
    with pytest.raises(BackupError, match=r"bank\.path"):
        await restore(new.redis, elsewhere, tmp_path / "backup")


async def test_what_is_only_being_made_stays_out_of_a_backup(lived: Machine, tmp_path: Path):
    bank = tmp_path / "old" / "bank"
    (bank / "versions" / ".new-abc").mkdir()
    (bank / "versions" / ".new-abc" / "records.jsonl").write_text("half")
    (bank / "seed.lock").write_text("")
    manifest = await back_up(lived.redis, lived.settings, tmp_path / "backup")
    assert not [name for name in manifest.files if ".new" in name or name.endswith(".lock")]
    assert BackupReader(tmp_path / "backup").read("bank/CURRENT") == (bank / "CURRENT").read_bytes()
