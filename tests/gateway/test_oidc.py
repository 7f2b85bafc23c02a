"""An identity provider on a real socket: what it says is believed only if everything about it is in order."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from pydantic import SecretStr, ValidationError

from gateway.errors import Forbidden, GatewayError, NotFound, UpstreamInvalid
from gateway.oidc import IdentityProvider
from gateway.redis_client import RedisClient
from gateway.settings import ReviewSettings
from tests.conftest import running

CLIENT = "dashboard"
SECRET = "a secret: with signs & more"


@dataclass(slots=True)
class Provider:
    """A provider that says what a test wants it to; ``asked`` holds what its token endpoint was sent."""

    url: str = ""
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", auto_kid=True))
    signs_with: Any = None
    algorithm: str = "ES256"
    claims: dict[str, Any] = field(default_factory=dict)
    discovery: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    nonce: str = ""
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)

    async def describe(self, request: web.Request) -> web.Response:
        known = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }
        return web.json_response({**known, **self.discovery})

    async def keys(self, request: web.Request) -> web.Response:
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def token(self, request: web.Request) -> web.Response:
        self.asked.append((request.headers["authorization"], parse_qs(await request.text())))
        now = int(time.time())
        said = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "1",
            "iat": now,
            "exp": now + 60,
            "nonce": self.nonce,
            "email": "Mia@Example.org",
            "email_verified": True,
            **self.claims,
        }
        kept = {name: value for name, value in said.items() if value is not None}
        signer = self.signs_with or self.key
        header = {"alg": self.algorithm, "kid": self.key.kid}
        made = jwt.encode(header, kept, signer, algorithms=[self.algorithm])
        return web.json_response({"id_token": made, "token_type": "Bearer", "access_token": "x"}, status=self.status)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application()
    app.add_routes(
        [
            web.get("/.well-known/openid-configuration", made.describe),
            web.get("/keys", made.keys),
            web.post("/token", made.token),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = site._server
    assert isinstance(server, asyncio.Server)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    await runner.cleanup()


def settings(provider: Provider, **more: object) -> ReviewSettings:
    return ReviewSettings(
        oidc_issuer=provider.url,
        oidc_client_id=CLIENT,
        oidc_client_secret=SecretStr(SECRET),
        public_url="https://review.test",
        **more,
    )


@pytest.fixture
async def identity(provider: Provider, redis_client: RedisClient) -> AsyncIterator[IdentityProvider]:
    async with running(IdentityProvider(settings(provider), redis_client)) as started:
        yield started


async def begun(identity: IdentityProvider, provider: Provider) -> tuple[str, dict[str, list[str]]]:
    """Leave for the provider; the state, and what the browser asks it."""
    url, state = await identity.leave()
    asked = parse_qs(urlsplit(url).query)
    provider.nonce = asked["nonce"][0]
    return state, asked


async def test_whom_the_provider_vouches_for_is_who_came(identity: IdentityProvider, provider: Provider) -> None:
    state, asked = await begun(identity, provider)
    assert asked["redirect_uri"] == ["https://review.test/review/oidc/back"]
    assert (asked["response_type"], asked["code_challenge_method"]) == (["code"], ["S256"])
    assert await identity.arrive(state=state, code="c", issuer=provider.url) == "mia@example.org"
    ((authorization, sent),) = provider.asked
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == (
        "dashboard:a+secret%3A+with+signs+%26+more"
    )
    digest = hashlib.sha256(sent["code_verifier"][0].encode()).digest()
    assert asked["code_challenge"] == [base64.urlsafe_b64encode(digest).decode().rstrip("=")]
    assert SECRET not in str(asked)


async def test_an_answer_is_good_once(identity: IdentityProvider, provider: Provider) -> None:
    state, _ = await begun(identity, provider)
    await identity.arrive(state=state, code="c", issuer=None)
    with pytest.raises(Forbidden, match="used already"):
        await identity.arrive(state=state, code="c", issuer=None)
    with pytest.raises(Forbidden):
        await identity.arrive(state="never begun", code="c", issuer=None)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.test"},
        {"aud": "another"},
        {"aud": ["another", "third"]},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"nonce": "another"},
        {"nonce": None},
        {"email": None},
        {"email": ["mia@example.org"]},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
    ],
)
async def test_claims_that_are_not_in_order_are_not_believed(
    claims: dict[str, Any], identity: IdentityProvider, provider: Provider
) -> None:
    provider.claims = claims
    state, _ = await begun(identity, provider)
    with pytest.raises(Forbidden):
        await identity.arrive(state=state, code="c", issuer=None)


async def test_another_key_s_signature_is_not_believed(identity: IdentityProvider, provider: Provider) -> None:
    provider.signs_with = ECKey.generate_key("P-256", parameters={"kid": provider.key.kid or ""})
    state, _ = await begun(identity, provider)
    with pytest.raises(Forbidden):
        await identity.arrive(state=state, code="c", issuer=None)


async def test_a_signature_that_a_secret_can_make_is_not_believed(
    identity: IdentityProvider, provider: Provider
) -> None:
    provider.algorithm, provider.signs_with = "HS256", OctKey.import_key("0123456789abcdef0123456789abcdef")
    state, _ = await begun(identity, provider)
    with pytest.raises(Forbidden):
        await identity.arrive(state=state, code="c", issuer=None)


async def test_new_keys_are_read_after_the_old_ones_failed(identity: IdentityProvider, provider: Provider) -> None:
    state, _ = await begun(identity, provider)
    provider.key = ECKey.generate_key("P-256", auto_kid=True)
    with pytest.raises(Forbidden):
        await identity.arrive(state=state, code="c", issuer=None)
    state, _ = await begun(identity, provider)
    assert await identity.arrive(state=state, code="c", issuer=None) == "mia@example.org"


async def test_another_issuer_s_answer_and_a_refusal_are_refused(
    identity: IdentityProvider, provider: Provider
) -> None:
    state, _ = await begun(identity, provider)
    with pytest.raises(Forbidden, match="another identity provider"):
        await identity.arrive(state=state, code="c", issuer="https://evil.test")
    provider.status = 400
    with pytest.raises(Forbidden, match="did not confirm"):
        await identity.arrive(state=state, code="c", issuer=None)


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.test"},
        {"token_endpoint": "http://evil.test/token"},
        {"authorization_endpoint": None},
        {"jwks_uri": 7},
    ],
)
async def test_a_provider_that_describes_itself_oddly_is_not_used(
    discovery: dict[str, Any], identity: IdentityProvider, provider: Provider
) -> None:
    provider.discovery = discovery
    with pytest.raises(UpstreamInvalid):
        await identity.leave()


async def test_another_claim_can_name_the_account(provider: Provider, redis_client: RedisClient) -> None:
    provider.claims = {"preferred_username": "MIA", "email_verified": False}
    chosen = settings(provider, oidc_claim="preferred_username")
    async with running(IdentityProvider(chosen, redis_client)) as identity:
        state, _ = await begun(identity, provider)
        assert await identity.arrive(state=state, code="c", issuer=None) == "mia"


async def test_a_provider_that_is_away_is_told_as_such(redis_client: RedisClient) -> None:
    away = settings(Provider(url="http://127.0.0.1:9"))
    async with running(IdentityProvider(away, redis_client)) as identity:
        with pytest.raises(GatewayError) as told:
            await identity.leave()
        assert told.value.status == 502


async def test_without_a_provider_there_is_no_way_out(redis_client: RedisClient) -> None:
    async with running(IdentityProvider(ReviewSettings(), redis_client)) as identity:
        assert not identity.configured
        with pytest.raises(NotFound):
            await identity.leave()


@pytest.mark.parametrize(
    "fields",
    [
        {"oidc_issuer": "https://id.test"},
        {"oidc_issuer": "http://id.test"},
        {"public_url": "http://review.test"},
        {"public_url": "https://user@review.test"},
    ],
)
def test_settings_that_are_not_safe_or_not_whole_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ReviewSettings(**fields)
