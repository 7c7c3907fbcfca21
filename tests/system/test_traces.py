"""The trace of a request through a real platform, as a collector gets it."""

from __future__ import annotations

import os

import pytest

from rebu_ray.platform.local_ray import session_folder
from tests.system.collector import Collector
from tests.system.running import Running, await_true

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

STAGES = {"parse", "store", "append", "queue", "journal", "index", "compute documents"}


def test_a_sampled_request_is_traced_from_the_gateway_to_the_task(rebu_up: Running, collector: Collector) -> None:
    trace, parent, times = os.urandom(16).hex(), os.urandom(8).hex(), "2026-03-01T08:00:00Z"
    row = {"ride_id": f"r-{trace}", "user_id": f"u-{trace}", "status": "requested", "requested_at": times}
    request = f"traced-{trace[:8]}"
    answer = rebu_up.post(
        "/v1/records/rides",
        [row | {"updated_at": times}],
        Traceparent=f"00-{trace}-{parent}-01",
        X_Request_Id=request,
    )
    assert answer.status_code == 200

    def names() -> set[str]:
        return {sent.span.name for sent in collector.trace(trace)}

    route = "POST /v1/records/{table}"
    await_true(lambda: STAGES | {route} <= names(), f"every stage; there are {names()}")
    spans = {sent.span.name: sent.span for sent in collector.trace(trace)}
    processes = {sent.span.name: sent.process for sent in collector.trace(trace)}
    assert spans[route].parent_span_id.hex() == parent
    for name in ("parse", "store", "append", "compute documents"):
        assert spans[name].parent_span_id == spans[route].span_id
    for name in ("queue", "journal", "index"):
        assert spans[name].parent_span_id == spans["append"].span_id
        assert spans["append"].start_time_unix_nano <= spans[name].start_time_unix_nano
        assert spans[name].end_time_unix_nano <= spans["append"].end_time_unix_nano
    assert processes[route] == "gateway"
    assert processes["append"] in ("shard-0", "shard-1")
    assert processes["compute documents"] == "task"
    told = {pair.key: pair.value.string_value for pair in spans[route].attributes}
    assert told["rebu.request_id"] == request
    assert f"u-{trace}".encode() not in b"".join(sent.span.SerializeToString() for sent in collector.trace(trace))
    logs = session_folder(str(rebu_up.data_dir)) / "session_latest" / "logs"
    assert any(f'"trace_id":"{trace}"' in file.read_text(errors="replace") for file in logs.glob("worker-*.err"))


def test_others_are_not_traced(rebu_up: Running, collector: Collector) -> None:
    quiet, loud = os.urandom(16).hex(), os.urandom(16).hex()
    sent = {"type": "track", "event": "x", "userId": "untraced"}
    before = collector.traces()
    for number in range(20):
        rebu_up.post("/v1/track", sent | {"messageId": f"{quiet}-{number}"})
        rebu_up.post("/v1/track", sent, Traceparent=f"00-{quiet}-b7ad6b7169203331-00")
        rebu_up.post("/v1/track", sent, Traceparent=f"00-{quiet}-nonsense")
    rebu_up.post("/v1/track", sent | {"messageId": loud}, Traceparent=f"00-{loud}-b7ad6b7169203331-01")
    await_true(lambda: len(collector.trace(loud)) >= 7, "the trace of the last")
    assert collector.traces() - before == {loud}
