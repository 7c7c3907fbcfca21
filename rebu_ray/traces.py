"""Traces of requests, for an OpenTelemetry collector: from the gateway to the journal, the index and the tasks.

Off unless a collector is named: then nothing of OpenTelemetry is imported, and a span costs a look at a variable. A
request is traced where its `traceparent` says so, or by chance where it brings none. What a group of requests shares (a
commit, a task) is a span of each traced one. A collector that is away costs spans, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

from rebu_ray import __version__, logs
from rebu_ray.logs import about, origins
from rebu_ray.settings import Settings, SettingsError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

SEND_SECONDS: Final = 1.0
"""How long spans gather before they are sent."""
TIMEOUT_SECONDS: Final = 5.0
PARENT: Final = "traceparent"
_OFF: Final[AbstractContextManager[None]] = nullcontext()


class Step(NamedTuple):
    """Part of what was done for a request, by the monotonic clock."""

    name: str
    began: float
    ended: float


class Tracing:
    """The spans of this process."""

    def __init__(self, process: str, share: float, processor: SpanProcessor) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        told = {"service.name": "rebu", "service.version": __version__, "service.instance.id": process}
        self._trace = trace
        self._provider = TracerProvider(ParentBased(TraceIdRatioBased(share)), Resource.create(told))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("rebu")
        self._propagator = TraceContextTextMapPropagator()

    def request(self, request_id: str, headers: Mapping[str, str]) -> Span:
        """The span of a request that begins now; to be ended."""
        kind = self._trace.SpanKind.SERVER
        told = {"rebu.request_id": request_id}
        return self._tracer.start_span("request", self._propagator.extract(headers), kind, told)

    def origin(self, request_id: str, span: Span) -> str:
        """What is handed on of a request: see `logs.origins`."""
        if not span.get_span_context().trace_flags.sampled:
            return request_id
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        return f"{request_id} {carrier[PARENT]}"

    def parents(self, found: Iterable[str]) -> Iterator[Context]:
        """Of those requests that are traced, what spans hang from."""
        for origin in found:
            _, _, parent = origin.partition(" ")
            if parent:
                yield self._propagator.extract({PARENT: parent})

    @contextmanager
    def span(self, name: str, told: Mapping[str, str | int]) -> Iterator[None]:
        """A span of each traced request that what runs inside is about."""
        spans = [self._tracer.start_span(name, parent, attributes=told) for parent in self.parents(origins())]
        try:
            yield
        except BaseException as error:
            for span in spans:
                span.set_status(self._trace.StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            for span in spans:
                span.end()

    def done(self, found: Iterable[str], whole: Step, told: Mapping[str, str | int], parts: Iterable[Step]) -> None:
        """Spans of what is over: a whole, and its parts below it, for each traced request."""
        ahead = time.time_ns() - time.monotonic_ns()

        def at(moment: float) -> int:
            return ahead + round(1e9 * moment)

        for parent in self.parents(found):
            span = self._tracer.start_span(whole.name, parent, attributes=told, start_time=at(whole.began))
            below = self._trace.set_span_in_context(span)
            for part in parts:
                self._tracer.start_span(part.name, below, start_time=at(part.began)).end(at(part.ended))
            span.end(at(whole.ended))

    def failed(self, span: Span) -> None:
        """Mark a span as one that did not end well."""
        span.set_status(self._trace.StatusCode.ERROR)

    def close(self) -> None:
        """Send what is left, and stop."""
        self._provider.shutdown()


_active: Tracing | None = None
_collector: tuple[str, float] = ("", 0.0)


def active() -> Tracing | None:
    """The spans of this process; None where nothing is traced."""
    return _active


def span(name: str, **told: str | int) -> AbstractContextManager[None]:
    """A span of each traced request that what runs inside is about."""
    return _OFF if _active is None else _active.span(name, told)


def begin(settings: Settings, process: str) -> None:
    """Have this process, of that name, log and trace as the settings say. Raises SettingsError."""
    logs.configure(settings.log_format, settings.log_requests, process)
    _connect(settings.otel_endpoint, settings.otel_share, process)


def check(settings: Settings) -> None:
    """Raises SettingsError where traces are wanted and what sends them is not installed."""
    if settings.otel_endpoint:
        try:
            import opentelemetry.exporter.otlp.proto.http  # noqa: F401
        except ImportError as error:
            raise SettingsError(
                "otel_endpoint is set: install the extra that sends traces, rebu-ray[traces]"
            ) from error


def _connect(endpoint: str, share: float, process: str) -> None:
    global _active, _collector
    _collector = (endpoint, share)
    if endpoint and _active is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=TIMEOUT_SECONDS)
        use(Tracing(process, share, BatchSpanProcessor(exporter, schedule_delay_millis=1000 * SEND_SECONDS)))


def use(tracing: Tracing | None) -> None:
    """Have this process trace with these, or not at all."""
    global _active
    _active = tracing


class Told(NamedTuple):
    """What a task is told so that it logs and traces for whom its caller was called."""

    form: logs.Form
    requests: bool
    collector: tuple[str, float]
    origins: tuple[str, ...]


def told() -> Told:
    """For a task that is called now."""
    return Told(*logs.configured(), _collector, origins())


@contextmanager
def resumed(by: Told, process: str) -> Iterator[None]:
    """What runs inside, in a process of that name, is for those for whom the caller was called."""
    if not logs.is_configured():
        logs.configure(by.form, by.requests, process)
        _connect(*by.collector, process)
    with about(by.origins):
        yield
