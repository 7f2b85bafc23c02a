"""What a flag is, and how it is laid down in Redis and in the spool."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

from antiprompt_bank.records import Side
from gateway.redis_keys import (
    FLAG,
    FLAG_END_USER,
    FLAG_ERASED,
    FLAG_FACET,
    FLAG_IDEMPOTENCY,
    FLAG_QUEUE,
    FLAG_REPORTER,
    FLAG_STATE,
    FLAG_STREAM,
)

IDEMPOTENCY_TTL_S = 7 * 86_400
STREAM_MAX_ENTRIES = 1_000_000

RISK_WEIGHT = 0.6
UNCERTAINTY_WEIGHT = 0.2
PERSON_WEIGHT = 0.3
EXPOSURE_WEIGHT = 0.1
UNKNOWN_RISK = 0.5

ADD_SCRIPT = """
local flag, marker, open, stream, end_user, erased, reporter = unpack(KEYS, 1, 7)
local id, fingerprint, marker_ttl_s, created_ms, record, texts, digest, mode, max_entries, priority = unpack(ARGV)
local awaited = ARGV[11]
if marker ~= flag then
    local held = redis.call('GET', marker)
    if held and held ~= fingerprint and mode ~= 'replay' then return 'conflict' end
    if not held then redis.call('SET', marker, fingerprint, 'EX', marker_ttl_s) end
end
if awaited == '1' then redis.call('HSET', flag, 'awaited', awaited) end
local kept = tonumber(redis.call('GET', erased) or '-1') < tonumber(created_ms)
if digest ~= '' and kept then redis.call('SADD', end_user, id) end
local state = redis.call('HGET', flag, 'state')
if state then
    if mode == 'merge' then
        local seen = redis.call('HINCRBY', flag, 'duplicates', 1)
        local more = EXPOSURE_WEIGHT * math.log((seen + 1) / seen)
        for at = 8, #KEYS do redis.call('ZADD', KEYS[at], 'XX', 'INCR', tostring(more), id) end
        if kept and redis.call('HEXISTS', flag, 'texts') == 0 then
            redis.call('HSET', flag, 'texts', texts, 'end_user', digest)
        end
    end
    return state
end
redis.call('HSET', flag, 'record', record, 'state', 'open', 'duplicates', 0)
if kept then redis.call('HSET', flag, 'texts', texts, 'end_user', digest) end
redis.call('ZADD', open, created_ms, id)
if mode ~= 'merge' then
    local past = redis.call('HMGET', reporter, 'confirmed', 'dismissed')
    local right, wrong = tonumber(past[1] or 0), tonumber(past[2] or 0)
    local trust = math.min(1, 2 * (right + 1) / (right + wrong + 2))
    priority = tostring(priority * trust)
end
for at = 8, #KEYS do redis.call('ZADD', KEYS[at], priority, id) end
redis.call('XADD', stream, 'MAXLEN', '~', max_entries, '*', 'event', 'filed', 'flag', id)
return 'open'
""".replace("EXPOSURE_WEIGHT", str(EXPOSURE_WEIGHT))
"""One flag, written whole or not at all. Answers its state, or 'conflict' for a known Idempotency-Key with another
body. Mode is new, merge (a policy flag: count a repeat, and give a text back that another person's erasure took) or
replay (from the spool: keep whatever it meets). Texts of an end user erased since the flag was made stay away.

The keys from the eighth on are the queue and the facets in which it waits, by priority: a repeat raises it, and the
flags of somebody whose flags were mostly dismissed begin lower (Laplace's estimate; a half or more counts in full)."""


class Source(StrEnum):
    """Who flagged."""

    USER = "user"
    POLICY = "policy"
    APPEAL = "appeal"  # somebody who was stopped


class FlagState(StrEnum):
    """How far a flag has come. A claimed one waits among the open ones, kept for one person for a while."""

    OPEN = "open"
    CLAIMED = "claimed"
    ESCALATED = "escalated"
    CONFIRMED = "confirmed"
    DISMISSED = "dismissed"

    @property
    def decided(self) -> bool:
        return self in (FlagState.CONFIRMED, FlagState.DISMISSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag. The texts (``text``, ``prompt``, ``reason``, ``corrected_answer``) are None once erased.

    ``end_user`` is the keyed digest that ``RedisClient.end_user_digest`` gives, never the id itself. ``created_at``
    is UTC in seconds since 1970; 0 lets the store set it. ``id``, ``state`` and ``duplicates`` are the store's:
    ``duplicates`` counts how often policy flagged the same text again. ``language`` is an ISO 639-1 code, the store's
    guess where nobody gave one. ``claimed_by`` is who holds it until ``claimed_until`` (UTC seconds); its state is
    claimed then. ``awaited`` says that a webhook is to tell of the decision, because content is held until then.
    ``exemplar`` is the id of the bank's exemplar behind the hit that it is about, where it is about one.
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
    language: str | None = None
    exemplar: str | None = None
    state: FlagState = FlagState.OPEN
    duplicates: int = 0
    claimed_by: str | None = None
    claimed_until: float = 0.0
    awaited: bool = False


_TEXTS = ("text", "prompt", "reason", "corrected_answer")
_KEPT_APART = ("id", "state", "duplicates", "end_user", "claimed_by", "claimed_until", "awaited")


def priority_of(flag: Flag) -> float:
    """How early a flag should be looked at, higher first: by its risk, by how uncertain that is, and by who flagged.

    What a person found wrong comes before what policy found; how often policy met it again is added as it happens.
    Of equals the older one comes first: by a thousandth at most, so that it decides nothing else.
    """
    risk = UNKNOWN_RISK if flag.risk is None else flag.risk
    person = 0.0 if flag.source is Source.POLICY else PERSON_WEIGHT
    found = RISK_WEIGHT * risk + UNCERTAINTY_WEIGHT * (1 - abs(2 * risk - 1)) + person
    return round(found, 3) + (1 - flag.created_at / 1e11) * 1e-3


def facets_of(flag: Flag) -> tuple[str, ...]:
    """The properties by which a waiting flag can be asked for, as the index names them."""
    named = {"hazard": flag.hazard, "source": str(flag.source), "tenant": flag.tenant, "language": flag.language}
    return tuple(facet(name, value) for name, value in named.items() if value is not None)


def facet(name: str, value: str) -> str:
    """One property of a flag, as the index names it."""
    return f"{name}={value}"


def queue_keys(flag: Flag, state: FlagState) -> list[str]:
    """The queue and the facets in which a flag waits in a state."""
    return [FLAG_QUEUE(state), *(FLAG_FACET(state, name) for name in facets_of(flag))]


def reporter_key(flag: Flag) -> str:
    """Whose past flags say how far this one is to be trusted: the end user's, or else the tenant's."""
    return FLAG_REPORTER(flag.end_user or f"tenant {flag.tenant}")


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
    awaited: bool = False

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
            awaited=flag.awaited,
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
        flag_itself = self.flag()
        keys += [FLAG_ERASED(self.end_user), reporter_key(flag_itself), *queue_keys(flag_itself, FlagState.OPEN)]
        mode = "replay" if replay else "merge" if self.merges else "new"
        known: list[str | int] = [self.id, self.fingerprint, IDEMPOTENCY_TTL_S, self.created_ms]
        written: list[str | int] = [self.record, self.texts, self.end_user, mode, STREAM_MAX_ENTRIES]
        return keys, [*known, *written, repr(priority_of(flag_itself)), "1" if self.awaited else ""]

    def without_person(self) -> FlagEntry:
        """The same flag once its end user is erased."""
        return replace(self, texts="{}", end_user="")


def flag_from_hash(id: str, row: Mapping[Any, Any]) -> Flag:
    """The flag that Redis holds as ``FLAG(id)``; claimed while somebody's lease has not run out."""
    state, duplicates = FlagState(row["state"]), int(row["duplicates"])
    found = _flag(id, row["record"], row.get("texts", "{}"), row.get("end_user", ""), state, duplicates)
    if row.get("awaited"):
        found = replace(found, awaited=True)
    until = float(row.get("claimed_until", 0)) / 1000
    if until <= time.time() or state.decided:
        return found
    state = FlagState.CLAIMED if state is FlagState.OPEN else state
    return replace(found, state=state, claimed_by=row["claimed_by"], claimed_until=until)


def _flag(id: str, record: str, texts: str, end_user: str, state: FlagState, duplicates: int) -> Flag:
    values: dict[str, Any] = {**orjson.loads(record), **orjson.loads(texts)}
    values["source"] = Source(values["source"])
    return Flag(**values, id=id, end_user=end_user or None, state=state, duplicates=duplicates)
