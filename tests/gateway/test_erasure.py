import time
from pathlib import Path

from pydantic import SecretStr

from gateway.cases import Case, CaseStore, Exchange, new_case_id
from gateway.erasure import Erasure, erase_end_user
from gateway.flags import Flag, FlagState, FlagStore, Source
from gateway.redis_client import RedisClient
from gateway.redis_keys import AUDIT, FLAG_ERASED
from gateway.reviews import ReviewStore
from gateway.settings import RedisSettings, RetentionSettings, StrikeSettings
from gateway.spool import Spool
from gateway.strike_rules import Strikes
from gateway.strikes import Strike, StrikeStore
from tests.conftest import running
from tests.gateway.reviewing import assessing, filed, verdict

SECRET = "my very private words"


def bytes_on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_person_leaves_redis_and_the_disk_and_the_counts_stay(short_dir: Path) -> None:
    async with running(RedisClient(RedisSettings(), short_dir)) as redis:
        cases = CaseStore(redis, RetentionSettings())
        flags = FlagStore(redis, Spool(short_dir / "spool" / "flags.spool", max_bytes=1 << 20))
        await flags.start()
        strikes = StrikeStore(redis, StrikeSettings())
        ann, bob = redis.end_user_digest("ann"), redis.end_user_digest("bob")
        for person, text in ((ann, SECRET), (bob, "bob's words")):
            case = Case(
                id=new_case_id(), created_at=time.time(), tenant="t", surface="chat", action="flag", end_user=person
            )
            cases.record(case, Exchange((("user", text),), (text,)))
            await flags.add(Flag(tenant="t", source=Source.USER, text=text, case_id=case.id, end_user=person))
            strike = Strike(at_ms=0, weight=1, side="request")
            await strikes.add(strike, case_id=case.id, tenant="t", end_user=person, rules=Strikes())
        await cases.flush()
        assert SECRET.encode() in bytes_on_disk(short_dir)

        found = await erase_end_user("ann", redis=redis, flags=flags, cases=cases)

        assert found == Erasure(flags=1, cases=1, exchanges=1, disk_cleaned=True, strikes=1)
        left = bytes_on_disk(short_dir)
        assert SECRET.encode() not in left
        assert ann.encode() not in left.replace(f"erased:{ann}".encode(), b"")
        assert b"bob's words" in left
        assert (await flags.counts())[FlagState.OPEN] == 2
        assert len(await cases.recent()) == 2
        with redis.guard() as connection:
            ((_, entry),) = await connection.xrange(AUDIT())
        counts = {"flags": "1", "cases": "1", "exchanges": "1", "disk_cleaned": "1", "exemplars": "0", "strikes": "1"}
        assert entry == {"event": "erase_end_user", **counts}
        await flags.close()
        await cases.close()


async def test_an_outside_redis_keeps_its_file_and_the_report_says_so(redis_url: str, tmp_path: Path) -> None:
    async with running(RedisClient(RedisSettings(url=SecretStr(redis_url)), tmp_path)) as redis:
        flags, cases = FlagStore(redis, None), CaseStore(redis, RetentionSettings())
        assert await erase_end_user("nobody", redis=redis, flags=flags, cases=cases) == Erasure(
            0, 0, 0, disk_cleaned=False
        )


async def test_what_moderators_made_of_a_persons_flags_stays_and_is_counted(redis_client: RedisClient) -> None:
    flags, cases = FlagStore(redis_client, None), CaseStore(redis_client, RetentionSettings())
    store = ReviewStore(redis_client, assessing())
    id = await filed(redis_client, end_user=redis_client.end_user_digest("ann"))
    await store.decide(verdict(id))
    found = await erase_end_user("ann", redis=redis_client, flags=flags, cases=cases)
    assert (found.flags, found.exemplars) == (1, 1)
    assert (await store.get(id)).text is None
    person = redis_client.end_user_digest("ann")
    with redis_client.guard() as connection:
        named = [str(key) async for key in connection.scan_iter(match=f"*{person}*")]
    assert named == [FLAG_ERASED(person)]  # the marker for spools, which goes by itself
