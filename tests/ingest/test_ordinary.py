"""The short way of a batch says what the long way says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.dialects import ordinary, parse_segment, segment
from rebu_ray.ingest.dialects.fields import Arrival
from rebu_ray.ingest.dialects.segment import parse_batch
from rebu_ray.ingest.identity import route
from rebu_ray.records import MAX_RECORD_BYTES, Record, Refusal, Source
from rebu_ray.store.rows import columns, to_batch
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
    envelope: dict[str, Any] = {"batch": batch} if sent is None else {"batch": batch, "sentAt": sent}
    parsed = parse_segment(json.dumps(envelope, ensure_ascii=escape).encode(), RECEIVED_AT)
    # What is no message at all has every other one take the long way.
    envelope["batch"] = [*batch, 5]
    assert parsed == parse_segment(json.dumps(envelope, ensure_ascii=escape).encode(), RECEIVED_AT)[:-1]


@seeded
@given(batch=st.lists(usual, min_size=1, max_size=6))
def test_columns_are_those_of_the_records(batch: list[dict[str, Any]]) -> None:
    parsed = parse_batch(json.dumps({"batch": batch}).encode(), RECEIVED_AT)
    if isinstance(parsed, ordinary.Ordinary):
        rows = [row for record in parsed.records() if isinstance(record, Record) for row in route(record, 8)]
        assert parsed.columns(8) == columns(rows)
        assert parsed.columns(8).batch().equals(to_batch(rows))
    else:
        assert any(not message["userId"] and not message["anonymousId"] for message in batch) or any(
            isinstance(entry, Refusal) for entry in parsed
        )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"type": "page"},
        {"type": "screen", "name": "Home"},
        {"userId": None, "anonymousId": "phone"},
        {"properties": {"city": "São Paulo 🚕"}},
        {"properties": {"quoted": '"\\\n'}},
        {"timestamp": "2026-03-01T08:00:00.123456+00:00"},
        {"context": {"pad": "x" * 2000}},
    ],
)
@pytest.mark.parametrize("sent_at", [None, RECEIVED_AT - 5000])
def test_ordinary_messages_take_the_short_way(fields: dict[str, Any], sent_at: int | None) -> None:
    usual = {"type": "track", "userId": "u", "event": "Opened", "timestamp": "2026-03-01T08:00:00Z"}
    raws = [json.dumps({"messageId": f"m{n}", **usual, **fields}, ensure_ascii=False).encode() for n in range(3)]
    body = b'{"batch":[' + b",".join(raws) + b"]}"
    arrival = Arrival(Source.APP_EVENTS, RECEIVED_AT)
    found = ordinary.read(body, raws, arrival, sent_at)
    assert found is not None
    assert found.records() == [segment.record(segment.read(raw), raw, arrival, 0, sent_at) for raw in raws]


@pytest.mark.parametrize(
    "fields",
    [
        {"userId": None},
        {"userId": "a\0b"},
        {"timestamp": "soon"},
        {"timestamp": "1969-12-31T23:59:59Z"},
        {"messageId": ""},
        {"type": "identify"},
        {"writeKey": "k"},
        {"properties": "x" * MAX_RECORD_BYTES},
        {"properties": json.loads("[" * 251 + "]" * 251)},
    ],
)
def test_one_message_that_is_not_ordinary_takes_all_the_long_way(fields: dict[str, Any]) -> None:
    usual = {"type": "track", "userId": "u", "event": "Opened", "timestamp": "2026-03-01T08:00:00Z"}
    batch = [{"messageId": f"m{n}", **usual, **(fields if n == 1 else {})} for n in range(3)]
    assert isinstance(parse_batch(json.dumps({"batch": batch}).encode(), RECEIVED_AT), list)
