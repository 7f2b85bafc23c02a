"""Nobody but a person changes the bank, and no single person changes much of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from antiprompt_bank import Bank, Label, State
from gateway.flags import Flag, FlagStore, Source
from gateway.influence import Influence
from gateway.overlay_entries import EntryStore
from gateway.redis_client import RedisClient, end_tasks
from gateway.review_records import MAX_FLAGS, Decision
from gateway.reviews import ReviewStore
from gateway.settings import RetentionSettings
from gateway.traffic import Traffic
from tests.conftest import running
from tests.gateway.banks import HARMFUL, Folder, Follower, exemplar
from tests.gateway.reviewing import verdict

PLACES = ("harbour", "mountain", "forest", "island", "river", "desert", "valley", "castle", "village", "market")
BENIGN_TEXTS = [
    f"please tell me about the long and quiet history of the old {place} that my grandmother used to visit every "
    f"{season} with her sisters, and which books about it you would give to a child who likes to read"
    for place in PLACES
    for season in ("spring", "summer", "autumn", "winter")
]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "versions")
    records = [exemplar(HARMFUL), *(exemplar(text, Label.BENIGN) for text in BENIGN_TEXTS)]
    folder.store.publish(folder.add(*records, minute=1))
    return folder


@pytest.fixture
def bank(folder: Folder) -> Bank:
    return folder.load(None, None)


@pytest.fixture
def desk(redis_client: RedisClient, bank: Bank) -> ReviewStore:
    """A moderator's desk with a real influence report."""
    return ReviewStore(redis_client, Influence(lambda: bank, Traffic(redis_client, RetentionSettings()), list).assess)


async def flood(redis: RedisClient, texts: list[str], *, users: int) -> list[str]:
    """File a flag of each text, by so many users in turn; their ids."""
    flag = Flag(tenant="acme", source=Source.USER, side="request", hazard="hate", reason="bad")
    async with running(FlagStore(redis, None)) as store:
        filed = (
            store.add(replace(flag, text=text, end_user=f"user {number % users}")) for number, text in enumerate(texts)
        )
        return [id for id, _ in await asyncio.gather(*filed)]


async def test_a_flood_of_flags_changes_nothing_whoever_files_them(
    redis_client: RedisClient, folder: Folder, bank: Bank
) -> None:
    async with Follower(redis_client, folder, "one").running() as gateway:
        await gateway.overlay.begin()
        await flood(redis_client, [f"i do not like answer {n}" for n in range(1000)], users=1)
        await flood(redis_client, [f"{BENIGN_TEXTS[n % 40]} in spring {n}" for n in range(1000)], users=200)
        following = asyncio.create_task(gateway.overlay.follow(interval_s=0.01))
        await asyncio.sleep(0.1)
        assert not following.done()
        await end_tasks(following)
        assert gateway.screener.in_force.version == bank.version
        assert await EntryStore(redis_client).all() == []


async def test_near_benign_flags_that_one_careless_person_confirms_in_bulk_decide_nothing(
    desk: ReviewStore, redis_client: RedisClient, folder: Folder
) -> None:
    texts = [f"{text} {word}" for text in BENIGN_TEXTS for word in ("now", "today", "again", "soon", "too")]
    ids = await flood(redis_client, texts, users=200)
    review = await desk.decide(verdict(*ids[:MAX_FLAGS], hazard="hate"))
    assert review.awaits_second
    entries = await EntryStore(redis_client).all()
    assert len(entries) == len(texts)
    assert {entry.record.state for entry in entries} == {State.SHADOW}
    assert {entry.awaits_second for entry in entries} == {True}
    async with Follower(redis_client, folder, "one").running() as gateway:
        await gateway.overlay.begin()
        assert max([await gateway.risk(text) for text in BENIGN_TEXTS]) < 0.1
        assert await gateway.risk(HARMFUL) > 0.9


async def test_whose_flags_were_dismissed_fill_the_end_of_the_queue(
    desk: ReviewStore, redis_client: RedisClient
) -> None:
    ids = await flood(redis_client, [f"wrong alarm number {n}" for n in range(10)], users=1)
    for id in ids:
        flag = await desk.get(id)
        assert flag.end_user == "user 0"
    await desk.decide(verdict(*ids, decision=Decision.DISMISS))
    noise = await flood(redis_client, [f"more noise {n}" for n in range(100)], users=1)
    async with running(FlagStore(redis_client, None)) as store:
        serious, _ = await store.add(
            Flag(tenant="acme", source=Source.USER, side="request", text="look at this", reason="bad", end_user="new")
        )
    first = await desk.queue(limit=1)
    assert [flag.id for flag in first.flags] == [serious]
    assert first.total == len(noise) + 1
