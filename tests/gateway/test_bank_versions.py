from pathlib import Path

import pytest

from gateway.bank_versions import BankVersions
from gateway.errors import BadRequest, NotFound
from gateway.redis_client import RedisClient
from gateway.reviews import ReviewStore
from tests.gateway.banks import Folder, exemplar


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "versions")


@pytest.fixture
def versions(redis_client: RedisClient, folder: Folder) -> BankVersions:
    return BankVersions(redis_client, folder.store.root)


async def test_what_is_published_can_be_taken_back_step_by_step(
    versions: BankVersions, folder: Folder, redis_client: RedisClient
) -> None:
    second = folder.add(exemplar("a b c"), minute=1, parent=folder.first)
    assert await versions.current() is None
    published = await versions.publish(second, by="ada", note="better")
    assert (published.before, published.action) == (folder.first, "publish")
    assert await versions.current() == published
    assert folder.store.current() == second  # for a gateway that starts while Redis is away
    back = await versions.rollback(by="grace", note="worse")
    assert (back.version, back.action, back.before) == (folder.first, "rollback", second)
    assert folder.store.current() == folder.first
    assert [(each.action, each.version, each.by) for each in await versions.history()] == [
        ("rollback", folder.first, "grace"),
        ("publish", second, "ada"),
    ]
    assert [each.action for each in await ReviewStore(redis_client).audit()] == ["bank rollback", "bank publish"]
    assert versions.versions() == (second, folder.first)


async def test_publishing_again_does_not_lose_the_way_back(versions: BankVersions, folder: Folder) -> None:
    second = folder.add(exemplar("a b c"), minute=1)
    for _ in range(2):
        await versions.publish(second, by="ada", note="better")
    assert (await versions.rollback(by="ada", note="worse")).version == folder.first


async def test_an_older_version_is_named(versions: BankVersions, folder: Folder) -> None:
    later = [folder.add(exemplar(text), minute=minute) for minute, text in enumerate(("a b", "c d"), start=1)]
    for version in later:
        await versions.publish(version, by="ada", note="better")
    assert (await versions.rollback(version=folder.first, by="ada", note="oldest")).version == folder.first


async def test_what_is_not_there_is_not_put_in_force(versions: BankVersions, folder: Folder) -> None:
    for version in ("20200101T000000000Z-000000000000", "../x", ""):
        with pytest.raises(NotFound):
            await versions.publish(version, by="ada", note="x")
    with pytest.raises(NotFound):
        await versions.rollback(by="ada", note="there is nothing before the first")
    assert await versions.current() is None


async def test_a_damaged_version_is_not_put_in_force(versions: BankVersions, folder: Folder) -> None:
    second = folder.add(exemplar("a b c"), minute=1)
    manifest = folder.store.root / "versions" / second / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"harmful", b"HARMFUL"))
    with pytest.raises(NotFound, match="changed after"):
        await versions.publish(second, by="ada", note="x")


@pytest.mark.parametrize(("by", "note"), [("", "x"), ("ada", " "), ("ada", "x" * 1001)])
async def test_whoever_publishes_says_who_they_are_and_why(
    by: str, note: str, versions: BankVersions, folder: Folder
) -> None:
    with pytest.raises(BadRequest):
        await versions.publish(folder.first, by=by, note=note)


async def test_scores_stand_beside_a_version(versions: BankVersions, folder: Folder) -> None:
    assert await versions.scores(folder.first) is None
    await versions.keep_scores(folder.first, {"recall": 0.9})
    assert await versions.scores(folder.first) == {"recall": 0.9}


async def test_without_a_folder_there_is_nothing_to_publish(redis_client: RedisClient) -> None:
    versions = BankVersions(redis_client, None)
    assert versions.versions() == []
    with pytest.raises(NotFound):
        await versions.publish("20200101T000000000Z-000000000000", by="ada", note="x")
