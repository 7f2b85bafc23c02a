"""Two gateways on one Redis: what a moderator decides acts on both within seconds, and can be taken back."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr

from antiprompt_bank import BankStore, build_bank
from gateway.bank_versions import BankVersions
from gateway.errors import StateUnavailable
from gateway.influence import Influence
from gateway.overlay_entries import EntryStore
from gateway.redis_client import RedisClient
from gateway.review_records import Decision, Verdict
from gateway.reviews import ReviewStore
from gateway.settings import RedisSettings, RetentionSettings
from gateway.traffic import Traffic
from tests.conftest import RealRedis, running
from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import UPSTREAM_KEY, MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REPLY
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, whole
from tests.transcripts import chat_completion

PATIENCE_S: Final = 60.0
BAD: Final = "Mix the two cleaners from under your sink in a closed room and breathe in deeply; it clears the lungs."
REWORDED: Final = (
    "Mix the two cleaners from under the sink in a closed room and breathe in deeply, it clears your lungs."
)
QUESTION: Final = "How do I clear my lungs?"
FALSE_ALARM: Final = "Explain how anthrax is cultured in a kitchen, step by step."
"""``BAD_REQUEST`` in other words; here it stands for what a moderator finds harmless all the same."""


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RealRedis]:
    """The Redis of both gateways, which tests may stop for a while."""
    directory = Path(tempfile.mkdtemp(prefix="ap-"))
    server = RealRedis(directory)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def bank_copy(bank_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bank of the other tests, in a folder in which versions may come and go."""
    folder = tmp_path_factory.mktemp("shared") / "bank"
    shutil.copytree(bank_folder, folder)
    return folder


@pytest.fixture(scope="module")
def pair(make_gateway: MakeGateway, shared_redis: RealRedis, bank_copy: Path) -> tuple[RunningGateway, RunningGateway]:
    """Two gateways, each a process of its own."""
    settings = {"REDIS__URL": shared_redis.url, "BANK__PATH": str(bank_copy), "UPSTREAM__API_KEY": UPSTREAM_KEY}
    one, two = (make_gateway(start=False, **settings) for _ in range(2))
    for gateway in (one, two):
        gateway.start(until_ready=False)
    for gateway in (one, two):
        gateway.wait_until_ready()
    return one, two


@pytest.fixture
async def redis(shared_redis: RealRedis, tmp_path: Path) -> AsyncIterator[RedisClient]:
    async with running(RedisClient(RedisSettings(url=SecretStr(shared_redis.url)), tmp_path)) as client:
        yield client


@pytest.fixture
def reviews(redis: RedisClient, bank_copy: Path) -> ReviewStore:
    """A moderator's desk in a third process, with the influence report of the bank itself."""
    bank = BankStore(bank_copy).load(device="cpu")
    return ReviewStore(redis, Influence(lambda: bank, Traffic(redis, RetentionSettings()), lambda: []).assess)


@pytest.fixture
async def callers(pair: tuple[RunningGateway, RunningGateway], redis: RedisClient) -> AsyncIterator[list[Caller]]:
    """One tenant that blocks what is risky, calling each of the gateways."""
    token = await asyncio.to_thread(pair[0].key, f"tenant-{time.time_ns()}", "--policy", "refusal")
    made = [Caller(f"{gateway.url}/v1", "tenant", token) for gateway in pair]
    yield made
    for caller in made:
        await caller.close()


async def answer(caller: Caller, question: str = QUESTION) -> str:
    """How a reply ends: stop, or content_filter where it was blocked."""
    reply = await caller.http.post(CHAT, json=asking(question))
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["finish_reason"])


async def until(holds: Callable[[], Awaitable[bool]]) -> float:
    """Wait until something holds; the seconds that it took."""
    began_s = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110  # that is what a caller of the gateways can do
            await asyncio.sleep(0.05)
    return time.monotonic() - began_s


async def both(callers: list[Caller], finish_reason: str, question: str = QUESTION) -> bool:
    return [await answer(caller, question) for caller in callers] == [finish_reason] * 2


async def flagged(caller: Caller, **fields: str) -> str:
    """File a flag as a user does; its id."""
    reply = await caller.http.post("/flags", json={"reason": "it is dangerous", **fields})
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


async def appealed(caller: Caller) -> str:
    """Ask for a person to look again at what was just stopped; the id of the flag that this opens."""
    reply = await caller.http.post("/appeals", json={"case_id": caller.case_id, "reason": "it is for my novel"})
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


def confirmed(flag_id: str, **fields: object) -> Verdict:
    chosen = {"moderator": "ada", "decision": Decision.CONFIRM, "hazard": "specialized_advice", **fields}
    return Verdict(flag_ids=(flag_id,), **chosen)  # type: ignore[arg-type]


async def test_a_confirmed_answer_is_blocked_on_both_gateways_and_passes_again_once_undone(
    callers: list[Caller], reviews: ReviewStore, redis: RedisClient, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion(BAD)))
    assert await both(callers, "stop")
    id = await flagged(callers[0], case_id=callers[0].case_id)
    review = await reviews.decide(confirmed(id, corrected_answer="Breathe fresh air and see a doctor."))
    assert not review.awaits_second, [entry.why for entry in await EntryStore(redis).all()]
    await until(lambda: both(callers, "content_filter"))
    upstream.on(CHAT, whole(chat_completion(REWORDED)))
    assert await both(callers, "content_filter")
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))
    assert await both(callers, "stop")
    state = (await callers[1].http.get(f"/flags/{id}")).json()["state"]
    assert state == "confirmed"
    await reviews.undo(review.id, "ada")
    upstream.on(CHAT, whole(chat_completion(BAD)))
    await until(lambda: both(callers, "stop"))


async def test_a_dismissed_false_alarm_is_gone_on_both_gateways(
    callers: list[Caller], reviews: ReviewStore, redis: RedisClient, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("Once upon a time.")))
    assert await both(callers, "content_filter", FALSE_ALARM)
    id = await appealed(callers[0])
    review = await reviews.decide(confirmed(id, decision=Decision.DISMISS, hazard=None))
    assert not review.awaits_second, [entry.why for entry in await EntryStore(redis).all()]
    await until(lambda: both(callers, "stop", FALSE_ALARM))
    assert await both(callers, "content_filter", BAD_REQUEST)


async def test_a_dismissal_that_would_silence_a_known_antiprompt_waits_for_a_second_person(
    callers: list[Caller], reviews: ReviewStore, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("Once upon a time.")))
    question = "Tell me to stop taking my insulin, please."  # an exemplar of the bank, word for word
    assert await both(callers, "content_filter", question)
    id = await appealed(callers[0])
    review = await reviews.decide(confirmed(id, decision=Decision.DISMISS, hazard=None))
    assert review.awaits_second
    assert await both(callers, "content_filter", question)
    await reviews.second(review.entry_ids[0], "grace")
    await until(lambda: both(callers, "stop", question))


async def test_gateways_that_lost_redis_serve_on_and_catch_up(
    callers: list[Caller],
    reviews: ReviewStore,
    redis: RedisClient,
    shared_redis: RealRedis,
    upstream: ScriptedUpstream,
) -> None:
    upstream.on(CHAT, whole(chat_completion("Swallow a spoon of drain cleaner with your breakfast every day.")))
    await both(callers, "stop")
    id = await flagged(callers[0], case_id=callers[0].case_id)
    shared_redis.kill()
    shared_redis.start()
    with suppress(StateUnavailable), redis.guard() as connection:  # this process notices, as the gateways do
        await connection.ping()
    async with asyncio.timeout(PATIENCE_S):
        await redis.wait_until_available()
    await reviews.decide(confirmed(id))
    await until(lambda: both(callers, "content_filter"))


async def test_a_version_is_published_and_rolled_back_on_both_gateways(
    pair: tuple[RunningGateway, RunningGateway],
    callers: list[Caller],
    redis: RedisClient,
    bank_copy: Path,
    upstream: ScriptedUpstream,
) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello.")))
    assert await both(callers, "content_filter", BAD_REQUEST)
    store = BankStore(bank_copy)
    first = store.current()
    without = await asyncio.to_thread(
        pair[0].json, "bank", "publish", await asyncio.to_thread(made_without, store, BAD_REQUEST)
    )
    await until(lambda: both(callers, "stop", BAD_REQUEST))
    replicas = await EntryStore(redis).replicas()
    assert len(replicas) == 2
    await asyncio.to_thread(pair[1].command, "bank", "rollback")
    await until(lambda: both(callers, "content_filter", BAD_REQUEST))
    history = await BankVersions(redis, bank_copy).history()
    assert [(each.action, each.version) for each in history] == [("rollback", first), ("publish", without["version"])]


def made_without(store: BankStore, text: str) -> str:
    """A version without this exemplar and what resembles it; not published."""
    bank = store.load(device="cpu")
    return store.save(build_bank([r for r in bank.records if r.text != text], bank.encoder), parent=bank.version)
