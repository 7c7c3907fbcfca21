"""The application database as it lives: the rows of a world, written as its clock moves on."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from rebu_ray.simulate import tables
from rebu_ray.simulate.clock import millis, rfc3339
from rebu_ray.simulate.people import People
from rebu_ray.simulate.rides import Ride
from rebu_ray.simulate.support import Message
from rebu_ray.simulate.tables import Row
from rebu_ray.simulate.world import Hour, World

_KEYS: Final = {"users": "user_id", "drivers": "driver_id", "rides": "ride_id", "messages": "message_id"}
"""Table -> its primary key. `ride_destinations` has none: a change of destination is added and stays."""


class Step(NamedTuple):
    """What one step committed: rows by table, and the rides among them that were not there before."""

    at: int
    rows: dict[str, int]
    new_rides: list[str]


@dataclass(order=True, slots=True)
class _Change:
    """At `at` a row becomes another; `row` tells what it is at any instant from then on."""

    at: int
    number: int
    table: str = field(compare=False)
    key: object = field(compare=False)
    row: Callable[[int], Row] = field(compare=False)


class LiveDatabase:
    """The application database of a world at an instant that moves on with `step`, in SQLite or PostgreSQL.

    Each step is one short transaction, whose cost follows what has changed since the one before. Whatever the steps,
    at the end of the world the rows are those of `write_database`. A database that has lived through another world
    keeps its rows; then, as in any database, no change is stamped (`updated_at`) earlier than one before it.
    Not for two threads at once.
    """

    def __init__(self, url: str, world: World, hours: Iterable[Hour] | None = None) -> None:
        """`url` is sqlite:///FILE or postgresql://...; `hours` are those of the world where others need them too."""
        self.at = world.start - 1
        self._end = world.end
        self._engine = _engine(url)
        self._hours: Iterator[Hour] = iter(world.hours() if hours is None else hours)
        self._planned_until = world.start
        self._numbers = itertools.count()
        self._coming: list[_Change] = []
        self._begun: set[str] = set()
        _create(self._engine)
        self._newest = _newest(self._engine)
        self._plan_people(world.people)

    def __enter__(self) -> LiveDatabase:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    def step(self, at: int) -> Step:
        """Commits everything that has happened by `at` (in ms, no further than the world's end).

        Raises ValueError where the database is beyond that already.
        """
        at = min(at, self._end)
        if at < self.at:
            raise ValueError(f"the database stands at {rfc3339(self.at)}: it does not go back to {rfc3339(at)}")
        while self._planned_until <= at and (hour := next(self._hours, None)) is not None:
            self._plan(hour)
        changed: dict[tuple[str, object], _Change] = {}
        while self._coming and self._coming[0].at <= at:
            change = heapq.heappop(self._coming)
            changed[change.table, change.key] = change
        rows: dict[str, list[Row]] = {}
        for change in changed.values():
            rows.setdefault(change.table, []).append(change.row(at))
        self._stamp(rows)
        if rows:
            with self._engine.begin() as connection:
                # In the order of TABLES nothing refers to a row that comes later.
                for table in tables.TABLES:
                    if table in rows:
                        connection.execute(_UPSERTS[table], rows[table])
        self.at = at
        rides = {str(row["ride_id"]) for row in rows.get("rides", ())}
        new = sorted(rides - self._begun)
        self._begun |= rides
        return Step(at, {table: len(found) for table, found in rows.items()}, new)

    def rows(self, table: str) -> list[Row]:
        """Every row of a table as it stands, instants as text."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.text(f"SELECT * FROM {table}")).mappings().all()
        return [
            {name: rfc3339(millis(value)) if isinstance(value, datetime) else value for name, value in row.items()}
            for row in found
        ]

    def _stamp(self, rows: dict[str, list[Row]]) -> None:
        """Sees to it that `updated_at` rises from step to step, as it does by itself in a database that is new."""
        floor = rfc3339(self._newest + 1)
        for table in _KEYS:
            for row in rows.get(table, ()):
                row["updated_at"] = stamp = max(str(row["updated_at"]), floor)
                self._newest = max(self._newest, millis(datetime.fromisoformat(stamp)))

    def _plan_people(self, people: People) -> None:
        for rider in people.riders:
            whole = (rider.created_ms, rider.updated_ms)
            self._expect(whole, "users", rider.user_id, lambda at, rider=rider: tables.user_row(rider, at))
        for driver in people.drivers:
            whole = (driver.created_ms, driver.updated_ms)
            self._expect(whole, "drivers", driver.driver_id, lambda at, driver=driver: tables.driver_row(driver, at))

    def _plan(self, hour: Hour) -> None:
        for ride in hour.rides:
            self._expect(ride.moments, "rides", ride.ride_id, ride.row)
            self._plan_changes(ride)
        for message in hour.messages:
            self._expect(_moments(message), "messages", message.message_id, message.row)
        self._planned_until = hour.end

    def _plan_changes(self, ride: Ride) -> None:
        for number, change in enumerate(ride.changes):
            row = tables.destination_row(ride, change)
            self._expect((change.at,), "ride_destinations", (ride.ride_id, number), lambda _, row=row: dict(row))

    def _expect(self, moments: Iterable[int], table: str, key: object, row: Callable[..., Row]) -> None:
        for moment in moments:
            if moment <= self._end:
                heapq.heappush(self._coming, _Change(moment, next(self._numbers), table, key, row))


def create(url: str) -> None:
    """Makes the tables of the application database where they are not there yet: empty, so that a reader finds them."""
    engine = _engine(url)
    _create(engine)
    engine.dispose()


def _moments(message: Message) -> tuple[int, int]:
    return message.at, message.updated_at


def _engine(url: str) -> sa.Engine:
    place = sa.engine.make_url(url)
    if place.drivername in ("postgresql", "postgres"):
        return sa.create_engine(place.set(drivername="postgresql+psycopg"))
    engine = sa.create_engine(place)
    sa.event.listen(engine, "connect", _share)
    return engine


def _share(connection: Any, _: object) -> None:
    """With a write-ahead log readers never wait for the writer, nor the writer for them."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _create(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        for table, columns in tables.TABLES.items():
            here = columns if engine.dialect.name == "sqlite" else map(_in_postgresql, columns)
            connection.execute(sa.text(f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(here)})"))
            indexed = "updated_at" if table in _KEYS else "ride_id"
            name = f"{table}_{indexed}"
            connection.execute(sa.text(f"CREATE INDEX IF NOT EXISTS {name} ON {table} ({indexed})"))


def _in_postgresql(column: str) -> str:
    """A column of `TABLES` in PostgreSQL's words: an instant is an instant, and a REAL has eight bytes."""
    name, kind, *rest = column.split()
    kind = "TIMESTAMPTZ" if name.endswith("_at") else {"REAL": "DOUBLE PRECISION"}.get(kind, kind)
    return " ".join((name, kind, *rest))


def _newest(engine: sa.Engine) -> int:
    """The latest `updated_at` in the database; 0 where it is empty."""
    with engine.connect() as connection:
        found = [connection.execute(sa.text(f"SELECT max(updated_at) FROM {table}")).scalar() for table in _KEYS]
    moments = [datetime.fromisoformat(stamp) if isinstance(stamp, str) else stamp for stamp in found if stamp]
    return max(map(millis, moments), default=0)


def _upsert(table: str) -> sa.TextClause:
    names = [column.split()[0] for column in tables.TABLES[table]]
    values = ", ".join(f":{name}" for name in names)
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"
    if table in _KEYS:
        others = ", ".join(f"{name} = excluded.{name}" for name in names if name != _KEYS[table])
        statement += f" ON CONFLICT ({_KEYS[table]}) DO UPDATE SET {others}"
    return sa.text(statement)


_UPSERTS: Final = {table: _upsert(table) for table in tables.TABLES}
