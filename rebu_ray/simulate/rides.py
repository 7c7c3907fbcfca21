"""Rides from request to end, as dispatch, traffic and people make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

from rebu_ray.simulate import city, demand
from rebu_ray.simulate.clock import DAY, HOUR, MINUTE, SECOND, rfc3339
from rebu_ray.simulate.identifiers import ride_id
from rebu_ray.simulate.people import Driver, Rider

Trouble = Literal["driver", "rider", "app", "unknown", "no_driver", "no_show", "changed_mind", "dispatch"]
"""What went wrong, where something did. The first four end a ride underway, the others one that never began."""

_UNDERWAY: Final[tuple[Trouble, ...]] = ("driver", "rider", "app", "unknown")
_ENDS_AS: Final[dict[Trouble, str]] = {
    "driver": "cancelled_by_driver",
    "rider": "cancelled_by_rider",
    "app": "completed",
    "unknown": "completed",
}
CURRENCY: Final = "EUR"
_CANCEL_FEE_CENTS: Final = 400
_DETOUR: Final = 1.3
"""Streets are longer than the line across the map."""


@dataclass(frozen=True, slots=True)
class DestinationChange:
    at: int
    point: city.Point
    zone: city.Zone
    place: str


@dataclass(slots=True)
class Ride:
    """A ride as it will have been; `row` tells what of it is known at an instant. Times in ms, None: never."""

    ride_id: str
    rider: Rider
    pickup_zone: city.Zone
    pickup_place: str
    pickup: city.Point
    destination_zone: city.Zone
    destination_place: str
    destination: city.Point | None
    requested_at: int
    status: str = "completed"
    driver: Driver | None = None
    accepted_at: int | None = None
    picked_up_at: int | None = None
    ended_at: int = 0
    dropoff: city.Point | None = None
    distance_m: int | None = None
    fare_cents: int | None = None
    rating: int | None = None
    rated_at: int | None = None
    settled_at: int | None = None
    """When billing came back to the row, minutes after the end."""
    trouble: Trouble | None = None
    changes: list[DestinationChange] = field(default_factory=list)

    @property
    def final_place(self) -> str:
        """Where the ride was last meant to go, in words."""
        return self.changes[-1].place if self.changes else self.destination_place

    @property
    def final_zone(self) -> city.Zone:
        return self.changes[-1].zone if self.changes else self.destination_zone

    @property
    def moments(self) -> list[int]:
        """When its row changes, in no order."""
        some = [self.requested_at, self.accepted_at, self.picked_up_at, self.ended_at, self.rated_at, self.settled_at]
        return [moment for moment in some if moment is not None] + [change.at for change in self.changes]

    @property
    def driven(self) -> bool:
        """Whether the rider was picked up, whatever the row says."""
        return self.settled_at is not None

    @property
    def ended_early(self) -> bool:
        """Whether it ended on the way, for the reason that `trouble` names."""
        return self.driven and self.trouble is not None

    def row(self, at: int) -> dict[str, str | int | float | None]:
        """The row of table `rides` as the application database has it at `at` (not before the request)."""
        accepted = self.accepted_at is not None and self.accepted_at <= at
        picked_up = self.picked_up_at is not None and self.picked_up_at <= at
        ended = self.ended_at <= at
        underway = "in_progress" if picked_up else "accepted" if accepted else "requested"
        rated = self.rated_at is not None and self.rated_at <= at
        changed = max(moment for moment in self.moments if moment <= at)
        return {
            "ride_id": self.ride_id,
            "user_id": self.rider.user_id,
            "driver_id": self.driver.driver_id if self.driver and accepted else None,
            "city": self.pickup_zone.city,
            "status": self.status if ended else underway,
            "requested_at": rfc3339(self.requested_at),
            "accepted_at": rfc3339(self.accepted_at) if accepted and self.accepted_at is not None else None,
            "picked_up_at": rfc3339(self.picked_up_at) if picked_up and self.picked_up_at is not None else None,
            "ended_at": rfc3339(self.ended_at) if ended else None,
            "pickup_lat": self.pickup[0],
            "pickup_lon": self.pickup[1],
            "destination_lat": self.destination[0] if self.destination else None,
            "destination_lon": self.destination[1] if self.destination else None,
            "dropoff_lat": self.dropoff[0] if self.dropoff and ended else None,
            "dropoff_lon": self.dropoff[1] if self.dropoff and ended else None,
            "distance_m": self.distance_m if ended else None,
            "fare_cents": self.fare_cents if ended else None,
            "currency": CURRENCY,
            "rating": self.rating if rated else None,
            "updated_at": rfc3339(changed),
        }


def metres_per_second(ms: int) -> float:
    """Speed in traffic: about 8 m/s in an empty city, 5.5 m/s at the busiest hours of the week."""
    return 8.5 - 3.0 * min(1.0, demand.intensity(ms) / 1.6)


def quoted_cents(distance_m: float, duration_ms: int, surge: float) -> int:
    """2.50 to begin with, 1.10 a kilometre, 0.25 a minute, times the surge."""
    return round((250 + 110 * distance_m / 1000 + 25 * duration_ms / MINUTE) * surge)


class Dispatch:
    """Finds drivers and lets rides happen. `shape_shift_ms` is what to add to an instant for its hour of the week."""

    def __init__(self, drivers: list[Driver], rng: Random, shape_shift_ms: int) -> None:
        self._drivers = drivers
        self._rng = rng
        self._shift = shape_shift_ms

    def ride(self, rider: Rider, at: int, down: bool = False) -> Ride:
        """A ride that `rider` asks for at `at`, with all that will come of it.

        While dispatch is `down` a third of the requests fail.
        """
        rng = self._rng
        from_zone, to_zone = self._trip(rider, at)
        ride = Ride(
            ride_id=ride_id(rng),
            rider=rider,
            pickup_zone=from_zone,
            pickup_place=rng.choice(from_zone.places),
            pickup=city.point_in(rng, from_zone),
            destination_zone=to_zone,
            destination_place=rng.choice(to_zone.places),
            destination=city.point_in(rng, to_zone),
            requested_at=at,
        )
        if rng.random() < (0.35 if down else 0.012):
            return self._over(ride, "failed", "dispatch", at + rng.randrange(2 * SECOND, 40 * SECOND))
        driver = self._nearest(ride.pickup, at)
        if driver is None:
            if rng.random() < 0.5:
                return self._over(ride, "failed", "no_driver", at + rng.randrange(4 * MINUTE, 6 * MINUTE))
            return self._over(ride, "cancelled_by_rider", "no_driver", at + rng.randrange(MINUTE, 5 * MINUTE))
        if rng.random() < 0.03:
            return self._over(ride, "cancelled_by_rider", "changed_mind", at + rng.randrange(3 * SECOND, 20 * SECOND))
        return self._accepted(ride, driver)

    def _trip(self, rider: Rider, at: int) -> tuple[city.Zone, city.Zone]:
        """To work in the morning, home in the evening, and everything else in between."""
        rng = self._rng
        hour = (at + self._shift) % DAY // HOUR
        kind = rng.random()
        if 5 <= hour < 11 and kind < 0.6:
            pair = (rider.home, rider.work)
        elif 15 <= hour < 21 and kind < 0.5:
            pair = (rider.work, rider.home)
        elif (hour >= 21 or hour < 5) and kind < 0.6:
            pair = (city.leisure_zone(rng), rider.home)
        else:
            pair = (rider.home if rng.random() < 0.4 else city.leisure_zone(rng), city.leisure_zone(rng))
        if pair[0] is pair[1]:
            others = [zone for zone in city.ZONES if zone is not pair[0]]
            pair = (pair[0], rng.choice(others))
        return pair

    def _nearest(self, point: city.Point, at: int) -> Driver | None:
        tried = self._rng.choices(self._drivers, k=min(len(self._drivers), 16))
        free = [driver for driver in tried if driver.free_at <= at]
        return min(free, key=lambda driver: city.great_circle_m(driver.position, point), default=None)

    def _over(self, ride: Ride, status: str, trouble: Trouble, ended_at: int) -> Ride:
        """The end of a ride that never began."""
        ride.status, ride.trouble, ride.ended_at = status, trouble, ended_at
        if status == "cancelled_by_rider" and ride.accepted_at is not None and ended_at > ride.accepted_at + 2 * MINUTE:
            ride.fare_cents = _CANCEL_FEE_CENTS
        if ride.driver is not None:
            ride.driver.free_at = ended_at
        return ride

    def _accepted(self, ride: Ride, driver: Driver) -> Ride:
        rng = self._rng
        ride.driver = driver
        ride.accepted_at = ride.requested_at + rng.randrange(6 * SECOND, 75 * SECOND)
        approach_m = city.great_circle_m(driver.position, ride.pickup) * _DETOUR
        approach_ms = round(approach_m / self._speed(ride.accepted_at) * 1000)
        waiting = rng.randrange(15 * SECOND, 150 * SECOND)
        kind = rng.random()
        if kind < 0.045:
            end = ride.accepted_at + max(20 * SECOND, round((approach_ms + waiting) * rng.uniform(0.2, 1.0)))
            return self._over(ride, "cancelled_by_rider", "changed_mind", end)
        if kind < 0.075:
            no_show = rng.random() < 0.5
            end = ride.accepted_at + (approach_ms + 5 * MINUTE if no_show else rng.randrange(20 * SECOND, 4 * MINUTE))
            return self._over(ride, "cancelled_by_driver", "no_show" if no_show else "driver", end)
        ride.picked_up_at = ride.accepted_at + approach_ms + waiting
        return self._driven(ride, driver, ride.picked_up_at)

    def _speed(self, at: int) -> float:
        return metres_per_second(at + self._shift)

    def _driven(self, ride: Ride, driver: Driver, picked_up_at: int) -> Ride:
        rng = self._rng
        assert ride.destination is not None  # every ride is made with one; a few lose it below
        aim, total_m = ride.destination, city.great_circle_m(ride.pickup, ride.destination) * _DETOUR
        drive_ms = round(total_m / self._speed(picked_up_at) * 1000 * rng.uniform(0.9, 1.35)) + 30 * SECOND
        if rng.random() < 0.07:
            zone = city.leisure_zone(rng)
            at = picked_up_at + round(drive_ms * rng.uniform(-0.2, 0.7))
            here = city.between(ride.pickup, aim, max(0.0, (at - picked_up_at) / drive_ms))
            aim = city.point_in(rng, zone)
            ride.changes.append(
                DestinationChange(max(at, ride.requested_at + SECOND), aim, zone, rng.choice(zone.places))
            )
            rest_m = city.great_circle_m(here, aim) * _DETOUR
            drive_ms = max(0, at - picked_up_at) + round(rest_m / self._speed(at) * 1000) + 20 * SECOND
            total_m = city.great_circle_m(ride.pickup, here) * _DETOUR + rest_m
        share, ride.status = 1.0, "completed"
        if rng.random() < 0.055:
            share = rng.uniform(0.15, 0.85)
            trouble = rng.choices(_UNDERWAY, (30, 30, 25, 15))[0]
            ride.trouble, ride.status = trouble, _ENDS_AS[trouble]
            if trouble == "app" and rng.random() < 0.5:
                ride.status = "failed"
        ride.ended_at = picked_up_at + max(20 * SECOND, round(drive_ms * share))
        # Three in a hundred stop around the corner: too far for "arrived", too near for "ended early".
        stray_m = 280.0 if share == 1.0 and rng.random() < 0.03 else 35.0
        ride.dropoff = city.scattered(rng, city.between(ride.pickup, aim, share), stray_m)
        # A change that would have come after the end never came.
        ride.changes = [change for change in ride.changes if change.at < ride.ended_at]
        ride.distance_m = round(total_m * share)
        surge = rng.choice((1.0, 1.0, 1.0, 1.2, 1.5)) if demand.intensity(picked_up_at + self._shift) > 1.2 else 1.0
        ride.fare_cents = quoted_cents(ride.distance_m, ride.ended_at - picked_up_at, surge)
        ride.settled_at = ride.ended_at + rng.randrange(20 * SECOND, 10 * MINUTE)
        if rng.random() < 0.45:
            ride.rating = rng.choices((1, 2, 3, 4, 5), (30, 20, 20, 15, 15) if ride.trouble else (1, 1, 4, 20, 74))[0]
            ride.rated_at = ride.ended_at + rng.randrange(8 * SECOND, 3 * MINUTE)
        driver.free_at, driver.position = ride.ended_at + 30 * SECOND, ride.dropoff
        self._blemish(ride)
        return ride

    def _blemish(self, ride: Ride) -> None:
        """What real tables have: a lost coordinate, a missing pick-up time, a distance of nothing."""
        kind = self._rng.random()
        if kind < 0.010:
            ride.destination = None
        elif kind < 0.015:
            ride.dropoff = None
        elif kind < 0.018:
            ride.distance_m = 0
        elif kind < 0.020 and ride.status == "completed":
            ride.picked_up_at = None
