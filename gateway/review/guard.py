"""The guard: every page but the log-in goes through here, and is refused unless session, role and form are in order.

In this order: who is it (the session cookie), may they (the table in ``gateway.roles``), and did the form come from a
page of theirs (the origin and the CSRF token, for everything that is posted). What goes wrong is told as a page.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.auth import is_loopback
from gateway.errors import Forbidden, GatewayError, NotFound
from gateway.moderator_sessions import Session
from gateway.parts import Parts
from gateway.review.forms import Form
from gateway.review.pages import HEADERS, page
from gateway.roles import permitted

LOG_IN: Final = "/review/log-in"
_PLAIN_COOKIE: Final = "antiprompt_review"
_HTTPS_COOKIE: Final = "__Host-antiprompt_review"


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is logged in and may make it. ``form`` holds the posted fields, or the query's."""

    request: Request
    parts: Parts
    session: Session
    form: Form

    @property
    def name(self) -> str:
        return self.session.name

    def may(self, method: str, path: str) -> bool:
        """Whether this person may use a route; pages show only what works."""
        return permitted(self.session.role, method, path)

    def page(self, template: str, /, **values: Any) -> HTMLResponse:
        """A page of the dashboard, or a part of one."""
        return page(template, visit=self, session=self.session, may=self.may, **values)


Endpoint = Callable[[Visit], Awaitable[Response]]


def parts_of(request: Request) -> Parts:
    """The parts of the running gateway."""
    parts: Parts = request.app.state.parts
    return parts


def guarded(route: str, endpoint: Endpoint) -> Route:
    """A page for people who are logged in and have the role for it; ``route`` is ``METHOD /path``."""
    method, path = route.split(" ", 1)

    async def answer(request: Request) -> Response:
        parts = parts_of(request)
        token = request.cookies.get(cookie_name(request, parts))
        session = await parts.sessions.find(token) if token else None
        if session is None:
            return to_log_in(request)
        if not permitted(session.role, method, path):
            raise Forbidden(f"a {session.role} may not do this")
        if method == "POST":
            check_origin(request)
            form = await Form.of_body(request, parts.settings.limits)
            if not session.owns(form.text("csrf") or ""):
                raise Forbidden("this form is not of your session; load the page again")
        else:
            form = Form.of_query(request)
        return await endpoint(Visit(request, parts, session, form))

    return Route(path, told(answer), methods=[method], name=route)


def told(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """``answer``, with foreseen errors told as a page and the dashboard's headers on whatever it says."""

    @functools.wraps(answer)
    async def telling(request: Request) -> Response:
        try:
            response = await answer(request)
        except GatewayError as error:
            request.app.state.metrics.errors.labels(error.code).inc()
            response = page("error.html", error.status, error=error, status=error.status)
            if error.retry_after_s is not None:
                response.headers["retry-after"] = str(max(1, round(error.retry_after_s)))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return telling


async def nothing_here(request: Request) -> Response:
    raise NotFound("there is no such page")


def check_origin(request: Request) -> None:
    """Raise ``Forbidden`` for a form that a page of another site has sent."""
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise Forbidden("forms of other sites are not taken")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Forbidden("forms of other sites are not taken")


def refuse_in_the_clear(request: Request, parts: Parts) -> None:
    """Raise ``Forbidden`` where a password or a new session would cross a network unencrypted."""
    if not is_https(request, parts) and not is_loopback(request.client.host if request.client else None):
        raise Forbidden(
            "passwords do not travel in the clear: reach the dashboard through https (a proxy that ends TLS, and "
            "review.https), or from the machine itself"
        )


def is_https(request: Request, parts: Parts) -> bool:
    return parts.settings.review.https or request.url.scheme == "https"


def cookie_name(request: Request, parts: Parts) -> str:
    """Through https a browser keeps the name for this host and https alone (RFC 6265bis, the prefix ``__Host-``)."""
    return _HTTPS_COOKIE if is_https(request, parts) else _PLAIN_COOKIE


def set_cookie(response: Response, request: Request, parts: Parts, name: str, value: str) -> None:
    """A cookie that scripts cannot read and other sites cannot send; it goes when the browser closes."""
    response.set_cookie(name, value, path="/", secure=is_https(request, parts), httponly=True, samesite="strict")


def see(url: str) -> Response:
    """After a form: the page to go on with."""
    return RedirectResponse(url, 303)


def to_log_in(request: Request) -> Response:
    """Where somebody without a session goes; a part of a page cannot take the log-in's place, so htmx is told."""
    if request.headers.get("hx-request") == "true":
        return Response(status_code=204, headers={"hx-redirect": LOG_IN})
    return see(LOG_IN)
