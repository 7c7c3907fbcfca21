"""Quality: every flag is raised by what it is about and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from rebu_ray.process.quality import FLAGS
from rebu_ray.process.ride_stats import statistics
from rebu_ray.process.tables import from_rows
from tests.process.worlds import RIGA, Row, destination, people, ride, table, worlds
from tests.records import NOW, seeded

LAT, LON = RIGA
WEIGHTS = {flag.name: flag.weight for flag in FLAGS}


def judged(*rows: Row) -> tuple[float, list[str], dict[str, Any]]:
    [found] = statistics(from_rows(table(rows))).to_pylist()
    return found["quality"], found["flags"], found


def test_a_ride_without_blemish_is_of_quality_1() -> None:
    assert judged(*people, ride())[:2] == (1.0, [])


def test_rides_that_have_not_come_that_far_lack_nothing() -> None:
    later = "accepted_at picked_up_at ended_at dropoff_lat dropoff_lon distance_m fare_cents rating"
    nothing: dict[str, Any] = dict.fromkeys(later.split())
    requested = ride(status="requested", driver_id=None, **nothing)
    assert judged(*people, requested)[1] == []
    accepted: dict[str, Any] = nothing | {"accepted_at": NOW + 5}
    assert judged(*people, ride(status="accepted", **accepted))[1] == []
    driving = accepted | {"picked_up_at": NOW + 6}
    assert judged(*people, ride(status="in_progress", **driving))[1] == []
    for status in ("cancelled_by_rider", "failed"):
        assert judged(*people, ride(status=status, driver_id=None, **(nothing | {"ended_at": NOW + 7})))[1] == []
    over = accepted | {"ended_at": NOW + 7}
    assert judged(*people, ride(status="cancelled_by_driver", **over))[1] == []


CASES: dict[str, dict[str, Any]] = {
    "missing_user": {"user_id": None},
    "user_unknown": {"user_id": "bob"},
    "missing_driver": {"driver_id": None},
    "driver_unknown": {"driver_id": "dora"},
    "unknown_status": {"status": "vanished"},
    "requested_at_missing": {"requested_at": None},
    "picked_up_at_missing": {"picked_up_at": None},
    "ended_at_missing": {"ended_at": None},
    "ended_while_underway": {"status": "in_progress"},
    "accepted_before_request": {"accepted_at": NOW - 1},
    "pickup_before_request": {"picked_up_at": NOW - 1},
    "ended_before_pickup": {"ended_at": NOW + 59_999},
    "pickup_coordinates_missing": {"pickup_lat": None},
    "pickup_coordinates_invalid": {"pickup_lon": 180.5},
    "no_destination": {"destination_lat": None},
    "destination_coordinates_invalid": {"destination_lat": 0, "destination_lon": 0},
    "dropoff_coordinates_missing": {"dropoff_lon": None},
    "dropoff_coordinates_invalid": {"dropoff_lat": -90.1},
    "distance_missing": {"distance_m": None},
    "distance_negative": {"distance_m": -1},
    "distance_too_short": {"distance_m": 4900},
    "implausible_speed": {"ended_at": NOW + 120_000, "picked_up_at": NOW + 60_000},
    "fare_missing": {"fare_cents": None},
    "fare_negative": {"fare_cents": -1},
    "currency_missing": {"currency": None},
    "rating_out_of_range": {"rating": 6},
}


@pytest.mark.parametrize("name", CASES)
def test_one_blemish_raises_one_flag(name: str) -> None:
    quality, flags, _ = judged(*people, ride(**CASES[name]))
    assert flags == [name]
    assert quality == pytest.approx(1 - WEIGHTS[name] / 100, abs=1e-9)


def test_a_ride_that_ends_before_its_request_ends_before_its_pickup() -> None:
    assert judged(*people, ride(ended_at=NOW - 1))[1] == ["ended_before_request", "ended_before_pickup"]


def test_every_flag_is_tried_and_explained() -> None:
    assert {flag.name for flag in FLAGS} == CASES.keys() | {"ended_before_request"}
    assert all(flag.meaning.endswith(".") and 5 <= flag.weight <= 30 for flag in FLAGS)


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"ended_at": NOW + 59_999}, "duration_s"),
        ({"picked_up_at": NOW - 1}, "wait_s"),
        ({"fare_cents": -1}, "fare_cents"),
        ({"distance_m": -1}, "distance_m"),
        ({"rating": 0}, "rating"),
        ({"pickup_lat": 91}, "pickup_lon"),
        ({"dropoff_lat": 0, "dropoff_lon": 0}, "destination_gap_m"),
        ({"destination_lon": -181}, "requested_distance_m"),
    ],
)
def test_what_cannot_be_is_served_as_null(columns: dict[str, Any], name: str) -> None:
    quality, flags, found = judged(*people, ride(**columns))
    assert found[name] is None
    assert flags
    assert quality < 1


def test_an_unknown_status_is_served_as_it_was_sent() -> None:
    assert judged(*people, ride(status="vanished"))[2]["status"] == "vanished"


def test_a_destination_that_was_changed_to_nowhere_is_missing() -> None:
    assert judged(*people, ride(), destination("r1", NOW, None, LON))[1] == ["no_destination"]


def test_a_distance_of_nothing_is_no_distance_when_the_car_moved() -> None:
    assert judged(*people, ride(distance_m=0))[1] == ["distance_too_short"]
    assert judged(*people, ride(distance_m=0, dropoff_lat=LAT))[1] == []


def test_quality_ends_at_0() -> None:
    wrong = {name: value for case in CASES.values() for name, value in case.items()}
    assert judged(ride(**wrong))[0] == 0.0


@seeded
@given(worlds)
def test_quality_is_what_the_flags_leave(rows: list[Row]) -> None:
    order = [flag.name for flag in FLAGS]
    for row in statistics(from_rows(table(rows))).to_pylist():
        assert row["quality"] == max(0, 100 - sum(WEIGHTS[name] for name in row["flags"])) / 100
        assert row["flags"] == sorted(set(row["flags"]), key=order.index)
