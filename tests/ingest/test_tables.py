"""Rows of the application database, pushed as JSON and as a database driver gives them."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.dialects import parse_tables, tables
from rebu_ray.ingest.dialects.tables import SCHEMAS, deletion, form, row
from rebu_ray.ingest.identity import stream_of
from rebu_ray.records import (
    MAX_ID_BYTES,
    MAX_RECORD_BYTES,
    MAX_TIME_MS,
    TABLES,
    BadRequest,
    Kind,
    MatchedBy,
    Parsed,
    Record,
    Refusal,
    Source,
)
from tests.ingest.promises import CODES, RECEIVED_AT, body, only, refused
from tests.records import seeded

AT = 1_772_352_000_123
"""2026-03-01T08:00:00.123Z"""
SPELLINGS: list[Any] = [
    "2026-03-01T08:00:00.123Z",
    "2026-03-01T08:00:00.123456+00:00",
    "2026-03-01 08:00:00.123",
    "2026-03-01 08:00:00.123+00",
    "2026-03-01T09:30:00.123+01:30",
    "2026-02-28T22:00:00.123-1000",
    AT,
    str(AT),
    float(AT),
    Decimal(AT),
    datetime(2026, 3, 1, 8, 0, 0, 123_000),
    datetime(2026, 3, 1, 8, 0, 0, 123_999, tzinfo=UTC),
    datetime(2026, 3, 1, 3, 0, 0, 123_000, tzinfo=timezone(timedelta(hours=-5))),
    b"2026-03-01T08:00:00.123Z",
]
RIDE: dict[str, Any] = {
    "ride_id": "r1",
    "user_id": "u1",
    "driver_id": "d1",
    "city": "Oslo",
    "status": "completed",
    "requested_at": "2026-03-01T08:00:00.000Z",
    "accepted_at": "2026-03-01T08:01:00.000Z",
    "picked_up_at": None,
    "ended_at": None,
    "pickup_lat": 59.9,
    "pickup_lon": 10.0,
    "destination_lat": None,
    "destination_lon": None,
    "dropoff_lat": None,
    "dropoff_lon": None,
    "distance_m": 1200,
    "fare_cents": 950,
    "currency": "NOK",
    "rating": None,
    "updated_at": "2026-03-01T08:00:00.123Z",
}
ROWS: dict[Source, dict[str, Any]] = {
    Source.USERS: {"user_id": "u1", "name": "Ada", "updated_at": AT},
    Source.DRIVERS: {"driver_id": "d1", "rating": 5, "updated_at": AT},
    Source.RIDES: RIDE,
    Source.RIDE_DESTINATIONS: {"ride_id": "r1", "changed_at": AT, "destination_lat": 1, "destination_lon": 2},
    Source.MESSAGES: {"message_id": "m1", "user_id": "u1", "sent_at": AT, "body": "Hi", "updated_at": AT},
}


def pushed(source: Source, *rows: Any, content_type: str | None = "application/json") -> Parsed:
    parsed = parse_tables(source, content_type, json.dumps(rows).encode(), RECEIVED_AT)
    assert len(parsed) == len(rows)
    check(parsed)
    return parsed


def pulled(source: Source, values: dict[str, Any]) -> Record:
    return only([row(source, values, RECEIVED_AT)])


def check(parsed: Parsed) -> None:
    """What the phases behind rely on."""
    for entry in parsed:
        if isinstance(entry, Refusal):
            code, _, sentence = entry.reason.partition(": ")
            assert code in CODES
            assert sentence
            continue
        value = msgspec.json.decode(entry.body)
        table = SCHEMAS[entry.source]
        assert entry.kind is TABLES[entry.source]
        assert entry.name == value[table.key]
        assert entry.id.startswith(f"{entry.name}@")
        assert len(entry.id.encode()) <= MAX_ID_BYTES
        assert 0 <= entry.event_time <= MAX_TIME_MS
        assert entry.received_at == RECEIVED_AT
        assert len(entry.body) <= MAX_RECORD_BYTES
        assert entry.user_id == value.get("user_id")
        assert entry.matched_by is (None if entry.user_id is None else MatchedBy.USER_ID)
        if value.get("deleted") is not True:
            assert list(value)[: len(table.columns)] == list(table.columns)


def test_a_ride() -> None:
    record = only(pushed(Source.RIDES, RIDE))
    assert (record.kind, record.name, record.user_id, record.source) == (Kind.RIDE, "r1", "u1", Source.RIDES)
    assert record.event_time == AT - 123
    assert body(record) == RIDE
    assert list(body(record)) == list(RIDE)
    assert record.id.startswith("r1@2026-03-01T08:00:00.123Z@")
    assert len(record.id.rpartition("@")[2]) == 8


@pytest.mark.parametrize("source", ROWS)
def test_when_it_happened_and_where_it_goes(source: Source) -> None:
    record = only(pushed(source, ROWS[source]))
    assert record.event_time == (AT - 123 if source is Source.RIDES else AT)
    streams = {Source.DRIVERS: "v:d1", Source.RIDE_DESTINATIONS: "o:r1"}
    assert stream_of(record) == streams.get(source, "u:u1")
    without = {name: value for name, value in ROWS[source].items() if name != "user_id"}
    if source in (Source.RIDES, Source.MESSAGES):
        streams = {Source.RIDES: "o:r1", Source.MESSAGES: "m:m1"}
        assert stream_of(only(pushed(source, without))) == streams[source]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=repr)
def test_one_time_in_many_spellings_is_one_version(spelling: Any) -> None:
    record = pulled(Source.RIDES, {**RIDE, "updated_at": spelling})
    assert record == only(pushed(Source.RIDES, RIDE))
    assert form(Source.RIDES, {**RIDE, "updated_at": spelling}).digest == form(Source.RIDES, RIDE).digest


@pytest.mark.parametrize(
    ("column", "value", "stored"),
    [
        ("fare_cents", Decimal("950.00"), 950),
        ("fare_cents", 950.0, 950),
        ("fare_cents", "950", 950),
        ("fare_cents", 950.5, 950.5),
        ("fare_cents", "much", "much"),
        ("fare_cents", 10**30, 1e30),
        ("fare_cents", float("nan"), "nan"),
        ("fare_cents", Decimal("NaN"), "NaN"),
        ("pickup_lat", Decimal("59.91"), 59.91),
        ("pickup_lat", 60, 60.0),
        ("pickup_lat", -0.0, 0.0),
        ("pickup_lat", 1000, 1000.0),
        ("pickup_lat", True, True),
        ("status", "lost in space", "lost in space"),
        ("status", 7, "7"),
        ("ended_at", "1999-01-01T00:00:00Z", "1999-01-01T00:00:00.000Z"),
        ("ended_at", date(2026, 3, 1), "2026-03-01T00:00:00.000Z"),
        ("ended_at", "infinity", "infinity"),
        ("ended_at", "", None),
        ("driver_id", 17, "17"),
        ("driver_id", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("user_id", Decimal(17), "17"),
        ("city", b"K\xf8benhavn", "K\ufffdbenhavn"),
        ("city", "K\ud800benhavn", "K\ufffdbenhavn"),
    ],
)
def test_values_are_kept_as_sent_in_one_form(column: str, value: Any, stored: Any) -> None:
    found = body(pulled(Source.RIDES, {**RIDE, column: value}))[column]
    assert (found, type(found)) == (stored, type(stored))


@pytest.mark.parametrize("source", ROWS)
def test_without_updated_at_the_time_of_receipt_counts_and_the_row_is_known_again(source: Source) -> None:
    values = {name: value for name, value in ROWS[source].items() if name != "updated_at"}
    for missing in ({}, {"updated_at": None}, {"updated_at": "soon"}):
        if source is Source.RIDE_DESTINATIONS:
            continue
        one = only([row(source, values | missing, RECEIVED_AT)])
        two = only([row(source, values | missing, RECEIVED_AT + 5)])
        assert one.id == two.id
        assert body(one)["updated_at"] == "2026-03-01T08:00:10.000Z"
        assert body(two)["updated_at"] == "2026-03-01T08:00:10.005Z"


def test_columns_that_nobody_knows_are_kept_behind_the_others() -> None:
    record = pulled(
        Source.RIDES, {"surge": Decimal("1.5"), **RIDE, "at": datetime(2026, 1, 1), "a": {"z": 1, "b": [2]}}
    )
    assert list(body(record).items())[len(RIDE) :] == [
        ("a", {"b": [2], "z": 1}),
        ("at", "2026-01-01T00:00:00.000Z"),
        ("surge", 1.5),
    ]


def test_a_deletion() -> None:
    record = only([deletion(Source.RIDES, "r1", "u1", AT, RECEIVED_AT)])
    assert body(record) == {
        "ride_id": "r1",
        "user_id": "u1",
        "deleted": True,
        "updated_at": "2026-03-01T08:00:00.123Z",
    }
    assert (stream_of(record), record.event_time) == ("u:u1", AT)
    nobodys = only([deletion(Source.MESSAGES, "m1", None, AT, RECEIVED_AT)])
    assert body(nobodys) == {"message_id": "m1", "deleted": True, "updated_at": "2026-03-01T08:00:00.123Z"}
    assert stream_of(nobodys) == "m:m1"
    assert body(only([deletion(Source.USERS, "u1", None, AT, RECEIVED_AT)]))["user_id"] == "u1"
    assert only(pushed(Source.RIDES, {**RIDE, "deleted": True})) == only(
        [row(Source.RIDES, {"ride_id": "r1", "user_id": "u1", "deleted": 1, "updated_at": AT}, RECEIVED_AT)]
    )
    assert body(only(pushed(Source.RIDES, {"ride_id": "r1", "deleted": True})))["updated_at"].endswith("10.000Z")
    assert body(only(pushed(Source.RIDES, {**RIDE, "deleted": False})))["status"] == "completed"


@pytest.mark.parametrize(
    ("source", "values", "code"),
    [
        (Source.RIDES, 7, "invalid_shape"),
        (Source.RIDES, [RIDE], "invalid_shape"),
        (Source.RIDES, {}, "missing_id"),
        (Source.RIDES, {**RIDE, "ride_id": ""}, "missing_id"),
        (Source.RIDES, {**RIDE, "ride_id": None}, "missing_id"),
        (Source.RIDES, {**RIDE, "ride_id": ["r1"]}, "invalid_id"),
        (Source.RIDES, {**RIDE, "ride_id": "r" * 500}, "invalid_id"),
        (Source.RIDES, {**RIDE, "ride_id": "r\0"}, "invalid_id"),
        (Source.RIDES, {**RIDE, "user_id": {}}, "invalid_id"),
        (Source.RIDES, {**RIDE, "fare_cents": [1]}, "invalid_shape"),
        (Source.RIDES, {**RIDE, "ended_at": {}}, "invalid_shape"),
        (Source.RIDES, {**RIDE, "requested_at": None}, "invalid_time"),
        (Source.RIDES, {**RIDE, "requested_at": "soon"}, "invalid_time"),
        (Source.RIDES, {**RIDE, "city": "x" * MAX_RECORD_BYTES}, "too_large"),
        (Source.MESSAGES, {"message_id": "m1"}, "invalid_time"),
        (Source.RIDE_DESTINATIONS, {"ride_id": "r1", "changed_at": True}, "invalid_time"),
        (Source.USERS, {"name": "nobody"}, "missing_id"),
    ],
)
def test_what_cannot_be_a_row_is_refused_and_its_siblings_are_not(source: Source, values: Any, code: str) -> None:
    bad, good = pushed(source, values, ROWS[source])
    assert isinstance(good, Record)
    assert refused([bad]).reason.startswith(f"{code}: ")
    assert refused([bad]).raw == json.dumps(values).encode()
    if isinstance(values, dict):
        again = refused([row(source, values, RECEIVED_AT)])
        assert again.reason == refused([bad]).reason
        assert json.loads(again.raw) == values


def test_a_broken_charset_stays_readable() -> None:
    raw = json.dumps({**RIDE, "city": "Z?rich"}).encode().replace(b"?", b"\xfc")
    half = json.dumps({**RIDE, "city": "Z\ud83drich"}).encode()
    for sent in (raw, half, b"[" + raw + b"]", half + b"\n" + b"\n"):
        assert body(only(parse_tables(Source.RIDES, None, sent, RECEIVED_AT)))["city"] == "Z\ufffdrich"


def test_too_deep_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert refused([row(Source.RIDES, {**RIDE, "extra": deep}, RECEIVED_AT)]).reason.startswith("too_deep")
    assert refused([row(Source.RIDES, {**RIDE, "city": deep}, RECEIVED_AT)]).reason.startswith("invalid_shape")
    assert isinstance(form(Source.RIDES, {**RIDE, "extra": deep}).digest, int)
    text = json.dumps(RIDE)[:-1].encode() + b',"extra":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert isinstance(only_entry(parse_tables(Source.RIDES, None, text, RECEIVED_AT)), Refusal)


def only_entry(parsed: Parsed) -> Record | Refusal:
    [entry] = parsed
    return entry


def test_json_lines_and_arrays_are_the_same() -> None:
    lines = b"\n".join(json.dumps(values).encode() for values in (RIDE, {**RIDE, "ride_id": "r2"}))
    array = json.dumps([RIDE, {**RIDE, "ride_id": "r2"}]).encode()
    expected = pushed(Source.RIDES, RIDE, {**RIDE, "ride_id": "r2"})
    for content_type in ("application/x-ndjson", "text/plain", "application/json", None):
        for sent in (lines, array, lines + b"\n"):
            assert parse_tables(Source.RIDES, content_type, sent, RECEIVED_AT) == expected
    assert parse_tables(Source.RIDES, None, b"", RECEIVED_AT) == []
    with pytest.raises(BadRequest) as wrong:
        parse_tables(Source.RIDES, "application/json", b"no json", RECEIVED_AT)
    assert (wrong.value.status, wrong.value.code) == (400, "invalid_json")
    with pytest.raises(BadRequest) as binary:
        parse_tables(Source.RIDES, "application/x-protobuf", b"", RECEIVED_AT)
    assert binary.value.status == 415


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(SPELLINGS)
cells = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2))
sources = st.sampled_from(list(SCHEMAS))


@st.composite
def rows(draw: st.DrawFn) -> tuple[Source, dict[str, Any]]:
    """A row, nearly right, with anything in some of its columns."""
    source = draw(sources)
    names = st.sampled_from([*SCHEMAS[source].columns, "deleted", "extra"])
    return source, {**ROWS[source], **draw(st.dictionaries(names, cells | st.binary(max_size=5), max_size=4))}


@settings(seeded, max_examples=300)
@given(sources, st.sampled_from(["application/json", "application/x-ndjson", None]), st.binary(max_size=200))
def test_no_bytes_make_it_fail(source: Source, content_type: str | None, sent: bytes) -> None:
    with contextlib.suppress(BadRequest):
        check(parse_tables(source, content_type, sent, RECEIVED_AT))


@settings(seeded, max_examples=500)
@given(rows(), st.randoms(use_true_random=False))
def test_no_row_makes_it_fail_and_the_order_of_its_columns_is_nothing(
    given_row: tuple[Source, dict[str, Any]], chance: Any
) -> None:
    source, values = given_row
    entry = row(source, values, RECEIVED_AT)
    check([entry])
    names = list(values)
    chance.shuffle(names)
    again = row(source, {name: values[name] for name in names}, RECEIVED_AT)
    if isinstance(entry, Record):
        assert again == entry == row(source, values, RECEIVED_AT, form(source, values))
        assert form(source, values) == form(source, {name: values[name] for name in names})
        assert row(source, msgspec.json.decode(entry.body), RECEIVED_AT) == entry or "@@" in entry.id
    else:
        assert isinstance(again, Refusal)


@settings(seeded, max_examples=100)
@given(st.lists(rows().map(lambda made: {k: v for k, v in made[1].items() if not isinstance(v, bytes)}), max_size=5))
def test_every_row_that_comes_is_accepted_or_refused(sent: list[dict[str, Any]]) -> None:
    text = json.dumps(sent, default=str).encode()
    try:
        parsed = parse_tables(Source.RIDES, "application/json", text, RECEIVED_AT)
    except BadRequest:
        assert b"NaN" in text or b"Infinity" in text
        return
    assert len(parsed) == len(sent)
    check(parsed)


def test_every_table_of_the_platform_has_a_schema() -> None:
    assert set(tables.SCHEMAS) == set(TABLES)
