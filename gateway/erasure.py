"""Erasure: remove what one end user wrote from everywhere the gateway keeps text, and leave the counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gateway.cases import CaseStore
from gateway.flags import FlagStore
from gateway.overlay_entries import EntryStore
from gateway.redis_client import Field, RedisClient
from gateway.redis_keys import AUDIT, FLAG_END_USER
from gateway.strikes import erase_strikes

AUDIT_MAX_ENTRIES = 1_000_000


@dataclass(frozen=True, slots=True)
class Erasure:
    """How much was found. ``disk_cleaned`` says that the text has left the append-only file too; an outside Redis is
    its operator's to rewrite (``BGREWRITEAOF``). ``exemplars`` counts what moderators made of this person's flags: it
    protects others, and stays in the bank until somebody retires it."""

    flags: int
    cases: int
    exchanges: int
    disk_cleaned: bool
    exemplars: int = 0
    strikes: int = 0


async def erase_end_user(end_user: str, *, redis: RedisClient, flags: FlagStore, cases: CaseStore) -> Erasure:
    """Remove the texts and the name of ``end_user`` (the id that callers send) from flags, exchanges, cases and spool.

    Their strikes go too. Flags, cases and their numbers stay; the audit stream gets an entry with numbers only. Raises
    ``StateUnavailable``; then run it again, it carries on.
    """
    person = redis.end_user_digest(end_user)
    exemplars = await _exemplars_of(person, redis)  # before the flags forget whose they are
    found_cases, found_exchanges = await cases.erase_end_user(person)
    found_flags = await flags.erase_end_user(person)
    strikes = await erase_strikes(person, redis)
    embedded = redis.server is not None
    erasure = Erasure(
        found_flags, found_cases, found_exchanges, disk_cleaned=embedded, exemplars=exemplars, strikes=strikes
    )
    with redis.guard() as connection:
        entry: dict[Field, Field] = {name: int(value) for name, value in asdict(erasure).items()}
        entry["event"] = "erase_end_user"
        await connection.xadd(AUDIT(), entry, maxlen=AUDIT_MAX_ENTRIES)
    await redis.rewrite_append_only_file()
    return erasure


async def _exemplars_of(person: str, redis: RedisClient) -> int:
    with redis.guard() as connection:
        flag_ids = {str(id) for id in await connection.smembers(FLAG_END_USER(person))}
    return sum(entry.flag_id in flag_ids for entry in await EntryStore(redis).all()) if flag_ids else 0
