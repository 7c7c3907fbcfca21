"""The shape of demand, of the city and of its rides."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.simulate import World, city, demand
from rebu_ray.simulate.clock import HOUR, WEEK, combined, millis, nginx, rfc3339, rfc3339_at
from rebu_ray.simulate.rides import Ride
from tests.real_data import DATA, needs_data

MONDAY = millis(datetime(2026, 3, 2, tzinfo=UTC))


def correlation(one: list[float], two: list[float]) -> float:
    mean_one, mean_two = sum(one) / len(one), sum(two) / len(two)
    top = sum((a - mean_one) * (b - mean_two) for a, b in zip(one, two, strict=True))
    spread = sum((a - mean_one) ** 2 for a in one) * sum((b - mean_two) ** 2 for b in two)
    return float(top / spread**0.5)


def by_hour_of_week(counts: Iterator[tuple[datetime, float]]) -> list[float]:
    total, seen = Counter[int](), Counter[int]()
    for moment, count in counts:
        hour = moment.weekday() * 24 + moment.hour
        total[hour] += count  # type: ignore[assignment]
        seen[hour] += 1
    return [total[hour] / seen[hour] for hour in range(168)]


def ride_hailing() -> Iterator[tuple[datetime, float]]:
    with gzip.open(DATA / "uber_nyc_hourly_2015" / "uber_nyc_enriched.csv.gz", "rt") as file:
        rows = csv.DictReader(file)
        for moment, group in itertools.groupby(rows, key=lambda row: row["pickup_dt"]):
            yield datetime.fromisoformat(moment), sum(int(row["pickups"]) for row in group)


def taxi() -> Iterator[tuple[datetime, float]]:
    with (DATA / "nyc_taxi_halfhourly" / "nyc_taxi.csv").open() as file:
        for row in csv.DictReader(file):
            yield datetime.fromisoformat(row["timestamp"]), float(row["value"])


@needs_data
@pytest.mark.parametrize("series", [ride_hailing, taxi])
def test_demand_has_the_shape_of_real_series(series: Any) -> None:
    table = [float(value) for day in demand.HOUR_OF_WEEK for value in day]
    assert correlation(table, by_hour_of_week(series())) > 0.93


def test_weekdays_have_a_morning_and_an_evening_peak_and_weekends_no_morning() -> None:
    start = MONDAY
    found = Counter((at - start) % WEEK // HOUR for at in demand.arrivals(Random(1), start, start + 4 * WEEK, 20_000))
    days = [[found[day * 24 + hour] for hour in range(24)] for day in range(7)]
    for day in days[:5]:
        assert max(day[7:10]) > 1.1 * min(day[10:15])
        assert max(day[17:22]) > 1.1 * min(day[10:15])
        assert min(day[1:5]) < 0.3 * max(day[7:10])
    for day in days[5:]:
        assert max(day[6:9]) < 0.6 * max(days[0][7:10])
        assert day[0] > 1.5 * days[0][0]


def test_arrivals_keep_the_mean_the_order_and_the_window() -> None:
    found = list(demand.arrivals(Random(2), MONDAY, MONDAY + 2 * WEEK, 5_000))
    assert abs(len(found) - 10_000) < 500
    assert found == sorted(found)
    assert MONDAY <= found[0] < found[-1] < MONDAY + 2 * WEEK
    assert list(demand.arrivals(Random(2), MONDAY, MONDAY + WEEK, 0)) == []


points = st.tuples(st.floats(-80, 80), st.floats(-179, 179))


@given(points, st.floats(-20_000, 20_000), st.floats(-20_000, 20_000))
def test_a_point_moved_by_metres_is_that_far_away(point: city.Point, north: float, east: float) -> None:
    moved = city.moved(point, north, east)
    wanted = (north**2 + east**2) ** 0.5
    # Six decimals are 0.1 m; going north first shortens the way east the more, the nearer the pole.
    assert city.great_circle_m(point, moved) == pytest.approx(wanted, rel=0.02, abs=0.3)


def test_zones_are_distinct_and_lie_apart() -> None:
    assert len({zone.zone_id for zone in city.ZONES}) == len({zone.name for zone in city.ZONES}) == len(city.ZONES)
    assert {zone.city for zone in city.ZONES} == set(city.CITIES)
    for one, two in itertools.combinations(city.ZONES, 2):
        assert city.great_circle_m(one.centre, two.centre) > 600
    rng = Random(3)
    for zone in city.ZONES:
        assert city.great_circle_m(zone.centre, city.point_in(rng, zone)) <= zone.radius_m + 1


@given(st.integers(0, 253_402_300_799_999))
def test_written_times_read_back(ms: int) -> None:
    seconds = datetime.fromtimestamp(ms // 1000, UTC)
    exact = seconds.replace(microsecond=ms % 1000 * 1000)
    assert datetime.fromisoformat(rfc3339(ms)) == exact
    assert datetime.strptime(combined(ms), "%d/%b/%Y:%H:%M:%S %z") == seconds
    assert datetime.strptime(nginx(ms), "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC) == seconds
    if 86_400_000 < ms < 253_402_200_000_000:
        for offset in (-330, 0, 60):
            assert datetime.fromisoformat(rfc3339_at(ms, offset)) == exact


@pytest.fixture(scope="module")
def rides() -> list[Ride]:
    return [ride for hour in World(450, 24, 9).hours() for ride in hour.rides]


def test_most_rides_arrive_and_some_end_early_for_each_reason(rides: list[Ride]) -> None:
    troubles = Counter(ride.trouble for ride in rides)
    assert len(rides) > 400
    assert troubles[None] > 0.75 * len(rides)
    assert set(troubles) >= {None, "driver", "rider", "app", "unknown", "changed_mind"}
    for ride in rides:
        if ride.picked_up_at is None or ride.destination is None or ride.dropoff is None:
            continue
        aim = ride.changes[-1].point if ride.changes else ride.destination
        gap, whole = city.great_circle_m(aim, ride.dropoff), city.great_circle_m(ride.pickup, aim)
        if ride.trouble is None:
            assert gap < 1500
        elif whole > 2000:
            assert gap > 0.1 * whole - 150


def test_nobody_is_in_two_rides_at_once(rides: list[Ride]) -> None:
    ended: dict[str, int] = {}
    for ride in sorted(rides, key=lambda ride: ride.requested_at):
        for who in (ride.rider.user_id, ride.driver.driver_id if ride.driver else None):
            if who is not None:
                assert ride.requested_at >= ended.get(who, 0)
                ended[who] = ride.ended_at


def test_a_ride_is_known_step_by_step(rides: list[Ride]) -> None:
    whole = (ride for ride in rides if ride.status == "completed" and ride.picked_up_at is not None)
    ride = next(ride for ride in whole if ride.changes and ride.rated_at)
    assert ride.accepted_at is not None
    assert ride.picked_up_at is not None
    assert ride.rated_at is not None
    steps = [
        ride.row(at) for at in (ride.requested_at, ride.accepted_at, ride.picked_up_at, ride.ended_at, ride.rated_at)
    ]
    assert [step["status"] for step in steps] == ["requested", "accepted", "in_progress", "completed", "completed"]
    assert [step["driver_id"] is None for step in steps] == [True, False, False, False, False]
    assert [step["fare_cents"] is None for step in steps] == [True, True, True, False, False]
    assert [step["rating"] is None for step in steps] == [True, True, True, True, False]
    changed = [str(step["updated_at"]) for step in steps]
    assert changed == sorted(changed)


def test_the_hours_of_a_world_can_be_lived_once() -> None:
    world = World(5, 2, 1)
    assert len(list(world.hours())) == 2
    with pytest.raises(RuntimeError, match="another World"):
        list(world.hours())
