"""Every error a caller can meet, with its HTTP status and code, and the one shape in which it is told.

The shape is OpenAI's (``{"error": {"message", "type", "param", "code"}}``), so that any OpenAI client raises the
exception its user expects. ``message`` says what happened and what to do; it never holds a matched text, a score,
a key or anything of the upstream's address.
"""

from __future__ import annotations

from typing import Any, ClassVar


class GatewayError(Exception):
    """Base of what the gateway tells a caller. Subclasses fix ``status``, ``type`` and ``code``."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        return error_body(self.message, type=self.type, code=self.code, param=self.param)


def error_body(message: str, *, type: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error body."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class BadRequest(GatewayError):
    """The request cannot be understood: malformed JSON, a wrong type, bad UTF-8."""

    status, type, code = 400, "invalid_request_error", "invalid_request"


class Unscreenable(GatewayError):
    """The request holds something that cannot be screened (an image, a file, token ids) and settings refuse it."""

    status, type, code = 400, "invalid_request_error", "unscreenable_content"


class ContentFiltered(GatewayError):
    """Policy blocks, in the ``error`` style."""

    status, type, code = 400, "invalid_request_error", "content_filter"


class Unauthorized(GatewayError):
    """No key, an unknown one or a revoked one."""

    status, type, code = 401, "invalid_request_error", "invalid_api_key"


class Forbidden(GatewayError):
    """The key is known but may not do this."""

    status, type, code = 403, "invalid_request_error", "forbidden"


class Suspended(GatewayError):
    """The end user was blocked so often that policy answers nothing for them, for a while."""

    status, type, code = 403, "invalid_request_error", "account_suspended"


class NotFound(GatewayError):
    """No such route, case, flag or stored response for this caller."""

    status, type, code = 404, "invalid_request_error", "not_found"


class UnknownRoute(NotFound):
    """No surface knows this route, and settings do not pass it through: it is refused, never waved through."""

    code = "unknown_route"


class MethodNotAllowed(GatewayError):
    """The route exists, the method does not."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class Conflict(GatewayError):
    """The same idempotency key came with another body."""

    status, type, code = 409, "invalid_request_error", "conflict"


class TooLarge(GatewayError):
    """The body, its nesting or its text is over a limit."""

    status, type, code = 413, "invalid_request_error", "request_too_large"


class HeadTooLarge(GatewayError):
    """The request's headers are over the limit."""

    status, type, code = 431, "invalid_request_error", "headers_too_large"


class RateLimited(GatewayError):
    """The key or the end user is over a rate limit or quota."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class Overloaded(GatewayError):
    """A queue is full. Never an open door."""

    status, type, code = 429, "rate_limit_error", "overloaded"


class ClientLeft(GatewayError):
    """The caller closed the connection before its answer; nobody reads this one."""

    status, type, code = 499, "invalid_request_error", "client_left"


class ScreeningUnavailable(GatewayError):
    """A text could not be screened, and policy does not let it pass unscreened."""

    status, type, code = 503, "server_error", "screening_unavailable"


class StateUnavailable(GatewayError):
    """Redis is away and this cannot be answered without it."""

    status, type, code = 503, "server_error", "state_unavailable"


class UpstreamUnreachable(GatewayError):
    """The model server refused the connection, dropped it, or the circuit breaker is open."""

    status, type, code = 502, "server_error", "upstream_unreachable"


class UpstreamInvalid(GatewayError):
    """The model server's reply cannot be read, so it cannot be screened."""

    status, type, code = 502, "server_error", "upstream_invalid"


class UpstreamTimeout(GatewayError):
    """The model server did not answer in time."""

    status, type, code = 504, "server_error", "upstream_timeout"
