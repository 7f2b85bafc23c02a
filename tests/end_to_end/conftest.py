"""One gateway for most tests here, with a part of its policy for each behaviour; special ones by ``make_gateway``.

A test asks for a caller under a part of the policy (``await callers("refusal")``). Each caller is a tenant of its own,
so no test knows what another has sent.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from antiprompt_bank import BankCorrupt, BankStore, build_bank
from antiprompt_bank.encoder import export_encoder, open_encoder
from antiprompt_bank.model_files import default_id
from tests.end_to_end.caller import Caller
from tests.end_to_end.exemplars import exemplars
from tests.end_to_end.running_gateway import RunningGateway, free_port
from tests.end_to_end.state import State
from tests.fakes import ScriptedUpstream

POLICY_FILE = Path(__file__).with_name("policy.yaml")
UPSTREAM_KEY = "sk-upstream-secret"
WEBHOOK_SECRET = "what gateway and receiver share"

MakeGateway = Callable[..., RunningGateway]
Callers = Callable[[str], Awaitable[Caller]]


@pytest.fixture(scope="session")
def bank_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published bank made of ``exemplars``; the exported encoder is the one that the bank's own tests keep."""
    exported = Path(pytestconfig.cache.mkdir("antiprompt_bank")) / "encoders" / default_id().replace(":", "-")
    try:
        encoder = open_encoder(export_encoder(exported), device="cpu")
    except BankCorrupt:  # kept by an earlier version of the code
        shutil.rmtree(exported)
        encoder = open_encoder(export_encoder(exported), device="cpu")
    store = BankStore(tmp_path_factory.mktemp("bank"))
    store.publish(store.save(build_bank(exemplars(), encoder)))
    return store.root


@pytest.fixture(scope="session")
def upstream_port() -> int:
    """Where the scripted model server listens, in every test anew."""
    return free_port()


@pytest.fixture(scope="session")
def receiver_port() -> int:
    """Where the gateway of most tests tells what was decided about held content; mostly nobody listens there."""
    return free_port()


@pytest.fixture(scope="session")
def make_gateway(bank_folder: Path, upstream_port: int) -> Iterator[MakeGateway]:
    """Make a gateway with special settings (environment names without their prefix); ended after the session."""
    made: list[RunningGateway] = []
    folders: list[Path] = []

    def make(*, start: bool = True, **settings: str) -> RunningGateway:
        folders.append(Path(tempfile.mkdtemp(prefix="ap-")))  # short enough for a unix socket
        chosen = {
            "BANK__PATH": str(bank_folder),
            "POLICY_FILE": str(POLICY_FILE),
            "UPSTREAM__BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
            "UPSTREAM__BREAKER_FAILURES": "1000",
            **settings,
        }
        gateway = RunningGateway(folders[-1] / "data", chosen)
        made.append(gateway)
        return gateway.start() if start else gateway

    yield make
    for gateway in made:
        gateway.close()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def gateway(make_gateway: MakeGateway, receiver_port: int) -> RunningGateway:
    """The gateway of most tests: it has client keys, and releases streams by size alone, never by the clock."""
    gateway = make_gateway(
        UPSTREAM__API_KEY=UPSTREAM_KEY,
        STREAM__MAX_HOLD_MS="600000",
        HOLDS__WEBHOOK_URL=f"http://127.0.0.1:{receiver_port}/v1/decided",
        HOLDS__WEBHOOK_SECRET=WEBHOOK_SECRET,
    )

    async def first_key() -> None:  # from the first one on, every caller needs a key
        async with State.beside(gateway.data_dir) as state:
            await state.new_key("refusal")

    asyncio.run(first_key())
    return gateway


@pytest.fixture
async def state(gateway: RunningGateway) -> AsyncIterator[State]:
    """What ``gateway`` keeps."""
    async with State.beside(gateway.data_dir) as state:
        yield state


@pytest.fixture
async def callers(gateway: RunningGateway, state: State) -> AsyncIterator[Callers]:
    """Make a caller that is a new tenant under a part of the policy."""
    made: list[Caller] = []

    async def make(policy: str) -> Caller:
        tenant, token = await state.new_key(policy)
        made.append(Caller(f"{gateway.url}/v1", tenant, token))
        return made[-1]

    yield make
    for caller in made:
        await caller.close()


@pytest.fixture
async def upstream(upstream_port: int) -> AsyncIterator[ScriptedUpstream]:
    """The model server behind every gateway here."""
    scripted = ScriptedUpstream()
    scripted.port = upstream_port
    async with scripted:
        yield scripted
