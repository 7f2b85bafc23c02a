from __future__ import annotations

import gzip
import json
from pathlib import Path

import fsspec
import pytest
from pydantic import SecretStr

from gateway.archive import LOGS, Archive, ArchiveError
from gateway.redis_client import RedisClient
from gateway.redis_keys import ARCHIVING, AUDIT, RETRAINING_RUNS, REVIEW_AUDIT, TABLE
from gateway.settings import RedisSettings, RetentionSettings, Settings
from tests.conftest import RealRedis, running

KEPT, SEGMENT = 1000, 100


def settings_for(folder: Path, **retention: object) -> Settings:
    return Settings(data_dir=folder, retention=RetentionSettings(stream_entries=KEPT, **retention))  # type: ignore[arg-type]


@pytest.fixture
def archive(redis_client: RedisClient, tmp_path: Path) -> Archive:
    return Archive(redis_client, settings_for(tmp_path), segment_entries=SEGMENT)


async def fill(redis: RedisClient, count: int) -> list[str]:
    """Entries of the reviews' log, several in each millisecond; their ids."""
    with redis.guard() as connection:
        pipe = connection.pipeline(transaction=False)
        for number in range(count):
            pipe.xadd(REVIEW_AUDIT(), {"actor": "ada", "action": "confirm", "subject": f"rev_{number}", "note": "ä"})
        return [str(id) for id in await pipe.execute()]


async def left(redis: RedisClient) -> list[str]:
    with redis.guard() as connection:
        return [str(id) for id, _ in await connection.xrange(REVIEW_AUDIT())]


def archived(folder: Path) -> list[dict[str, str]]:
    files = sorted((folder / "archive" / "reviews").iterdir(), key=lambda path: json_lines(path)[0]["id"])
    return [row for path in files for row in json_lines(path)]


def json_lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


async def test_what_is_older_goes_to_files_and_nothing_is_lost(
    redis_client: RedisClient, archive: Archive, tmp_path: Path
) -> None:
    ids = await fill(redis_client, KEPT + 2 * SEGMENT + 50)
    assert await archive.once() == {"reviews": 2 * SEGMENT}
    assert await left(redis_client) == ids[2 * SEGMENT :]
    rows = archived(tmp_path)
    assert [row["id"] for row in rows] == ids[: 2 * SEGMENT]
    assert rows[0] == {"id": ids[0], "actor": "ada", "action": "confirm", "subject": "rev_0", "note": "ä"}
    assert await archive.once() == {}, "a part of a segment stays until it is whole"


async def test_what_was_cut_off_is_done_again_into_the_same_file(
    redis_client: RedisClient, archive: Archive, tmp_path: Path
) -> None:
    ids = await fill(redis_client, KEPT + SEGMENT)
    torn = tmp_path / "archive" / "reviews" / f"{ids[0]}_{ids[SEGMENT - 1]}.jsonl.gz"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"\x1f\x8b half a file")  # killed while it was written
    assert await archive.once() == {"reviews": SEGMENT}
    assert [row["id"] for row in archived(tmp_path)] == ids[:SEGMENT]
    assert len(list(torn.parent.iterdir())) == 1


async def test_what_was_written_but_not_yet_taken_out_is_in_one_file_only(
    redis_client: RedisClient, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await fill(redis_client, KEPT + SEGMENT)

    async def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with redis_client.guard() as connection, monkeypatch.context() as patch:
        patch.setattr(connection, "xtrim", killed)
        with pytest.raises(KeyboardInterrupt):
            await archive.once()
    assert await left(redis_client) == ids, "nothing left Redis"
    assert await archive.once() == {"reviews": SEGMENT}
    assert [row["id"] for row in archived(tmp_path)] == ids[:SEGMENT]


async def test_a_place_that_cannot_be_written_loses_nothing(redis_client: RedisClient, tmp_path: Path) -> None:
    ids = await fill(redis_client, KEPT + SEGMENT)
    (tmp_path / "file").write_text("no folder")
    archive = Archive(redis_client, settings_for(tmp_path, archive=str(tmp_path / "file")), segment_entries=SEGMENT)
    with pytest.raises(ArchiveError, match="cannot be written"):
        await archive.once()
    assert await left(redis_client) == ids
    with redis_client.guard() as connection:
        assert not await connection.exists(ARCHIVING()), "the next one need not wait"


async def test_one_gateway_at_a_time(redis_client: RedisClient, archive: Archive) -> None:
    await fill(redis_client, KEPT + SEGMENT)
    with redis_client.guard() as connection:
        await connection.set(ARCHIVING(), "1")
    assert await archive.once() == {}


async def test_an_object_store_takes_the_segments(redis_client: RedisClient, tmp_path: Path) -> None:
    ids = await fill(redis_client, KEPT + SEGMENT)
    archive = Archive(redis_client, settings_for(tmp_path, archive="memory://logs"), segment_entries=SEGMENT)
    assert await archive.once() == {"reviews": SEGMENT}
    files = fsspec.filesystem("memory")
    (path,) = files.find("/logs")
    assert path == f"/logs/reviews/{ids[0]}_{ids[SEGMENT - 1]}.jsonl.gz"
    files.store.clear()


async def test_the_log_of_builds_keeps_less(redis_client: RedisClient, tmp_path: Path) -> None:
    retention = RetentionSettings(stream_entries=500_000)
    archive = Archive(redis_client, Settings(data_dir=tmp_path, retention=retention), segment_entries=SEGMENT)
    with redis_client.guard() as connection:
        pipe = connection.pipeline(transaction=False)
        for _ in range(archive.kept("retraining") + SEGMENT):
            pipe.xadd(RETRAINING_RUNS(), {"run": "{}"})
        await pipe.execute()
    assert await archive.once() == {"retraining": SEGMENT}


def test_every_log_that_nobody_empties_is_archived() -> None:
    emptied = {"antiprompt:{flags}:retraining", "antiprompt:{flags}:bank:changes", "antiprompt:traffic"}
    streams = {key.pattern for key in TABLE if key.type == "stream"}
    assert {key.pattern for key in LOGS.values()} == streams - emptied
    assert AUDIT in LOGS.values()


async def test_doctor_tells_when_memory_is_short(redis_server: RealRedis, tmp_path: Path) -> None:
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_server.url)), tmp_path)) as client:
        assert await client.check() == []
        with client.guard() as redis:
            used = (await redis.info("memory"))["used_memory"]
            await redis.config_set("maxmemory", int(used * 1.1))
        (finding,) = await client.check()
        assert (finding.level, finding.name) == ("warning", "memory")
