"""A text that could not be read is never a clean one, and never takes others with it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from antiprompt_bank import Bank, Prepared, Score
from antiprompt_bank.windows import TokenSpans
from gateway.errors import ScreeningUnavailable
from gateway.screening import Screener, Subject
from gateway.settings import ScreeningSettings
from gateway.telemetry import Metrics
from tests.gateway.banks import BENIGN, HARMFUL, Folder, StoredEncoder

SHORT, LONG = "broken", "broken " * 300


class Choking(StoredEncoder):
    """A tokeniser with a flaw: one word is too much for it."""

    def tokenize(self, text: str) -> TokenSpans:
        if SHORT in text:
            raise ValueError(f"cannot read {text!r}")
        return super().tokenize(text)


@pytest.mark.parametrize("text", [SHORT, LONG])
async def test_a_text_that_no_reading_survives_is_unscreened(text: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.encoder = Choking(tmp_path / "choking")
    screener = Screener(ScreeningSettings(), Metrics())
    screener.start()
    try:
        screener.swap(folder.load(None, None))
        with pytest.raises(ScreeningUnavailable) as raised:
            await screener.screen([Subject(HARMFUL, "request"), Subject(text, "request")], tenant="acme")
        assert SHORT not in str(raised.value)
        (score,) = await screener.screen([Subject(HARMFUL, "request")], tenant="acme")
        assert score.risk > 0.9
    finally:
        await screener.close()


async def test_an_encoder_on_a_gpu_has_two_batches_under_way(tmp_path: Path) -> None:
    entered, leave = threading.Semaphore(0), threading.Event()

    def on_scored(bank: Bank, prepared: Prepared, score: Score) -> None:
        entered.release()
        assert leave.wait(5)

    folder = Folder(tmp_path)
    bank = folder.load(None, None)
    folder.encoder.runtime = "torch-cuda-bf16"  # the bank has been opened: it is searched where it was
    screener = Screener(ScreeningSettings(threads=1), Metrics(), on_scored=on_scored)
    screener.start()
    try:
        screener.swap(bank)
        calls = []
        for text in (HARMFUL, BENIGN):
            calls.append(asyncio.create_task(screener.screen([Subject(text, "request")], tenant="acme")))
            assert await asyncio.to_thread(entered.acquire, timeout=5)
        leave.set()
        (harmful,), (benign,) = await asyncio.gather(*calls)
        assert harmful.risk > 0.9 > benign.risk
    finally:
        leave.set()
        await screener.close()
