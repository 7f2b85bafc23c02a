"""Gateways with folders of their own, and an object store between them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from antiprompt_bank import Bank, BankNotFound, BankStore
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.remote import RemoteVersions
from gateway.bank_versions import BankVersions
from gateway.chosen_bank import load_version
from gateway.errors import StateUnavailable
from gateway.redis_client import RedisClient
from gateway.settings import BankSettings, Settings
from tests.gateway.banks import NEW, Folder, Follower, exemplar


def settings_for(folder: Path, remote: str) -> Settings:
    return Settings(data_dir=folder, bank=BankSettings(path=folder / "bank", remote=remote))


async def test_a_gateway_fetches_the_version_that_was_put_in_force_elsewhere(
    redis_client: RedisClient, tmp_path: Path
) -> None:
    remote, here, there = f"file://{tmp_path}/remote", Folder(tmp_path / "here"), Folder(tmp_path / "there")
    versions = BankVersions(redis_client, here.store.root, remote=RemoteVersions(remote))
    settings = settings_for(tmp_path / "there", remote)
    follower = Follower(redis_client, there, "other")

    def load(version: str | None, encoder: Encoder | None) -> Bank:
        return load_version(settings, version, there.encoder) if version else there.load(version, encoder)

    follower.overlay._load = load
    async with follower.running():
        await follower.overlay.begin()
        following = asyncio.create_task(follower.overlay.follow(interval_s=0.01))
        version = here.add(exemplar(NEW), minute=1, parent=here.first)
        assert version not in there.store.versions()
        await versions.publish(version, by="ada", note="new")
        async with asyncio.timeout(20):
            while follower.overlay.state.base != version:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await follower.risk(NEW) > 0.5
        following.cancel()
    assert there.store.manifest(version).files == here.store.manifest(version).files


async def test_a_version_that_only_the_object_store_has_can_be_put_in_force(
    redis_client: RedisClient, tmp_path: Path
) -> None:
    remote, elsewhere = RemoteVersions(f"file://{tmp_path}/remote"), Folder(tmp_path / "elsewhere")
    version = elsewhere.add(exemplar(NEW), minute=1)
    remote.push(elsewhere.store, version)
    here = Folder(tmp_path / "here")
    published = await BankVersions(redis_client, here.store.root, remote=remote).publish(version, by="ada", note="new")
    assert published.version == here.store.current() == version


async def test_nothing_is_put_in_force_that_other_gateways_could_not_fetch(
    redis_client: RedisClient, tmp_path: Path
) -> None:
    (tmp_path / "remote").write_text("a file, where a folder should be")
    here = Folder(tmp_path / "here")
    versions = BankVersions(redis_client, here.store.root, remote=RemoteVersions(f"file://{tmp_path}/remote"))
    with pytest.raises(StateUnavailable, match="nothing was put in force"):
        await versions.publish(here.first, by="ada", note="new")
    assert await versions.current() is None


def test_a_version_that_nobody_has_is_looked_for_everywhere(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, f"file://{tmp_path}/remote")
    folder = Folder(tmp_path)
    assert settings.bank.path == folder.store.root
    with pytest.raises(BankNotFound):
        load_version(settings, "20200101T000000000Z-0123456789ab", folder.encoder)
    assert BankStore(folder.store.root).versions() == (folder.first,)
