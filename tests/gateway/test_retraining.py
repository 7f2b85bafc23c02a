import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiprompt_bank import Antiprompt, Bank, Label, State
from antiprompt_bank.encoder import Encoder
from gateway import retraining
from gateway.bank_versions import BankVersions
from gateway.errors import Conflict, NotFound
from gateway.overlay_entries import EntryStore
from gateway.redis_client import RedisClient
from gateway.redis_keys import RETRAINING, REVIEW
from gateway.retraining import NotDue, Retraining, Worker, archive, read_archive
from gateway.retraining_material import held_out, shipped_harmful
from gateway.review_records import Decision, Review
from gateway.reviews import ReviewStore
from gateway.settings import BankSettings, RetrainingSettings, Settings
from tests.gateway.banks import BENIGN, HARMFUL, NEW, Folder, exemplar
from tests.gateway.reviewing import assessing, filed, verdict

PATIENCE_S = 120.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder of versions; the encoder of words stands in for the model that a version would bring along."""
    made = Folder(tmp_path / "versions")

    def load(settings: Settings, version: str | None, encoder: Encoder | None) -> Bank:
        return made.load(version, encoder)

    def some_of(settings: Settings, candidate: Bank) -> tuple[list[Antiprompt], list[Antiprompt]]:
        harmful, harmless = held_out(settings, candidate)
        requests = [record for record in harmless if record.side == "request"]
        return harmful[:5], sorted(requests, key=lambda record: len(record.text))[-20:]

    monkeypatch.setattr(retraining, "load_version", load)
    monkeypatch.setattr(retraining, "held_out", some_of)  # all of them take minutes on a busy machine
    return made


def settings_of(folder: Folder, tmp_path: Path, **fields: object) -> Settings:
    chosen = {"min_exemplars": 2, "claim_after_s": 0.05, "max_tries": 2, **fields}
    return Settings(
        data_dir=tmp_path / "data",
        bank=BankSettings(path=folder.store.root),
        retraining=RetrainingSettings(**chosen),  # type: ignore[arg-type]
    )


@pytest.fixture
def settings(folder: Folder, tmp_path: Path) -> Settings:
    return settings_of(folder, tmp_path)


@pytest.fixture
def store(redis_client: RedisClient) -> ReviewStore:
    return ReviewStore(redis_client, assessing())


@pytest.fixture
def versions(redis_client: RedisClient, folder: Folder) -> BankVersions:
    return BankVersions(redis_client, folder.store.root)


async def confirm(store: ReviewStore, redis: RedisClient, text: str = NEW, **fields: object) -> Review:
    id = await filed(redis, text, side="request", prompt=None)
    return await store.decide(verdict(id, **fields))


async def worked(worker: Worker, holds: AsyncIterator[bool] | object) -> None:
    """Let a worker work until something holds, then stop it as SIGTERM does."""
    task = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await holds():  # type: ignore[operator]  # a worker has no event for it
                assert not task.done()
                await asyncio.sleep(0.02)
    finally:
        worker.stop()
        await task


# One attempt.


async def test_what_people_decided_is_compacted_into_the_next_version(
    store: ReviewStore, redis_client: RedisClient, settings: Settings, versions: BankVersions, folder: Folder
) -> None:
    await confirm(store, redis_client)
    undone = await confirm(store, redis_client, "borrow a cup of sugar")
    await store.undo(undone.id, "ada")
    await EntryStore(redis_client).change(exemplar(BENIGN, Label.BENIGN), by="ada", state=State.RETIRED)
    run = await Retraining(redis_client, settings).once(by="grace")
    assert (run.outcome, run.base, run.why) == ("published", folder.first, ())
    current = await versions.current()
    assert current is not None
    assert (current.version, current.by, current.before) == (run.candidate, "grace", folder.first)
    bank = folder.load(run.candidate, None)
    states = {record.text: record.state for record in bank.records}
    assert states == {HARMFUL: State.LIVE, BENIGN: State.RETIRED, NEW: State.LIVE}
    assert bank.calibration.bank == bank.version
    assert folder.store.manifest(bank.version).parent == folder.first
    scores = await versions.scores(bank.version)
    assert scores is not None
    assert (scores["confirmed"], scores["confirmed_lost"]) == (1, [])
    assert await Retraining(redis_client, settings).queue.runs() == [run]


async def test_what_waits_for_a_second_person_is_in_no_version(
    redis_client: RedisClient, settings: Settings, folder: Folder
) -> None:
    wide, narrow = ReviewStore(redis_client, assessing("wide")), ReviewStore(redis_client, assessing())
    await confirm(wide, redis_client, "borrow a cup of sugar")
    await confirm(narrow, redis_client)
    run = await Retraining(redis_client, settings).once()
    assert {record.text for record in folder.load(run.candidate, None).records} == {HARMFUL, BENIGN, NEW}


async def test_without_anything_new_nothing_is_built(
    store: ReviewStore, redis_client: RedisClient, settings: Settings, folder: Folder
) -> None:
    with pytest.raises(NotDue):
        await Retraining(redis_client, settings).once()
    await confirm(store, redis_client)
    await Retraining(redis_client, settings).once()
    with pytest.raises(NotDue):
        await Retraining(redis_client, settings).once()
    assert len(folder.store.versions()) == 2


async def test_a_candidate_that_breaks_the_promise_is_kept_out_and_it_is_said_why(
    store: ReviewStore, redis_client: RedisClient, settings: Settings, versions: BankVersions, folder: Folder
) -> None:
    _, harmless = retraining.held_out(settings, folder.load(None, None))
    for text in harmless[:12]:
        words = " ".join(reversed(text.text.split()))  # says the same to this encoder, and is no copy of it
        await confirm(store, redis_client, words)
    run = await Retraining(redis_client, settings).once()
    assert run.outcome == "refused"
    assert "false positives" in run.why[0]
    assert await versions.current() is None
    assert (await versions.scores(run.candidate or "")) is not None
    assert folder.store.current() == folder.first


async def test_two_workers_never_build_at_once(
    store: ReviewStore, redis_client: RedisClient, settings: Settings, folder: Folder
) -> None:
    await confirm(store, redis_client)
    attempts = [Retraining(redis_client, settings).once() for _ in range(4)]
    found = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(each, Conflict) for each in found) == 3
    assert len(folder.store.versions()) == 2


async def test_with_a_pinned_version_no_new_one_is_made(
    store: ReviewStore, redis_client: RedisClient, folder: Folder, tmp_path: Path
) -> None:
    await confirm(store, redis_client)
    chosen = settings_of(folder, tmp_path)
    pinned = chosen.model_copy(update={"bank": BankSettings(path=folder.store.root, version=folder.first)})
    with pytest.raises(Conflict, match="pin"):
        await Retraining(redis_client, pinned).once()


# The worker.


async def test_a_worker_learns_reviews_and_publishes_when_enough_are_due(
    store: ReviewStore, redis_client: RedisClient, settings: Settings, versions: BankVersions, folder: Folder
) -> None:
    worker = Worker(redis_client, settings)
    reviews = [await confirm(store, redis_client, text) for text in (NEW, "borrow a cup of sugar", "paint a swallow")]

    async def published() -> bool:
        return await versions.current() is not None

    await worked(worker, published)
    assert {review.id for review in read_archive(folder.store.root / "reviews")} == {each.id for each in reviews}
    assert await worker._queue.waiting() == 0
    assert (await worker._queue.due()).exemplars == 0


async def test_one_exemplar_waits_until_it_has_waited_long_enough(
    store: ReviewStore, redis_client: RedisClient, folder: Folder, versions: BankVersions, tmp_path: Path
) -> None:
    await confirm(store, redis_client)
    patient = Worker(redis_client, settings_of(folder, tmp_path))

    async def learned() -> bool:
        return await patient._queue.waiting() == 0

    await worked(patient, learned)
    assert (await patient._queue.due()).exemplars == 1
    assert await versions.current() is None

    async def published() -> bool:
        return await versions.current() is not None

    await worked(Worker(redis_client, settings_of(folder, tmp_path, max_wait_s=0.01)), published)


async def test_an_escalation_teaches_nothing(store: ReviewStore, redis_client: RedisClient, settings: Settings) -> None:
    await confirm(store, redis_client, decision=Decision.ESCALATE)
    worker = Worker(redis_client, settings)

    async def learned() -> bool:
        return await worker._queue.waiting() == 0

    await worked(worker, learned)
    assert (await worker._queue.due()).exemplars == 0


async def test_what_another_worker_left_half_done_is_learned(
    store: ReviewStore, redis_client: RedisClient, settings: Settings, folder: Folder
) -> None:
    review = await confirm(store, redis_client)
    worker = Worker(redis_client, settings)
    assert len(await worker._queue.read("a worker that died")) == 1

    async def learned() -> bool:
        return await worker._queue.waiting() == 0

    await worked(worker, learned)
    assert [each.id for each in read_archive(folder.store.root / "reviews")] == [review.id]


async def test_a_review_that_cannot_be_learned_is_buried_with_the_reason_and_the_others_are_learned(
    store: ReviewStore, redis_client: RedisClient, settings: Settings, folder: Folder
) -> None:
    lost = await confirm(store, redis_client)
    with redis_client.guard() as connection:
        await connection.delete(REVIEW(lost.id))
    kept = await confirm(store, redis_client, "borrow a cup of sugar")
    worker = Worker(redis_client, settings)

    async def learned() -> bool:
        return await worker._queue.waiting() == 0

    await worked(worker, learned)
    (letter,) = await worker._queue.dead()
    assert letter.review_id == lost.id
    assert "there is no review" in letter.reason
    assert [each.id for each in read_archive(folder.store.root / "reviews")] == [kept.id]


async def test_a_message_that_makes_no_sense_stops_no_worker(
    store: ReviewStore, redis_client: RedisClient, settings: Settings
) -> None:
    with redis_client.guard() as connection:
        await connection.xadd(RETRAINING(), {"nonsense": "1"})
    await confirm(store, redis_client)
    worker = Worker(redis_client, settings)

    async def learned() -> bool:
        return await worker._queue.waiting() == 0

    await worked(worker, learned)
    (letter,) = await worker._queue.dead()
    assert "review" in letter.reason


async def test_an_archived_review_reads_back_and_a_second_time_changes_nothing(
    store: ReviewStore, redis_client: RedisClient, tmp_path: Path
) -> None:
    review = await confirm(store, redis_client, comment="naïve — text")
    assert archive(tmp_path / "reviews", review) == archive(tmp_path / "reviews", review)
    assert read_archive(tmp_path / "reviews") == [review]
    assert [path.name for path in (tmp_path / "reviews").iterdir()] == [f"{review.id}.json"]
    with pytest.raises(NotFound):
        await store.review("rev_unknown")


# The material of the gate.


def test_what_the_candidate_holds_is_not_held_out(folder: Folder, tmp_path: Path) -> None:
    settings = settings_of(folder, tmp_path)
    first = shipped_harmful()[0]
    version = folder.add(exemplar(first.text), exemplar(BENIGN, Label.BENIGN), minute=5)
    harmful, harmless = held_out(settings, folder.load(version, None))
    assert first.text not in {record.text for record in harmful}
    assert len(harmful) == len(shipped_harmful()) - 1
    assert len(harmless) > 500
    assert not any(record.harmful for record in harmless)


def test_ones_own_texts_are_held_out_too(folder: Folder, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.jsonl").write_text(
        '{"text": "a bad text of ours", "side": "request", "label": "unsafe", "source": "mine"}\n'
        '{"text": "a good text of ours", "side": "request", "label": "safe", "source": "mine"}\n'
    )
    harmful, harmless = held_out(settings_of(folder, tmp_path, held_out=own), folder.load(None, None))
    assert "a bad text of ours" in {record.text for record in harmful}
    assert "a good text of ours" in {record.text for record in harmless}


def test_so_many_of_each_kind_are_asked_and_always_the_same(folder: Folder, tmp_path: Path) -> None:
    bank = folder.load(None, None)
    some, whole = (held_out(settings_of(folder, tmp_path, max_texts=most), bank) for most in (20, 30))
    assert [len(texts) for texts in some] == [20, 20]
    assert [texts[:20] for texts in whole] == list(some)


def test_no_held_out_text_is_in_the_seed() -> None:
    from antiprompt_bank import seed_records

    seed = {record.text.casefold() for record in seed_records()}
    assert not [record.text for record in shipped_harmful() if record.text.casefold() in seed]
