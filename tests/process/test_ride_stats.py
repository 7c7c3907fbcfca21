"""Ride statistics: the definitions at their edges, and a second opinion in SQL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings

from rebu_ray.process.ride_stats import statistics
from rebu_ray.process.tables import RIDE_STATS, Inputs, from_rows
from rebu_ray.records import Kind
from tests.process.worlds import RIGA, Row, access, destination, error, gone, people, ride, table, worlds
from tests.records import NOW, seeded

METRE = 180 / math.pi / 6_371_008.8
"""In degrees of latitude."""
LAT, LON = RIGA
END = NOW + 660_000
PICKED_UP = NOW + 60_000


def one(*rows: Row) -> dict[str, Any]:
    """The statistics of the only ride among rows."""
    [found] = statistics(from_rows(table([*people, *rows]))).to_pylist()
    return dict(found)


def met(*rows: Row) -> list[str]:
    return [item["id"] for item in one(*rows)["errors"]]


def test_waiting_and_driving_are_in_seconds() -> None:
    found = one(ride(requested_at=NOW + 1, picked_up_at=PICKED_UP, ended_at=END + 345))
    assert (found["wait_s"], found["duration_s"]) == (59.999, 600.345)
    assert one(ride(picked_up_at=None))["wait_s"] is None
    assert one(ride(ended_at=None))["duration_s"] is None


@pytest.mark.parametrize(
    ("there", "metres"),
    [
        ((LAT, LON), 0.0),
        ((LAT + METRE * 1000, LON), 1000.0),
        ((-LAT, LON - 180), math.pi * 6_371_008.8),  # the other end of the world
        ((0.0, LON), math.radians(LAT) * 6_371_008.8),
    ],
)
def test_distances_are_great_circles(there: tuple[float, float], metres: float) -> None:
    found = one(ride(destination_lat=there[0], destination_lon=there[1]))
    assert found["requested_distance_m"] == pytest.approx(metres, abs=0.05)


@pytest.mark.parametrize(("gap", "matched"), [(249.96, True), (250.04, False)])
def test_arrival_is_judged_by_the_unrounded_gap(gap: float, matched: bool) -> None:
    found = one(ride(dropoff_lat=LAT + 0.05 + METRE * gap))
    assert (found["destination_gap_m"], found["destination_matched"]) == (250.0, matched)


@pytest.mark.parametrize(("progress", "premature"), [(0.8999999, True), (0.9000001, False)])
def test_a_ride_ended_early_below_nine_tenths(progress: float, premature: bool) -> None:
    way = METRE * 10_000
    found = one(ride(destination_lat=LAT + way, dropoff_lat=LAT + way * progress))
    assert (found["progress"], found["premature"]) == (0.9, premature)


def test_progress_stays_between_0_and_1() -> None:
    assert one(ride(dropoff_lat=LAT - 0.1))["progress"] == 0
    assert one(ride(dropoff_lat=LAT + 0.05))["progress"] == 1


@pytest.mark.parametrize(("asked_m", "known"), [(0.99, False), (1.01, True)])
def test_a_ride_to_where_it_began_has_no_progress(asked_m: float, known: bool) -> None:
    found = one(ride(destination_lat=LAT + METRE * asked_m, dropoff_lat=LAT + 0.1))
    assert (found["progress"] is not None, found["premature"]) == (known, known)


@pytest.mark.parametrize("missing", ["dropoff_lat", "destination_lon", "pickup_lat"])
def test_without_a_coordinate_nothing_is_said(missing: str) -> None:
    columns: dict[str, Any] = {"dropoff_lat": LAT, missing: None}
    found = one(ride(**columns))
    assert (found["progress"], found["premature"], found["cause"]) == (None, False, None)
    assert (found["destination_matched"] is None) == (missing != "pickup_lat")


def test_the_destination_is_the_one_in_force_at_the_end() -> None:
    own, second, third = LAT + 0.05, LAT + 0.1, LAT + 0.2

    def aim(*changes: Row, **columns: Any) -> Any:
        return one(ride(**columns), *changes)["destination_lat"]

    assert aim() == own
    assert aim(destination("r1", END, second, LON)) == second
    assert aim(destination("r1", END + 1, second, LON)) == own
    assert aim(destination("r1", END - 1, second, LON), destination("r1", END - 2, third, LON)) == second
    assert aim(destination("r1", NOW - 1, second, LON)) == second
    assert aim(destination("r1", END + 1, second, LON), ended_at=None) == second
    assert aim(destination("r2", END, second, LON)) == own
    assert aim(destination("r1", END, second, LON, 1), destination("r1", END, third, LON, 2)) == third
    assert aim(destination("r1", None, second, LON)) == own


def test_a_destination_that_cannot_be_is_not_replaced_by_an_earlier_one() -> None:
    found = one(ride(), destination("r1", END, 0.0, 0.0))
    assert (found["destination_lat"], found["destination_gap_m"]) == (None, None)
    assert "destination_coordinates_invalid" in found["flags"]


def test_errors_count_from_request_to_end_both_included() -> None:
    edges = {"before": NOW - 1, "first": NOW, "last": END, "after": END + 1}
    assert met(ride(), *(error(name, at) for name, at in edges.items())) == ["first", "last"]


def test_errors_of_others_and_of_nobody_do_not_count() -> None:
    assert met(ride(), error("e1", user_id="bob"), error("e2", user_id=None)) == []
    assert met(ride(user_id=None), error("e1", user_id=None), error("e2")) == []


def test_while_a_ride_runs_every_error_counts_but_those_of_the_future() -> None:
    now = END + 9_000_000
    running = ride(status="in_progress", ended_at=None, updated_at=PICKED_UP)
    assert met(running, error("e1", now, received_at=now), error("e2", now, received_at=now - 1)) == ["e1"]


def test_errors_are_of_the_app_or_of_servers() -> None:
    rows = [error("a"), error("b", kind=Kind.SERVER_ERROR), error("x", kind=Kind.APP_EVENT)]
    found = one(ride(), *rows, *(access(str(status), status) for status in (200, 499, 500, 599)))
    assert (found["errors_app"], found["errors_server"]) == (1, 3)
    assert [(item["id"], item["kind"]) for item in found["errors"]] == [
        ("500", "server_access"),
        ("599", "server_access"),
        ("a", "app_error"),
        ("b", "server_error"),
    ]


def test_errors_are_listed_by_time_and_id() -> None:
    assert met(ride(), error("b", NOW + 1), error("a", NOW + 1), error("c", NOW)) == ["c", "a", "b"]


def test_an_error_sent_twice_is_one() -> None:
    found = one(ride(), error("e1", NOW + 5, received_at=NOW + 9), error("e1", NOW + 6, received_at=NOW + 8))
    assert [(item["id"], item["timestamp"]) for item in found["errors"]] == [("e1", NOW + 6)]


def test_an_error_lies_in_every_ride_that_it_happened_in() -> None:
    rows = [ride("r1"), ride("r2", requested_at=NOW + 300_000, ended_at=END + 300_000), error("e1", NOW + 300_000)]
    assert statistics(from_rows(table(rows)))["errors_app"].to_pylist() == [1, 1]


@pytest.mark.parametrize(
    ("status", "at", "cause"),
    [
        ("cancelled_by_driver", PICKED_UP, "driver"),
        ("cancelled_by_rider", PICKED_UP, "rider"),
        ("completed", PICKED_UP, "app"),
        ("failed", END, "app"),
        ("completed", PICKED_UP - 1, "unknown"),
        ("completed", END + 1, "unknown"),
        ("vanished", NOW, "unknown"),
        (None, NOW, "unknown"),
    ],
)
def test_the_cause_of_an_early_end(status: str | None, at: int, cause: str) -> None:
    found = one(ride(status=status, dropoff_lat=LAT), error("e1", at))
    assert (found["premature"], found["cause"]) == (True, cause)


def test_only_an_early_end_has_a_cause() -> None:
    never_there: dict[str, Any] = {"dropoff_lat": LAT, "picked_up_at": None}
    on_the_way: dict[str, Any] = {"dropoff_lat": LAT, "ended_at": None}
    arrived: dict[str, Any] = {}
    for columns in (never_there, on_the_way, arrived):
        found = one(ride(status="cancelled_by_rider", **columns), error("e1", PICKED_UP))
        assert (found["premature"], found["cause"]) == (False, None)


def test_the_version_that_counts() -> None:
    versions = [
        ride(city="late", updated_at=NOW + 1, received_at=NOW + 9),
        ride(city="newest", updated_at=NOW + 2, received_at=NOW + 1),
        ride(city="older", updated_at=NOW + 2, received_at=NOW),
    ]
    assert one(*versions)["city"] == "newest"
    tied = [ride(city="a", updated_at=NOW), ride(city="b", updated_at=NOW)]
    assert one(*tied)["city"] == max(tied, key=lambda row: row.id).body.decode().split('"city":"')[1][0]
    assert one(ride(city="said", updated_at=NOW), ride(city="heard", updated_at=None, received_at=NOW + 1))["city"] == (
        "heard"
    )


def test_a_deleted_ride_is_gone_until_it_is_written_again() -> None:
    deletion = gone(Kind.RIDE, "ride_id", "r1", NOW + 1)
    assert statistics(from_rows(table([ride(updated_at=NOW), deletion]))).num_rows == 0
    assert one(ride(updated_at=NOW + 2), deletion)["ride_id"] == "r1"


def test_people_are_named_by_the_version_that_counts() -> None:
    found = one(ride(user_id="bob", driver_id=None))
    assert (found["user_name"], found["driver_name"]) == (None, None)
    found = one(ride(), gone(Kind.USER, "user_id", "ada", NOW + 5))
    assert (found["user_name"], found["driver_name"]) == (None, "Dan")


def test_rides_come_by_user_and_time() -> None:
    rows = [
        ride("d", user_id=None),
        ride("c", user_id="bob"),
        ride("b", requested_at=None),
        ride("a", requested_at=NOW + 1),
        ride("f"),
        ride("e"),
    ]
    found = statistics(from_rows(table(rows)))
    assert found["ride_id"].to_pylist() == ["e", "f", "a", "b", "c", "d"]
    assert found.schema == RIDE_STATS


SECOND_OPINION = """
with versions as (
    select *, row_number() over (
        partition by ride_id order by updated_at desc, received_at desc, encode(record_id) desc
    ) as age from rides
),
ride as (select * from versions where age = 1 and not deleted),
error as (
    select * from errors qualify row_number() over (
        partition by user_id, id order by received_at, event_time, encode(kind), encode(name)
    ) = 1
),
met as (
    select r.ride_id, count(*) filter (e.kind = 'app_error') as app, count(*) filter (e.kind <> 'app_error') as server,
        count(*) filter (e.event_time between r.picked_up_at and r.ended_at) as driving,
        list(e.id order by e.event_time, encode(e.id)) as ids
    from ride r join error e
        on e.user_id = r.user_id and e.event_time between r.requested_at and coalesce(r.ended_at, e.received_at)
    group by all
),
aimed as (
    select r.*, d.ride_id is not null as changed,
        if(changed, d.destination_lat, r.destination_lat) as lat,
        if(changed, d.destination_lon, r.destination_lon) as lon
    from (select *, coalesce(ended_at, 9e15::bigint) as until from ride) r
    asof left join destinations d on d.ride_id = r.ride_id and d.changed_at <= r.until
)
select a.ride_id,
    coalesce(app, 0) as errors_app, coalesce(server, 0) as errors_server, coalesce(ids, []) as ids,
    if(abs(lat) > 90 or abs(lon) > 180 or (lat = 0 and lon = 0) or lon is null, null, lat) as lat,
    coalesce(driving, 0) > 0 as driving
from aimed a left join met using (ride_id)
order by encode(user_id) nulls last, requested_at nulls last, encode(ride_id)
"""


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@settings(seeded, max_examples=60)
@given(rows=worlds)
def test_joins_are_those_of_sql(connection: duckdb.DuckDBPyConnection, rows: list[Row]) -> None:
    inputs = from_rows(table(rows))
    found = statistics(inputs).to_pylist()
    for name, content in inputs._asdict().items():
        connection.register(name, content)
    expected = connection.sql(SECOND_OPINION).fetchall()
    assert len(found) == len(expected)
    for row, (ride_id, app, server, ids, lat, driving) in zip(found, expected, strict=True):
        assert (row["ride_id"], row["errors_app"], row["errors_server"]) == (ride_id, app, server)
        assert [item["id"] for item in row["errors"]] == ids
        assert row["destination_lat"] == lat
        if row["cause"] in ("app", "unknown"):
            assert (row["cause"] == "app") == driving


def test_tables_in_pieces_are_as_good_as_whole_ones() -> None:
    inputs = from_rows(table([*people, ride("r1"), ride("r2"), destination("r1", NOW, 56.0, 24.0), error()]))
    pieces = Inputs(*(pa.concat_tables([part.slice(0, 1), part.slice(1)]) for part in inputs))
    assert statistics(pieces).equals(statistics(inputs))
