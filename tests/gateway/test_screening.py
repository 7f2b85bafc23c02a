"""A text that could not be read is never a clean one, and never takes others with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiprompt_bank.windows import TokenSpans
from gateway.errors import ScreeningUnavailable
from gateway.screening import Screener, Subject
from gateway.settings import ScreeningSettings
from gateway.telemetry import Metrics
from tests.gateway.banks import HARMFUL, Folder, StoredEncoder

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
