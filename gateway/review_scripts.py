"""The scripts that carry a review out or take it back in Redis, whole or not at all, and what they are given.

Everything they touch shares one hash tag. Names of keys travel as keys, and the plan (JSON) names them by their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from gateway.flag_records import Flag, FlagState, queue_keys, reporter_key
from gateway.overlay_records import BankEntry
from gateway.redis_keys import (
    BANK_CHANGES,
    BANK_ENTRIES,
    BANK_ENTRY_REVIEWS,
    EXEMPLAR_VERDICTS,
    FLAG,
    FLAG_LEASES,
    FLAG_REVIEWS,
    FLAG_STATE,
    HOLD_WEBHOOK_TRIES,
    HOLD_WEBHOOKS,
    RETRAINING,
    REVIEW,
    REVIEW_AUDIT,
    REVIEW_RECENT,
)
from gateway.review_records import Decision, Review

AUDIT_MAX_ENTRIES: Final = 1_000_000
CHANGES_MAX_ENTRIES: Final = 10_000

OUTCOME: Final = {
    Decision.CONFIRM: FlagState.CONFIRMED,
    Decision.DISMISS: FlagState.DISMISSED,
    Decision.ESCALATE: FlagState.ESCALATED,
}
"""The state that a decision leaves a flag in."""

_SHARED = """
local review, recent, audit, retraining, entries, changes, leases = unpack(KEYS, 1, 7)
local plan = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function move(flag, from, to, leave, enter)
    local key = KEYS[flag.key]
    local created = redis.call('ZSCORE', KEYS[from], flag.id) or plan.now_ms
    local priority = leave[1] and redis.call('ZSCORE', KEYS[leave[1]], flag.id)
    if priority then redis.call('HSET', key, 'priority', priority) end
    priority = redis.call('HGET', key, 'priority') or '0'
    redis.call('HSET', key, 'state', to.name)
    redis.call('HDEL', key, 'claimed_by', 'claimed_until')
    redis.call('ZREM', leases, flag.id)
    redis.call('ZREM', KEYS[from], flag.id)
    for _, at in ipairs(leave) do redis.call('ZREM', KEYS[at], flag.id) end
    redis.call('ZADD', KEYS[to.key], created, flag.id)
    for _, at in ipairs(enter) do redis.call('ZADD', KEYS[at], priority, flag.id) end
    if flag.told and redis.call('HEXISTS', key, 'awaited') == 1 then
        redis.call('ZADD', KEYS[flag.told], now_ms, flag.id)
        redis.call('HDEL', KEYS[flag.tries], flag.id)
    end
end
local function note(action)
    redis.call('XADD', audit, 'MAXLEN', '~', plan.audit_max, '*', 'actor', plan.by, 'action', action,
        'subject', plan.review, 'note', plan.note)
    redis.call('XADD', retraining, '*', 'review', plan.review, 'action', action)
end
local function judge_hit(flag, by)
    if not flag.exemplar or plan.counts == '' then return end
    local field = flag.exemplar .. ' ' .. plan.counts
    local left = redis.call('HINCRBY', KEYS[flag.verdicts], field, by)
    if left <= 0 then redis.call('HDEL', KEYS[flag.verdicts], field) end
end
local function take_back(flag, from, to)
    local held = flag.strike and redis.call('HGET', KEYS[flag.strike], flag.case)
    local strike = held and cjson.decode(held)
    if not strike or strike.side ~= flag.side or strike.back ~= from then return end
    strike.back = to
    redis.call('HSET', KEYS[flag.strike], flag.case, cjson.encode(strike))
end
local function put(entry)
    redis.call('HSET', entries, entry.id, entry.json)
    redis.call('XADD', changes, 'MAXLEN', '~', plan.changes_max, '*', 'entry', entry.id)
end
"""

DECIDE_SCRIPT: Final = (
    _SHARED
    + """
local held = redis.call('HGET', review, 'review')
if held then return {'same', held} end
for _, flag in ipairs(plan.flags) do
    local state, holder, until_ms = unpack(redis.call('HMGET', KEYS[flag.key], 'state', 'claimed_by', 'claimed_until'))
    if not state then return {'missing', flag.id} end
    if state ~= flag.from.name then return {'decided', flag.id, state} end
    if holder and holder ~= plan.by and tonumber(until_ms) > now_ms then return {'held', flag.id, holder} end
end
for _, flag in ipairs(plan.flags) do
    move(flag, flag.from.key, flag.to, flag.leave, flag.enter)
    redis.call('HSET', KEYS[flag.key], 'before', flag.from.name)
    redis.call('RPUSH', KEYS[flag.reviews], plan.review)
    if plan.counts ~= '' then redis.call('HINCRBY', KEYS[flag.reporter], plan.counts, 1) end
    if plan.counts == 'dismissed' then take_back(flag, '', plan.review) end
    judge_hit(flag, 1)
end
redis.call('HSET', review, 'review', ARGV[2])
redis.call('ZADD', recent, now_ms, plan.review)
note(plan.action)
for _, entry in ipairs(plan.entries) do
    redis.call('SADD', KEYS[entry.reviews], plan.review)
    local known = redis.call('HGET', entries, entry.id)
    local state = known and cjson.decode(known).record.state
    if not known or (state ~= 'live' and state ~= entry.state) then put(entry) end
end
return {'done', ARGV[2]}
"""
)
"""Answers done (or same, for a verdict that was carried out before) and the review, or why not: missing, decided, held.
An exemplar that is live already stays as it is; one that waits in shadow is replaced by a live one."""

UNDO_SCRIPT: Final = (
    _SHARED
    + """
if redis.call('HEXISTS', review, 'review') == 0 then return {'missing'} end
if redis.call('HEXISTS', review, 'undone_by') == 1 then return {'undone'} end
if now_ms > plan.until_ms then return {'late'} end
for _, flag in ipairs(plan.flags) do
    if redis.call('HGET', KEYS[flag.key], 'state') ~= flag.from.name
        or redis.call('LINDEX', KEYS[flag.reviews], -1) ~= plan.review then return {'later', flag.id} end
end
for _, flag in ipairs(plan.flags) do
    move(flag, flag.from.key, flag.to, flag.leave, flag.enter)
    redis.call('HINCRBY', KEYS[flag.key], 'rounds', 1)
    if plan.counts ~= '' then redis.call('HINCRBY', KEYS[flag.reporter], plan.counts, -1) end
    take_back(flag, plan.review, '')
    judge_hit(flag, -1)
end
redis.call('HSET', review, 'undone_by', plan.by, 'undone_at', tostring(now_ms / 1000))
note(plan.action)
for _, entry in ipairs(plan.entries) do
    redis.call('SREM', KEYS[entry.reviews], plan.review)
    if redis.call('SCARD', KEYS[entry.reviews]) == 0 then put(entry) end
end
return {'done'}
"""
)
"""Answers done, or why not: missing, undone, late (over the time for it), later (a flag has a later review).
An exemplar that another review asks for too stays."""

CLAIM_SCRIPT: Final = """
local flag, leases = unpack(KEYS)
local id, moderator, lease_ms = unpack(ARGV)
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local state, holder, until_ms = unpack(redis.call('HMGET', flag, 'state', 'claimed_by', 'claimed_until'))
if not state then return {'missing'} end
if state == 'confirmed' or state == 'dismissed' then return {'decided', state} end
if holder and holder ~= moderator and tonumber(until_ms) > now_ms then return {'held', holder, until_ms} end
redis.call('HSET', flag, 'claimed_by', moderator, 'claimed_until', now_ms + lease_ms)
redis.call('ZREMRANGEBYSCORE', leases, '-inf', now_ms)
redis.call('ZADD', leases, now_ms + lease_ms, id)
return {'done'}
"""
"""Answers done, missing, decided and the state, or held, by whom and until when (ms)."""

RELEASE_SCRIPT: Final = """
local flag, leases = unpack(KEYS)
if redis.call('HGET', flag, 'claimed_by') ~= ARGV[2] then return 0 end
redis.call('HDEL', flag, 'claimed_by', 'claimed_until')
return redis.call('ZREM', leases, ARGV[1])
"""


@dataclass(slots=True)
class _Keys:
    """The keys of a script, each once; ``place`` is where one stands, as Lua counts."""

    names: list[str]
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, name: str) -> int:
        if name not in self._places:
            self.names.append(name)
            self._places[name] = len(self.names)
        return self._places[name]


ScriptCall = tuple[list[str], list[str]]
"""Keys and arguments."""


Struck = Mapping[str, str]
"""Flag id -> the key of the strikes among which that of its case is."""


def decide_call(
    review: Review, flags: Sequence[Flag], entries: Sequence[BankEntry], struck: Struck, now_ms: int
) -> ScriptCall:
    """For ``DECIDE_SCRIPT``. ``flags`` are as they were read; the script refuses where they have changed since.

    A dismissal takes back the strikes of ``struck``: what was stopped had done no harm.
    """
    keys = _keys(review)
    to = OUTCOME[review.decision]
    plan = _plan(review, review.moderator, str(review.decision), now_ms)
    plan["flags"] = [_moving(keys, flag, undecided(flag), to, struck) for flag in flags]
    plan["entries"] = [_entry(keys, entry) for entry in entries]
    return keys.names, [orjson.dumps(plan).decode(), review.to_json()]


def undo_call(
    review: Review,
    moderator: str,
    flags: Mapping[Flag, FlagState],
    retired: Sequence[BankEntry],
    struck: Struck,
    now_ms: int,
) -> ScriptCall:
    """For ``UNDO_SCRIPT``. ``flags`` says for each where it goes back to; ``retired`` are the entries as they end.

    Strikes that the review had taken back count again.
    """
    keys = _keys(review)
    plan = _plan(review, moderator, "undo", now_ms)
    plan["until_ms"] = int(review.undo_until * 1000)
    state = OUTCOME[review.decision]
    plan["flags"] = [_moving(keys, flag, state, before, struck) for flag, before in flags.items()]
    plan["entries"] = [_entry(keys, entry) for entry in retired]
    return keys.names, [orjson.dumps(plan).decode()]


def undecided(flag: Flag) -> FlagState:
    """The state that Redis has for a flag that waits: claimed is no state of its own there."""
    return FlagState.OPEN if flag.state is FlagState.CLAIMED else flag.state


def _keys(review: Review) -> _Keys:
    shared = [REVIEW(review.id), REVIEW_RECENT(), REVIEW_AUDIT(), RETRAINING(), BANK_ENTRIES(), BANK_CHANGES()]
    return _Keys([*shared, FLAG_LEASES()])


def _plan(review: Review, by: str, action: str, now_ms: int) -> dict[str, Any]:
    counts = {Decision.CONFIRM: "confirmed", Decision.DISMISS: "dismissed", Decision.ESCALATE: ""}
    return {
        "review": review.id,
        "by": by,
        "action": action,
        "note": f"{len(review.flag_ids)} flags, {len(review.entry_ids)} exemplars",
        "counts": counts[review.decision],
        "now_ms": now_ms,
        "audit_max": AUDIT_MAX_ENTRIES,
        "changes_max": CHANGES_MAX_ENTRIES,
    }


def _moving(keys: _Keys, flag: Flag, source: FlagState, to: FlagState, struck: Struck) -> dict[str, Any]:
    strike = {"strike": keys.place(struck[flag.id]), "case": flag.case_id} if flag.id in struck else {}
    told = {"told": keys.place(HOLD_WEBHOOKS()), "tries": keys.place(HOLD_WEBHOOK_TRIES())}
    hit = {"exemplar": flag.exemplar, "verdicts": keys.place(EXEMPLAR_VERDICTS())} if flag.exemplar else {}
    return {
        **strike,
        **hit,
        **(told if source.decided or to.decided else {}),
        "side": flag.side or "",
        "id": flag.id,
        "key": keys.place(FLAG(flag.id)),
        "reviews": keys.place(FLAG_REVIEWS(flag.id)),
        "reporter": keys.place(reporter_key(flag)),
        "from": {"name": str(source), "key": keys.place(FLAG_STATE(source))},
        "to": {"name": str(to), "key": keys.place(FLAG_STATE(to))},
        "leave": [keys.place(key) for key in ([] if source.decided else queue_keys(flag, source))],
        "enter": [keys.place(key) for key in ([] if to.decided else queue_keys(flag, to))],
    }


def _entry(keys: _Keys, entry: BankEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "state": str(entry.record.state),
        "json": entry.to_json(),
        "reviews": keys.place(BANK_ENTRY_REVIEWS(entry.id)),
    }
