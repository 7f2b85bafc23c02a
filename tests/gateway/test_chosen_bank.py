"""The seed bank that was built before is used where settings name it, and only for what it was built with."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiprompt_bank import BankNotFound
from gateway.chosen_bank import load_seed_bank
from gateway.settings import BankSettings, Settings

NO_VERSION = "20261120T120000000Z-0123456789ab"


def settings(tmp_path: Path, **bank: object) -> Settings:
    return Settings(data_dir=tmp_path / "data", bank=BankSettings(seed=tmp_path / "built", **bank))  # type: ignore[arg-type]


def test_the_seed_bank_is_looked_for_where_settings_say_that_it_was_built(tmp_path: Path) -> None:
    with pytest.raises(BankNotFound, match=str(tmp_path / "built")):
        load_seed_bank(settings(tmp_path), version=NO_VERSION)
    assert not (tmp_path / "data").exists()  # nothing is built, nothing is locked: the folder may be read-only


@pytest.mark.parametrize("other", [{"adapter": "none"}, {"model": "/models/another"}])
def test_another_encoder_than_the_shipped_one_has_its_own_seed_bank(tmp_path: Path, other: dict[str, str]) -> None:
    with pytest.raises(BankNotFound, match=str(tmp_path / "data")):
        load_seed_bank(settings(tmp_path, **other), version=NO_VERSION)
