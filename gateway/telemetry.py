"""What is seen from outside: structured logs and Prometheus metrics. Neither ever holds user text, keys or vectors.

Labels come from closed sets: surfaces, actions, hazard slugs, sides and causes are all names of this project's own,
so that no caller can grow a metric without bound.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from typing import Any, BinaryIO, Final, Literal, TextIO, cast

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from gateway.errors import Overloaded, ScreeningUnavailable

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_UPSTREAM_SECONDS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_RISKS: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)


class Metrics:
    """Every metric of one gateway process, in a registry of its own (so that tests may build many)."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"antiprompt_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"antiprompt_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"antiprompt_{name}_seconds", text, labels, registry=registry, buckets=buckets)

        self.requests = counter(
            "requests_total", "Requests by what was done with them.", "surface", "action", "hazard", "side"
        )
        self.errors = counter("errors_total", "Requests answered with an error, by its code.", "code")
        self.unavailable = counter("unavailable_total", "Texts that could not be screened, by cause.", "side", "cause")
        for side in ("request", "response"):
            for cause in (ScreeningUnavailable.code, Overloaded.code):
                self.unavailable.labels(side, cause)  # from zero on, so that the very first one is seen to happen
        self.shadow_hits = counter("shadow_hits_total", "What shadow rules would have done.", "action", "hazard")
        self.strikes = counter("strikes_total", "Blocks counted against end users.", "hazard")
        self.risk = Histogram(
            "antiprompt_risk",
            "Highest risk of each exchange, passes as well as hits.",
            ("side",),
            registry=registry,
            buckets=_RISKS,
        )
        self.screening = seconds("screening", "From texts to verdicts, queue and encoder included.", "side")
        self.added = seconds(
            "added", "What screening and deciding took of an exchange, both sides together.", "surface"
        )
        self.queue = seconds("queue", "Wait of a window before the encoder took it.")
        self.upstream = seconds(
            "upstream", "From sending a request to the head of its reply.", "surface", buckets=_UPSTREAM_SECONDS
        )
        self.held = seconds("held", "How long streamed text was held back before its release.")
        self.batch_windows = Histogram(
            "antiprompt_batch_windows",
            "Windows joined into one encoder call.",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        )
        self.cache_lookups = counter("cache_lookups_total", "Screenings asked of the cache, by result.", "result")
        self.queue_windows = gauge("queue_windows", "Windows waiting for the encoder.")
        self.in_flight = gauge("in_flight_requests", "Requests under way.")
        self.bank = gauge(
            "bank_info",
            "1 for the bank in force; base is the published version below it.",
            "version",
            "base",
            "encoder",
        )
        self.bank_behind = gauge("bank_behind", "1 while the version in force cannot be used here, so an older one is.")
        self.bank_records = gauge("bank_records", "Live exemplars of the bank in force.", "label")
        self.calibration_stale = gauge(
            "calibration_stale", "1 while the fit at hand belongs to another bank or encoder; it is not used."
        )
        self.policy = gauge("policy_info", "1 for the policy version in force.", "version", "mode")
        self.flags = counter("flags_total", "Flags taken, by who raised them.", "source")
        self.flags_kept = gauge("flags_kept", "Flags of the whole installation, by how far they have come.", "state")
        self.oldest_open_flag = gauge("oldest_open_flag_seconds", "How long the oldest open flag has waited.")
        self.reviews_kept = gauge("reviews_kept", "Reviews of the whole installation, undone ones too.")
        self.webhooks = counter("webhooks_total", "Posts that tell of decisions about held content.", "result")
        self.spooled_flags = gauge("spooled_flags", "Flags on disk that wait for Redis.")
        self.dropped_cases = counter(
            "dropped_cases_total", "Cases or exchanges that could not be kept, by cause.", "cause"
        )
        self.redis_up = gauge("redis_up", "1 while Redis answers.")
        self.retraining_refused = gauge(
            "retraining_refused", "1 while the newest retrained version was refused, or could not be built."
        )
        self.retraining_waiting = gauge("retraining_waiting", "Reviews that no worker has learned from yet.")
        self.retraining_dead = gauge("retraining_dead_letters", "Reviews that could not be learned from.")
        self.retraining_due = gauge("retraining_due_exemplars", "Exemplars that no version of the bank holds yet.")
        self.retraining_run_at = gauge(
            "retraining_run_timestamp_seconds", "When a version was last built or refused; 0 for never."
        )
        self.drift_index = gauge(
            "drift_index", "Population stability index of the last day's risks; not a number with too few cases."
        )
        self.drift_index.set(math.nan)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def name_bank(self, version: str, base: str, encoder: str, harmful: int, benign: int) -> None:
        """Say which bank is in force; the one before it disappears from the exposition.

        ``base`` is the published version. What is laid over it can differ between gateways for a while, and does where
        an exemplar decides on a share of them only.
        """
        self.bank.clear()
        self.bank.labels(version, base, encoder).set(1)
        self.bank_records.labels("harmful").set(harmful)
        self.bank_records.labels("benign").set(benign)

    def name_policy(self, version: str, mode: str) -> None:
        """Say which policy is in force."""
        self.policy.clear()
        self.policy.labels(version, mode).set(1)


def configure_logs(*, format: Literal["json", "console"], level: str, stream: TextIO = sys.stdout) -> None:
    """Set up logging for the process, once, from the command line's entry point only.

    What libraries log through the standard library comes out in the same form, warnings and above.
    """
    threshold = getattr(logging, level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # The traceback only: structlog's richer renderers print local variables, and those hold what users wrote.
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer(_dumps)
    if format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    factory: Any = structlog.PrintLoggerFactory(stream)
    if format == "json":
        factory = structlog.BytesLoggerFactory(cast(BinaryIO, _Unfailing(stream.buffer)))
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=factory,
        cache_logger_on_first_use=False,  # a logger used before must not keep writing where nobody reads
    )
    handler = logging.StreamHandler(stream)
    text_renderer = structlog.processors.JSONRenderer() if format == "json" else renderer
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=text_renderer))
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)


class _Unfailing:
    """A binary stream whose faults end here: with its log's disk full or its reader gone, a gateway still serves."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _dumps(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)


def logger() -> Any:
    """The process's logger; events are short fixed phrases, values are keyword arguments."""
    return structlog.get_logger()
