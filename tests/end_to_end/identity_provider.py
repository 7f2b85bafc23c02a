"""A small OpenID provider on a real socket, as far as the authorization code flow with PKCE needs one.

Its page asks nobody for a password: whoever presses the button is ``person``. It hands a code out once, for the client
and the address that asked, and gives a token for it only to who knows the client's secret and the challenge's verifier.
"""

from __future__ import annotations

import base64
import hashlib
import html
import secrets
import time
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote_plus, urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey

CLIENT = "dashboard"
SECRET = "what provider & dashboard share"


@dataclass(slots=True)
class IdentityProvider:
    """Listens on ``port`` while it is entered, under the name localhost: to a browser, another site than 127.0.0.1."""

    port: int
    back: str
    person: str = "mia@example.org"
    verified: bool = True
    refuses: bool = False
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", auto_kid=True))
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._describe),
                web.get("/keys", self._keys),
                web.get("/authorize", self._ask),
                web.post("/authorize", self._send_back),
                web.post("/token", self._token),
            ]
        )
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _describe(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def _keys(self, request: web.Request) -> web.Response:
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def _ask(self, request: web.Request) -> web.Response:
        asked = request.query
        if (asked.get("client_id"), asked.get("redirect_uri"), asked.get("response_type")) != (
            CLIENT,
            self.back,
            "code",
        ):
            return web.Response(status=400, text="I do not know who asks.")
        kept = "".join(
            f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
            for name, value in asked.items()
        )
        page = f"""<!doctype html><html lang="en"><title>Provider</title><link rel="icon" href="data:,">
            <form method="post">{kept}<button>Continue as {html.escape(self.person)}</button></form></html>"""
        return web.Response(text=page, content_type="text/html")

    async def _send_back(self, request: web.Request) -> web.Response:
        asked = {name: str(value) for name, value in (await request.post()).items()}
        answer = {"state": asked["state"], "iss": self.url}
        if self.refuses:
            answer["error"] = "access_denied"
        else:
            answer["code"] = secrets.token_urlsafe(16)
            self.codes[answer["code"]] = asked
        raise web.HTTPSeeOther(f"{asked['redirect_uri']}?{urlencode(answer)}")

    async def _token(self, request: web.Request) -> web.Response:
        sent = await request.post()
        asked = self.codes.pop(str(sent.get("code")), None)
        pair = f"{quote_plus(CLIENT)}:{quote_plus(SECRET)}".encode()
        if request.headers.get("authorization") != f"Basic {base64.b64encode(pair).decode()}":
            return web.json_response({"error": "invalid_client"}, status=401)
        digest = hashlib.sha256(str(sent.get("code_verifier")).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or sent.get("redirect_uri") != self.back or challenge != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": self.person,
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            "email": self.person,
            "email_verified": self.verified,
        }
        token = jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims, self.key, algorithms=["ES256"])
        return web.json_response({"id_token": token, "token_type": "Bearer", "access_token": "unused"})
