"""create_app: the routes put together around the parts, one handler for every error, and the edge of the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import __version__
from gateway.appeals import router as appeals_router
from gateway.endpoints import healthz, metrics, parts_of, readyz, router
from gateway.errors import (
    BadRequest,
    GatewayError,
    HeadTooLarge,
    MethodNotAllowed,
    Overloaded,
    UnknownRoute,
)
from gateway.holds import router as holds_router
from gateway.parts import build, running
from gateway.review import routes as review_routes
from gateway.settings import LimitSettings, Settings
from gateway.telemetry import Metrics, logger
from gateway.tracing import Tracing, under
from gateway.wire import SURFACES
from gateway.wire.surface import Surface

Endpoint = Callable[[Request], Awaitable[Response]]

_NO_MODEL: Final = "http://model.invalid/v1"
"""The model server of a process that never asks one (RFC 2606 keeps the name free)."""


def create_app(settings: Settings, *, base_url: str | None = None, metrics_registry: Metrics | None = None) -> FastAPI:
    """The gateway as an ASGI application. ``base_url`` stands in for an unset ``settings.upstream.base_url``.

    Raises ``ValueError`` where neither names a model server.
    """
    upstream = settings.upstream.base_url or base_url
    if upstream is None:
        raise ValueError("no model server: set upstream.base_url")
    counted = metrics_registry or Metrics()
    tracing = Tracing(settings.tracing, port=settings.port)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        parts = build(settings, counted, upstream)
        app.state.parts, app.state.readiness = parts, parts.readiness
        async with tracing.running(), running(parts):
            yield

    app = FastAPI(
        title="antiprompt gateway",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a path is a route or it is none; a redirect would name a host that the caller chose
    )
    app.state.metrics = counted
    for own in (router, holds_router, appeals_router):
        app.include_router(own)
    if settings.review.enabled and settings.review.port is None:
        app.router.routes.extend(review_routes())
    _add_routes(app, settings)
    for kind in (GatewayError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _tell)
    app.add_middleware(Edge, limits=settings.limits, metrics=counted, tracing=tracing)
    return app


def dashboard_beside(gateway: FastAPI, settings: Settings) -> Starlette:
    """The dashboard alone, for a listener of its own: it shares the parts of ``gateway``, which must have started."""
    app = Starlette(routes=review_routes())
    app.state = gateway.state
    _guard_dashboard(app, settings)
    return app


def create_dashboard(settings: Settings) -> Starlette:
    """The dashboard alone, for a process of its own beside gateways that share one Redis; it answers no model's API."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        parts = build(settings, app.state.metrics, settings.upstream.base_url or _NO_MODEL)
        app.state.parts, app.state.readiness = parts, parts.readiness
        async with running(parts):
            yield

    own = [Route(f"/{answer.__name__}", answer, methods=["GET"]) for answer in (healthz, readyz, metrics)]
    app = Starlette(routes=[*own, *review_routes()], lifespan=lifespan)
    app.state.metrics = Metrics()
    _guard_dashboard(app, settings)
    return app


def _guard_dashboard(app: Starlette, settings: Settings) -> None:
    for kind in (GatewayError, HTTPException, Exception):
        app.add_exception_handler(kind, _tell)
    app.add_middleware(Edge, limits=settings.limits, metrics=app.state.metrics)


def _add_routes(app: FastAPI, settings: Settings) -> None:
    for surface in SURFACES.values():
        app.add_route(f"/v1{surface.path}", _generate(surface), methods=["POST"])
    app.add_route("/v1/responses/{response_id}", _stored(""), methods=["GET", "DELETE"])
    app.add_route("/v1/responses/{response_id}/cancel", _stored("/cancel"), methods=["POST"])
    app.add_route("/v1/responses/{response_id}/input_items", _stored("/input_items"), methods=["GET"])
    app.add_route("/v1/models", _passed, methods=["GET"])
    app.add_route("/v1/models/{model:path}", _passed, methods=["GET"])
    for route in settings.routes.passed_through:
        method, _, path = route.partition(" ")
        pattern = f"{path[:-1]}{{rest:path}}" if path.endswith("*") else path
        app.add_route(pattern, _passed, methods=[method.upper()])


def _generate(surface: Surface) -> Endpoint:
    async def generate(request: Request) -> Response:
        return await parts_of(request).proxy.generate(request, surface)

    return generate


def _stored(suffix: str) -> Endpoint:
    async def stored(request: Request) -> Response:
        response_id = request.path_params["response_id"]
        path = f"/responses/{response_id}{suffix}"
        return await parts_of(request).proxy.stored(request, SURFACES["/responses"], path, response_id)

    return stored


async def _passed(request: Request) -> Response:
    return await parts_of(request).proxy.passed(request)


async def _tell(request: Request, error: Exception) -> Response:
    """Every error in OpenAI's shape. What was not foreseen is logged by its kind and place, and told as a 500."""
    told = _as_gateway_error(request, error)
    if type(told) is GatewayError:
        logger().error("unforeseen error", error=type(error).__name__, exc_info=error)
    request.app.state.metrics.errors.labels(told.code).inc()
    headers = dict(told.headers)
    if told.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(told.retry_after_s)))
    return JSONResponse(told.body(), told.status, headers)


def _as_gateway_error(request: Request, error: Exception) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return UnknownRoute(
                f"there is no route {request.method} {request.url.path[:200]}, and none is passed through"
            )
        if error.status_code == 405:
            refused = MethodNotAllowed(f"{request.url.path[:200]} does not take {request.method}")
            refused.headers.update(error.headers or {})  # Allow names what it does take
            return refused
        return BadRequest(str(error.detail))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return BadRequest(f"{name}: {first['msg']}", param=name)
    return GatewayError("something went wrong inside the gateway; it is logged")


def _pattern(scope: Scope) -> str | None:
    """The path of a request with what its caller chose taken out; None where there is no such route."""
    if "endpoint" not in scope:
        return None
    path: str = scope["path"]
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(str(value), f"{{{name}}}") if value else path
    return path


class Edge:
    """The outermost layer: bounds how many requests are under way, and how large a request's head may be.

    With ``tracing``, what passes here to the API is traced from its head to the last byte of its answer.
    """

    def __init__(self, app: ASGIApp, limits: LimitSettings, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._tracing = tracing
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is not None:
            self._metrics.errors.labels(refused.code).inc()
            headers = {"retry-after": "1"} if refused.status == 429 else None
            await JSONResponse(refused.body(), refused.status, headers)(scope, receive, send)
            return
        self._under_way += 1
        self._metrics.in_flight.set(self._under_way)
        try:
            await self._traced(scope, receive, send)
        finally:
            self._under_way -= 1
            self._metrics.in_flight.set(self._under_way)

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = None
        if self._tracing is not None and scope["path"].startswith("/v1"):
            trace = self._tracing.begin(scope["headers"])
        if trace is None:
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.answered(message["status"])
            await send(message)

        failure: BaseException | None = None
        try:
            with under(trace):
                await self._app(scope, receive, sending)
        except BaseException as error:
            failure = error
            raise
        finally:
            trace.end(_pattern(scope), failure)

    def _refusal(self, scope: Scope) -> GatewayError | None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.max_header_bytes:
            return HeadTooLarge(f"the request's headers are larger than {self._limits.max_header_bytes} bytes")
        # Health and metrics are answered under any load: that is when they are needed.
        if self._under_way >= self._limits.max_concurrent and scope["path"].startswith("/v1"):
            return Overloaded("too many requests are under way; try again shortly")
        return None
