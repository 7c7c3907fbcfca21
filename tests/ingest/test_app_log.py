from __future__ import annotations

import json
from typing import Any

import pytest

from rebu_ray.ingest.dialects import parse_logs, parse_segment
from rebu_ray.records import MAX_RECORD_BYTES, Kind, MatchedBy, Parsed, Record, Refusal, Source
from tests.ingest.promises import RECEIVED_AT, body, check, only, refused

MESSAGE = {
    "type": "track",
    "event": "Ride Requested",
    "messageId": "m-1",
    "userId": "u-1",
    "anonymousId": "a-1",
    "timestamp": "2026-03-01T08:00:00.000Z",
    "sentAt": "2026-03-01T08:00:03.000Z",
}
ERROR = {
    "type": "error",
    "messageId": "m-2",
    "userId": "u-1",
    "timestamp": "2026-03-01T08:00:00Z",
    "error": {"name": "NullPointerException", "message": "x", "stack": "at y", "fatal": True},
    "context": {"os": {"name": "Android"}},
}


def events(*lines: Any, content_type: str | None = "application/x-ndjson") -> Parsed:
    raw = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    parsed = parse_logs(Source.APP_EVENTS, content_type, raw, RECEIVED_AT)
    check(parsed)
    assert len(parsed) == len(lines)
    return parsed


def errors(*lines: Any) -> Parsed:
    raw = b"\n".join(json.dumps(line).encode() for line in lines)
    parsed = parse_logs(Source.APP_ERRORS, None, raw, RECEIVED_AT)
    check(parsed)
    return parsed


def test_a_segment_message_is_what_it_is_in_a_batch() -> None:
    raw = json.dumps(MESSAGE).encode()
    assert events(raw) == parse_segment(b'{"batch":[' + raw + b"]}", RECEIVED_AT)
    assert only(events(raw)).event_time == RECEIVED_AT - 3000


def test_an_app_error() -> None:
    for record, source in ((only(events(ERROR)), Source.APP_EVENTS), (only(errors(ERROR)), Source.APP_ERRORS)):
        assert (record.kind, record.name, record.id, record.source) == (
            Kind.APP_ERROR,
            "NullPointerException",
            "m-2",
            source,
        )


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (MESSAGE, "Ride Requested"),
        ({"user_id": "u-1", "error": {"name": "Crash"}}, "Crash"),
        ({"user_id": "u-1", "error": {"message": "no name"}}, "error"),
        ({"user_id": "u-1", "error": "boom", "name": "Boom"}, "Boom"),
        ({"user_id": "u-1", "type": "crash", "event": "Boom"}, "Boom"),
        ({"user_id": "u-1", "message": "it broke"}, "error"),
    ],
)
def test_whatever_comes_to_app_errors_is_one(line: dict[str, Any], name: str) -> None:
    record = only(errors(line))
    assert (record.kind, record.name) == (Kind.APP_ERROR, name)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"user_id": "u-1", "event": "Tap", "time": 1772352000000}, ("u-1", None, "Tap", RECEIVED_AT - 10_000)),
        ({"userId": 7, "name": "Tap", "ts": 1772352000}, ("7", None, "Tap", RECEIVED_AT - 10_000)),
        (
            {"anonymous_id": "a-1", "page": "Home", "@timestamp": "2026-03-01T08:00:00Z"},
            (None, "a-1", "Home", RECEIVED_AT - 10_000),
        ),
        ({"user_id": "u-1"}, ("u-1", None, "event", RECEIVED_AT)),
        ({"user_id": "u-1", "type": "tap"}, ("u-1", None, "tap", RECEIVED_AT)),
        ({"userId": "", "user_id": "u-2", "event": None, "page": "x"}, ("u-2", None, "x", RECEIVED_AT)),
        (
            {"type": "track", "user_id": "u-1", "event": "Tap", "ts": 1772352000},
            ("u-1", None, "Tap", RECEIVED_AT - 10_000),
        ),
        (
            {"type": "track", "messageId": "m", "userId": "u-1", "event": "Tap", "ts": 1772352000},
            ("u-1", None, "Tap", RECEIVED_AT - 10_000),
        ),
        ({"type": "identify", "user_id": "u-1", "anonymous_id": "a-1"}, ("u-1", "a-1", "identify", RECEIVED_AT)),
    ],
)
def test_plain_events(line: dict[str, Any], expected: tuple[Any, ...]) -> None:
    record = only(events(line))
    assert (record.user_id, record.anonymous_id, record.name, record.event_time) == expected
    assert body(record) == line


def test_a_plain_identify_ties_too() -> None:
    assert only(events({"type": "identify", "user_id": "u-1", "anonymous_id": "a-1"})).links == "a-1"
    assert only(events({"type": "alias", "user_id": "u-1", "previous_id": "a-2"})).links == "a-2"


def test_ids() -> None:
    assert only(events({"user_id": "u-1", "id": 5})).id == "5"
    assert only(events({"user_id": "u-1", "id": 5, "messageId": "m"})).id == "m"
    first, second = events({"user_id": "u-1"}, {"user_id": "u-1"})
    assert first.id != second.id


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"event": "x"}, "missing_id: userId or anonymousId"),
        ({"user_id": "u-1", "ts": "soon"}, "invalid_time: ts must"),
        ({"user_id": "u-1", "timestamp": ""}, "invalid_time: timestamp"),
        ({"user_id": "u" * 600}, "invalid_id: user_id must"),
        ({"user_id": "u-1", "sent_at": "soon"}, "invalid_time: sent_at must"),
        ({"user_id": "u-1", "pad": "x" * MAX_RECORD_BYTES}, "too_large: the record"),
        (b'{"user_id": "u-1"', "invalid_json: the record"),
        (b"GET / HTTP/1.1", "invalid_json: the record"),
        (b'"u-1"', "invalid_shape: a record must be a JSON object"),
        (b'{"user_id": "u-1", "n": NaN}', "invalid_json: the record holds NaN"),
        (b'{"user_id": "u-\xff"}', "invalid_utf8: the record"),
    ],
)
def test_refusals(line: Any, reason: str) -> None:
    [entry] = events(line, content_type="text/plain")
    assert isinstance(entry, Refusal)
    assert entry.reason.startswith(reason)
    assert entry.raw == (line if isinstance(line, bytes) else json.dumps(line).encode())


def test_a_refused_message_says_its_id() -> None:
    assert refused(events(MESSAGE | {"timestamp": "never"})).id == "m-1"
    assert refused(events({"id": "e-1", "user_id": "u-1", "ts": "never"})).id == "e-1"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda line: {
            "file": "/var/log/app.log",
            "host": "h",
            "message": line,
            "source_type": "file",
            "timestamp": "2026",
        },
        lambda line: {"date": 1772352009.5, "log": line + "\n", "stream": "stdout", "time": "2026-03-01T08:00:09Z"},
        lambda line: {"message": json.dumps({"log": line})},
        lambda line: {"message": " " + line + " ", "level": "info", "id": "the shipper's own"},
    ],
    ids=["vector", "fluent-bit", "docker in vector", "padded"],
)
@pytest.mark.parametrize("inner", [MESSAGE, ERROR, {"user_id": "u-1", "event": "Tap", "message": '{"user_id":"u-2"}'}])
def test_envelopes_of_shippers(wrap: Any, inner: dict[str, Any]) -> None:
    bare = json.dumps(inner, ensure_ascii=False)
    record = only(events(wrap(bare)))
    assert record == only(events(bare.encode()))
    assert record.body == bare.encode()
    assert record.matched_by is MatchedBy.USER_ID


def test_an_envelope_counts_only_what_it_holds() -> None:
    inner = json.dumps({"user_id": "u-1", "event": "x", "pad": '"' * (MAX_RECORD_BYTES // 2 - 30)})
    assert len(json.dumps({"message": inner})) > MAX_RECORD_BYTES
    assert only(events({"message": inner})).body == inner.encode()


def test_an_envelope_without_json_in_it() -> None:
    assert refused(events({"message": "started", "host": "h"})).reason.startswith("missing_id")
    assert refused(events({"message": "{broken", "host": "h"})).reason.startswith("missing_id")


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None, "application/x-ndjson"])
def test_every_framing_says_the_same(content_type: str | None) -> None:
    lines = [json.dumps(MESSAGE).encode(), json.dumps(ERROR).encode()]
    array = b" [\n" + b" ,\n".join(lines) + b"\n]\n"
    ndjson = b"\n".join(lines) + b"\r\n"
    expected = parse_logs(Source.APP_EVENTS, "application/x-ndjson", ndjson, RECEIVED_AT)
    assert [type(entry) for entry in expected] == [Record, Record]
    assert parse_logs(Source.APP_EVENTS, content_type, array, RECEIVED_AT) == expected
    assert parse_logs(Source.APP_EVENTS, content_type, ndjson, RECEIVED_AT) == expected
    pretty = json.dumps(MESSAGE, indent=2).encode()
    assert body(only(parse_logs(Source.APP_EVENTS, content_type, pretty, RECEIVED_AT))) == MESSAGE
