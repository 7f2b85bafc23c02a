"""A sign of life for processes that serve no port: a file whose time of change is never old while the process works.

Whoever watches (a container's probe) looks at the file's age. What is alive is the event loop: a process that hangs
in it stops the beat, one that builds a bank in a thread for minutes does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

BEAT_S: Final = 5.0


@asynccontextmanager
async def beating(path: Path, *, every_s: float = BEAT_S) -> AsyncIterator[None]:
    """Touch ``path`` now and every ``every_s``, until left; then it is gone. A disk that is full stops nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beat = asyncio.create_task(_beat(path, every_s))
    try:
        yield
    finally:
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
        with suppress(OSError):
            await asyncio.to_thread(path.unlink, missing_ok=True)


async def _beat(path: Path, every_s: float) -> None:
    while True:
        with suppress(OSError):
            await asyncio.to_thread(path.touch, mode=0o600)
        await asyncio.sleep(every_s)
