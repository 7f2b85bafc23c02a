"""Every key of the gateway in Redis: its name, type, meaning and lifetime, in one table.

A part in braces is a cluster's hash tag: keys that change together in one transaction share it, so that they live
in one slot. A ``%s`` stands for what calling the key fills in: ``FLAG("flag_1")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Key:
    """One kind of key. ``lifetime`` says when it goes by itself; ``meaning`` what it holds and what %s stands for."""

    pattern: str
    type: Literal["string", "hash", "list", "set", "zset", "stream"]
    meaning: str
    lifetime: str

    def __call__(self, *parts: str) -> str:
        return self.pattern % parts


INSTALLATION_SECRET = Key(
    "antiprompt:secret", "string", "Secret that keys the digests of texts and end users", "for ever"
)
CONFIRMED = Key(
    "antiprompt:confirmed:{%s}", "string", "Hash tag: written so that WAIT covers all that came before", "60 seconds"
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
FLAG_STREAM = Key(
    "antiprompt:{flags}:stream", "stream", "Flag ids as they are filed, no text", "retention.stream_entries"
)
FLAG_QUEUE = Key(
    "antiprompt:{flags}:queue:%s", "zset", "Ids of the flags that wait in a state, by priority", "until decided"
)
FLAG_FACET = Key(
    "antiprompt:{flags}:queue:%s:%s",
    "zset",
    "State, one property (hazard=hate) -> ids of the waiting flags with it, by priority",
    "until decided",
)
FLAG_LEASES = Key("antiprompt:{flags}:leases", "zset", "Ids of claimed flags, by the end of the claim (ms)", "its end")
FLAG_COMMENTS = Key("antiprompt:{flags}:comments:%s", "list", "Comments beside a flag (JSON), oldest first", "for ever")
FLAG_REVIEWS = Key(
    "antiprompt:{flags}:reviews_of:%s", "list", "Flag id -> ids of its reviews, oldest first", "for ever"
)
FLAG_REPORTER = Key(
    "antiprompt:{flags}:reporter:%s",
    "hash",
    "Digest of who flags -> how many were confirmed and dismissed",
    "until erased",
)

REVIEW = Key("antiprompt:{flags}:review:%s", "hash", "One review (JSON), and who undid it and when", "for ever")
REVIEW_RECENT = Key("antiprompt:{flags}:reviews", "zset", "Ids of the reviews, by time (ms)", "for ever")
REVIEW_AUDIT = Key(
    "antiprompt:{flags}:audit", "stream", "Who did what to flags and bank, no text", "retention.stream_entries"
)
RETRAINING = Key(
    "antiprompt:{flags}:retraining", "stream", "Reviews that the workers have not learned from", "until archived"
)

EXEMPLAR_HITS = Key(
    "antiprompt:{hits}:day:%s", "hash", "Day -> exemplar id, kind of hit -> how often, 50,000 at most", "60 days"
)
EXEMPLAR_VERDICTS = Key(
    "antiprompt:{flags}:exemplar_verdicts",
    "hash",
    "Exemplar id, confirmed or dismissed -> how many flags of its hits were",
    "for ever",
)

HOLD_WEBHOOKS = Key(
    "antiprompt:{flags}:hold_webhooks",
    "zset",
    "Ids of flags whose decision a webhook has to tell, by when (ms)",
    "told",
)
HOLD_WEBHOOK_TRIES = Key(
    "antiprompt:{flags}:hold_webhook_tries", "hash", "Id of such a flag -> how often that was tried", "until told"
)

STRIKES = Key(
    "antiprompt:{flags}:strikes:%s:%s",
    "hash",
    "Digest of an end user, tenant -> case id -> one strike (JSON)",
    "10 half-lives after the last strike",
)
STRIKE_OF = Key(
    "antiprompt:{flags}:strike_of:%s",
    "string",
    "Case id -> digest of the end user it struck, tenant",
    "with its strike",
)
STRIKE_TENANTS = Key(
    "antiprompt:{flags}:strike_tenants:%s", "set", "Digest of an end user -> tenants with strikes", "with the strikes"
)
STRUCK = Key(
    "antiprompt:{flags}:struck",
    "zset",
    "Digest of an end user, tenant, by when the strikes are forgotten (ms)",
    "its members'",
)

RETRAINING_DUE = Key(
    "antiprompt:{flags}:retraining:due",
    "zset",
    "Ids of exemplars that no version holds yet, by time (s)",
    "until built",
)
RETRAINING_DEAD = Key(
    "antiprompt:{flags}:retraining:dead", "stream", "Reviews that could not be learned from, and why", "newest 20,000"
)
RETRAINING_RUNS = Key(
    "antiprompt:{flags}:retraining:runs", "stream", "What came of each build, with the gate's report", "newest 2,000"
)
RETRAINING_BUILDER = Key(
    "antiprompt:{flags}:retraining:builder", "string", "Token of the worker that builds", "60 seconds, renewed"
)

BANK_ENTRIES = Key("antiprompt:{flags}:bank:entries", "hash", "Exemplar id -> one entry since a version", "for ever")
BANK_ENTRY_REVIEWS = Key(
    "antiprompt:{flags}:bank:reviews_of:%s", "set", "Exemplar id -> ids of the reviews it comes from", "for ever"
)
BANK_CHANGES = Key(
    "antiprompt:{flags}:bank:changes", "stream", "Ids of entries as they change; gateways follow it", "newest 10,000"
)
BANK_CURRENT = Key("antiprompt:{flags}:bank:current", "string", "The bank version in force (JSON)", "for ever")
BANK_HISTORY = Key(
    "antiprompt:{flags}:bank:history", "stream", "Which version was put in force, by whom", "retention.stream_entries"
)
BANK_SCORES = Key(
    "antiprompt:{flags}:bank:scores", "hash", "Bank version -> what the gate measured of it (JSON)", "for ever"
)
REPLICA = Key("antiprompt:replica:%s", "string", "What a gateway says of itself: bank, position (JSON)", "15 seconds")
REPLICAS = Key("antiprompt:replicas", "zset", "Names of the gateways, by when they last said so (ms)", "its members'")

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
POLICY_HISTORY = Key(
    "antiprompt:{policy}:history", "stream", "Who did what to the policy, and why", "retention.stream_entries"
)
POLICY_BREAK_GLASS = Key(
    "antiprompt:{policy}:break_glass", "string", "Who put everything into shadow, and why (JSON)", "at most 24 hours"
)

ACCOUNT = Key("antiprompt:{accounts}:account:%s", "hash", "One moderator by name: role, password hash", "for ever")
ACCOUNTS = Key("antiprompt:{accounts}:names", "set", "Names of all moderators, disabled ones too", "for ever")
SESSION = Key(
    "antiprompt:session:%s", "hash", "SHA-256 of a session's token -> who, since when", "review.session_idle_s"
)

TRAFFIC = Key(
    "antiprompt:traffic", "stream", "A sample of screened texts as vectors, without text", "retention.case_ttl_s"
)
OIDC = Key("antiprompt:oidc:%s", "string", "SHA-256 of a log-in's state -> nonce, verifier (JSON)", "10 minutes")

RATE = Key("antiprompt:{rate:%s}:%s", "hash", "Of whom, what is counted -> use, this window and last", "2 windows")
ARCHIVING = Key("antiprompt:archiving", "string", "A gateway brings the older part of the logs to the archive", "300 s")
AUDIT = Key(
    "antiprompt:audit", "stream", "What administrators did: erasures; numbers, no text", "retention.stream_entries"
)

TABLE: tuple[Key, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Key))
"""All keys, in the order above."""

_LOSABLE: Final = (
    *(JUDGED, ISSUED, TRAFFIC, RATE, REPLICA, REPLICAS),
    *(STRIKES, STRIKE_OF, STRIKE_TENANTS, STRUCK, EXEMPLAR_HITS),
)
MAY_BE_LOST: Final = tuple(key.pattern.partition("%")[0] for key in _LOSABLE)
"""How keys begin that a failover may forget without harm; writing them waits for no replica (redis.wait_replicas)."""
