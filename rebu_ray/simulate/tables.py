"""The application database: its tables, and the rows of a world."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from rebu_ray.simulate.clock import rfc3339
from rebu_ray.simulate.people import Driver, People, Rider
from rebu_ray.simulate.rides import DestinationChange, Ride

Row = dict[str, str | int | float | None]

TABLES: Final[dict[str, tuple[str, ...]]] = {
    "users": (
        "user_id TEXT PRIMARY KEY", "name TEXT", "email TEXT", "phone TEXT", "created_at TEXT NOT NULL",
        "updated_at TEXT NOT NULL",
    ),
    "drivers": (
        "driver_id TEXT PRIMARY KEY", "name TEXT", "vehicle_plate TEXT", "vehicle_model TEXT", "rating REAL",
        "created_at TEXT NOT NULL", "updated_at TEXT NOT NULL",
    ),
    "rides": (
        "ride_id TEXT PRIMARY KEY", "user_id TEXT NOT NULL", "driver_id TEXT", "city TEXT", "status TEXT NOT NULL",
        "requested_at TEXT NOT NULL", "accepted_at TEXT", "picked_up_at TEXT", "ended_at TEXT", "pickup_lat REAL",
        "pickup_lon REAL", "destination_lat REAL", "destination_lon REAL", "dropoff_lat REAL", "dropoff_lon REAL",
        "distance_m INTEGER", "fare_cents INTEGER", "currency TEXT", "rating INTEGER", "updated_at TEXT NOT NULL",
    ),
    "ride_destinations": (
        "ride_id TEXT NOT NULL", "changed_at TEXT NOT NULL", "destination_lat REAL", "destination_lon REAL",
    ),
    "messages": (
        "message_id TEXT PRIMARY KEY", "user_id TEXT", "channel TEXT NOT NULL", "direction TEXT NOT NULL",
        "sent_at TEXT NOT NULL", "subject TEXT", "body TEXT NOT NULL", "ride_id TEXT", "thread_id TEXT",
        "updated_at TEXT NOT NULL",
    ),
}  # fmt: skip
"""Column definitions of each table, in order."""


def user_row(rider: Rider, at: int) -> Row:
    """The row of a rider as it is at `at` (not before the signing up)."""
    return {
        "user_id": rider.user_id,
        "name": rider.name,
        "email": rider.email,
        "phone": rider.phone_number,
        "created_at": rfc3339(rider.created_ms),
        "updated_at": rfc3339(rider.updated_ms if rider.updated_ms <= at else rider.created_ms),
    }


def driver_row(driver: Driver, at: int) -> Row:
    """The row of a driver as it is at `at` (not before the first day)."""
    return {
        "driver_id": driver.driver_id,
        "name": driver.name,
        "vehicle_plate": driver.plate,
        "vehicle_model": driver.vehicle,
        "rating": driver.rating,
        "created_at": rfc3339(driver.created_ms),
        "updated_at": rfc3339(driver.updated_ms if driver.updated_ms <= at else driver.created_ms),
    }


def destination_row(ride: Ride, change: DestinationChange) -> Row:
    return {
        "ride_id": ride.ride_id,
        "changed_at": rfc3339(change.at),
        "destination_lat": change.point[0],
        "destination_lon": change.point[1],
    }


def user_rows(people: People, at: int) -> Iterator[Row]:
    """Users who have signed up by `at`."""
    return (user_row(rider, at) for rider in people.riders if rider.created_ms <= at)


def driver_rows(people: People, at: int) -> Iterator[Row]:
    """Drivers who have begun by `at`."""
    return (driver_row(driver, at) for driver in people.drivers if driver.created_ms <= at)


def destination_rows(rides: Iterable[Ride], at: int) -> Iterator[Row]:
    """The changes of destination that have happened by `at`."""
    return (destination_row(ride, change) for ride in rides for change in ride.changes if change.at <= at)


class AppDatabase:
    """A new application database in SQLite; a context, within which rows are added."""

    def __init__(self, path: Path) -> None:
        """Raises FileExistsError where `path` is: a database is not written over."""
        if path.exists():
            raise FileExistsError(f"{path} exists already")
        self._connection = sqlite3.connect(path)

    def __enter__(self) -> AppDatabase:
        for table, columns in TABLES.items():
            self._connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
            if table != "ride_destinations":
                self._connection.execute(f"CREATE INDEX {table}_updated_at ON {table} (updated_at)")
        self._connection.execute("CREATE INDEX ride_destinations_ride_id ON ride_destinations (ride_id)")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.commit()
        finally:
            self._connection.close()

    def add(self, table: str, rows: Iterable[Row]) -> int:
        """Adds rows; how many."""
        names = [column.split()[0] for column in TABLES[table]]
        values = [tuple(row[name] for name in names) for row in rows]
        marks = ", ".join("?" * len(names))
        self._connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", values)
        return len(values)
