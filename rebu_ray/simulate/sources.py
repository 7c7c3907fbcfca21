"""The data sources of some simulated days, as files."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from rebu_ray.simulate import faults, tables
from rebu_ray.simulate.identifiers import generator
from rebu_ray.simulate.phones import Item, Parcel
from rebu_ray.simulate.support import Message
from rebu_ray.simulate.world import Hour, World

DATABASE: Final = "app.sqlite"
TRUTH: Final = "truth.parquet"
FILES: Final = {
    "app-events": "app-events.ndjson.gz",
    "app-errors": "app-errors.ndjson.gz",
    "access": "access.log.gz",
    "error": "error.log.gz",
}
"""Source -> its file."""
_DAMAGED_SHARE: Final = 0.0005
_TRUTH_SCHEMA: Final = pa.schema(
    [pa.field("message_id", pa.string(), nullable=False), pa.field("ride_id", pa.string())]
)

Progress = Callable[[str, float], None]
"""Told what is being done and how much of it, 0 to 1."""


@dataclass(slots=True)
class SourceCount:
    """Lines of one file: all of them, those that must be refused (and why), and those that repeat an earlier one."""

    records: int = 0
    bad: int = 0
    duplicates: int = 0
    bad_by_kind: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class SourcesSummary:
    """What `write_sources` wrote. `tables` counts the rows of the database; times in ms."""

    out: Path
    start: int
    end: int
    sources: dict[str, SourceCount]
    tables: dict[str, int]
    messages_about_a_ride: int


@dataclass(slots=True)
class DatabaseSummary:
    """What is in a database of `write_database`: rows by table, and the ride that each message is about, if any."""

    path: Path
    tables: dict[str, int]
    truth: dict[str, str | None]


def with_sent_at(item: Item, sent_at: str | None) -> bytes:
    """The record of a phone with `sentAt` as its last key, where there is one and the record is an object."""
    if sent_at is None or not item.raw.endswith(b"}"):
        return item.raw
    return b'%b,"sentAt":"%b"}' % (item.raw[:-1], sent_at.encode())


def write_sources(
    out: Path, riders: int, days: float, seed: int, start: datetime | None = None, progress: Progress | None = None
) -> SourcesSummary:
    """Writes the data sources of `riders` riders over `days` days into `out`, which must not hold any yet.

    The records of a file are in the order in which they would have come in. The database is as it stands at the end
    of the simulated time. About one phone in five says `sentAt`, among them all whose clock is wrong: the times of
    their records depend on when they are received, those of all others are their own.

    Raises FileExistsError where one of the files is there already, ValueError without riders or days.
    """
    world = World(riders, days * 24, seed, start, sent_at="some")
    out.mkdir(parents=True, exist_ok=True)
    for name in (DATABASE, TRUTH, *FILES.values()):
        if (out / name).exists():
            raise FileExistsError(f"{out / name} exists already: give an empty directory")
    summary = SourcesSummary(
        out, world.start, world.end, {name: SourceCount() for name in FILES}, dict.fromkeys(tables.TABLES, 0), 0
    )
    rng = generator(seed, "files")
    truth: list[Message] = []
    with ExitStack() as stack:
        files = {source: stack.enter_context(_gzip(out / name)) for source, name in FILES.items()}
        database = stack.enter_context(tables.AppDatabase(out / DATABASE))
        _add_people(database, summary.tables, world)
        for hour in world.hours():
            for parcel in hour.parcels:
                _write_parcel(files[parcel.source], summary.sources[parcel.source], parcel, rng)
            for line in hour.lines:
                _write_line(files[line.log], summary.sources[line.log], line.raw, line.bad)
            _add_rows(database, summary.tables, hour, world.end)
            truth += hour.messages
            if progress is not None:
                progress("simulating", (hour.end - world.start) / (world.end - world.start))
    columns = {"message_id": [message.message_id for message in truth], "ride_id": [message.truth for message in truth]}
    pq.write_table(pa.table(columns, schema=_TRUTH_SCHEMA), out / TRUTH, compression="zstd")
    summary.messages_about_a_ride = sum(message.truth is not None for message in truth)
    return summary


def write_database(
    path: Path, riders: int, hours: float, seed: int, start: datetime | None = None, start_ms: int | None = None
) -> DatabaseSummary:
    """Writes the application database that belongs to `uploads` with the same arguments, as it stands at the end.

    Raises FileExistsError where `path` is there already, ValueError without riders or hours.
    """
    world = World(riders, hours, seed, start, start_ms)
    summary = DatabaseSummary(path, dict.fromkeys(tables.TABLES, 0), {})
    with tables.AppDatabase(path) as database:
        _add_people(database, summary.tables, world)
        for hour in world.hours():
            _add_rows(database, summary.tables, hour, world.end)
            summary.truth.update((message.message_id, message.truth) for message in hour.messages)
    return summary


@contextmanager
def _gzip(path: Path) -> Iterator[gzip.GzipFile]:
    """A gzip file whose bytes depend on its content alone: no name, no time of writing."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
        yield packed


def _write_line(file: gzip.GzipFile, count: SourceCount, raw: bytes, bad: str | None) -> None:
    file.write(raw + b"\n")
    count.records += 1
    if bad is not None:
        count.bad += 1
        count.bad_by_kind[bad] += 1


def _write_parcel(file: gzip.GzipFile, count: SourceCount, parcel: Parcel, rng: Random) -> None:
    for item in parcel.items:
        raw = with_sent_at(item, parcel.sent_at)
        _write_line(file, count, raw, item.bad)
        count.duplicates += parcel.again and item.bad is None
        if rng.random() < _DAMAGED_SHARE:
            # Half a line or none: a collector that died while it wrote, and wrote the record again.
            kind, damaged = faults.damaged_json(rng, raw)
            _write_line(file, count, damaged, kind)


def _add_people(database: tables.AppDatabase, rows: dict[str, int], world: World) -> None:
    rows["users"] += database.add("users", tables.user_rows(world.people, world.end))
    rows["drivers"] += database.add("drivers", tables.driver_rows(world.people, world.end))


def _add_rows(database: tables.AppDatabase, rows: dict[str, int], hour: Hour, at: int) -> None:
    rows["rides"] += database.add("rides", (ride.row(at) for ride in hour.rides))
    rows["ride_destinations"] += database.add("ride_destinations", tables.destination_rows(hour.rides, at))
    rows["messages"] += database.add("messages", (message.row(at) for message in hour.messages))
