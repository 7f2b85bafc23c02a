"""Erasure: remove what one end user wrote from everywhere the gateway keeps text, and leave the counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gateway.cases import CaseStore
from gateway.flags import FlagStore
from gateway.redis_client import Field, RedisClient
from gateway.redis_keys import AUDIT

AUDIT_MAX_ENTRIES = 1_000_000


@dataclass(frozen=True, slots=True)
class Erasure:
    """How much was found. ``disk_cleaned`` says that the text has left the append-only file too; an outside Redis is
    its operator's to rewrite (``BGREWRITEAOF``)."""

    flags: int
    cases: int
    exchanges: int
    disk_cleaned: bool


async def erase_end_user(end_user: str, *, redis: RedisClient, flags: FlagStore, cases: CaseStore) -> Erasure:
    """Remove the texts and the name of ``end_user`` (the id that callers send) from flags, exchanges, cases and spool.

    Flags, cases and their numbers stay; the audit stream gets an entry with numbers only. Raises
    ``StateUnavailable``; then run it again, it carries on.
    """
    person = redis.end_user_digest(end_user)
    found_cases, found_exchanges = await cases.erase_end_user(person)
    found_flags = await flags.erase_end_user(person)
    embedded = redis.server is not None
    erasure = Erasure(found_flags, found_cases, found_exchanges, disk_cleaned=embedded)
    with redis.guard() as connection:
        entry: dict[Field, Field] = {name: int(value) for name, value in asdict(erasure).items()}
        entry["event"] = "erase_end_user"
        await connection.xadd(AUDIT(), entry, maxlen=AUDIT_MAX_ENTRIES)
    await redis.rewrite_append_only_file()
    return erasure
