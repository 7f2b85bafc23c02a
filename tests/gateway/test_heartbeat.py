from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from gateway.heartbeat import beating

PATIENCE_S = 30


def await_beat(path: Path) -> None:
    """Return once the file is there and was touched after now."""
    if path.exists():
        os.utime(path, (0, 0))
    ends_s = time.monotonic() + PATIENCE_S
    while not path.exists() or path.stat().st_mtime == 0:
        assert time.monotonic() < ends_s, "nothing touched the file"
        time.sleep(0.001)


def test_the_file_is_touched_again_and_again_and_goes_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "data" / "alive"

    async def work() -> None:
        async with beating(path, every_s=0.001):
            await asyncio.to_thread(await_beat, path)
            await asyncio.to_thread(await_beat, path)

    asyncio.run(work())
    assert not path.exists()


def test_what_cannot_be_removed_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    path.mkdir()  # a folder can be touched, but not removed as a file is

    async def work() -> None:
        async with beating(path, every_s=0.001):
            await asyncio.to_thread(await_beat, path)

    asyncio.run(work())
    assert path.is_dir()


def test_a_process_that_hangs_beats_no_more(tmp_path: Path) -> None:
    path = tmp_path / "alive"

    async def work() -> set[int]:
        async with beating(path, every_s=0.001):
            await asyncio.to_thread(await_beat, path)
            return {_changed_at_ns(path) for _ in range(20_000)}  # and never give way to the loop

    assert len(asyncio.run(work())) <= 2  # one beat may have been under way


def _changed_at_ns(path: Path) -> int:
    return path.stat().st_mtime_ns
