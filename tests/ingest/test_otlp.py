from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from rebu_ray.ingest.dialects import otlp, parse_otlp
from rebu_ray.records import MAX_RECORD_BYTES, BadRequest, Kind, MatchedBy, Parsed, Record, Refusal, Source
from tests.ingest.promises import RECEIVED_AT, attempt, body, check, only, refused, seeded

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
AT_EIGHT = RECEIVED_AT - 10_000
NANOS = AT_EIGHT * 1_000_000

Attributes = dict[str, Any]


def value_of(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [value_of(element) for element in value]}}
        case dict():
            return {"kvlistValue": {"values": pairs_of(value)}}
        case None:
            return {}
    return {"stringValue": value}


def pairs_of(attributes: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": value_of(value)} for key, value in attributes.items()]


def fill(target: AnyValue, value: Any) -> None:
    match value:
        case bool():
            target.bool_value = value
        case int():
            target.int_value = value
        case float():
            target.double_value = value
        case bytes():
            target.bytes_value = value
        case list():
            target.array_value.SetInParent()
            for element in value:
                fill(target.array_value.values.add(), element)
        case dict():
            target.kvlist_value.SetInParent()
            fill_pairs(target.kvlist_value.values, value)
        case str():
            target.string_value = value


def fill_pairs(target: Any, attributes: Attributes) -> None:
    for key, value in attributes.items():
        pair: KeyValue = target.add()
        pair.key = key
        fill(pair.value, value)


def as_json(resource: Attributes, scope: Attributes, *logs: dict[str, Any]) -> bytes:
    records = [
        {name: value for name, value in log.items() if name not in ("attributes", "body")}
        | {"attributes": pairs_of(log.get("attributes", {}))}
        | ({"body": value_of(log["body"])} if "body" in log else {})
        for log in logs
    ]
    scope_logs = [{"scope": {"name": "lib", "attributes": pairs_of(scope)}, "logRecords": records}]
    return json.dumps(
        {"resourceLogs": [{"resource": {"attributes": pairs_of(resource)}, "scopeLogs": scope_logs}]}
    ).encode()


def as_protobuf(resource: Attributes, scope: Attributes, *logs: dict[str, Any]) -> bytes:
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    fill_pairs(resource_logs.resource.attributes, resource)
    scope_logs = resource_logs.scope_logs.add()
    scope_logs.scope.name = "lib"
    fill_pairs(scope_logs.scope.attributes, scope)
    for log in logs:
        record = scope_logs.log_records.add(
            time_unix_nano=int(log.get("timeUnixNano", 0)),
            observed_time_unix_nano=int(log.get("observedTimeUnixNano", 0)),
            severity_number=log.get("severityNumber", 0),
            severity_text=log.get("severityText", ""),
            event_name=log.get("eventName", ""),
            trace_id=bytes.fromhex(log.get("traceId", "")),
            span_id=bytes.fromhex(log.get("spanId", "")),
        )
        fill_pairs(record.attributes, log.get("attributes", {}))
        if "body" in log:
            fill(record.body, log["body"])
    return request.SerializeToString()


def both(*logs: dict[str, Any], resource: Attributes | None = None, scope: Attributes | None = None) -> Parsed:
    """What JSON and protobuf make of the same request, which must be the same."""
    parsed = parse_otlp(JSON, as_json(resource or {}, scope or {}, *logs), RECEIVED_AT)
    check(parsed)
    assert len(parsed) == len(logs)
    other = parse_otlp(PROTOBUF, as_protobuf(resource or {}, scope or {}, *logs), RECEIVED_AT)
    check(other)
    assert [entry for entry in parsed if isinstance(entry, Record)] == [
        entry for entry in other if isinstance(entry, Record)
    ]
    assert codes(parsed) == codes(other)
    return parsed


def codes(parsed: Parsed) -> list[str]:
    return [entry.reason.partition(":")[0] if isinstance(entry, Refusal) else "" for entry in parsed]


def event(**attributes: Any) -> dict[str, Any]:
    return {"timeUnixNano": str(NANOS), "attributes": {"user.id": "u-1"} | attributes}


def test_an_app_event() -> None:
    log = event(city="Berlin", n=5, f=1.5, ok=True, tags=["a", 1], more={"x": None}) | {
        "eventName": "ride.requested",
        "severityNumber": 9,
        "severityText": "INFO",
        "body": {"text": "hello"},
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "observedTimeUnixNano": str(NANOS + 5),
    }
    record = only(both(log, resource={"service.name": "app"}, scope={"v": "1"}))
    assert (record.kind, record.name, record.source) == (Kind.APP_EVENT, "ride.requested", Source.OTLP)
    assert (record.event_time, record.user_id, record.matched_by) == (AT_EIGHT, "u-1", MatchedBy.USER_ID)
    assert record.request_id is None
    assert body(record) == {
        "timeUnixNano": str(NANOS),
        "severityNumber": 9,
        "severityText": "INFO",
        "eventName": "ride.requested",
        "body": {"text": "hello"},
        "attributes": {
            "user.id": "u-1",
            "city": "Berlin",
            "n": 5,
            "f": 1.5,
            "ok": True,
            "tags": ["a", 1],
            "more": {"x": None},
        },
        "scope": {"name": "lib", "attributes": {"v": "1"}},
        "resource": {"service.name": "app"},
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
    }


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ({"timeUnixNano": str(NANOS)}, AT_EIGHT),
        ({"timeUnixNano": str(NANOS + 999_999)}, AT_EIGHT),
        ({"observedTimeUnixNano": str(NANOS)}, AT_EIGHT),
        ({"timeUnixNano": "0", "observedTimeUnixNano": "0"}, RECEIVED_AT),
        ({}, RECEIVED_AT),
    ],
)
def test_times(log: dict[str, Any], expected: int) -> None:
    assert only(both({"attributes": {"user.id": "u-1"}} | log)).event_time == expected


@pytest.mark.parametrize(
    ("resource", "severity", "attributes", "kind", "name"),
    [
        ({}, 9, {}, Kind.APP_EVENT, "log"),
        ({}, 9, {"event.name": "tap"}, Kind.APP_EVENT, "tap"),
        ({}, 16, {}, Kind.APP_EVENT, "log"),
        ({}, 17, {}, Kind.SERVER_ERROR, "error"),
        ({"os.type": "linux"}, 21, {"exception.type": "KeyError"}, Kind.SERVER_ERROR, "KeyError"),
        ({"os.name": "Android"}, 17, {"exception.type": "NPE"}, Kind.APP_ERROR, "NPE"),
        ({"os.name": "iOS"}, 17, {"event.name": "device.crash"}, Kind.APP_ERROR, "device.crash"),
        ({"telemetry.sdk.language": "swift"}, 17, {}, Kind.APP_ERROR, "log"),
        ({"telemetry.sdk.language": "webjs"}, 17, {}, Kind.APP_ERROR, "log"),
        ({"device.model.name": "Pixel"}, 17, {}, Kind.APP_ERROR, "log"),
        ({"telemetry.sdk.language": "java"}, 17, {}, Kind.SERVER_ERROR, "error"),
        ({}, 9, {"http.request.method": "GET", "url.path": "/rides"}, Kind.SERVER_ACCESS, "GET /rides"),
        ({}, 9, {"http.request.method": "GET", "url.full": "https://h/rides?x"}, Kind.SERVER_ACCESS, "GET /rides"),
        ({}, 9, {"http.request.method": "GET"}, Kind.SERVER_ACCESS, "invalid request"),
        ({}, 17, {"http.request.method": "GET", "url.path": "/rides"}, Kind.SERVER_ERROR, "error"),
        ({"os.name": "Android"}, 9, {"http.request.method": "GET", "url.path": "/rides"}, Kind.APP_EVENT, "log"),
    ],
)
def test_kinds(resource: Attributes, severity: int, attributes: Attributes, kind: Kind, name: str) -> None:
    record = only(both(event(**attributes) | {"severityNumber": severity}, resource=resource))
    assert (record.kind, record.name) == (kind, name)


@pytest.mark.parametrize(
    ("attributes", "scope", "resource", "user_id", "anonymous_id"),
    [
        ({"user.id": "u-1", "enduser.id": "u-2"}, {}, {}, "u-1", None),
        ({"enduser.id": "u-2"}, {"user.id": "u-3"}, {"user.id": "u-4"}, "u-2", None),
        ({}, {"userId": "u-3"}, {"user.id": "u-4"}, "u-3", None),
        ({"user.id": ""}, {}, {"user.id": 4}, "4", None),
        ({"session.id": "s-1", "device.id": "d-1"}, {}, {"app.installation.id": "i-1"}, None, "d-1"),
        ({}, {}, {"app.installation.id": "i-1", "session.id": "s-1"}, None, "i-1"),
        ({"session.id": "s-1"}, {}, {}, None, "s-1"),
        ({"session.id": "s-1", "user.id": "u-1"}, {}, {}, "u-1", "s-1"),
    ],
)
def test_whose(
    attributes: Attributes, scope: Attributes, resource: Attributes, user_id: str | None, anonymous_id: str | None
) -> None:
    record = only(both({"attributes": attributes}, scope=scope, resource=resource))
    assert (record.user_id, record.anonymous_id) == (user_id, anonymous_id)


def test_an_app_event_of_nobody_is_refused() -> None:
    assert refused(both({"body": "hello"})).reason.startswith("missing_id: user.id")


@pytest.mark.parametrize(
    ("attributes", "user_id", "matched_by", "request_id"),
    [
        ({"url.path": "/users/u-1/rides"}, "u-1", MatchedBy.PATH, None),
        ({"url.path": "/users/u-1/rides", "user.id": "u-2"}, "u-2", MatchedBy.USER_ID, None),
        ({"http.request.id": "req-1"}, None, None, "req-1"),
        ({"request_id": "req-1"}, None, None, "req-1"),
        ({"request.id": 5}, None, None, "5"),
        ({"http.request.header.x-request-id": ["req-1"]}, None, None, "req-1"),
        ({"session.id": "s-1"}, None, None, None),
    ],
)
@pytest.mark.parametrize("severity", [9, 17])
def test_server_records(
    attributes: Attributes, user_id: str | None, matched_by: MatchedBy | None, request_id: str | None, severity: int
) -> None:
    log = {
        "severityNumber": severity,
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "attributes": {"http.request.method": "GET", "http.response.status_code": 503} | attributes,
    }
    record = only(both(log))
    assert (record.user_id, record.matched_by, record.request_id) == (user_id, matched_by, request_id)
    assert record.anonymous_id is None
    assert body(record)["status"] == 503


def test_ids() -> None:
    assert only(both(event(**{"log.record.uid": "01J"}))).id == "01J"
    first, second = both(event(), event())
    assert first.id != second.id
    assert [entry.id for entry in both(event(), event())] == [first.id, second.id]


def test_records_of_several_resources_are_counted_through() -> None:
    one, two = as_json({"user.id": "u-1"}, {}, {}, {}), as_json({"user.id": "u-2"}, {}, {})
    merged = json.dumps({"resourceLogs": json.loads(one)["resourceLogs"] + json.loads(two)["resourceLogs"]}).encode()
    for content_type, request in (
        (JSON, merged),
        (PROTOBUF, as_protobuf({"user.id": "u-1"}, {}, {}, {}) + as_protobuf({"user.id": "u-2"}, {}, {})),
    ):
        parsed = parse_otlp(content_type, request, RECEIVED_AT)
        check(parsed)
        assert [entry.user_id for entry in parsed if isinstance(entry, Record)] == ["u-1", "u-1", "u-2"]
        assert len({entry.id for entry in parsed}) == 3


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
def test_a_refused_record_can_be_sent_again(content_type: str) -> None:
    write = as_json if content_type == JSON else as_protobuf
    logs = [
        event(ok=True),
        {"body": "nobody", "traceId": "0af7651916cd43dd8448eb211c80319c", "attributes": {"n": 5, "f": 0.5}},
        event(),
    ]
    parsed = parse_otlp(content_type, write({"service.name": "app"}, {"v": 1}, *logs), RECEIVED_AT)
    check(parsed)
    assert [type(entry) for entry in parsed] == [Record, Refusal, Record]
    assert isinstance(parsed[1], Refusal)
    again = parse_otlp(JSON, parsed[1].raw, RECEIVED_AT)
    assert refused(again).reason == parsed[1].reason
    assert refused(again).raw == parsed[1].raw
    healed = parsed[1].raw.replace(b'"key":"v"', b'"key":"user.id"').replace(b'"key": "v"', b'"key":"user.id"')
    record = only(parse_otlp(JSON, healed, RECEIVED_AT))
    assert (record.user_id, body(record)["traceId"], body(record)["resource"]) == (
        "1",
        "0af7651916cd43dd8448eb211c80319c",
        {"service.name": "app"},
    )


def test_numbers_that_json_has_not_and_bytes() -> None:
    [record] = parse_otlp(
        PROTOBUF, as_protobuf({}, {}, event(a=float("nan"), b=float("-inf"), c=b"\xff\x00")), RECEIVED_AT
    )
    check([record])
    assert isinstance(record, Record)
    assert body(record)["attributes"] == {"user.id": "u-1", "a": None, "b": None, "c": "/wA="}
    text = as_json({}, {}, event(a="x")).replace(b'{"stringValue": "x"}', b'{"doubleValue": "NaN"}')
    assert body(only(parse_otlp(JSON, text, RECEIVED_AT)))["attributes"]["a"] is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"5", "invalid_shape: a record must be"),
        (b'{"timeUnixNano": "soon"}', "invalid_time: timeUnixNano"),
        (b'{"timeUnixNano": "-5"}', "invalid_time: timeUnixNano"),
        (b'{"timeUnixNano": 1.5}', "invalid_time: timeUnixNano"),
        (b'{"timeUnixNano": 99999999999999999999999}', "invalid_time: timeUnixNano"),
        (b'{"severityNumber": "ERROR"}', "invalid_shape: severityNumber"),
        (b'{"severityText": 5}', "invalid_shape: severityText"),
        (b'{"attributes": {}}', "invalid_shape: attributes must be a list"),
        (b'{"attributes": [5]}', "invalid_shape: attributes must be a list of objects"),
        (b'{"attributes": [{"key": "a", "value": "b"}]}', "invalid_shape: a value must be"),
        (b'{"attributes": [{"key": "a", "value": {"intValue": "x"}}]}', "invalid_shape: intValue"),
        (b'{"attributes": [{"key": "a", "value": {"doubleValue": "x"}}]}', "invalid_shape: doubleValue"),
        (b'{"attributes": [{"key": "a", "value": {"boolValue": 1}}]}', "invalid_shape: a value must be"),
        (b'{"attributes": [{"key": "user.id", "value": {"boolValue": true}}]}', "invalid_id: user.id"),
        (b'{"attributes": [{"key": "user.id", "value": {"stringValue": "\\u0000"}}]}', "invalid_id: user.id"),
        (b'{"body": {"stringValue": NaN}}', "invalid_json: the record holds NaN"),
        (b'{"body": {"stringValue": "\\ud800"}}', "invalid_json: the record holds half"),
        (b'{"body": {"stringValue": "\xff"}}', "invalid_utf8: the record"),
        (b'{"body": ' + b'{"arrayValue":{"values":[' * 80 + b"]}}" * 80 + b"}", "too_deep: a value"),
        (b'{"body": ' + b'{"arrayValue":{"values":[' * 999 + b"]}}" * 999 + b"}", "too_deep: the record"),
    ],
    ids=lambda text: str(text)[:40],
)
def test_one_bad_record_does_not_spoil_its_siblings(record: bytes, reason: str) -> None:
    request = as_json({}, {}, event(), {"eventName": "HERE"}, event())
    start, end = request.index(b'{"eventName": "HERE"'), request.index(b"}", request.index(b"HERE")) + 1
    parsed = parse_otlp(JSON, request[:start] + record + request[end:], RECEIVED_AT)
    check(parsed)
    assert [type(entry) for entry in parsed] == [Record, Refusal, Record]
    assert isinstance(parsed[1], Refusal)
    assert parsed[1].reason.startswith(reason)
    assert record in parsed[1].raw


def test_sizes() -> None:
    parsed = both(event(pad="x" * MAX_RECORD_BYTES), event(), event(pad="x" * 20 * MAX_RECORD_BYTES))
    assert [type(entry) for entry in parsed] == [Refusal, Record, Refusal]
    parsed = both(event(), resource={"pad": "x" * 20 * MAX_RECORD_BYTES})
    assert refused(parsed).reason.startswith("too_large")


def test_a_large_resource_is_not_repeated_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_MAX_EXPANDED_BYTES", 50_000)
    resource = {"user.id": "u-1", "pad": "x" * 10_000}
    assert len(both({}, {}, {}, resource=resource)) == 3
    for content_type, write in ((JSON, as_json), (PROTOBUF, as_protobuf)):
        with pytest.raises(BadRequest) as caught:
            parse_otlp(content_type, write(resource, {}, *[{}] * 9), RECEIVED_AT)
        assert (caught.value.status, caught.value.code) == (413, "too_large")


@pytest.mark.parametrize(
    ("content_type", "raw", "status", "code"),
    [
        (JSON, b"", 400, "invalid_json"),
        (JSON, b"[]", 400, "invalid_json"),
        (JSON, b'{"resourceLogs": 5}', 400, "invalid_json"),
        (JSON, b'{"resourceLogs": [5]}', 400, "invalid_json"),
        (JSON, b'{"resourceLogs": [{"scopeLogs": {}}]}', 400, "invalid_json"),
        (JSON, b'{"resourceLogs": [', 400, "invalid_json"),
        (PROTOBUF, b"\xff\xff", 400, "invalid_protobuf"),
        (PROTOBUF, b'{"resourceLogs": []}', 400, "invalid_protobuf"),
        (PROTOBUF, b"\x12\x00" * 9_000_000, 413, "too_large"),
        ("text/plain", b"{}", 415, "unsupported_media_type"),
        (None, b"{}", 415, "unsupported_media_type"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_requests_that_are_none(content_type: str | None, raw: bytes, status: int, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_otlp(content_type, raw, RECEIVED_AT)
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize("raw", [b"{}", b'{"resourceLogs": []}', b'{"resourceLogs": null}', b'{"resourceLogs": [{}]}'])
def test_requests_without_records(raw: bytes) -> None:
    assert parse_otlp(JSON, raw, RECEIVED_AT) == []
    assert parse_otlp(PROTOBUF, b"", RECEIVED_AT) == []


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = """
user.id session.id device.id log.record.uid request_id event.name exception.type os.name os.type telemetry.sdk.language
http.request.method url.path http.response.status_code http.request.header.x-request-id
"""
attribute_sets = st.dictionaries(
    st.sampled_from(KEYS.split()) | st.text(max_size=4),
    values,
    max_size=4,
)
logs = st.fixed_dictionaries(
    {},
    optional={
        "attributes": attribute_sets,
        "body": values,
        "severityNumber": st.integers(0, 24),
        "severityText": st.text(max_size=4),
        "eventName": st.text(max_size=4),
        "timeUnixNano": st.integers(0, 2**64 - 1).map(str),
        "traceId": st.binary(max_size=16).map(bytes.hex),
    },
)


@seeded
@given(st.lists(logs, max_size=3), attribute_sets, attribute_sets)
def test_protobuf_and_json_say_the_same(logs: list[dict[str, Any]], resource: Attributes, scope: Attributes) -> None:
    both(*logs, resource=resource, scope=scope)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A protobuf request with a few bytes taken out and others put in."""
    raw = as_protobuf({"user.id": "u-1"}, {"os.name": "ios"}, *draw(st.lists(logs, min_size=1, max_size=2)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        raw = raw[:start] + draw(st.binary(max_size=6)) + raw[start + draw(st.integers(0, 6)) :]
    return raw


@seeded
@given(damaged())
def test_a_damaged_request_is_read_or_refused(raw: bytes) -> None:
    parsed = attempt(parse_otlp, PROTOBUF, raw, RECEIVED_AT)
    if isinstance(parsed, BadRequest):
        assert (parsed.status, parsed.code) == (400, "invalid_protobuf")
    else:
        check(parsed)
