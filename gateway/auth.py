"""Who is calling: a client key, or, as long as no key was ever made, anybody on this machine.

Served without keys, the gateway answers only peers on loopback, and only under a host name of its own: a web page
that has its name resolved to 127.0.0.1 (DNS rebinding) is refused, and so is one that posts from elsewhere.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from gateway.client_keys import PREFIX, UNKNOWN_KEY, ClientKey, ClientKeyStore, StoredKey, split_token
from gateway.errors import Forbidden, StateUnavailable, Unauthorized
from gateway.settings import SettingsError

DEFAULT_TENANT = "default"
FRESH_S = 2.0  # how long a revoked key may go on here
STALE_S = 300.0  # how long known keys are served while Redis is away
MAX_CACHED_KEYS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whom a request is answered for, and what they may do. No models means all models; no limit is None."""

    tenant: str
    key_id: str | None = None
    policy: str | None = None
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    sees_scores: bool = False
    end_user: str | None = None

    def may_use(self, model: str) -> bool:
        return not self.models or model in self.models


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` (a name or an address, without a port) is this machine and nothing else."""
    if host is None:
        return False
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def refuse_open_listen(host: str, *, has_keys: bool) -> None:
    """Raise ``SettingsError`` where a gateway without client keys would listen to more than this machine."""
    if not has_keys and not is_loopback(host):
        raise SettingsError(
            f"host is {host!r}, which others can reach, but there is no client key; "
            "make one with `antiprompt keys create`, or listen on 127.0.0.1"
        )


class Authenticator:
    """Headers and peer -> ``Principal``. Known keys cost no round trip to Redis."""

    def __init__(self, keys: ClientKeyStore, *, allowed_hosts: tuple[str, ...] = ()) -> None:
        self._keys = keys
        self._allowed_hosts = frozenset(name.rstrip(".").lower() for name in allowed_hosts)
        self._cache: dict[str, tuple[StoredKey, float]] = {}
        self._exist: tuple[bool, float] | None = None

    async def principal(self, headers: Mapping[str, str], client_host: str | None) -> Principal:
        """Who is calling; ``headers`` are looked up in lower case, ``client_host`` is the peer's address.

        Raises ``Unauthorized`` (no key, an unknown one, a revoked one), ``Forbidden`` (no keys here, and not from this
        machine), or ``StateUnavailable`` for a key that cannot be looked up now.
        """
        if not await self.has_keys():
            return self._without_keys(headers, client_host)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("this gateway needs a client key: Authorization: Bearer agk_...")
        parts = split_token(token.strip())
        if parts is None:
            raise Unauthorized("the client key is not valid")
        id, secret = parts
        stored = await self._find(id) or UNKNOWN_KEY
        if not stored.proves(secret) or stored is UNKNOWN_KEY or stored.key.revoked_at is not None:
            raise Unauthorized("the client key is not valid")
        return _principal(stored.key)

    async def has_keys(self) -> bool:
        """Whether client keys are needed here. Once they are, they stay needed while Redis is away."""
        now = time.monotonic()
        if self._exist is not None and (self._exist[0] or now - self._exist[1] < FRESH_S):
            return self._exist[0]
        try:
            self._exist = (await self._keys.exist(), now)
        except StateUnavailable:
            if self._exist is None:
                raise
        return self._exist[0]

    async def _find(self, id: str) -> StoredKey | None:
        now = time.monotonic()
        cached = self._cache.get(id)
        if cached is not None and now - cached[1] < FRESH_S:
            return cached[0]
        try:
            stored = await self._keys.find(id)
        except StateUnavailable:
            if cached is not None and now - cached[1] < STALE_S:
                return cached[0]
            raise
        self._cache.pop(id, None)
        if stored is not None:
            if len(self._cache) >= MAX_CACHED_KEYS:
                del self._cache[next(iter(self._cache))]
            self._cache[id] = (stored, now)
        return stored

    def _without_keys(self, headers: Mapping[str, str], client_host: str | None) -> Principal:
        if PREFIX in headers.get("authorization", ""):
            raise Unauthorized("the client key is not valid: this gateway has none")  # nor may it reach the upstream
        if not is_loopback(client_host):
            raise Forbidden("without client keys only this machine is served; make one with `antiprompt keys create`")
        if not self._is_own(_split(f"//{headers.get('host', '')}")):
            raise Forbidden("this host name is not served without client keys; list it in routes.allowed_hosts")
        origin = _split(headers.get("origin", ""))
        if origin is None or (origin.scheme in ("http", "https") and not self._is_own(origin)):
            raise Forbidden("pages of other sites are not served; list the site's host in routes.allowed_hosts")
        return Principal(tenant=DEFAULT_TENANT)

    def _is_own(self, url: SplitResult | None) -> bool:
        host = url.hostname if url is not None else None
        return is_loopback(host) or (host is not None and host.rstrip(".") in self._allowed_hosts)


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:  # half an IPv6 address
        return None


def _principal(key: ClientKey) -> Principal:
    return Principal(
        tenant=key.tenant,
        key_id=key.id,
        policy=key.policy,
        models=key.models,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        sees_scores=key.sees_scores,
    )
