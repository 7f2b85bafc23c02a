"""A probe in a process of its own, for a test that kills it: ``URL STATE FOLDER``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.alignment.probe import run_probe
from gateway.alignment.probe_asking import Asker, Pace, asking_settings
from gateway.alignment.probe_questions import Sample, sampled
from gateway.alignment.probe_state import StateFile
from gateway.http_client import HttpClient
from gateway.upstream import Upstream
from tests.gateway.alignment.probing import WHAT, bank_judge, records, tiny_bank


async def _probe(url: str, state_file: Path, folder: Path) -> None:
    pace = Pace(concurrency=1)
    with StateFile(state_file, WHAT) as state:
        async with HttpClient(asking_settings(url, None, pace, 60.0)) as http:
            asker = Asker(Upstream(http, url), "m", pace=pace)
            await run_probe(sampled(records(), Sample()), asker, bank_judge(tiny_bank(folder)), state)


if __name__ == "__main__":
    asyncio.run(_probe(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
