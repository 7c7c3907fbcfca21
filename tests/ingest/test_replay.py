"""A dead letter's record through its dialect again: what it says today, whatever it looked like then."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.dialects import parse_logs, parse_otlp, parse_segment, parse_tables
from rebu_ray.ingest.intake import dead_letter
from rebu_ray.ingest.replay import Letter, again, as_it_came
from rebu_ray.records import Parsed, Record, Refusal, Source
from tests.records import NOW, seeded

LATER = NOW + 3_600_000
LINE = '10.0.0.1 - - [02/Mar/2026:07:59:00 +0000] "GET /users/ada/rides HTTP/1.1" 200 5 "-" "okhttp/4" "%s"'


def refused(source: Source, raw: bytes, reason: str = "no: because", ordinal: int = 0, **sequence: Any) -> Letter:
    """The letter of a record that was refused then, and would be taken now."""
    letter = dead_letter(source, Refusal(reason, raw), ordinal, NOW, 8, **sequence).record
    return Letter(letter.id, source, letter.received_at, reason, letter.body)


def accepted(letter: Letter) -> Record:
    found = again(letter, LATER)
    assert isinstance(found, Record), found
    return found


def only(parsed: Parsed) -> Record:
    (found,) = parsed
    assert isinstance(found, Record), found
    return found


def as_received_later(record: Record) -> Record:
    record.received_at = LATER
    return record


@pytest.mark.parametrize(
    ("source", "raw"),
    [
        (Source.ACCESS, (LINE % "req-1").encode()),
        (Source.ACCESS, b'{"request": "GET /users/ada HTTP/1.1", "status": 200, "time": "2026-03-01T08:00:00Z"}'),
        (Source.ACCESS, (LINE % "req-1").replace("okhttp", "caf\xe9").encode("latin-1")),
        (Source.ERROR, b'2026/03/02 07:59:00 [error] 12#12: *1 upstream timed out, request_id: "r"'),
        (Source.APP_EVENTS, b'{"user_id": "ada", "event": "Tapped", "ts": "2026-03-02T07:00:00Z"}'),
        (
            Source.APP_EVENTS,
            b'{"type":"track","userId":"ada","messageId":"m","event":"x","timestamp":"2026-03-02T07:00:00Z"}',
        ),
        (Source.APP_ERRORS, b'{"userId": "ada", "error": {"name": "Oops"}, "timestamp": "2026-03-02T07:00:00Z"}'),
        (Source.APP_EVENTS, b'{"userId": "ada", "event": "no time"}'),
    ],
)
@pytest.mark.parametrize("sequence", [{}, {"producer": "vector", "sequence": 40}])
def test_what_a_shipper_sent_becomes_what_it_would_have_become(
    source: Source, raw: bytes, sequence: dict[str, Any]
) -> None:
    """The same id as well: the line sent again is a duplicate of the replayed one."""
    ordinal = 3
    kind = "text/plain" if not raw.startswith(b"{") else "application/x-ndjson"
    parsed = parse_logs(source, kind, b"\n".join([b"{}"] * ordinal + [raw]), NOW, **sequence)
    letter = refused(source, raw, ordinal=ordinal, **sequence)
    assert accepted(letter) == as_received_later(only(parsed[ordinal:]))


def test_rows_and_otlp_become_what_they_would_have_become() -> None:
    row = b'{"ride_id": "r1", "user_id": "ada", "requested_at": "2026-03-02T07:00:00Z"}'
    assert accepted(refused(Source.RIDES, row)) == as_received_later(
        only(parse_tables(Source.RIDES, "application/json", row, NOW))
    )
    log = {"body": {"stringValue": "tapped"}, "attributes": [{"key": "user.id", "value": {"stringValue": "ada"}}]}
    request = json.dumps({"resourceLogs": [{"resource": {}, "scopeLogs": [{"logRecords": [log]}]}]}).encode()
    letter = refused(Source.OTLP, request, ordinal=7)
    expected = only(parse_otlp("application/json", request, NOW))
    found = accepted(letter)
    assert (found.user_id, found.body, found.event_time) == ("ada", expected.body, NOW)
    assert found.id == letter.id


def test_a_phone_with_a_wrong_clock_lands_where_it_belongs() -> None:
    times = b'"timestamp":"2026-03-02T05:59:00Z","sentAt":"2026-03-02T06:00:00Z"'
    raw = b'{"type":"track","userId":"ada","messageId":"m",%b}' % times
    record = accepted(refused(Source.APP_EVENTS, raw))
    assert (record.event_time, record.received_at) == (NOW - 60_000, LATER)


def test_a_type_that_segment_does_not_know_is_not_taken_for_a_shippers_event() -> None:
    raw = b'{"type":"trakc","userId":"ada","messageId":"m"}'
    (refusal,) = parse_segment(b'{"batch":[%b]}' % raw, NOW)
    assert isinstance(refusal, Refusal)
    letter = refused(Source.APP_EVENTS, raw, refusal.reason)
    assert again(letter, LATER) == Refusal(refusal.reason, raw, letter.id)
    mended = letter._replace(record=raw.replace(b"trakc", b"track"))
    assert accepted(mended).id == "m"


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("raw", [b"no line", b"", b"\xff\xfe", b"[" * 900 + b"]" * 900, b"{}", b'"', b"null"])
def test_what_is_refused_again_says_why(source: Source, raw: bytes) -> None:
    found = again(refused(source, raw), LATER)
    assert isinstance(found, Refusal) or source is Source.ERROR
    if isinstance(found, Refusal):
        assert ": " in found.reason


@seeded
@given(
    st.binary(max_size=40)
    | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.recursive(st.none() | st.integers(), st.lists).map(lambda value: json.dumps(value).encode())
)
def test_every_record_comes_back_as_it_came(raw: bytes) -> None:
    """But a line that is a JSON string: that is what an element of an array says, and so it is read."""
    kept = dead_letter(Source.ACCESS, Refusal("no: because", raw), 0, NOW, 8).record.body
    came = as_it_came(kept)
    assert came == raw or json.loads(raw) == came.decode()


@seeded
@given(st.sampled_from(Source), st.binary(max_size=60))
def test_nothing_that_was_refused_breaks_a_replay(source: Source, raw: bytes) -> None:
    letter = refused(source, raw)
    found = again(letter, LATER)
    assert found == again(letter, LATER)
    if isinstance(found, Record):
        assert found.received_at == LATER
