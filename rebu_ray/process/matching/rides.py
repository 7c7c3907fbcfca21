"""A ride as its rider may speak of it: what of a row of statistics the matching needs, made comparable once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Final

from rebu_ray.process.matching.names import bare
from rebu_ray.process.matching.trouble import evidence
from rebu_ray.process.matching.zones import hours_at, zone_of

COLUMNS: Final = (
    "ride_id", "user_id", "user_name", "driver_id", "driver_name", "city", "status", "requested_at", "accepted_at",
    "picked_up_at", "ended_at", "fare_cents", "wait_s", "destination_matched", "premature", "errors_app",
    "errors_server", "pickup_lon",
)  # fmt: skip
"""What is read of RIDE_STATS."""
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Ride:
    """A candidate. Times in ms; `until` is its end, or where it is not known an hour after the request."""

    ride_id: str
    code: str
    driver_name: str | None
    plate: str | None
    vehicle: str | None
    city: str | None
    zone: tzinfo
    status: str | None
    requested_at: int
    ended_at: int | None
    until: int
    day: date
    fare_cents: int | None
    wait_s: float | None
    shows: frozenset[str]


def ride(row: dict[str, Any], driver: dict[str, Any] | None) -> Ride:
    """A row of RIDE_STATS with a request time, and its driver's row of DRIVERS."""
    requested_at, ended_at = int(row["requested_at"]), row["ended_at"]
    zone = zone_of(row["city"], hours_at(row["pickup_lon"]))
    until = ended_at if ended_at is not None and ended_at >= requested_at else requested_at + _HOUR_MS
    return Ride(
        ride_id=row["ride_id"],
        code=code_of(row["ride_id"]),
        driver_name=(driver or {}).get("name") or row["driver_name"],
        plate=(driver or {}).get("vehicle_plate"),
        vehicle=(driver or {}).get("vehicle_model"),
        city=row["city"],
        zone=zone,
        status=row["status"],
        requested_at=requested_at,
        ended_at=ended_at,
        until=until,
        day=local(requested_at, zone).date(),
        fare_cents=row["fare_cents"],
        wait_s=row["wait_s"],
        shows=evidence(
            status=row["status"],
            premature=bool(row["premature"]),
            destination_matched=row["destination_matched"],
            errors=(row["errors_app"] or 0) + (row["errors_server"] or 0),
            accepted=row["accepted_at"] is not None,
            picked_up=row["picked_up_at"] is not None,
            ended=ended_at is not None,
            fare_cents=row["fare_cents"],
            wait_s=row["wait_s"],
            span_s=(until - requested_at) / 1000 if ended_at is not None else None,
        ),
    )


def code_of(ride_id: str) -> str:
    """An id without signs, in small letters: how it is compared with what somebody typed or spelt."""
    return "".join(c for c in ride_id.casefold() if c.isalnum())


def local(ms: int, zone: tzinfo) -> datetime:
    """The instant on the clocks of `zone`."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)


def names_of(name: str | None) -> frozenset[str]:
    """The parts of a person's name, made comparable."""
    return frozenset(bare(part) for part in (name or "").split())
