"""The model behind the gateway: which of a caller's headers reach it, which of its headers reach the caller.

Statuses and bodies of the model server, errors among them, arrive as they are. Header names that matter here:
hop-by-hop ones (RFC 9110, section 7.6.1) concern one connection only; credentials go on only where they are meant for
the model server; everything that no line below names passes, so that new headers of either side need no release.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from pydantic import SecretStr

from gateway.errors import UnknownRoute, UpstreamInvalid
from gateway.http_client import Headers, HttpClient, HttpReply, HttpStream
from gateway.tracing import current

_HOP_BY_HOP: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)

_CREDENTIALS: Final = frozenset(
    ("authorization", "api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key")
)

_NOT_SENT: Final = _HOP_BY_HOP | frozenset(
    (
        # The client's business with us; http_client writes its own.
        "host",
        "content-length",
        "accept-encoding",
        "expect",
        "cookie",
        # True of the body as it came, not of the one that is sent on.
        "content-encoding",
        "content-md5",
        "content-digest",
        "repr-digest",
        "digest",
        # Who the caller is.
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
    )
)

_NOT_RETURNED: Final = _HOP_BY_HOP | frozenset(
    (
        # The gateway's server writes its own.
        "content-length",
        "content-encoding",
        "server",
        "date",
        # True of the upstream's origin, not of the gateway's; a browser would believe them.
        "set-cookie",
        "alt-svc",
        "strict-transport-security",
        "clear-site-data",
        "nel",
        "report-to",
        "reporting-endpoints",
        # Names the upstream's address.
        "location",
        "content-location",
        # True of the body before screening.
        "content-md5",
        "content-digest",
        "repr-digest",
        "digest",
        "etag",
    )
)

_TRACE_CONTEXT: Final = frozenset(("traceparent", "tracestate", "baggage"))
"""W3C's names for whose request this is a part of: the caller's business, and nobody else's unless settings say so."""

_OURS_IF_TRACED: Final = frozenset(("traceparent", "tracestate"))

_OWN_PREFIX: Final = "x-antiprompt-"
_CROSS_ORIGIN_PREFIX: Final = "access-control-"
"""Would let any web page that a person has open read a loopback gateway's replies."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the model server.

    ``path`` stands below the base URL and, like ``query`` (without its ``?``), is percent-encoded as the caller sent
    it. ``headers`` are the caller's. ``callers_credentials`` says that the caller's Authorization is meant for the
    model server, which is so only while the gateway itself asks for no key.
    """

    method: str
    path: str
    headers: Headers = ()
    body: bytes | None = None
    query: str = ""
    callers_credentials: bool = False


class Upstream:
    """Sends calls to the model server at ``base_url``. With ``api_key``, that key and no other goes along.

    ``trace_context`` lets the headers of W3C's Trace Context go there: ours while the request is traced, in place of
    the caller's.
    """

    def __init__(
        self, http: HttpClient, base_url: str, api_key: SecretStr | None = None, *, trace_context: bool = False
    ) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._trace_context = trace_context

    async def ask(self, call: Call) -> HttpReply:
        """The whole reply, whatever its status.

        Raises ``UpstreamUnreachable``, ``UpstreamTimeout``, ``Overloaded``, and ``UpstreamInvalid`` where the reply is
        too long, compressed, a redirect or a switch of protocols.
        """
        reply = await self._http.send(call.method, self._url(call), self._headers(call), call.body)
        _refuse_unusable(reply.status)
        return replace(reply, headers=reply_headers(reply.headers))

    async def open_stream(self, call: Call) -> HttpStream:
        """The reply as soon as its head is there; close it. Its status may be an error's. Raises as ``ask`` does."""
        stream = await self._http.stream(call.method, self._url(call), self._headers(call), call.body)
        try:
            _refuse_unusable(stream.status)
        except UpstreamInvalid:
            await stream.close()
            raise
        stream.headers = reply_headers(stream.headers)
        return stream

    def _url(self, call: Call) -> str:
        steps = unquote(call.path).replace("\\", "/").split("/")
        if steps[0] or "." in steps or ".." in steps or not set("?#").isdisjoint(call.path):
            raise UnknownRoute("the path of this request leads out of the API")
        return f"{self._base_url}{call.path}?{call.query}" if call.query else self._base_url + call.path

    def _headers(self, call: Call) -> Iterator[tuple[str, str]]:
        own_key, trace = self._api_key is not None, current()
        dropped = _TRACE_CONTEXT if not self._trace_context else _OURS_IF_TRACED if trace is not None else frozenset()
        yield from request_headers(call.headers, credentials=call.callers_credentials and not own_key, dropped=dropped)
        if self._trace_context and trace is not None:
            yield from trace.headers()
        if self._api_key is not None:
            yield "Authorization", f"Bearer {self._api_key.get_secret_value()}"


def request_headers(headers: Headers, *, credentials: bool, dropped: frozenset[str] = _TRACE_CONTEXT) -> Headers:
    """The caller's headers that may reach the model server, in their order; keys only where ``credentials``.

    ``dropped`` are names (in lower case) that stay here besides those that always do.
    """
    dropped |= _NOT_SENT | _named_in_connection(headers)
    if not credentials:
        dropped |= _CREDENTIALS
    return tuple(
        (name, value)
        for name, value in headers
        if (lower := name.lower()) not in dropped and not lower.startswith((_OWN_PREFIX, "x-forwarded-"))
    )


def reply_headers(headers: Headers) -> Headers:
    """The model server's headers that may reach the caller, in their order."""
    dropped = _NOT_RETURNED | _named_in_connection(headers)
    return tuple(
        (name, value)
        for name, value in headers
        if (lower := name.lower()) not in dropped and not lower.startswith((_OWN_PREFIX, _CROSS_ORIGIN_PREFIX))
    )


def _named_in_connection(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    values = (value for name, value in headers if name.lower() == "connection")
    return frozenset(token.strip().lower() for value in values for token in value.split(","))


def _refuse_unusable(status: int) -> None:
    if 300 <= status < 400 and status != 304:
        raise UpstreamInvalid("the model server answered with a redirect, and none is followed; check its address")
    if not 200 <= status < 600:
        raise UpstreamInvalid(f"the model server answered with status {status}, which is not a reply")
