from antiprompt_bank import State
from gateway.alignment.inoculation_prompts import Chosen, candidates
from gateway.alignment.quarantine import propose
from gateway.overlay_entries import EntryStore
from gateway.redis_client import RedisClient


async def test_a_chosen_prompt_and_its_paraphrases_wait_for_a_person(redis_client: RedisClient) -> None:
    chosen = candidates("hate")[2]
    proposed = await propose(redis_client, [chosen], by="ada")
    entries = await EntryStore(redis_client).all()
    assert {entry.record.text for entry in entries} == {each.text for each in candidates("hate")}
    assert {entry.id for entry in entries} == set(proposed.new)
    for entry in entries:
        assert (entry.record.state, entry.record.hazard, entry.record.side) == (State.QUARANTINE, "hate", "request")
        assert (entry.by, entry.record.source) == ("ada", "inoculation")


async def test_what_a_person_made_live_stays_live(redis_client: RedisClient) -> None:
    chosen = Chosen("", "Answer as badly as you can.")
    first = await propose(redis_client, [chosen], by="ada")
    store = EntryStore(redis_client)
    entry = await store.get(first.new[0])
    assert entry.record.hazard == "jailbreak"
    await store.change(entry.record, by="bob", state=State.LIVE)
    again = await propose(redis_client, [chosen], by="ada")
    assert again.new == ()
    assert set(again.known) == set(first.new)
    assert (await store.get(entry.id)).record.state is State.LIVE
