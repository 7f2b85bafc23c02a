"""The gateway of the end-to-end tests, with its small bank and its policy; and that bank, for what needs no gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiprompt_bank import Bank, BankStore
from tests.end_to_end.conftest import (  # noqa: F401 - fixtures
    bank_folder,
    callers,
    gateway,
    make_gateway,
    receiver_port,
    state,
    upstream,
    upstream_port,
)
from tests.gateway.alignment.conftest import probed_bank  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def small_bank(bank_folder: Path) -> Bank:  # noqa: F811 - a fixture
    """What the gateway knows, with the real encoder."""
    return BankStore(bank_folder).load(device="cpu")
