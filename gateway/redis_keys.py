"""Every key of the gateway in Redis: its name, type, meaning and lifetime, in one table.

A part in braces is a cluster's hash tag: keys that change together in one transaction share it, so that they live
in one slot. A ``%s`` stands for what calling the key fills in: ``FLAG("flag_1")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Key:
    """One kind of key. ``lifetime`` says when it goes by itself; ``meaning`` what it holds and what %s stands for."""

    pattern: str
    type: Literal["string", "hash", "set", "zset", "stream"]
    meaning: str
    lifetime: str

    def __call__(self, *parts: str) -> str:
        return self.pattern % parts


INSTALLATION_SECRET = Key(
    "antiprompt:secret", "string", "Secret that keys the digests of texts and end users", "for ever"
)
CLIENT_KEY = Key("antiprompt:{keys}:key:%s", "hash", "One client key by its id; its secret only as a hash", "for ever")
CLIENT_KEYS = Key("antiprompt:{keys}:ids", "set", "Ids of all client keys, revoked ones too", "for ever")

FLAG = Key("antiprompt:{flags}:flag:%s", "hash", "One flag by its id: body (JSON), state, duplicates", "until erased")
FLAG_STATE = Key(
    "antiprompt:{flags}:state:%s", "zset", "Ids of the flags in a state, by time of creation (ms)", "for ever"
)
FLAG_IDEMPOTENCY = Key(
    "antiprompt:{flags}:idempotency:%s",
    "string",
    "Digest of tenant and Idempotency-Key -> digest of the body",
    "7 days",
)
FLAG_END_USER = Key(
    "antiprompt:{flags}:end_user:%s", "set", "Digest of an end user -> ids of the flags", "until erased"
)
FLAG_ERASED = Key(
    "antiprompt:{flags}:erased:%s", "string", "Digest of an end user -> when their texts were erased (ms)", "30 days"
)
FLAG_STREAM = Key("antiprompt:{flags}:stream", "stream", "Flag ids as they are filed, no text", "newest 1,000,000")

CASE = Key("antiprompt:{cases}:case:%s", "string", "One case by its id (JSON, no text)", "retention.case_ttl_s")
CASE_BY_COMPLETION = Key(
    "antiprompt:{cases}:completion:%s:%s", "string", "Tenant, completion id -> case id", "retention.case_ttl_s"
)
CASE_RECENT = Key("antiprompt:{cases}:recent", "zset", "Case ids by time of creation (ms)", "retention.case_ttl_s")
CASE_END_USER = Key(
    "antiprompt:{cases}:end_user:%s", "zset", "Digest of an end user -> case ids by time (ms)", "retention.case_ttl_s"
)
EXCHANGE = Key("antiprompt:{cases}:exchange:%s", "string", "Texts of a case's exchange", "retention.exchange_ttl_s")
EXCHANGE_ORDER = Key(
    "antiprompt:{cases}:exchanges", "zset", "Case ids that have an exchange, by time (ms)", "with its exchanges"
)
EXCHANGE_SIZES = Key(
    "antiprompt:{cases}:exchange_bytes",
    "hash",
    "Case id -> bytes of its exchange; 'total' -> sum",
    "with its exchanges",
)
JUDGED = Key("antiprompt:judged:%s:%s", "string", "Tenant, digest of a text that was acted on -> action", "30 days")
ISSUED = Key("antiprompt:issued:%s:%s", "string", "Tenant, id the upstream gave out to it -> 1", "30 days")

POLICY = Key("antiprompt:{policy}:version:%s", "string", "One policy by its version: its YAML", "for ever")
POLICY_CURRENT = Key(
    "antiprompt:{policy}:current", "string", "The policy in force: version, source, author, note (JSON)", "for ever"
)
POLICY_HISTORY = Key("antiprompt:{policy}:history", "stream", "Who did what to the policy, and why", "newest 1,000,000")
POLICY_BREAK_GLASS = Key(
    "antiprompt:{policy}:break_glass", "string", "Who put everything into shadow, and why (JSON)", "at most 24 hours"
)

RATE = Key("antiprompt:{rate:%s}:%s", "hash", "Of whom, what is counted -> use, this window and last", "2 windows")
AUDIT = Key("antiprompt:audit", "stream", "What administrators did: erasures; numbers, no text", "newest 1,000,000")

TABLE: tuple[Key, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Key))
"""All keys, in the order above."""
