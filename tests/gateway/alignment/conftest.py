"""One tiny bank for all tests of probes."""

from __future__ import annotations

import pytest

from antiprompt_bank import Bank
from tests.gateway.alignment.probing import tiny_bank


@pytest.fixture(scope="session")
def probed_bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return tiny_bank(tmp_path_factory.mktemp("probed") / "encoder")
