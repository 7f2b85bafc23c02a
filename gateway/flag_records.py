"""What a flag is, and how it is laid down in Redis and in the spool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

from antiprompt_bank.records import Side
from gateway.redis_keys import FLAG, FLAG_END_USER, FLAG_ERASED, FLAG_IDEMPOTENCY, FLAG_STATE, FLAG_STREAM

IDEMPOTENCY_TTL_S = 7 * 86_400
STREAM_MAX_ENTRIES = 1_000_000

ADD_SCRIPT = """
local flag, marker, open, stream, end_user, erased = unpack(KEYS)
local id, fingerprint, marker_ttl_s, created_ms, record, texts, digest, mode, max_entries = unpack(ARGV)
if marker ~= flag then
    local held = redis.call('GET', marker)
    if held and held ~= fingerprint and mode ~= 'replay' then return 'conflict' end
    if not held then redis.call('SET', marker, fingerprint, 'EX', marker_ttl_s) end
end
local kept = tonumber(redis.call('GET', erased) or '-1') < tonumber(created_ms)
if digest ~= '' and kept then redis.call('SADD', end_user, id) end
local state = redis.call('HGET', flag, 'state')
if state then
    if mode == 'merge' then
        redis.call('HINCRBY', flag, 'duplicates', 1)
        if kept and redis.call('HEXISTS', flag, 'texts') == 0 then
            redis.call('HSET', flag, 'texts', texts, 'end_user', digest)
        end
    end
    return state
end
redis.call('HSET', flag, 'record', record, 'state', 'open', 'duplicates', 0)
if kept then redis.call('HSET', flag, 'texts', texts, 'end_user', digest) end
redis.call('ZADD', open, created_ms, id)
redis.call('XADD', stream, 'MAXLEN', '~', max_entries, '*', 'event', 'filed', 'flag', id)
return 'open'
"""
"""One flag, written whole or not at all. Answers its state, or 'conflict' for a known Idempotency-Key with another
body. Mode is new, merge (a policy flag: count a repeat, and give a text back that another person's erasure took) or
replay (from the spool: keep whatever it meets). Texts of an end user erased since the flag was made stay away."""


class Source(StrEnum):
    """Who flagged."""

    USER = "user"
    POLICY = "policy"


class FlagState(StrEnum):
    """How far a flag has come; confirmed and dismissed are final."""

    OPEN = "open"
    CLAIMED = "claimed"
    ESCALATED = "escalated"
    CONFIRMED = "confirmed"
    DISMISSED = "dismissed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag. The texts (``text``, ``prompt``, ``reason``, ``corrected_answer``) are None once erased.

    ``end_user`` is the keyed digest that ``RedisClient.end_user_digest`` gives, never the id itself. ``created_at``
    is UTC in seconds since 1970; 0 lets the store set it. ``id``, ``state`` and ``duplicates`` are the store's:
    ``duplicates`` counts how often policy flagged the same text again. ``language`` is an ISO 639-1 code where whoever
    flagged knew it. ``claimed_by`` is who holds it until ``claimed_until`` (UTC seconds); its state is claimed then.
    """

    tenant: str
    source: Source
    side: Side | None = None
    text: str | None = None
    prompt: str | None = None
    reason: str | None = None
    corrected_answer: str | None = None
    hazard: str | None = None
    risk: float | None = None
    case_id: str | None = None
    completion_id: str | None = None
    bank_version: str | None = None
    end_user: str | None = None
    created_at: float = 0.0
    id: str = ""
    state: FlagState = FlagState.OPEN
    duplicates: int = 0
    language: str | None = None
    claimed_by: str | None = None
    claimed_until: float = 0.0


_TEXTS = ("text", "prompt", "reason", "corrected_answer")
_KEPT_APART = ("id", "state", "duplicates", "end_user")


@dataclass(frozen=True, slots=True)
class FlagEntry:
    """One flag as it is written: to Redis as the script's arguments, to the spool as a JSON line."""

    id: str
    marker: str  # digest of tenant and Idempotency-Key; empty without one
    fingerprint: str
    created_ms: int
    record: str
    texts: str
    end_user: str
    merges: bool

    @classmethod
    def of(cls, flag: Flag, marker: str, fingerprint: str) -> FlagEntry:
        values = asdict(flag)
        for name in _KEPT_APART:
            del values[name]
        texts = {name: values.pop(name) for name in _TEXTS}
        return cls(
            id=flag.id,
            marker=marker,
            fingerprint=fingerprint,
            created_ms=int(flag.created_at * 1000),
            record=orjson.dumps(values).decode(),
            texts=orjson.dumps(texts).decode(),
            end_user=flag.end_user or "",
            merges=flag.source is Source.POLICY,
        )

    def flag(self) -> Flag:
        """The flag as it stands in the spool."""
        return _flag(self.id, self.record, self.texts, self.end_user, FlagState.OPEN, 0)

    def to_line(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def from_line(cls, line: bytes) -> FlagEntry:
        return cls(**orjson.loads(line))

    def script_call(self, *, replay: bool) -> tuple[list[str], list[str | int]]:
        """Keys and arguments for ``ADD_SCRIPT``."""
        flag = FLAG(self.id)
        marker = FLAG_IDEMPOTENCY(self.marker) if self.marker else flag
        keys = [flag, marker, FLAG_STATE(FlagState.OPEN), FLAG_STREAM(), FLAG_END_USER(self.end_user)]
        keys.append(FLAG_ERASED(self.end_user))
        mode = "replay" if replay else "merge" if self.merges else "new"
        known: list[str | int] = [self.id, self.fingerprint, IDEMPOTENCY_TTL_S, self.created_ms]
        return keys, [*known, self.record, self.texts, self.end_user, mode, STREAM_MAX_ENTRIES]

    def without_person(self) -> FlagEntry:
        """The same flag once its end user is erased."""
        return replace(self, texts="{}", end_user="")


def flag_from_hash(id: str, row: Mapping[Any, Any]) -> Flag:
    """The flag that Redis holds as ``FLAG(id)``."""
    state, duplicates = FlagState(row["state"]), int(row["duplicates"])
    return _flag(id, row["record"], row.get("texts", "{}"), row.get("end_user", ""), state, duplicates)


def _flag(id: str, record: str, texts: str, end_user: str, state: FlagState, duplicates: int) -> Flag:
    values: dict[str, Any] = {**orjson.loads(record), **orjson.loads(texts)}
    values["source"] = Source(values["source"])
    return Flag(**values, id=id, end_user=end_user or None, state=state, duplicates=duplicates)
