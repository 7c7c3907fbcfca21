"""Quality: how far a ride's numbers can be trusted, and flags that say why not.

A flag is raised where a value is missing that the ride must have, or where it cannot be true; a value that cannot
be true is served as null. Each flag takes its weight off the quality of 1, down to 0. A weight is 0.05 where
something only decorates the document, 0.1 where one computed value is lost or doubtful, 0.15 to 0.2 where several
are, 0.3 where the ride as a whole cannot be judged.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Numbers = npt.NDArray[np.float64]
"""NaN where there is none."""

Mask = npt.NDArray[np.bool_]

FINAL: Final = frozenset(("completed", "cancelled_by_rider", "cancelled_by_driver", "failed"))
STATUSES: Final = FINAL | {"requested", "accepted", "in_progress"}
_DRIVEN: Final = frozenset(("accepted", "in_progress", "completed", "cancelled_by_driver"))
_FASTEST_M_S: Final = 70.0
_SHORTCUT: Final = 0.9
"""A way on the ground is no shorter than the great circle; metering and positions are off by a tenth and 100 m."""
_POSITION_M: Final = 100.0


class Flag(NamedTuple):
    """A reason to doubt. `weight` is in hundredths."""

    name: str
    weight: int
    meaning: str


FLAGS: Final = (
    Flag("missing_user", 30, "The ride names no user, so no errors and no messages can be attached to it."),
    Flag("user_unknown", 10, "There is no row of the ride's user."),
    Flag("missing_driver", 10, "The ride was accepted, driven or cancelled by a driver, and names no driver."),
    Flag("driver_unknown", 5, "There is no row of the ride's driver."),
    Flag("unknown_status", 20, "The status is missing or none of the known ones."),
    Flag("requested_at_missing", 30, "It is not known when the ride was requested, so neither which errors it met."),
    Flag("picked_up_at_missing", 20, "The status says that the ride was driven, and there is no time of pick-up."),
    Flag("ended_at_missing", 20, "The status is final and there is no time of the end: errors are counted up to now."),
    Flag("ended_while_underway", 10, "There is a time of the end, and the status is not final."),
    Flag("accepted_before_request", 5, "The ride was accepted before it was requested."),
    Flag("pickup_before_request", 20, "The pick-up was before the request: wait_s is null."),
    Flag("ended_before_request", 20, "The ride ended before it was requested, so no error can lie within it."),
    Flag("ended_before_pickup", 30, "The ride ended before the pick-up: duration_s is null."),
    Flag("pickup_coordinates_missing", 10, "Latitude or longitude of the pick-up is missing."),
    Flag("pickup_coordinates_invalid", 15, "The pick-up's coordinates are out of range or both zero; served as null."),
    Flag("no_destination", 10, "The destination in force has no coordinates."),
    Flag("destination_coordinates_invalid", 15, "The destination's coordinates are out of range or both zero."),
    Flag("dropoff_coordinates_missing", 10, "The ride was driven to an end, and it is not known where."),
    Flag("dropoff_coordinates_invalid", 15, "The drop-off's coordinates are out of range or both zero."),
    Flag("distance_missing", 5, "A completed ride has no distance_m."),
    Flag("distance_negative", 10, "distance_m is below zero; served as null."),
    Flag("distance_too_short", 10, "distance_m is well below the great circle from pick-up to drop-off."),
    Flag("implausible_speed", 15, "From pick-up to drop-off faster than 70 m/s: a time or a position is wrong."),
    Flag("fare_missing", 5, "A completed ride has no fare."),
    Flag("fare_negative", 10, "fare_cents is below zero; served as null."),
    Flag("currency_missing", 5, "There is a fare, and it is not said in which currency."),
    Flag("rating_out_of_range", 5, "The rating is not between 1 and 5; served as null."),
)
"""Every flag there is, in the order in which documents list them."""

_NAMES: Final = pa.array([flag.name for flag in FLAGS], pa.string())
_WEIGHTS: Final = np.array([flag.weight for flag in FLAGS], np.int64)


class Positions(NamedTuple):
    """Coordinates in degrees. Where one is missing or cannot be, both are NaN."""

    lat: Numbers
    lon: Numbers
    missing: Mask
    invalid: Mask


class Facts(NamedTuple):
    """What flags are raised from, one value a ride. Times in ms, distances in m."""

    status: pa.Array
    has_user: Mask
    user_known: Mask
    has_driver: Mask
    driver_known: Mask
    requested: Numbers
    accepted: Numbers
    picked_up: Numbers
    ended: Numbers
    pickup: Positions
    destination: Positions
    dropoff: Positions
    travelled_m: Numbers
    """Great circle from pick-up to drop-off."""
    distance: Numbers
    fare: Numbers
    has_currency: Mask
    rating: Numbers


def positions(lat: Numbers, lon: Numbers) -> Positions:
    """Coordinates and whether they can be: within ±90 and ±180 degrees, and not both zero."""
    missing = np.isnan(lat) | np.isnan(lon)
    possible = (np.abs(lat) <= 90) & (np.abs(lon) <= 180) & ~((lat == 0) & (lon == 0))
    return Positions(np.where(possible, lat, np.nan), np.where(possible, lon, np.nan), missing, ~missing & ~possible)


def assess(facts: Facts) -> tuple[Numbers, pa.Array]:
    """Quality and list<string> of flags of each ride."""
    raised = _raised(facts)
    masks = np.stack([raised[flag.name] for flag in FLAGS], axis=1)
    lost = np.minimum(masks @ _WEIGHTS, 100)
    offsets = pa.array(np.append(0, np.cumsum(masks.sum(axis=1))), pa.int32())
    flags = pa.ListArray.from_arrays(offsets, _NAMES.take(pa.array(np.nonzero(masks)[1])))
    return (100 - lost) / 100, flags


def _raised(ride: Facts) -> dict[str, Mask]:
    # Comparisons with NaN are false: an order of times is doubted only where both are known.
    status = ride.status.to_numpy(zero_copy_only=False)
    completed = status == "completed"
    picked_up, ended = ~np.isnan(ride.picked_up), ~np.isnan(ride.ended)
    underway = _among(status, STATUSES - FINAL)
    seconds = (ride.ended - ride.picked_up) / 1000
    return {
        "missing_user": ~ride.has_user,
        "user_unknown": ride.has_user & ~ride.user_known,
        "missing_driver": ~ride.has_driver & (_among(status, _DRIVEN) | ~np.isnan(ride.accepted) | picked_up),
        "driver_unknown": ride.has_driver & ~ride.driver_known,
        "unknown_status": ~_among(status, STATUSES),
        "requested_at_missing": np.isnan(ride.requested),
        "picked_up_at_missing": ~picked_up & (completed | (status == "in_progress")),
        "ended_at_missing": ~ended & _among(status, FINAL),
        "ended_while_underway": ended & underway,
        "accepted_before_request": ride.accepted < ride.requested,
        "pickup_before_request": ride.picked_up < ride.requested,
        "ended_before_request": ride.ended < ride.requested,
        "ended_before_pickup": ride.ended < ride.picked_up,
        "pickup_coordinates_missing": ride.pickup.missing,
        "pickup_coordinates_invalid": ride.pickup.invalid,
        "no_destination": ride.destination.missing,
        "destination_coordinates_invalid": ride.destination.invalid,
        "dropoff_coordinates_missing": ride.dropoff.missing & ended & (picked_up | completed),
        "dropoff_coordinates_invalid": ride.dropoff.invalid,
        "distance_missing": completed & np.isnan(ride.distance),
        "distance_negative": ride.distance < 0,
        "distance_too_short": (ride.distance >= 0) & (ride.distance < ride.travelled_m * _SHORTCUT - _POSITION_M),
        "implausible_speed": (seconds >= 0) & (ride.travelled_m - _POSITION_M > seconds * _FASTEST_M_S),
        "fare_missing": completed & np.isnan(ride.fare),
        "fare_negative": ride.fare < 0,
        "currency_missing": ~np.isnan(ride.fare) & ~ride.has_currency,
        "rating_out_of_range": (ride.rating < 1) | (ride.rating > 5),
    }


def _among(status: npt.NDArray[np.object_], names: frozenset[str]) -> Mask:
    found = np.zeros(len(status), bool)
    for name in names:
        found |= status == name
    return found
