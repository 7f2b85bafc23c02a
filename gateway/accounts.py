"""Accounts of the people who review: a name, a role and a password, in Redis. There is none to begin with.

Passwords are kept as Argon2id hashes (RFC 9106, with the low-memory profile of ``argon2-cffi``). Checking one takes
as long for a name that does not exist as for one that does, so that nobody can list names by the clock. A
password that was changed, or an account that was disabled, gets a new ``stamp``, which ends its sessions.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import orjson
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.errors import Conflict, NotFound
from gateway.redis_client import RedisClient
from gateway.redis_keys import ACCOUNT, ACCOUNTS
from gateway.roles import Role

LEAST_PASSWORD: Final = 12
MOST_PASSWORD: Final = 1024
CHECKS_AT_ONCE: Final = 2
"""Password checks under way at once in a process: each takes 64 MiB and a good part of a second of one core."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")

_CREATE: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('SADD', KEYS[2], ARGV[1])
return 1
"""

_CHANGE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
"""
"""An account that is gone does not come back in part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One person. Times are UTC in seconds since 1970. ``stamp`` changes with everything that must end sessions.

    ``outside`` says that the person logs in through an identity provider and has no password here. Raises
    ``ValueError`` for a name that is not a plain one.
    """

    name: str
    role: Role
    stamp: str
    outside: bool = False
    created_at: float = 0.0
    disabled_at: float | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r} must be of lower-case letters, digits, '.', '_', '@' and '-', at most 64"
            )
        object.__setattr__(self, "role", Role(self.role))

    @property
    def enabled(self) -> bool:
        return self.disabled_at is None


class AccountStore:
    """All accounts. Every method raises ``StateUnavailable`` while Redis is away.

    ``hasher`` says what a hash costs; hashes of another cost are made anew when their password is given next.
    """

    def __init__(self, redis: RedisClient, hasher: PasswordHasher | None = None) -> None:
        self._redis = redis
        self._hasher = hasher or PasswordHasher()
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._nobody: str | None = None  # what an unknown name is compared with

    async def create(self, name: str, role: Role, password: str | None) -> Account:
        """A new account; no password means that an identity provider vouches for the person.

        Raises ``ValueError`` for a name or a password that will not do, and ``Conflict`` for a name that is taken.
        """
        account = Account(name=name, role=role, stamp=_new_stamp(), outside=password is None, created_at=time.time())
        hashed = await self._hash(password) if password is not None else ""
        row = [part for pair in {**_row(account), "password_hash": hashed}.items() for part in pair]
        with self._redis.guard() as redis:
            made = await redis.eval(_CREATE, 2, ACCOUNT(name), ACCOUNTS(), name, *row)
        if not made:
            raise Conflict(f"there is an account {name!r} already; `antiprompt moderators list` shows all")
        return account

    async def set_password(self, name: str, password: str) -> None:
        """Change the password and end all sessions of the account. Raises ``ValueError`` and ``NotFound``."""
        hashed = await self._hash(password)
        await self._change(name, {"password_hash": hashed, **_json(outside=False, stamp=_new_stamp())})

    async def set_role(self, name: str, role: Role) -> None:
        """Change what the account may do, from its next request on. Raises ``NotFound``."""
        await self._change(name, _json(role=role))

    async def disable(self, name: str) -> None:
        """Close the account and end its sessions; what it decided keeps its name. Raises ``NotFound``."""
        await self._change(name, _json(disabled_at=time.time(), stamp=_new_stamp()))

    async def enable(self, name: str) -> None:
        """Open a disabled account again. Raises ``NotFound``."""
        await self._change(name, _json(disabled_at=None))

    async def find(self, name: str) -> Account | None:
        """The account, disabled ones too; None where there is none."""
        found = await self._load(name)
        return found[0] if found is not None else None

    async def authenticate(self, name: str, password: str) -> Account | None:
        """The account whose name and password these are; None for anything else, after the same time."""
        found = await self._load(name) if _NAME.fullmatch(name) else None
        account, hashed = found if found is not None else (None, "")
        if self._nobody is None:
            self._nobody = await self._hash(secrets.token_hex(16))
        right = await self._check(hashed or self._nobody, password[: MOST_PASSWORD + 1])
        if account is None or not hashed or not right or not account.enabled:
            return None
        if self._hasher.check_needs_rehash(hashed):
            await self._change(name, {"password_hash": await self._hash(password)})
        return account

    async def list(self) -> Sequence[Account]:
        """All accounts, disabled ones too, by name."""
        with self._redis.guard() as redis:
            names = sorted(str(name) for name in await redis.smembers(ACCOUNTS()))
        found = [await self.find(name) for name in names]
        return [account for account in found if account is not None]

    async def exist(self) -> bool:
        """Whether any account was ever made."""
        with self._redis.guard() as redis:
            return bool(await redis.exists(ACCOUNTS()))

    async def _load(self, name: str) -> tuple[Account, str] | None:
        with self._redis.guard() as redis:
            row: Mapping[Any, Any] = await redis.hgetall(ACCOUNT(name))
        if not row:
            return None
        values = {field.name: orjson.loads(row[field.name]) for field in fields(Account)}
        return Account(**values), row["password_hash"]

    async def _change(self, name: str, values: Mapping[str, str]) -> None:
        with self._redis.guard() as redis:
            row = [part for pair in values.items() for part in pair]
            changed = await redis.eval(_CHANGE, 1, ACCOUNT(name), *row)
        if not changed:
            raise NotFound(f"there is no account {name!r}; `antiprompt moderators list` shows all")

    async def _hash(self, password: str) -> str:
        if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
            raise ValueError(f"the password must have {LEAST_PASSWORD} to {MOST_PASSWORD} characters")
        async with self._checks:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _check(self, hashed: str, password: str) -> bool:
        async with self._checks:
            return await asyncio.to_thread(_proves, self._hasher, hashed, password)


def _proves(hasher: PasswordHasher, hashed: str, password: str) -> bool:
    try:
        return hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def _row(account: Account) -> dict[str, str]:
    return _json(**asdict(account))


def _json(**values: Any) -> dict[str, str]:
    return {name: orjson.dumps(value).decode() for name, value in values.items()}


def _new_stamp() -> str:
    return secrets.token_hex(8)
