"""Log-in through an identity provider: the way out, and the way back."""

from __future__ import annotations

import hmac
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import Forbidden
from gateway.oidc import BACK
from gateway.parts import Parts
from gateway.review.forms import Form
from gateway.review.guard import cookie_name, is_https, parts_of, refuse_in_the_clear, see, set_cookie
from gateway.review.pages import page
from gateway.telemetry import logger

LEAVE: Final = "/review/oidc"
_COOKIE: Final = "antiprompt_oidc"
"""Ties a log-in to the browser that began it: an answer that somebody else was given is worth nothing here."""

_MOST_CODE: Final = 4096


async def leave(request: Request) -> Response:
    """Send the browser to the identity provider."""
    parts = parts_of(request)
    refuse_in_the_clear(request, parts)
    await _count(request, parts)
    url, state = await parts.identity.leave()
    response = see(url)
    # Lax, because the provider's page is another site's, and the way back begins there.
    response.set_cookie(_COOKIE, state, path=LEAVE, secure=is_https(request, parts), httponly=True, samesite="lax")
    return response


async def arrive(request: Request) -> Response:
    """Take the provider's answer, and log in the account that it names, if there is one for it."""
    parts = parts_of(request)
    form = Form.of_query(request)
    state, begun = form.raw("state", most=200), request.cookies.get(_COOKIE, "")
    if not begun or not hmac.compare_digest(state.encode("utf-8", "replace"), begun.encode("utf-8", "replace")):
        raise Forbidden("this log-in was not begun in this browser; begin again")
    code = form.raw("code", most=_MOST_CODE)
    if not code:
        raise Forbidden("the identity provider refused the log-in")
    name = await parts.identity.arrive(state=state, code=code, issuer=form.text("iss", most=2000))
    account = await parts.accounts.find(name)
    if account is None or not account.outside or not account.enabled:
        raise Forbidden("there is no account for you here; ask an administrator to make one")
    cookie = cookie_name(request, parts)
    token = await parts.sessions.begin(account, replaces=request.cookies.get(cookie))
    logger().info("logged in", account=account.name, role=account.role, by="identity provider")
    # A page, not a redirect: a strict cookie does not travel on a way that another site began.
    response = page("arrived.html")
    set_cookie(response, request, parts, cookie, token)
    response.delete_cookie(_COOKIE, path=LEAVE)
    return response


async def _count(request: Request, parts: Parts) -> None:
    """Raise ``RateLimited`` for an address that begins too often."""
    address = request.client.host if request.client else "unknown"
    limits = parts.settings.review
    await parts.quotas.take_log_in(
        account=parts.redis.digest("log-in outside", address),
        address=address,
        per_account=limits.log_ins_per_address,
        per_address=limits.log_ins_per_address,
    )


__all__ = ["BACK", "LEAVE", "arrive", "leave"]
