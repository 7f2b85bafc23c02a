"""Client keys: who may use the gateway, as which tenant, and how much. Stored hashed; shown once, when made.

A key reads ``agk_<id>_<secret>``: the id finds the record, the secret (256 random bits) proves it. Because the
secret is random and long, one SHA-256 is as hard to reverse as a slow password hash would be.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson

from gateway.errors import Conflict, NotFound
from gateway.redis_client import Field, RedisClient
from gateway.redis_keys import CLIENT_KEY, CLIENT_KEYS

PREFIX = "agk_"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"agk_([0-9a-f]{12})_([A-Za-z0-9_-]{20,100})")
_ADOPTED_CHARS = 32  # as many as 192 random bits take
_NO_HASH = hashlib.sha256(b"").hexdigest()  # what an unknown id is compared with, so that it takes as long


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """What is known of one key. Times are UTC in seconds since 1970; no models means all models.

    Raises ``ValueError`` for a tenant that is no plain name, or a limit below 1.
    """

    id: str
    tenant: str
    label: str = ""
    policy: str | None = None
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    sees_scores: bool = False
    created_at: float = 0.0
    revoked_at: float | None = None

    def __post_init__(self) -> None:
        if not _TENANT.fullmatch(self.tenant):
            raise ValueError(f"tenant {self.tenant!r} must be a name of letters, digits, '.', '_' and '-', at most 64")
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1, or left out for no limit")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key's record with the hash of its secret; stays inside authentication."""

    key: ClientKey
    secret_hash: str

    def proves(self, secret: str) -> bool:
        """Whether ``secret`` is this key's, in a time that does not depend on how nearly it is."""
        return hmac.compare_digest(hash_secret(secret), self.secret_hash)


UNKNOWN_KEY = StoredKey(ClientKey(id="", tenant="none"), _NO_HASH)
"""Stands in for an id that does not exist; nothing proves it in practice, and it counts for nobody."""


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def split_token(token: str) -> tuple[str, str] | None:
    """Id and secret of a well-formed key, or None."""
    found = _TOKEN.fullmatch(token)
    return (found[1], found[2]) if found else None


class ClientKeyStore:
    """All client keys, in Redis. Every method raises ``StateUnavailable`` while Redis is away."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def create(self, tenant: str, **fields_of_key: Any) -> tuple[ClientKey, str]:
        """A new key and its token, which is not kept and cannot be shown again. Raises ``ValueError``."""
        key = ClientKey(id=secrets.token_hex(6), tenant=tenant, created_at=time.time(), **fields_of_key)
        secret = secrets.token_urlsafe(32)
        await self._keep(key, secret)
        return key, f"{PREFIX}{key.id}_{secret}"

    async def adopt(self, token: str, tenant: str, **fields_of_key: Any) -> ClientKey:
        """The key of a token that was made elsewhere; it becomes one unless it is one already, and then stays as it is.

        Raises ``ValueError`` for what is no token or whose secret is too easy to guess, and ``Conflict`` where another
        secret has its id.
        """
        found = split_token(token)
        if found is None or len(found[1]) < _ADOPTED_CHARS:
            raise ValueError(
                f"a client key reads {PREFIX}ID_SECRET: 12 hexadecimal digits and at least {_ADOPTED_CHARS} "
                "random letters, digits, '-' or '_'"
            )
        id, secret = found
        stored = await self.find(id)
        if stored is None:
            key = ClientKey(id=id, tenant=tenant, created_at=time.time(), **fields_of_key)
            await self._keep(key, secret)
            return key
        if not stored.proves(secret):
            raise Conflict(f"there is a client key {id!r} with another secret; choose another id")
        return stored.key

    async def _keep(self, key: ClientKey, secret: str) -> None:
        row: dict[Field, Field] = {name: orjson.dumps(value).decode() for name, value in asdict(key).items()}
        row["secret_hash"] = hash_secret(secret)
        with self._redis.guard() as redis:
            pipe = redis.pipeline(transaction=True)
            pipe.hset(CLIENT_KEY(key.id), mapping=row)
            pipe.sadd(CLIENT_KEYS(), key.id)
            await pipe.execute()

    async def revoke(self, id: str) -> ClientKey:
        """End a key, for good; gateways follow within two seconds. Raises ``NotFound``."""
        with self._redis.guard() as redis:
            if await redis.exists(CLIENT_KEY(id)):
                await redis.hset(CLIENT_KEY(id), "revoked_at", orjson.dumps(time.time()).decode())
        stored = await self.find(id)
        if stored is None:
            raise NotFound(f"there is no client key {id!r}; `antiprompt keys list` shows all")
        return stored.key

    async def list(self) -> Sequence[ClientKey]:
        """All keys, revoked ones too, oldest first."""
        with self._redis.guard() as redis:
            ids = [str(id) for id in await redis.smembers(CLIENT_KEYS())]
        stored = [await self.find(id) for id in ids]
        return sorted((found.key for found in stored if found is not None), key=lambda key: key.created_at)

    async def find(self, id: str) -> StoredKey | None:
        with self._redis.guard() as redis:
            row: Mapping[Any, Any] = await redis.hgetall(CLIENT_KEY(id))
        return _stored(row) if row else None

    async def exist(self) -> bool:
        """Whether any key was ever made. Revoked keys count: taking the last one away must not open the gateway."""
        with self._redis.guard() as redis:
            return bool(await redis.exists(CLIENT_KEYS()))


def _stored(row: Mapping[str, str]) -> StoredKey:
    values = {field.name: orjson.loads(row[field.name]) for field in fields(ClientKey)}
    values["models"] = tuple(values["models"])
    return StoredKey(ClientKey(**values), row["secret_hash"])
