"""OpenID Connect: people log in with an identity provider, by the authorization code flow with PKCE.

OpenID Connect Core 1.0, RFC 7636 (PKCE), RFC 9207 (issuer in the answer), RFC 9700 (best current practice). The
provider only proves who somebody is: an account of that name must exist here and be marked as an outside one, and its
role is decided here. What the browser carries over (``state``) is good for one log-in, for ten minutes.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.errors import Forbidden, NotFound, UpstreamInvalid
from gateway.http_client import HttpClient
from gateway.redis_client import RedisClient
from gateway.redis_keys import OIDC
from gateway.settings import ReviewSettings, UpstreamSettings

BACK: Final = "/review/oidc/back"
LIFETIME_S: Final = 600

_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
"""Signatures by a key of the provider's; none that a shared secret, or nothing at all, could make."""

_FRESH_S: Final = 3600.0
_LEEWAY_S: Final = 60
_HTTP: Final = UpstreamSettings(read_timeout_s=10, total_timeout_s=15, max_connections=8, max_reply_bytes=1 << 20)


@dataclass(frozen=True, slots=True)
class _Provider:
    """What the provider says of itself, and its keys; ``read_at`` by the monotonic clock."""

    authorization_endpoint: str
    token_endpoint: str
    keys: KeySet
    read_at: float


class IdentityProvider:
    """The identity provider that settings name. ``start`` before use, ``close`` at the end; without one, do nothing."""

    def __init__(self, settings: ReviewSettings, redis: RedisClient) -> None:
        self._settings = settings
        self._redis = redis
        self._http = HttpClient(_HTTP)
        self._known: _Provider | None = None

    async def start(self) -> None:
        if self.configured:
            await self._http.start()

    async def close(self) -> None:
        if self.configured:
            await self._http.close()

    @property
    def configured(self) -> bool:
        """Whether settings name a provider."""
        return self._settings.oidc_issuer is not None

    async def leave(self) -> tuple[str, str]:
        """Where the browser goes to log in, and the state that it must bring back.

        Raises ``NotFound`` where none is configured, and what the HTTP client raises while the provider is away.
        """
        provider = await self._provider()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with self._redis.guard() as redis:
            kept = orjson.dumps({"nonce": nonce, "verifier": verifier}).decode()
            await redis.set(_key(state), kept, ex=LIFETIME_S)
        asked = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._back,
            "scope": "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        joint = "&" if urlsplit(provider.authorization_endpoint).query else "?"
        return f"{provider.authorization_endpoint}{joint}{urlencode(asked)}", state

    async def arrive(self, *, state: str, code: str, issuer: str | None) -> str:
        """The name that the provider vouches for. Raises ``Forbidden`` for anything that is not in order."""
        provider = await self._provider()
        if issuer is not None and issuer.rstrip("/") != self._settings.oidc_issuer:
            raise Forbidden("this answer is of another identity provider")
        with self._redis.guard() as redis:
            kept = await redis.getdel(_key(state))
        if kept is None:
            raise Forbidden("this log-in took too long, or was used already; begin again")
        begun: dict[str, str] = orjson.loads(kept)
        token = await self._exchange(provider, code, begun["verifier"])
        return self._name(await self._claims(provider, token, begun["nonce"]))

    @property
    def _back(self) -> str:
        return f"{self._settings.public_url}{BACK}"

    async def _provider(self) -> _Provider:
        """What the provider says of itself, asked again after an hour."""
        issuer = self._settings.oidc_issuer
        if issuer is None:
            raise NotFound("no identity provider is configured here")
        if self._known is None or time.monotonic() - self._known.read_at > _FRESH_S:
            told = await self._get(f"{issuer}/.well-known/openid-configuration")
            if str(told.get("issuer", "")).rstrip("/") != issuer:
                raise UpstreamInvalid("the identity provider calls itself by another name")
            endpoints = [_endpoint(told, name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
            keys = await self._get(endpoints[2])
            try:
                self._known = _Provider(endpoints[0], endpoints[1], _key_set(keys), time.monotonic())
            except (JoseError, ValueError, KeyError, TypeError):
                raise UpstreamInvalid("the identity provider's keys cannot be read") from None
        return self._known

    async def _get(self, url: str) -> dict[str, Any]:
        reply = await self._http.send("GET", url, (("accept", "application/json"),))
        return _object(reply.body) if reply.status == 200 else _object(b"")

    async def _exchange(self, provider: _Provider, code: str, verifier: str) -> str:
        secret = self._settings.oidc_client_secret
        assert secret is not None
        # RFC 6749, 2.3.1: both parts are form-encoded before they are joined.
        pair = f"{quote_plus(self._settings.oidc_client_id or '')}:{quote_plus(secret.get_secret_value())}"
        headers = (
            ("authorization", "Basic " + base64.b64encode(pair.encode()).decode()),
            ("content-type", "application/x-www-form-urlencoded"),
            ("accept", "application/json"),
        )
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._back,
            "code_verifier": verifier,
        }
        reply = await self._http.send("POST", provider.token_endpoint, headers, urlencode(asked).encode())
        token = _object(reply.body).get("id_token") if reply.status == 200 else None
        if not isinstance(token, str):
            raise Forbidden("the identity provider did not confirm the log-in; begin again")
        return token

    async def _claims(self, provider: _Provider, token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token, once signature, issuer, audience, time and nonce are in order (Core, 3.1.3.7)."""
        wanted = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True},
            aud={"essential": True, "value": self._settings.oidc_client_id or ""},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = dict(jwt.decode(token, provider.keys, algorithms=_ALGORITHMS).claims)
            wanted.validate(claims)
        except (JoseError, ValueError, KeyError, TypeError):
            self._known = None  # its keys may have changed: the next log-in reads them anew
            raise Forbidden("what the identity provider said cannot be trusted; begin again") from None
        audience = claims["aud"]
        if str(claims["iss"]).rstrip("/") != self._settings.oidc_issuer:
            raise Forbidden("what the identity provider said is signed for another issuer")
        if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != self._settings.oidc_client_id:
            raise Forbidden("what the identity provider said is meant for somebody else")
        return claims

    def _name(self, claims: dict[str, Any]) -> str:
        claim = self._settings.oidc_claim
        name = claims.get(claim)
        if not isinstance(name, str) or not name:
            raise Forbidden("the identity provider does not say who you are")
        if claim == "email" and claims.get("email_verified") is not True:
            raise Forbidden("the identity provider has not verified your email address")
        return name.lower()


def _key_set(told: dict[str, Any]) -> KeySet:
    return KeySet.import_key_set({"keys": list(told["keys"])})


def _endpoint(told: dict[str, Any], name: str) -> str:
    """One of the provider's addresses. Raises ``UpstreamInvalid`` for one that is not https (or this machine's)."""
    url = told.get(name)
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or not parts.hostname:
        raise UpstreamInvalid(f"the identity provider names no {name}")
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UpstreamInvalid(f"the identity provider's {name} is not https")
    return str(url)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise UpstreamInvalid("the identity provider's answer cannot be read")
    return value


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _key(state: str) -> str:
    return OIDC(hashlib.sha256(state.encode("utf-8", "replace")).hexdigest())
