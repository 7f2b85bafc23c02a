"""Traces: the path of a request through the gateway, step by step, for OpenTelemetry collectors (OTLP over HTTP).

Off unless ``tracing.endpoint`` names a collector; then a step costs one look at a context variable. A span holds
times, numbers and names out of closed sets: never a text, a key, a model's name or who the end user is. Whoever sees
the trace finds the case by its id, and the case names the trace.

The steps: ``auth`` (who asks, and the limits), ``views`` (a text is read in all its disguises and cut into windows),
``queue`` (its wait for the encoder), ``encode``, ``search`` (neighbours and their scores), ``decide`` (policy),
``upstream`` (until the head of the model server's reply) and ``hold-back`` (a streamed reply, from the first text
that was held to the last that was let go). What ``encode`` and ``search`` say is their whole batch's.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import __version__
from gateway.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Step = Literal["auth", "views", "queue", "encode", "search", "decide", "upstream", "hold-back"]
Value = str | int | float | bool

MOST_STEPS: Final = 200
"""Steps recorded of one request: a long stream is screened hundreds of times. The rest is counted."""

_PREFIX: Final = "antiprompt."
_NOTHING: Final = nullcontext()

_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current() -> Trace | None:
    """The trace of the request under way; None where it is not traced."""
    return _current.get()


def step(name: Step, **values: Value) -> AbstractContextManager[object]:
    """Record what happens inside as a step of the request under way, if that is traced."""
    trace = _current.get()
    return _NOTHING if trace is None or not trace.recording else trace.step(name, values)


class Trace:
    """One request. Times are ``time.perf_counter`` seconds; ``add`` may be called from any thread."""

    def __init__(self, tracer: Tracer, root: Span, context: Context, *, sent_upstream: bool) -> None:
        self.recording = root.is_recording()
        self.sent_upstream = sent_upstream
        self._tracer = tracer
        self._root = root
        self._context = context
        self._asking: Span = root
        self._steps = 0
        # Spans want times since 1970, steps are measured on a steady clock.
        self._offset_ns = time.time_ns() - time.perf_counter_ns()

    @property
    def id(self) -> str | None:
        """32 hexadecimal digits; None where nothing is recorded, so that nobody looks for it."""
        return f"{self._root.get_span_context().trace_id:032x}" if self.recording else None

    def headers(self) -> Iterator[tuple[str, str]]:
        """What goes upstream (W3C Trace Context): the newest upstream step as the parent of what happens there."""
        here = self._asking.get_span_context()
        yield "traceparent", f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}"
        if here.trace_state:
            yield "tracestate", here.trace_state.to_header()

    def note(self, **values: Value | None) -> None:
        """Say something of the request as a whole; what is None is left out."""
        for name, value in values.items():
            if value is not None:
                self._root.set_attribute(_PREFIX + name, value)

    def answered(self, status: int) -> None:
        """The status that the caller was given."""
        self._root.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._root.set_status(StatusCode.ERROR)

    def add(self, name: Step, started_s: float, ended_s: float, **values: Value) -> None:
        """Record a step that is over."""
        if not self.recording or not (name == "hold-back" or self._counts()):  # one a stream, after all else
            return
        span = self._tracer.start_span(name, self._context, attributes=_named(values), start_time=self._ns(started_s))
        span.end(self._ns(ended_s))

    @contextmanager
    def step(self, name: Step, values: dict[str, Value]) -> Iterator[None]:
        """Record what happens inside as a step. An error is told by its kind: what it says may hold a text."""
        if not self._counts():
            yield
            return
        kind = SpanKind.CLIENT if name == "upstream" else SpanKind.INTERNAL
        span = self._tracer.start_span(name, self._context, kind, _named(values))
        if kind is SpanKind.CLIENT:
            self._asking = span
        try:
            yield
        except BaseException as error:
            _failed(span, error)
            raise
        finally:
            span.end()

    def end(self, route: str | None, error: BaseException | None = None) -> None:
        """Close the trace. ``route`` is a pattern of the gateway's own, None where there was no such route."""
        if self._steps > MOST_STEPS:
            self.note(steps_left_out=self._steps - MOST_STEPS)
        if route is not None:
            self._root.update_name(route)
        if error is not None:
            _failed(self._root, error)
        self._root.end()

    def _counts(self) -> bool:
        self._steps += 1
        return self._steps <= MOST_STEPS

    def _ns(self, moment_s: float) -> int:
        return int(moment_s * 1e9) + self._offset_ns


class Tracing:
    """Sends traces to the collector that settings name; without one it does nothing. ``running`` inside the loop."""

    def __init__(self, settings: TracingSettings, *, port: int = 0) -> None:
        self._settings = settings
        self._instance = f"{socket.gethostname()}:{port}"
        self._tracer: Tracer | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Trace requests while inside; at the end what is still to be sent is, for as long as one send may take."""
        if self._settings.endpoint is None:
            yield
            return
        provider = self._provider(self._settings.endpoint)
        self._tracer = provider.get_tracer("antiprompt-gateway", __version__)
        try:
            yield
        finally:
            self._tracer = None
            await self._end(provider)

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> Trace | None:
        """The trace of a request with these headers (ASGI's); None where traces are off."""
        if self._tracer is None:
            return None
        parent = _callers(headers) if self._settings.from_callers else Context()
        root = self._tracer.start_span("request", parent, kind=SpanKind.SERVER)
        context = set_span_in_context(root, Context())
        return Trace(self._tracer, root, context, sent_upstream=self._settings.to_upstream)

    async def _end(self, provider: TracerProvider) -> None:
        """Send what is left, in a thread that nobody waits for: a collector that hangs must not keep a gateway."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            provider.shutdown()
            with suppress(RuntimeError):  # the loop may be gone
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=end, name="traces-end", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.timeout_s):
                await ended.wait()

    def _provider(self, endpoint: str) -> TracerProvider:
        import requests
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        session = requests.Session()
        session.trust_env = False  # no proxies or passwords from the environment: settings are the only source
        session.max_redirects = 0
        secret = self._settings.authorization
        exporter = OTLPSpanExporter(
            endpoint,
            headers={"authorization": secret.get_secret_value()} if secret is not None else {},
            timeout=self._settings.timeout_s,
            compression=Compression.Gzip,
            session=session,
        )
        resource = {
            "service.name": self._settings.service_name,
            "service.version": __version__,
            "service.instance.id": self._instance,
        }
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(self._settings.share)),
            resource=Resource(resource),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=self._settings.max_queue_spans,
                schedule_delay_millis=self._settings.send_every_s * 1000,
                max_export_batch_size=min(512, self._settings.max_queue_spans),
            )
        )
        return provider


@contextmanager
def under(trace: Trace) -> Iterator[Trace]:
    """Make ``trace`` the current one, and name it in every line that is logged meanwhile."""
    token = _current.set(trace)
    bound = {"trace": trace.id} if trace.recording else {}
    try:
        with structlog.contextvars.bound_contextvars(**bound):
            yield trace
    finally:
        _current.reset(token)


def _callers(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """The caller's own trace, to be gone on with; an empty context where it names none, or more than one."""
    named: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
    for name, value in headers:
        lower = name.decode("latin-1").lower()
        if lower in named:
            named[lower].append(value.decode("latin-1"))
    if len(named["traceparent"]) != 1:
        return Context()
    carrier = {"traceparent": named["traceparent"][0], "tracestate": ",".join(named["tracestate"])}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _named(values: dict[str, Value]) -> dict[str, Value]:
    return {_PREFIX + name: value for name, value in values.items()}


def _failed(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR)
