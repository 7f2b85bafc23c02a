"""An OpenTelemetry collector's front door: takes OTLP over HTTP on a real socket, and keeps what came.

with Collector() as collector:
    ...                                # something sends traces to collector.url
    (root,) = collector.wait_for(1)
"""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE_S = 30.0
_SERVER = 2  # SPAN_KIND_SERVER


@dataclass(frozen=True, slots=True)
class Received:
    """One span as it arrived. Times are nanoseconds since 1970, ids hexadecimal, ``parent`` empty for a root."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    began_ns: int
    ended_ns: int
    failed: bool
    values: dict[str, Any]


class Collector:
    """Listens on a port of its own. ``bodies`` are the requests as they came, unpacked; ``headers`` those of each."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.resource: dict[str, Any] = {}
        self._spans: list[Received] = []
        self._came = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
                collector._take(body, {name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def spans(self) -> list[Received]:
        with self._came:
            return list(self._spans)

    def wait_for(self, roots: int) -> list[Received]:
        """The root spans, as soon as there are this many."""
        with self._came:
            assert self._came.wait_for(lambda: len(self._roots()) >= roots, PATIENCE_S), f"{len(self._roots())} roots"
            return self._roots()

    def root_with(self, name: str, value: object) -> Received:
        """The root span that says ``value`` under ``name``, as soon as it is there."""

        def found() -> Received | None:
            return next((root for root in self._roots() if root.values.get(name) == value), None)

        with self._came:
            root = self._came.wait_for(found, PATIENCE_S)
        assert root is not None, f"no trace with {name} {value}"
        return root

    def of(self, root: Received) -> list[Received]:
        """The steps of one request, in the order in which they began."""
        return sorted((each for each in self.spans if each.parent == root.id), key=lambda each: each.began_ns)

    def _roots(self) -> list[Received]:
        return [each for each in self._spans if each.kind == _SERVER]

    def _take(self, body: bytes, headers: dict[str, str]) -> None:
        sent = ExportTraceServiceRequest.FromString(body)
        with self._came:
            self.bodies.append(body)
            self.headers.append(headers)
            for group in sent.resource_spans:
                self.resource = _values(group.resource.attributes)
                for scope in group.scope_spans:
                    self._spans += map(_received, scope.spans)
            self._came.notify_all()


def _received(span: Any) -> Received:
    return Received(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        failed=span.status.code == 2,
        values=_values(span.attributes),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
