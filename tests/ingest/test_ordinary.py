"""The short way of a batch says what the long way says."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.dialects import ordinary, parse_segment, segment
from rebu_ray.ingest.dialects.fields import Arrival
from rebu_ray.records import Record, Source
from tests.ingest.promises import RECEIVED_AT, seeded

texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "a", "x" * 200, "é" * 300, "n\0l", "track", "identify", "2026-03-01T08:00:00Z", "no time"]),
)
values = st.one_of(texts, st.none(), st.integers(-5, 2**40), st.booleans(), st.just({"a": [1, None]}), st.just([]))
times = st.sampled_from(
    ["2026-03-01T08:00:00.123Z", "2026-03-01 07:00:00+02:00", "2026-03-01T08:00:20Z", "0001-01-01T00:00:00Z", "soon", 7]
)
messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "track", "track", "page", "identify", 3])},
    optional={
        "messageId": values,
        "userId": values,
        "anonymousId": values,
        "event": values,
        "timestamp": st.one_of(times, values),
        "sentAt": st.one_of(st.none(), times),
        "originalTimestamp": times,
        "writeKey": values,
        "properties": values,
        "pad": st.sampled_from(["", "x" * 600]),
    },
)
usual = st.fixed_dictionaries(
    {
        "type": st.just("track"),
        "messageId": st.text("ab1-", min_size=1, max_size=6),
        "event": st.text("Rid ", min_size=1, max_size=6),
        "timestamp": times.filter(lambda t: isinstance(t, str)),
        "userId": st.one_of(st.none(), st.text("uv", min_size=1, max_size=3)),
        "anonymousId": st.one_of(st.none(), st.text("xy", min_size=1, max_size=3)),
    }
)
batches = st.one_of(st.lists(usual, max_size=6), st.lists(st.one_of(usual, messages), max_size=6))


@seeded
@given(batch=batches, sent=st.one_of(st.none(), times.filter(lambda t: t != "soon")), escape=st.booleans())
def test_the_short_way_changes_nothing(batch: list[dict[str, Any]], sent: object, escape: bool) -> None:
    envelope = {"batch": batch} if sent is None else {"batch": batch, "sentAt": sent}
    body = json.dumps(envelope, ensure_ascii=escape).encode()
    parsed = parse_segment(body, RECEIVED_AT)
    long_way = parse_segment(body.replace(b'{"batch"', '{"\u00e9":0,"batch"'.encode(), 1), RECEIVED_AT)
    assert parsed == long_way


def test_ordinary_messages_take_the_short_way() -> None:
    raws = [
        b'{"type":"track","messageId":"m%d","userId":"u","event":"Opened","timestamp":"2026-03-01T08:00:00Z"}' % n
        for n in range(3)
    ]
    body = b'{"batch":[' + b",".join(raws) + b"]}"
    found = ordinary.records(body, raws, Arrival(Source.APP_EVENTS, RECEIVED_AT), None)
    assert found is not None
    assert all(isinstance(record, Record) for record in found)
    assert found == [segment.record(segment.read(raw), raw, Arrival(Source.APP_EVENTS, RECEIVED_AT), 0) for raw in raws]
