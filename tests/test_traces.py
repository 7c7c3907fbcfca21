"""Spans of requests, kept in memory instead of being sent."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pyarrow as pa
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from rebu_ray import traces
from rebu_ray.ingest.answer import Call
from rebu_ray.ingest.measures import ShardMeasures
from rebu_ray.logs import about, origins
from rebu_ray.settings import Settings, SettingsError
from rebu_ray.store.rows import WIRE
from rebu_ray.traces import Step, Tracing, span
from tests.access.serving import WRITE, Backends, FakeIntake, write

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}
EVENT = {"type": "track", "userId": "ada", "event": "tap"}


class Kept:
    """What this process traces."""

    def __init__(self, share: float) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing("gateway", share, SimpleSpanProcessor(self._exporter))
        traces.use(self.tracing)

    def spans(self) -> dict[str, ReadableSpan]:
        found = self._exporter.get_finished_spans()
        assert len({one.name for one in found}) == len(found)
        return {one.name: one for one in found}


@pytest.fixture(autouse=True)
def _off_again() -> Iterator[None]:
    yield
    traces.use(None)


def trace_of(found: ReadableSpan) -> str:
    assert found.context is not None
    return f"{found.context.trace_id:032x}"


def parent_of(found: ReadableSpan) -> int:
    assert found.parent is not None
    return found.parent.span_id


def sent(headers: dict[str, str], backends: Backends | None = None) -> httpx.Response:
    return write(backends or Backends(), "/v1/track", headers=WRITE | headers, json=EVENT)


def test_nothing_is_imported_and_nothing_made_where_nobody_wants_traces() -> None:
    ask = "import sys, rebu_ray.traces; print(*(name for name in sys.modules if 'opentelemetry' in name))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "\n", done.stderr
    assert span("parse") is span("store"), "no object a span"
    assert sent(SAMPLED).status_code == 200


def test_a_request_is_traced_as_its_sender_says() -> None:
    kept = Kept(share=0)
    sent({})
    sent(NOT_SAMPLED)
    assert kept.spans() == {}
    answer = sent(SAMPLED)
    found = kept.spans()
    assert found.keys() == {"POST /v1/track", "parse", "store"}
    assert {trace_of(one) for one in found.values()} == {TRACE}
    server = found["POST /v1/track"]
    assert server.parent is not None
    assert server.attributes == {
        "rebu.request_id": answer.headers["x-request-id"],
        "http.request.method": "POST",
        "http.route": "/v1/track",
        "http.response.status_code": 200,
    }
    assert server.context is not None
    assert {parent_of(found[name]) for name in ("parse", "store")} == {server.context.span_id}
    assert server.resource.attributes["service.instance.id"] == "gateway"


def test_one_that_brings_nothing_is_traced_by_chance() -> None:
    kept = Kept(share=1)
    sent(NOT_SAMPLED)
    assert kept.spans() == {}
    sent({})
    assert trace_of(kept.spans()["POST /v1/track"]) != TRACE


def test_what_fails_is_marked() -> None:
    kept = Kept(share=1)
    assert sent({}, Backends(FakeIntake(RuntimeError("odd")))).status_code == 500
    found = kept.spans()
    assert {name: one.status.status_code for name, one in found.items()} == {
        "POST /v1/track": StatusCode.ERROR,
        "store": StatusCode.ERROR,
        "parse": StatusCode.UNSET,
    }
    assert "odd" not in str([(one.name, one.attributes, one.status.description) for one in found.values()])


def test_no_span_names_anybody() -> None:
    kept = Kept(share=1)

    async def read() -> None:
        from tests.access.serving import visit

        await visit(Backends(), lambda client: client.get("/v1/users/ada-lovelace/events?name=ada-lovelace"))

    asyncio.run(read())
    (found,) = kept.spans().values()
    assert found.name == "GET /v1/users/{user_id}/events"
    assert "lovelace" not in found.to_json()


def test_a_shard_tells_of_each_traced_request_how_long_it_waited_for_what() -> None:
    kept = Kept(share=0)
    rows = pa.RecordBatch.from_pylist([], schema=WIRE)

    async def append() -> None:
        answer = asyncio.get_running_loop().create_future()
        call = Call(rows, answer, frozenset(), 10.0, (f"r-1 {SAMPLED['traceparent']}", "r-2"))
        untraced = Call(rows, answer, frozenset(), 10.0, ("r-3",))
        ShardMeasures().appended(1, [call, untraced], Step("journal", 10.5, 10.75), 10.75)

    asyncio.run(append())
    found = kept.spans()
    assert found.keys() == {"append", "queue", "journal", "index"}
    whole = found["append"]
    assert trace_of(whole) == TRACE
    assert whole.attributes == {"rebu.slot": 1, "rebu.rows": 0, "rebu.calls": 2}
    assert whole.context is not None
    assert {parent_of(found[name]) for name in ("queue", "journal", "index")} == {whole.context.span_id}

    def took(name: str) -> float:
        began, ended = found[name].start_time, found[name].end_time
        assert began is not None
        assert ended is not None
        return (ended - began) / 1e9

    assert (took("queue"), took("journal")) == (0.5, 0.25)
    assert found["queue"].start_time == whole.start_time
    assert found["index"].end_time == whole.end_time


def test_a_task_goes_on_with_the_trace_of_its_caller() -> None:
    kept = Kept(share=0)
    with about([f"r-1 {SAMPLED['traceparent']}"]):
        by = traces.told()
    with traces.resumed(by, "task"), span("compute documents", subjects=3):
        assert origins() == by.origins
    found = kept.spans()["compute documents"]
    assert trace_of(found) == TRACE
    assert found.attributes == {"subjects": 3}


def test_traces_that_cannot_be_sent_are_a_mistake_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    traces.check(Settings(otel_endpoint="http://127.0.0.1:4318"))
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    traces.check(Settings())
    with pytest.raises(SettingsError, match=r"rebu-ray\[traces\]"):
        traces.check(Settings(otel_endpoint="http://127.0.0.1:4318"))
