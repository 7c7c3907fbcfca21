"""The application database as it lives."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import dict_row

from rebu_ray.simulate import World, write_database
from rebu_ray.simulate.clock import HOUR, MINUTE, rfc3339
from rebu_ray.simulate.live import LiveDatabase, Step, create
from rebu_ray.simulate.tables import TABLES

RIDERS, HOURS = 40, 5.5
Rows = dict[str, list[dict[str, Any]]]


def read(path: Path) -> Rows:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in TABLES}
    connection.close()
    return {table: sorted(rows, key=lambda row: tuple(row.values())[:2]) for table, rows in found.items()}


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def lived(path: Path, seed: int, instants: list[int]) -> list[Step]:
    """The steps of a world's database; instants are in ms from the world's start."""
    world = World(RIDERS, HOURS, seed)
    with LiveDatabase(url(path), world) as database:
        return [database.step(world.start + instant) for instant in [*instants, round(HOURS * HOUR)]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rebu-live-") as name:
        yield Path(name)


@cache
def at_once(seed: int) -> Rows:
    """What is written of a world at once."""
    with tempfile.TemporaryDirectory(prefix="rebu-live-") as name:
        return read(write_database(Path(name) / "once.sqlite", RIDERS, HOURS, seed).path)


instants = st.lists(st.integers(0, round(HOURS * HOUR)), max_size=40).map(sorted)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), instants)
def test_at_the_end_it_is_what_would_have_been_written_at_once(seed: int, steps: list[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="rebu-live-") as name:
        done = lived(Path(name) / "live.sqlite", seed, steps)
        assert read(Path(name) / "live.sqlite") == at_once(seed)
    assert at_once(seed)["messages"]
    new = [ride for step in done for ride in step.new_rides]
    assert len(new) == len(set(new)) == len(at_once(seed)["rides"]) > 0


def test_every_row_is_as_it_was_at_the_instant(folder: Path) -> None:
    """Each step writes what changed since the one before and nothing else, stamped with when it changed."""
    world = World(RIDERS, HOURS, 2)
    hours = list(world.hours())
    rides = {ride.ride_id: ride for hour in hours for ride in hour.rides}
    messages = {message.message_id: message for hour in hours for message in hour.messages}
    statuses: dict[str, list[str]] = {}
    before: dict[tuple[str, str], dict[str, Any]] = {}
    with LiveDatabase(url(folder / "live.sqlite"), world, hours) as database:
        for at in range(world.start, world.end + 1, 10 * MINUTE):
            step = database.step(at)
            found = read(folder / "live.sqlite")
            assert found["rides"] == sorted(
                (ride.row(at) for ride in rides.values() if ride.requested_at <= at),
                key=lambda row: str(row["ride_id"]),
            )
            assert [row["message_id"] for row in found["messages"]] == sorted(
                message.message_id for message in messages.values() if message.at <= at
            )
            assert all(row["created_at"] <= rfc3339(at) for row in found["users"])
            now = {
                (table, str(next(iter(row.values())))): row
                for table, rows in found.items()
                if table != "ride_destinations"
                for row in rows
            }
            changed = {key: row for key, row in now.items() if before.get(key) != row}
            assert {table: count for table, count in step.rows.items() if table != "ride_destinations"} == {
                table: count
                for table in TABLES
                if (count := sum(key[0] == table for key in changed)) and table != "ride_destinations"
            }
            if before:
                since = rfc3339(at - 10 * MINUTE)
                assert all(since < row["updated_at"] <= rfc3339(at) for row in changed.values())
            before = now
            for row in found["rides"]:
                statuses.setdefault(row["ride_id"], []).append(row["status"])
    seen = {tuple(dict.fromkeys(passed)) for passed in statuses.values()}
    assert any(passed[-2:] == ("in_progress", "completed") for passed in seen)
    assert any(passed[0] in ("requested", "accepted") for passed in seen)


def test_a_step_costs_what_changed(folder: Path) -> None:
    """A step in which nothing happens writes nothing, however much there is."""
    world = World(RIDERS, HOURS, 2)
    with LiveDatabase(url(folder / "live.sqlite"), world) as database:
        first = database.step(world.start)
        assert first.rows["drivers"] > 0
        assert 0 < first.rows["users"] <= RIDERS
        steps = [database.step(at) for at in range(world.start, world.end, MINUTE)]
        assert steps[0].rows == {}
        assert sum(step.rows.get("users", 0) + step.rows.get("drivers", 0) for step in steps) < RIDERS / 2
        assert max(sum(step.rows.values()) for step in steps) < 20


def test_a_reader_in_the_middle_keeps_what_it_sees_and_holds_nobody_up(folder: Path) -> None:
    path = folder / "live.sqlite"
    world = World(RIDERS, HOURS, 3)
    with LiveDatabase(url(path), world) as database:
        database.step(world.start + HOUR)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        count = "SELECT count(*) FROM rides"
        before = reader.execute(count).fetchone()
        assert database.step(world.end).new_rides
        assert reader.execute(count).fetchone() == before
        reader.execute("COMMIT")
        assert reader.execute(count).fetchone() > before
        reader.close()


def test_time_runs_one_way_and_ends_with_the_world(folder: Path) -> None:
    world = World(RIDERS, HOURS, 1)
    with LiveDatabase(url(folder / "live.sqlite"), world) as database:
        assert database.step(world.end + 90 * HOUR).at == world.end
        with pytest.raises(ValueError, match="does not go back"):
            database.step(world.end - 1)
        assert database.step(world.end).rows == {}


def test_tables_can_be_made_before_anything_happens(folder: Path) -> None:
    path = folder / "live.sqlite"
    for _ in range(2):
        create(url(path))
        assert read(path) == {table: [] for table in TABLES}
    once = write_database(folder / "once.sqlite", RIDERS, HOURS, 1)
    lived(path, 1, [])
    assert read(path) == read(once.path)


def test_a_second_world_adds_to_a_database_and_is_stamped_later(folder: Path) -> None:
    """Of two mornings at the same time the second is still news to whoever read the first."""
    path = folder / "live.sqlite"
    lived(path, 1, [HOUR])
    first = read(path)
    last = max(row["updated_at"] for table in ("users", "drivers", "rides", "messages") for row in first[table])
    world = World(RIDERS, HOURS, 2)
    with LiveDatabase(url(path), world) as database:
        for at in (world.start, world.start + HOUR, world.start + 2 * HOUR, world.end):
            database.step(at)
            rows = read(path)
            changed = [
                row for table in ("users", "drivers", "rides", "messages") for row in rows[table]
                if row not in first[table]
            ]  # fmt: skip
            assert all(row["updated_at"] > last for row in changed)
            first, last = rows, max([last, *(row["updated_at"] for row in changed)])
    once = read(write_database(folder / "once.sqlite", RIDERS, HOURS, 2).path)
    for table in ("users", "rides", "messages"):
        found = [{**row, "updated_at": None} for row in read(path)[table]]
        assert all({**row, "updated_at": None} in found for row in once[table])


SERVER = """
import sys
from pgserver.postgres_server import get_server
with get_server(sys.argv[1], cleanup_mode="stop") as server:
    print(server.get_uri(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own, run by a process that keeps what pgserver notes down in the folder too."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder / "pg")],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.communicate(timeout=60)


def test_postgresql_holds_the_same(folder: Path, postgresql: str) -> None:
    once = read(write_database(folder / "once.sqlite", RIDERS, HOURS, 2).path)
    world = World(RIDERS, HOURS, 2)
    with LiveDatabase(postgresql, world) as database:
        for at in range(world.start, world.end + HOUR, HOUR):
            database.step(at)
        assert sorted(str(row["message_id"]) for row in database.rows("messages")) == [
            row["message_id"] for row in once["messages"]
        ]
    with psycopg.connect(postgresql, row_factory=dict_row) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table in TABLES:
            found = [
                {
                    name: rfc3339(round(value.timestamp() * 1000)) if name.endswith("_at") and value else value
                    for name, value in row.items()
                }
                for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
            ]
            assert sorted(found, key=lambda row: tuple(row.values())[:2]) == once[table]
