"""From records to tables: what is sent is read, and what cannot be read is null."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.process import tables
from rebu_ray.process.tables import ERRORS, Inputs, counting, from_rows
from rebu_ray.records import MAX_TIME_MS, Kind
from rebu_ray.store.rows import ROWS
from tests.process.worlds import (
    Row,
    access,
    destination,
    documents_of,
    driver,
    error,
    gone,
    people,
    ride,
    table,
    text,
    user,
)
from tests.records import NOW, seeded

COLUMNS = json.loads(ride().body)

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        [
            *("\ud800", "2026-03-02T08:00:00Z", "2026-03-02 08:00", "2026-03-02T08:00:00.1239+02:00", "20260302"),
            *("-0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "1969-12-31T23:59:59Z", "2026-W10-1"),
            *(1e305, 1.5, 12.0),
        ]
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
damage = st.dictionaries(st.sampled_from([*COLUMNS, "deleted", "extra"]), anything, max_size=6)
bodies = damage.map(lambda odd: json.dumps(COLUMNS | odd).encode()) | st.sampled_from(
    [
        b"",
        b"[]",
        b"null",
        b"17",
        b'"x"',
        b"{",
        b'{"city":"\xff"}',
        b'{"fare_cents":1e999}',
        b'\xef\xbb\xbf{"a":1}',
        b"[" * 5000,
    ]
)


def read(*rows: Row) -> Inputs:
    return from_rows(table(rows))


def odd_ride(body: bytes, ride_id: str = "r1", user_id: str | None = None) -> Row:
    return ride(ride_id)._replace(body=body, id=f"{ride_id}@odd", user_id=user_id)


def test_a_ride_is_read_as_it_was_sent() -> None:
    [found] = read(ride(rating=4.5)).rides.to_pylist()
    sent = {name: value for name, value in COLUMNS.items() if not name.endswith("_at")}
    assert {name: found[name] for name in sent} == sent | {"rating": 4.5}
    assert {name: text(found[name]) for name in COLUMNS if name.endswith("_at")} == {
        name: value for name, value in COLUMNS.items() if name.endswith("_at")
    }
    assert (found["deleted"], found["received_at"], found["record_id"]) == (False, NOW, ride(rating=4.5).id)


def test_schemas() -> None:
    rows = [*people, ride(), destination("r1", NOW, 56.0, 24.0), error()]
    for inputs in (read(), read(*rows)):
        expected = [tables.USERS, tables.DRIVERS, tables.RIDES, tables.DESTINATIONS, tables.MESSAGES, tables.ERRORS]
        assert [part.schema for part in inputs] == expected


def test_rows_as_they_lie_in_the_lake() -> None:
    rows = [*people, ride(), error()]
    plain = table(rows)
    fill: dict[str, Any] = {"partition": 0, "fingerprint": 0, "seq": 1, "key": "u:ada", "source": "rides"}
    stored = pa.Table.from_pylist([fill | row._asdict() for row in rows], schema=ROWS)
    assert documents_of(stored).equals(documents_of(plain))
    assert from_rows(stored.to_batches()[0]).rides.equals(from_rows(plain).rides)
    encoded = plain.set_column(0, "kind", plain["kind"].dictionary_encode())
    assert documents_of(encoded).equals(documents_of(plain))


def test_all_versions_of_rides_and_messages_and_one_of_people() -> None:
    message = {"message_id": "m1", "user_id": "ada", "channel": "chat", "direction": "inbound", "subject": None}
    message |= {"sent_at": text(NOW), "body": "where is my car", "ride_id": None, "thread_id": "t"}
    sent = [
        Row(Kind.MESSAGE, "m1", f"m1@{n}", "ada", json.dumps(message | {"updated_at": text(n)}).encode(), NOW, NOW)
        for n in range(2)
    ]
    rows = [*people, user(name="Ada L.", updated_at=NOW + 1), ride(), ride(city="Jelgava"), *sent]
    inputs = read(*rows, gone(Kind.DRIVER, "driver_id", "dan", NOW + 1))
    assert [part.num_rows for part in inputs] == [1, 0, 2, 0, 2, 0]
    assert inputs.users["name"].to_pylist() == ["Ada L."]
    assert (
        inputs.messages.drop_columns(["updated_at", "record_id"]).to_pylist()
        == [message | {"sent_at": NOW, "deleted": False, "received_at": NOW}] * 2
    )
    assert counting(inputs.messages, "message_id")["record_id"].to_pylist() == ["m1@1"]


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("city", 17, "17"),
        ("city", True, None),
        ("city", ["Riga"], None),
        ("fare_cents", "1250", None),
        ("fare_cents", 1250.0, 1250),
        ("fare_cents", 1249.6, 1250),
        ("fare_cents", 2**63, None),
        ("fare_cents", False, None),
        ("pickup_lat", 57, 57.0),
        ("pickup_lat", "57", None),
        ("pickup_lat", 10**400, None),
        ("ended_at", "2026-03-02T10:00:00.1239+02:00", NOW + 123),
        ("ended_at", "2026-03-02T08:00:00", NOW),
        ("ended_at", "soon", None),
        ("ended_at", NOW, None),
        ("ended_at", "1969-12-31T23:59:59.999Z", None),
        ("ended_at", "9999-12-31T23:59:59.999Z", MAX_TIME_MS),
        ("ended_at", "9999-12-31T23:59:59-12:00", None),
        ("deleted", "yes", False),
        ("deleted", True, True),
    ],
)
def test_a_value_of_a_wrong_type_is_null(column: str, value: object, found: object) -> None:
    body = json.dumps(COLUMNS | {column: value}).encode()
    rides = read(odd_ride(body), ride("r2")).rides
    assert rides[column].to_pylist() == [found, ride_value(column)]


def ride_value(column: str) -> object:
    return read(ride()).rides[column][0].as_py()


@cache
def good() -> dict[str, object]:
    found: dict[str, object] = read(ride("good")).rides.to_pylist()[0]
    return found


@settings(seeded, max_examples=200)
@given(st.lists(bodies, max_size=5))
def test_no_body_is_a_crash_and_none_spoils_its_neighbours(found: list[bytes]) -> None:
    rows = [odd_ride(body, f"r{number}", "ada") for number, body in enumerate(found)]
    together = read(*rows, ride("good")).rides.to_pylist()
    assert together == [*(read(row).rides.to_pylist()[0] for row in rows), good()]
    for document in documents_of(table(rows))["document"].to_pylist():
        json.loads(document)


@settings(seeded, max_examples=100)
@given(bodies)
def test_no_body_of_another_table_is_a_crash(body: bytes) -> None:
    rows = [destination("r1", NOW, 56.0, 24.0), *people, error(kind=Kind.SERVER_ACCESS)]
    read(*(row._replace(body=body) for row in rows), Row(Kind.MESSAGE, "m1", "m1@1", None, body, NOW, NOW))


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        *((500, True), (599, True), (499, False), ("502", True), ("404", False), (503.0, True), ("5xx", False)),
        *((None, False), (True, False), ([500], False), ({"code": 500}, False), ("٥٠٠", False), ("9" * 30, False)),
    ],
)
def test_of_access_entries_only_failures_count(status: object, counts: bool) -> None:
    assert read(access("a1", status)).errors.num_rows == counts


def test_errors_from_beside_the_rows() -> None:
    among = read(*people, ride(), error("e1"), access("e2", 502))
    beside = among.errors.slice(1)
    found = from_rows(table([*people, ride(), error("e1")]), beside)
    assert found.errors.equals(among.errors)
    assert found.errors.schema == ERRORS


def test_an_error_of_nobody_is_none() -> None:
    assert read(error(user_id=None), access("a1", 500, user_id=None)).errors.num_rows == 0


def test_of_two_changes_at_one_instant_the_last_received_counts() -> None:
    changes = [destination("r1", NOW, lat, 24.0, NOW + n) for n, lat in enumerate([1.0, 2.0, 3.0])]
    elsewhere = [destination("r2", NOW, 4.0, 24.0), destination("r1", NOW + 1, 5.0, 24.0)]
    found = read(*changes[::-1], *elsewhere).destinations
    assert sorted(found["destination_lat"].to_pylist()) == [3.0, 4.0, 5.0]


def test_a_row_without_time_of_change_counts_from_its_receipt() -> None:
    body = json.dumps(COLUMNS | {"updated_at": None}).encode()
    assert read(odd_ride(body)).rides["updated_at"].to_pylist() == [NOW]


def test_whose_a_row_is_says_the_record_before_the_body() -> None:
    rides = read(ride("r1")._replace(user_id="bob"), ride("r2")._replace(user_id=None)).rides
    assert rides["user_id"].to_pylist() == ["bob", "ada"]


def test_drivers_of_no_ride_are_read() -> None:
    assert read(driver("dora", None)).drivers.to_pylist() == [
        {
            "driver_id": "dora",
            "name": None,
            "vehicle_plate": "AB-1234",
            "vehicle_model": "Dacia Logan",
            "received_at": NOW,
        }
    ]


def test_a_bad_body_among_thousands_spoils_none() -> None:
    rows = [ride(f"r{number}") for number in range(5000)]
    rows[4500] = odd_ride(b'{"fare_cents":"much","ended_at":"soon","city":"Riga"}', "r4500")
    rides = read(*rows).rides
    assert rides["ride_id"].to_pylist() == [f"r{number}" for number in range(5000)]
    fares, cities = rides["fare_cents"].to_pylist(), rides["city"].to_pylist()
    assert fares == [*[1250] * 4500, None, *[1250] * 499]
    assert cities == ["Riga"] * 5000
