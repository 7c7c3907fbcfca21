"""Ride statistics: what is computed of each ride, by the definitions of the ride document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.process.quality import Facts, Numbers, Positions, assess, positions
from rebu_ray.process.ride_errors import met
from rebu_ray.process.tables import RIDE_STATS, Inputs, counting

EARTH_RADIUS_M: Final = 6_371_008.8
ARRIVED_M: Final = 250.0
"""A ride that ends no farther from its destination has reached it."""
NEARLY_THERE: Final = 0.9
"""A ride with less progress than this ended early."""
_SHORTEST_M: Final = 1.0
_CAUSES: Final = pa.array(["driver", "rider", "app", "unknown"])


def statistics(inputs: Inputs) -> pa.Table:
    """One row (`RIDE_STATS`) a ride that is not deleted, of the version that counts; the same for any order of rows."""
    rides = counting(inputs.rides, "ride_id")
    order = pc.sort_indices(rides, [(key, "ascending", "at_end") for key in ("user_id", "requested_at", "ride_id")])
    rides = rides.take(order).combine_chunks()
    requested, accepted, picked_up, ended = (
        _numbers(rides[name]) for name in ("requested_at", "accepted_at", "picked_up_at", "ended_at")
    )
    pickup = positions(_numbers(rides["pickup_lat"]), _numbers(rides["pickup_lon"]))
    dropoff = positions(_numbers(rides["dropoff_lat"]), _numbers(rides["dropoff_lon"]))
    destination = _destination(rides, inputs.destinations, ended)
    asked_m, gap_m = _great_circle_m(pickup, destination), _great_circle_m(destination, dropoff)
    matched = gap_m <= ARRIVED_M
    progress = np.clip(1 - gap_m / np.where(asked_m < _SHORTEST_M, np.nan, asked_m), 0, 1)
    premature = ~np.isnan(picked_up) & ~np.isnan(ended) & (gap_m > ARRIVED_M) & (progress < NEARLY_THERE)
    errors = met(inputs.errors, rides["user_id"].combine_chunks(), requested, picked_up, ended)

    user, driver = _place(rides["user_id"], inputs.users), _place(rides["driver_id"], inputs.drivers)
    distance, fare, rating = _numbers(rides["distance_m"]), _numbers(rides["fare_cents"]), _numbers(rides["rating"])
    quality, flags = assess(
        Facts(
            status=rides["status"].combine_chunks(),
            has_user=_mask(pc.is_valid(rides["user_id"])),
            user_known=_mask(pc.is_valid(user)),
            has_driver=_mask(pc.is_valid(rides["driver_id"])),
            driver_known=_mask(pc.is_valid(driver)),
            requested=requested,
            accepted=accepted,
            picked_up=picked_up,
            ended=ended,
            pickup=pickup,
            destination=destination,
            dropoff=dropoff,
            travelled_m=_great_circle_m(pickup, dropoff),
            distance=distance,
            fare=fare,
            has_currency=_mask(pc.is_valid(rides["currency"])),
            rating=rating,
        )
    )
    computed = {
        "user_name": inputs.users["name"].take(user),
        "driver_name": inputs.drivers["name"].take(driver),
        "fare_cents": _unless(fare < 0, rides["fare_cents"]),
        "distance_m": _unless(distance < 0, rides["distance_m"]),
        "wait_s": _column(_seconds(requested, picked_up)),
        "duration_s": _column(_seconds(picked_up, ended)),
        "requested_distance_m": _column(_rounded(asked_m, 10)),
        "destination_gap_m": _column(_rounded(gap_m, 10)),
        "destination_matched": pa.array(matched, mask=np.isnan(gap_m)),
        "progress": _column(_rounded(progress, 1_000_000)),
        "errors_app": pa.array(errors.app),
        "errors_server": pa.array(errors.server),
        "errors": errors.items,
        "premature": pa.array(premature),
        "cause": _causes(rides["status"], premature, errors.driving),
        "quality": pa.array(quality),
        "flags": flags,
        "pickup_lat": _column(pickup.lat),
        "pickup_lon": _column(pickup.lon),
        "destination_lat": _column(destination.lat),
        "destination_lon": _column(destination.lon),
        "dropoff_lat": _column(dropoff.lat),
        "dropoff_lon": _column(dropoff.lon),
        "rating": _column(np.where((rating >= 1) & (rating <= 5), rating, np.nan)),
    }
    return pa.table(
        [computed[name] if name in computed else rides[name] for name in RIDE_STATS.names], schema=RIDE_STATS
    )


def _destination(rides: pa.Table, changes: pa.Table, ended: Numbers) -> Positions:
    """The destination in force at the end: of the latest change up to then, else the ride's own.

    A ride without an end has the latest change of all.
    """
    lat, lon = _numbers(rides["destination_lat"]), _numbers(rides["destination_lon"])
    ride = pc.index_in(changes["ride_id"], value_set=rides["ride_id"].combine_chunks())
    known = pc.is_valid(ride)
    ride, changes = ride.filter(known).to_numpy().astype(np.int64), changes.filter(known)
    if len(ride):
        time, to_lat, to_lon = (
            _numbers(changes[name]) for name in ("changed_at", "destination_lat", "destination_lon")
        )
        order = np.lexsort((to_lon, to_lat, _numbers(changes["received_at"]), time, ride))
        ride, time, to_lat, to_lon = ride[order], time[order], to_lat[order], to_lon[order]
        # Sorted by (ride, time). Times are counted by their rank, so that both fit in one number.
        instants = np.unique(time)
        span = len(instants) + 1
        places = ride * span + np.searchsorted(instants, time)
        until = np.where(np.isnan(ended), span - 1, np.searchsorted(instants, ended, "right"))
        own = np.arange(len(lat))
        last = np.searchsorted(places, own * span + until) - 1
        changed = (last >= 0) & (ride[last] == own)
        lat, lon = np.where(changed, to_lat[last], lat), np.where(changed, to_lon[last], lon)
    return positions(lat, lon)


def _great_circle_m(here: Positions, there: Positions) -> Numbers:
    """Haversine formula on the mean sphere; NaN where a coordinate is."""
    latitude, other = here.lat * (np.pi / 180), there.lat * (np.pi / 180)
    half_lat, half_lon = (other - latitude) / 2, (there.lon - here.lon) * (np.pi / 360)
    square = _sin(half_lat) ** 2 + _cos(latitude) * _cos(other) * _sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_M * _arrow(pc.asin, np.sqrt(np.minimum(square, 1)))


# NumPy's vector code may round another way at the end of an array than in its middle. Arrow calls the C library for
# each value, so that a ride has the same numbers alone and among others.
def _arrow(function: Callable[[pa.Array], pa.Array], values: Numbers) -> Numbers:
    found: Numbers = function(pa.array(values)).to_numpy()
    return found


def _sin(values: Numbers) -> Numbers:
    return _arrow(pc.sin, values)


def _cos(values: Numbers) -> Numbers:
    return _arrow(pc.cos, values)


def _rounded(values: Numbers, parts: int) -> Numbers:
    """To the nearest of so many parts of 1."""
    return np.rint(values * parts) / parts


def _seconds(start: Numbers, end: Numbers) -> Numbers:
    """From start to end; NaN where that is below zero."""
    elapsed = end - start
    return np.where(elapsed >= 0, elapsed, np.nan) / 1000


def _causes(status: pa.ChunkedArray, premature: npt.NDArray[np.bool_], errors: npt.NDArray[np.bool_]) -> pa.Array:
    by_driver, by_rider = (
        _mask(pc.fill_null(pc.equal(status, name), False)) for name in ("cancelled_by_driver", "cancelled_by_rider")
    )
    return _CAUSES.take(pa.array(np.select([by_driver, by_rider, errors], [0, 1, 2], 3), mask=~premature))


def _place(ids: pa.ChunkedArray, people: pa.Table) -> pa.Array:
    """Where each id stands among the people; null where it does not."""
    return pc.index_in(ids, value_set=people.column(0).combine_chunks()).combine_chunks()


def _numbers(column: pa.ChunkedArray) -> Numbers:
    """As floats, NaN for null. Times and amounts below 2^53 keep their exact value."""
    found: Numbers = column.cast(pa.float64(), safe=False).to_numpy()
    return found


def _mask(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    )
    return found


def _column(values: Numbers) -> pa.Array:
    """Floats, null for NaN."""
    return pa.array(values, mask=np.isnan(values))


def _unless(mask: npt.NDArray[np.bool_], column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pa.array(mask), pa.scalar(None, column.type), column)
