"""Rides and links against what the simulator knows."""

from __future__ import annotations

from typing import Any

import pytest

from rebu_ray.demo import checks, truth
from rebu_ray.simulate import World, city
from rebu_ray.simulate.rides import Ride


@pytest.fixture(scope="module")
def world() -> World:
    return World(600, 6, 3)


@pytest.fixture(scope="module")
def rides(world: World) -> list[Ride]:
    return [ride for hour in world.hours() for ride in hour.rides]


def documents(rides: list[Ride], end: int) -> dict[str, dict[str, Any]]:
    """The contract's definition of `premature`, for rides that have ended; the cause is the simulator's."""
    found = {}
    for ride in rides:
        row = ride.row(end)
        aim = ride.changes[-1].point if ride.changes else ride.destination
        premature = False
        if row["picked_up_at"] is not None and row["ended_at"] is not None and aim and ride.dropoff:
            gap, whole = city.great_circle_m(aim, ride.dropoff), city.great_circle_m(ride.pickup, aim)
            premature = gap > 250 and 1 - gap / whole < 0.9
        found[ride.ride_id] = {"premature": premature, "cause": ride.trouble if premature else None}
    return found


def test_documents_by_the_definition_agree_with_the_simulator(world: World, rides: list[Ride]) -> None:
    counted = truth.count_rides(rides, world.end, documents(rides, world.end))
    over = [ride for ride in rides if ride.ended_at <= world.end]
    assert counted.judged + counted.hidden == len(over)
    assert counted.early >= 5
    assert counted.found >= 0.9 * counted.early
    assert counted.causes_right == counted.found
    assert counted.mistaken <= 0.02 * counted.judged
    assert 0 < counted.hidden < 0.05 * counted.judged
    assert all(check.holds for check in checks.of_truth(counted, truth.Links(0, 0, 0, 0, 0, 0)))


def test_documents_that_say_nothing_or_too_much_are_counted(world: World, rides: list[Ride]) -> None:
    right = truth.count_rides(rides, world.end, documents(rides, world.end))
    nothing = truth.count_rides(rides, world.end, {})
    assert (nothing.found, nothing.mistaken, nothing.wrong) == (0, 0, right.early)
    everything = truth.count_rides(rides, world.end, {r.ride_id: {"premature": True, "cause": "app"} for r in rides})
    assert (everything.found, everything.wrong) == (right.early, right.judged - right.early)
    assert everything.causes_right < everything.found
    found, cause, _ = checks.of_truth(everything, truth.Links(0, 0, 0, 0, 0, 0))
    assert not found.holds
    assert not cause.holds


def link(status: str, ride_id: str | None = None) -> dict[str, Any]:
    return {"link": {"status": status, "ride_id": ride_id}}


def test_links_are_counted_by_what_they_should_be() -> None:
    about = {"m-1": "r-1", "m-2": "r-2", "m-3": "r-3", "m-4": None, "m-5": None, "m-6": "r-6", "m-7": "r-7"}
    served = {
        "m-1": link("linked", "r-1"),
        "m-2": link("linked", "r-1"),
        "m-3": link("ambiguous"),
        "m-4": link("linked", "r-4"),
        "m-5": link("none"),
        "m-6": link("none"),
        "of another morning": link("linked", "r-0"),
    }
    links = truth.count_links(about, served)
    assert links == truth.Links(messages=6, about_a_ride=4, linked=3, right=1, covered=2, ambiguous=1)
    assert links.precision == 1 / 3
    assert links.coverage == 1 / 2
    none = truth.count_links({}, {})
    assert (none.precision, none.coverage) == (None, None)


@pytest.mark.parametrize(
    ("linked", "right", "holds"),
    [(0, 0, True), (1, 0, True), (3, 1, False), (20, 18, True), (20, 17, False), (100, 90, True), (100, 89, False)],
)
def test_nine_of_ten_links_must_be_right(linked: int, right: int, holds: bool) -> None:
    links = truth.Links(linked, linked, linked, right, linked, 0)
    rides = truth.Rides(0, 0, 0, 0, 0, 0)
    assert [check.holds for check in checks.of_truth(rides, links)] == [True, True, holds]


def test_freshness_is_the_median_of_those_that_came_and_none_may_be_missing() -> None:
    assert checks.of_freshness([], []).holds
    assert checks.of_freshness([20.0, 900.0, 5000.0], []).holds
    assert "median 900 ms, at most 5,000 ms" in checks.of_freshness([20.0, 900.0, 5000.0], []).seen
    missing = checks.of_freshness([20.0] * 9, ["r-1"])
    assert not missing.holds
    assert "1 of 10" in missing.seen
