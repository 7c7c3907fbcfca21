"""The door: what holds for every format, every framing and any bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.dialects import parse_logs, parse_otlp, parse_segment, write_key
from rebu_ray.records import BadRequest, Parsed, Record, Refusal, Source
from tests.ingest.promises import RECEIVED_AT, attempt, check, seeded

LOG_SOURCES = [Source.ACCESS, Source.ERROR, Source.APP_EVENTS, Source.APP_ERRORS]
CONTENT_TYPES = [None, "text/plain", "application/x-ndjson", "application/json"]

BOM = b"\xef\xbb\xbf"

SAMPLES = [
    b'10.0.0.7 - u-1 [01/Mar/2026:09:00:00 +0100] "GET /users/u-1/ HTTP/1.1" 200 5 "-" "a \\"b\\"" "req-1"',
    b"[Sun Mar 01 08:00:00.123456 2026] [core:error] [pid 1:tid 2] [client 10.0.0.7:80] x request_id=req-1, referer: y",
    b'2026/03/01 08:00:00 [error] 1#2: *3 x "y" z, client: 10.0.0.7, server: s, request: "GET /users/u-1/ HTTP/1.1"',
    b'{"type":"track","event":"Tap","userId":"u-1","messageId":"m","timestamp":"2026-03-01T08:00:00Z","sentAt":1772352000}',
    b'{"type":"error","anonymousId":"a","error":{"name":"Crash"},"context":{"a":[1,2.5,{"b":null}]}}',
    b'{"message":"{\\"user_id\\":\\"u-1\\",\\"event\\":\\"Tap\\"}","host":"h","timestamp":"2026-03-01T08:00:00Z"}',
    b'{"level":"error","message":"x","request":"GET /users/u-1/ HTTP/1.1","request_id":"req-1","error":{"name":"E"}}',
    b'{"log":"10.0.0.7 - - [01/Mar/2026:09:00:00 +0100] \\"GET / HTTP/1.1\\" 200 5\\n","status":200,"user":"u"}',
]

noise = st.binary(max_size=12) | st.sampled_from(
    [
        b'"',
        b"\\",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\\ud800",
        b"NaN",
        b"1e999",
        b"9" * 30,
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sample with a few bytes taken out and others put in."""
    raw = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(raw)))
        raw = raw[:start] + draw(noise) + raw[start + draw(st.integers(0, 8)) :]
    return raw


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(2**64)])
    | st.floats()
    | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = """
type userId user_id anonymousId id messageId timestamp time ts event name page message log level error request method
path status request_id remote_user user resourceLogs scopeLogs logRecords batch sentAt writeKey
"""
objects = st.dictionaries(
    st.sampled_from(NAMES.split()),
    values | st.sampled_from(["u-1", "GET /users/1/ HTTP/1.1", 200, 1772352000000]),
    max_size=8,
)


def to_logs(source: Source, content_type: str | None, body: bytes) -> Parsed | BadRequest:
    return attempt(parse_logs, source, content_type, body, RECEIVED_AT, "p", 7)


@seeded
@given(
    st.sampled_from(LOG_SOURCES),
    st.sampled_from(CONTENT_TYPES),
    st.binary(max_size=200) | damaged() | st.lists(damaged() | st.sampled_from(SAMPLES), max_size=4).map(b"\n".join),
)
def test_any_bytes_to_the_log_routes(source: Source, content_type: str | None, body: bytes) -> None:
    parsed = to_logs(source, content_type, body)
    if isinstance(parsed, BadRequest):
        assert content_type == "application/json"
        assert (parsed.status, parsed.code) == (400, "invalid_json")
        return
    if content_type != "application/json" and not body.removeprefix(BOM).lstrip().startswith((b"[", b"{")):
        assert len(parsed) == sum(1 for line in body.removeprefix(BOM).split(b"\n") if line.strip())
    assert parsed == to_logs(source, content_type, body)


@seeded
@given(st.binary(max_size=200) | damaged() | damaged().map(lambda raw: b'{"batch":[' + raw + b"]}"))
def test_any_bytes_to_the_other_routes(body: bytes) -> None:
    for outcome in to_the_others(body):
        assert not isinstance(outcome, BadRequest) or outcome.status == 400


def to_the_others(body: bytes) -> list[Parsed | BadRequest]:
    write_key(body)
    return [
        attempt(parse_segment, body, RECEIVED_AT),
        attempt(parse_segment, body, RECEIVED_AT, "track"),
        attempt(parse_otlp, "application/json", body, RECEIVED_AT),
        attempt(parse_otlp, "application/x-protobuf", body, RECEIVED_AT),
    ]


@seeded
@given(st.sampled_from(LOG_SOURCES), st.lists(objects | values, min_size=1, max_size=4))
def test_every_value_is_one_record(source: Source, elements: list[Any]) -> None:
    lines = [json.dumps(element).encode() for element in elements]
    for content_type, body in (("application/json", b"[" + b",".join(lines) + b"]"), (None, b"\n".join(lines))):
        if content_type is None and body.startswith(b"["):
            continue  # alone, it is an array
        parsed = to_logs(source, content_type, body)
        assert not isinstance(parsed, BadRequest)
        assert len(parsed) == len(elements)


@seeded
@given(objects | values)
def test_any_json_to_the_other_routes(value: Any) -> None:
    for body in (value, {"batch": [value]}, {"resourceLogs": [{"scopeLogs": [value, {"logRecords": [value]}]}]}):
        for outcome in to_the_others(json.dumps(body).encode()):
            assert not isinstance(outcome, BadRequest) or outcome.status == 400


def test_a_shipper_that_counts_names_its_lines() -> None:
    lines = [SAMPLES[0], b"nonsense", SAMPLES[0]]

    def ids(body: list[bytes], producer: str | None, sequence: int | None) -> list[str | None]:
        parsed = parse_logs(Source.ACCESS, "text/plain", b"\n".join(body), RECEIVED_AT, producer, sequence)
        assert [type(entry) for entry in parsed] == [Refusal if b"non" in line else Record for line in body]
        return [entry.id for entry in parsed]

    whole = ids(lines, "p", 10)
    assert whole[0] != whole[2]
    assert ids(lines[1:], "p", 11) == whole[1:], "the same lines in another cut are the same records"
    assert ids(lines, "q", 10)[0] != whole[0]
    assert ids(lines, "p", None) == ids(lines, None, 10) == ids(lines, None, None)
    assert ids(lines[2:], None, None) != ids(lines, None, None)[2:], "without numbers, the place in the request counts"


def test_a_sources_own_id_goes_before_the_shippers_number() -> None:
    body = b'{"user_id":"u-1","id":"e-1"}'
    [record] = parse_logs(Source.APP_EVENTS, None, body, RECEIVED_AT, "p", 1)
    assert record.id == "e-1"


@pytest.mark.parametrize("source", LOG_SOURCES)
@pytest.mark.parametrize("content_type", CONTENT_TYPES[:3])
def test_nothing_is_no_record(source: Source, content_type: str | None) -> None:
    for body in (b"", b"\n\n", b" \r\n\t\n", b"\xef\xbb\xbf"):
        assert parse_logs(source, content_type, body, RECEIVED_AT) == []


@pytest.mark.parametrize("source", LOG_SOURCES)
@pytest.mark.parametrize(
    "body", [b"", b"5", b"null", b'"text"', b"hello", b"[1", b"[1] 2", b'{"a":', b"{'a': 1}", b"[" * 9999]
)
def test_what_is_not_the_json_it_says_it_is(source: Source, body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_logs(source, "application/json", body, RECEIVED_AT)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("source", LOG_SOURCES)
@pytest.mark.parametrize("content_type", ["text/html", "application/xml", "application/x-protobuf", "image/png"])
def test_other_content_types(source: Source, content_type: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_logs(source, content_type, SAMPLES[0], RECEIVED_AT)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")


def test_ndjson_with_a_broken_line_keeps_its_siblings() -> None:
    body = SAMPLES[3] + b"\n{broken\n" + SAMPLES[4]
    for content_type in CONTENT_TYPES:
        parsed = parse_logs(Source.APP_EVENTS, content_type, body, RECEIVED_AT)
        assert [type(entry) for entry in parsed] == [Record, Refusal, Record]


def test_an_array_in_text_is_taken_for_one_only_if_it_is() -> None:
    apache = b"[Sun Mar 01 08:00:00 2026] [error] x"
    assert isinstance(parse_logs(Source.ERROR, "text/plain", apache, RECEIVED_AT)[0], Record)
    array = b"[" + SAMPLES[6] + b"]"
    assert isinstance(parse_logs(Source.ERROR, "text/plain", array, RECEIVED_AT)[0], Record)
    spoilt = b"[" + SAMPLES[6] + b', {"level": NaN}]'
    assert [type(entry) for entry in parse_logs(Source.ERROR, "text/plain", spoilt, RECEIVED_AT)] == [Record, Refusal]
    brackets = b"[" * 9999 + b"\n" + apache
    assert [type(entry) for entry in parse_logs(Source.ERROR, None, brackets, RECEIVED_AT)] == [Refusal, Record]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_a_flood_of_elements_is_refused_in_every_framing(content_type: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_logs(Source.ACCESS, content_type, b"[" + b"1," * 9_000_000 + b"1]", RECEIVED_AT)
    assert (caught.value.status, caught.value.code) == (413, "too_large")


def test_very_large_and_very_deep_lines_are_refused_and_nothing_else() -> None:
    for bad in (
        b"x" * 5_000_000,
        b'{"user_id":"u-1","a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"user_id":"u-1","a":' + b"[]," * 400_000 + b"1}",
        b'{"user_id":"u-1","a":' + b"9" * 10_000 + b"}",
        b'{"message":"' + b"{" * 300_000 + b'"}',
        b'{"message":' * 300 + b'"x"' + b"}" * 300,
    ):
        for source in LOG_SOURCES:
            parsed = parse_logs(source, "text/plain", SAMPLES[0] + b"\n" + bad + b"\n" + SAMPLES[3], RECEIVED_AT)
            check(parsed)
            assert len(parsed) == 3
            assert isinstance(parsed[1], Refusal)
