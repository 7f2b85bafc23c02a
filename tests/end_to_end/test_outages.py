"""The table of what may break on the gateway's own side: encoder, Redis, disk, process; nothing kept is lost by it."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
import pytest

from gateway.flags import Flag
from gateway.redis_server import find_binary
from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import UPSTREAM_KEY, MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REPLY
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking, assert_still_serves, assert_told
from tests.fakes import Gate, ScriptedUpstream, stream, whole
from tests.transcripts import chat_completion, chat_stream

T = TypeVar("T")

PATIENCE_S: Final = 60.0
SPOOL_BYTES: Final = 1_000_000
FLAGS: Final = "/flags"


@asynccontextmanager
async def calling(gateway: RunningGateway, token: str = "sk-the-callers-own") -> AsyncIterator[Caller]:
    caller = Caller(f"{gateway.url}/v1", "default", token)
    try:
        yield caller
    finally:
        await caller.close()


async def until(holds: Callable[[], Awaitable[T | None]]) -> T:
    """Ask until the answer is a true one, and return it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if answer := await holds():
                return answer
            await asyncio.sleep(0.02)


async def ready(gateway: RunningGateway, **wanted: object) -> httpx2.Response:
    """What /readyz says, as soon as these values stand in it."""
    async with httpx2.AsyncClient(verify=False) as client:

        async def asked() -> httpx2.Response | None:
            try:
                reply = await client.get(f"{gateway.url}/readyz")
            except httpx2.ConnectError:
                return None
            return reply if wanted.items() <= reply.json().items() else None

        return await until(asked)


async def metric_is(gateway: RunningGateway, name: str, value: float) -> None:
    """Wait until a metric has this value."""

    async def does() -> bool:
        return await asyncio.to_thread(gateway.metric, name) == value

    await until(does)


# The encoder.


@pytest.fixture(scope="session")
def blind(make_gateway: MakeGateway, bank_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunningGateway:
    """A gateway whose encoder does not load."""
    bank = tmp_path_factory.mktemp("blind") / "bank"
    shutil.copytree(bank_folder, bank)
    weights = max(bank.rglob("*.bin"), key=lambda file: file.stat().st_size)
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    gateway = make_gateway(start=False, BANK__PATH=str(bank), UPSTREAM__API_KEY=UPSTREAM_KEY)
    return gateway.start(until_ready=False)


async def test_without_its_encoder_a_gateway_is_not_ready_and_answers_nothing(
    blind: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello")))
    told = await ready(blind, status="failed")
    assert told.status_code == 503
    assert told.json()["reason"]
    async with State.beside(blind.data_dir) as state:
        _, token = await state.new_key("refusal")
    async with calling(blind, token) as caller:
        assert (await caller.http.get(f"{blind.url}/healthz")).status_code == 200
        for asked in (asking(), asking(stream=True), asking(BAD_REQUEST)):
            assert_told(await caller.http.post(CHAT, json=asked), 503, "screening_unavailable")
        reply = await caller.http.post("/moderations", json={"input": "Hello"})
        assert_told(reply, 503, "screening_unavailable")
    assert upstream.requests == []


async def test_where_policy_allows_it_what_cannot_be_screened_passes_with_a_mark_in_its_case(
    blind: RunningGateway, upstream: ScriptedUpstream
) -> None:
    reply = chat_completion("Hello")
    upstream.on(CHAT, whole(reply))
    await ready(blind, status="failed")
    async with State.beside(blind.data_dir) as state:
        _, token = await state.new_key("open")
        async with calling(blind, token) as caller:
            answer = await caller.http.post(CHAT, json=asking())
            assert (answer.status_code, answer.json()) == (200, reply)
            case = await state.case(caller.case_id)
    assert (case.action, case.unscreened) == ("allow", "screening_unavailable")
    for side in ("request", "response"):
        assert blind.metric("antiprompt_unavailable_total", side=side, cause="screening_unavailable") >= 1


# Redis.


class Latch:
    """A ``redis-server`` on the PATH that does not start while the latch is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._closed = folder / "closed"
        script = folder / "redis-server"
        script.write_text(f'#!/bin/sh\n[ -e "{self._closed}" ] && exit 1\nexec "{find_binary()}" "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

    def close(self) -> None:
        self._closed.touch()

    def open(self) -> None:
        self._closed.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def latch(tmp_path_factory: pytest.TempPathFactory) -> Latch:
    return Latch(tmp_path_factory.mktemp("bin"))


@pytest.fixture(scope="session")
def stateful(make_gateway: MakeGateway, latch: Latch) -> Iterator[RunningGateway]:
    """A gateway with the small spool, whose Redis can be kept from starting. Serves without client keys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{latch.folder}:{os.environ['PATH']}")
        gateway = make_gateway(FLAGS__MAX_SPOOL_BYTES=str(SPOOL_BYTES), FLAGS__PER_KEY_PER_HOUR="1000000")
    yield gateway
    latch.open()


async def redis_pid(gateway: RunningGateway) -> int:
    async with State.beside(gateway.data_dir) as state:
        return int((await state.redis.client.info("server"))["process_id"])


async def kept_flags(gateway: RunningGateway, *, at_least: int = 0) -> Sequence[Flag]:
    """The open flags in Redis, as soon as it is there and has so many."""
    async with State.beside(gateway.data_dir) as state:

        async def kept() -> tuple[Sequence[Flag]] | None:
            await state.redis.wait_until_available()
            flags = await state.flags_of("default")
            return (flags,) if len(flags) >= at_least else None

        (flags,) = await until(kept)
    return flags


async def flag(caller: Caller, text: str) -> str:
    """File a flag that is taken; its id."""
    reply = await caller.http.post(FLAGS, json={"text": text, "reason": "wrong"})
    assert reply.status_code == 202, reply.text
    filed = reply.json()
    assert set(filed) == {"id", "state"}
    assert filed["state"] == "open"
    return str(filed["id"])


@asynccontextmanager
async def redis_away(gateway: RunningGateway, latch: Latch) -> AsyncIterator[None]:
    """Redis is killed, stays away inside, and is back afterwards."""
    pid = await redis_pid(gateway)
    latch.close()
    try:
        os.kill(pid, signal.SIGKILL)
        await metric_is(gateway, "antiprompt_redis_up", 0)
        yield
    finally:
        latch.open()
    await metric_is(gateway, "antiprompt_redis_up", 1)
    await metric_is(gateway, "antiprompt_spooled_flags", 0)


async def test_while_redis_is_away_chat_goes_on_and_flags_are_spooled_and_replayed(
    stateful: RunningGateway, latch: Latch, upstream: ScriptedUpstream
) -> None:
    async with calling(stateful) as caller:
        before = await flag(caller, "before")
        async with redis_away(stateful, latch):
            assert (await ready(stateful, redis="away")).status_code == 200
            await assert_still_serves(caller, upstream)
            during = [await flag(caller, f"during {n}") for n in range(3)]
            assert (await caller.http.get(f"{FLAGS}/{during[0]}")).json() == {"id": during[0], "state": "open"}
            assert_told(await caller.http.get(f"{FLAGS}/{before}"), 503, "state_unavailable")
            await metric_is(stateful, "antiprompt_spooled_flags", 3)
            repeated = [
                await caller.http.post(
                    FLAGS, json={"text": "once", "reason": "wrong"}, headers={"Idempotency-Key": "away"}
                )
                for _ in range(2)
            ]
            assert repeated[0].json() == repeated[1].json()
        assert (await ready(stateful, redis="up")).status_code == 200
        ids = [before, *during, repeated[0].json()["id"]]
        assert [(await caller.http.get(f"{FLAGS}/{id}")).json()["state"] for id in ids] == ["open"] * 5
    kept = await kept_flags(stateful)
    assert sorted(flag.id for flag in kept) == sorted(ids)
    assert {flag.text for flag in kept} == {"before", "during 0", "during 1", "during 2", "once"}


async def test_redis_killed_under_load_loses_and_doubles_no_acknowledged_flag(
    stateful: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello")))
    before = {flag.id for flag in await kept_flags(stateful)}
    pid, enough = await redis_pid(stateful), asyncio.Event()
    acknowledged: list[str] = []

    async def file(caller: Caller, number: int) -> None:
        while not enough.is_set():
            acknowledged.append(await flag(caller, f"under load {number} {len(acknowledged)}"))
            assert (await caller.http.post(CHAT, json=asking())).status_code == 200

    async def filed(more: int) -> None:
        count = len(acknowledged) + more

        async def are() -> bool:
            return len(acknowledged) >= count

        await until(are)

    async with calling(stateful) as caller:
        async with asyncio.TaskGroup() as work:
            for number in range(4):
                work.create_task(file(caller, number))
            await filed(40)
            os.kill(pid, signal.SIGKILL)
            await filed(40)
            await kept_flags(stateful)  # it is back
            await filed(40)
            enough.set()
        await assert_still_serves(caller, upstream)
    kept = [flag.id for flag in await kept_flags(stateful, at_least=len(before) + len(acknowledged))]
    assert sorted(kept) == sorted([*before, *acknowledged])
    assert await redis_pid(stateful) != pid


async def test_a_full_spool_refuses_flags_and_keeps_those_it_has_taken(
    stateful: RunningGateway, latch: Latch, upstream: ScriptedUpstream
) -> None:
    before = {flag.id for flag in await kept_flags(stateful)}
    taken: list[str] = []
    async with calling(stateful) as caller:
        async with redis_away(stateful, latch):
            filed: dict[str, Any] = {"text": "x" * 90_000, "reason": "full"}
            while (reply := await caller.http.post(FLAGS, json=filed)).status_code == 202:
                taken.append(reply.json()["id"])
            assert "spool is full" in assert_told(reply, 503, "state_unavailable")
            assert int(reply.headers["retry-after"]) >= 1
            taken.append(await flag(caller, "a small one still fits"))
            await assert_still_serves(caller, upstream)
        taken.append(await flag(caller, "after"))
    assert {flag.id for flag in await kept_flags(stateful, at_least=len(before) + len(taken))} == {*before, *taken}


async def test_a_disk_that_takes_no_more_bytes_refuses_flags_and_acknowledges_none_of_them(
    stateful: RunningGateway, latch: Latch, upstream: ScriptedUpstream
) -> None:
    assert stateful.process is not None
    before = {flag.id for flag in await kept_flags(stateful)}
    pid, bytes_left = stateful.process.pid, 2000
    async with calling(stateful) as caller, redis_away(stateful, latch):
        taken = [await flag(caller, "before the disk was full")]
        spool = stateful.data_dir / "spool"
        size = spool.stat().st_size
        # The kernel refuses the write half-way through, as it does on a full disk.
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + bytes_left, resource.RLIM_INFINITY))
        try:
            reply = await caller.http.post(FLAGS, json={"text": "x" * 2 * bytes_left, "reason": "full"})
            assert "cannot be written" in assert_told(reply, 503, "state_unavailable")
            assert spool.stat().st_size == size
            await assert_still_serves(caller, upstream)
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        taken.append(await flag(caller, "after the disk was full"))
    assert {flag.id for flag in await kept_flags(stateful, at_least=len(before) + len(taken))} == {*before, *taken}


# The process.


@pytest.fixture(scope="session")
def mortal(make_gateway: MakeGateway) -> RunningGateway:
    """A gateway that is stopped, killed and started again."""
    return make_gateway(STREAM__MAX_HOLD_MS="600000")


async def test_sigterm_in_mid_stream_lets_the_stream_finish_and_loses_no_flag(
    mortal: RunningGateway, upstream: ScriptedUpstream
) -> None:
    gate, events = Gate(), chat_stream(GOOD_REPLY)
    upstream.on(CHAT, stream(*events[:60], gate, *events[60:]))
    assert mortal.process is not None
    begun = asyncio.Event()
    async with calling(mortal) as caller:
        caller.on_first_bytes = begun.set
        id = await flag(caller, "before the end")
        asked = asyncio.create_task(caller.http.post(CHAT, json=asking(stream=True)))
        await begun.wait()
        mortal.process.send_signal(signal.SIGTERM)
        await until(lambda: refuses(mortal))
        gate.open()
        reply = await asked
    assert reply.content == b"".join(events)
    case_id = reply.headers["x-antiprompt-case"]
    assert await asyncio.to_thread(mortal.process.wait, PATIENCE_S) == 0
    await asyncio.to_thread(mortal.start)
    assert [flag.id for flag in await kept_flags(mortal)] == [id]
    async with State.beside(mortal.data_dir) as state:
        exchange = await state.exchange(case_id)
    assert exchange is not None
    assert exchange.reply == (GOOD_REPLY,)


async def refuses(gateway: RunningGateway) -> bool:
    """Whether nobody can connect any more."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_kill_9_and_a_new_start_keep_flags_and_cases(mortal: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello", id="chatcmpl-kept")))
    before = {flag.id for flag in await kept_flags(mortal)}
    async with calling(mortal) as caller:
        await caller.http.post(CHAT, json=asking())
        case_id = caller.case_id
        async with State.beside(mortal.data_dir) as state:
            await state.case(case_id)  # kept a moment after the reply
        id = await flag(caller, "just before the crash")
    mortal.kill()
    await asyncio.to_thread(mortal.start)
    async with calling(mortal) as caller:
        assert (await caller.http.get(f"{FLAGS}/{id}")).json() == {"id": id, "state": "open"}
        by_completion = await caller.http.post(FLAGS, json={"completion_id": "chatcmpl-kept", "reason": "wrong"})
        assert by_completion.status_code == 202
        await assert_still_serves(caller, upstream)
    kept = {flag.id: flag for flag in await kept_flags(mortal)}
    assert set(kept) == {*before, id, by_completion.json()["id"]}
    assert kept[by_completion.json()["id"]].case_id == case_id
