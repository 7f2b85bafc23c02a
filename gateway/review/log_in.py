"""Log-in and log-out."""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.accounts import MOST_PASSWORD
from gateway.errors import Forbidden, RateLimited
from gateway.parts import Parts
from gateway.review.forms import Form
from gateway.review.guard import Visit, check_origin, cookie_name, parts_of, refuse_in_the_clear, see, set_cookie
from gateway.review.pages import page
from gateway.telemetry import logger

_FORM_COOKIE: Final = "antiprompt_log_in"
"""Ties the log-in form to the browser that asked for it, before there is a session."""

_START: Final = "/review/queue"


async def show_log_in(request: Request) -> Response:
    """The form; or, where nobody has an account yet, how to make one."""
    return await _form(request, parts_of(request))


async def log_in(request: Request) -> Response:
    """Check name and password. Every attempt counts towards the limits, and none says which of the two was wrong."""
    parts = parts_of(request)
    check_origin(request)
    refuse_in_the_clear(request, parts)
    form = await Form.of_body(request, parts.settings.limits)
    planted = request.cookies.get(_FORM_COOKIE, "")
    given = (form.text("csrf") or "").encode("utf-8", "replace")
    if not planted or not hmac.compare_digest(given, _form_token(parts, planted).encode()):
        raise Forbidden("this form is not of your browser; load the log-in page again (it needs cookies)")
    name = (form.text("name") or "").lower()
    limits = parts.settings.review
    try:
        await parts.quotas.take_log_in(
            account=parts.redis.digest("log-in", name),
            address=request.client.host if request.client else "unknown",
            per_account=limits.log_ins_per_minute,
            per_address=limits.log_ins_per_address,
        )
    except RateLimited as error:
        return await _form(request, parts, problem=error.message, status=error.status)
    account = await parts.accounts.authenticate(name, form.raw("password", most=MOST_PASSWORD + 1))
    if account is None:
        logger().warning("log-in refused")
        return await _form(request, parts, problem="The name or the password is not right.", status=401)
    cookie = cookie_name(request, parts)
    token = await parts.sessions.begin(account, replaces=request.cookies.get(cookie))
    logger().info("logged in", account=account.name, role=account.role)
    response = see(_START)
    set_cookie(response, request, parts, cookie, token)
    response.delete_cookie(_FORM_COOKIE, path="/")
    return response


async def log_out(visit: Visit) -> Response:
    """End the session here and in Redis."""
    cookie = cookie_name(visit.request, visit.parts)
    await visit.parts.sessions.end(visit.request.cookies[cookie])
    response = see("/review/log-in")
    response.delete_cookie(cookie, path="/")
    return response


async def start(visit: Visit) -> Response:
    """``/review`` itself: the queue."""
    return see(_START)


async def _form(request: Request, parts: Parts, *, problem: str | None = None, status: int = 200) -> Response:
    planted = request.cookies.get(_FORM_COOKIE) or secrets.token_urlsafe(24)
    response = page(
        "log_in.html",
        status,
        csrf=_form_token(parts, planted),
        problem=problem,
        nobody=not await parts.accounts.exist(),
        outside=parts.identity.configured,
    )
    set_cookie(response, request, parts, _FORM_COOKIE, planted)
    return response


def _form_token(parts: Parts, planted: str) -> str:
    return parts.redis.digest("log-in form", planted)
