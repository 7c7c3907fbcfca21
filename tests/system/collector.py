"""A collector of traces, as OpenTelemetry has them: OTLP over HTTP on loopback, keeping what it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Sent(NamedTuple):
    """A span, and the process that sent it."""

    process: str
    span: Span


class Collector:
    """What was sent, by the id of the trace."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._spans: dict[str, list[Sent]] = {}

    def take(self, body: bytes) -> None:
        with self._lock:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                assert told["service.name"] == "rebu"
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        sent = Sent(told["service.instance.id"], span)
                        self._spans.setdefault(span.trace_id.hex(), []).append(sent)

    def trace(self, trace_id: str) -> list[Sent]:
        """The spans of a trace by now, in the order in which they began."""
        with self._lock:
            return sorted(self._spans.get(trace_id, []), key=lambda sent: sent.span.start_time_unix_nano)

    def traces(self) -> set[str]:
        """The ids of all traces."""
        with self._lock:
            return set(self._spans)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens inside the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.take(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join(10)
