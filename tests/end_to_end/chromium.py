"""Where a real Chromium is, and what is said where there is none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, async_playwright

CHROMIUM: Final = Path("/usr/bin/chromium")
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def needed(what: str) -> None:
    """Leave the module out where there is no Chromium; in continuous integration, where it must be, fail."""
    if CHROMIUM.exists():
        return
    if os.environ.get("CI"):
        pytest.fail("Chromium is missing, and continuous integration never leaves its tests out", pytrace=False)
    pytest.skip(
        f"left out: {what} in a browser. Install Debian's chromium (apt-get install chromium) to have it",
        allow_module_level=True,
    )


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without anything in it."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield started
        await started.close()
