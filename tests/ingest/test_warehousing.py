"""The warehouse of a data dir on which no platform runs, against the application database and against the lake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rebu_ray.cli import app
from rebu_ray.ingest.warehouse_tasks import load_warehouse, verify_warehouse
from rebu_ray.records import Source
from rebu_ray.settings import Settings
from rebu_ray.store.warehouse.schema import WarehouseError
from tests.ingest.applications import Sqlite
from tests.records import NOW, said
from tests.ride_documents import Rides, Said
from tests.store.warehouses import House, ride_row, row, user

DAY = 86_400_000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def fill(house: House, application: Sqlite) -> None:
    """The same rows in lake and database."""
    rides = Rides()
    ride: dict[str, Any] = {"city": "berlin", "status": "completed", "driver_id": "d1", "currency": "EUR"}
    driver = {"driver_id": "d1", "name": "Dan", "updated_at": NOW}
    house.write(user("ada", NOW, name="Ada"), row(Source.DRIVERS, driver), said("ada", "1"))
    for number in range(4):
        at = NOW + number * DAY
        house.write(ride_row(f"r{number}", requested_at=at, **ride))
        house.write(rides.computed(Said(f"r{number}", requested_at=at)))
        application.put("rides", ride_id=f"r{number}", user_id="ada", requested_at=at, updated_at=NOW, **ride)
    application.put("users", user_id="ada", name="Ada", updated_at=NOW)
    application.put("drivers", **driver)


def test_days_and_rows_that_differ_are_named(house: House, sqlite: Sqlite, tmp_path: Path) -> None:
    sqlite.create()
    fill(house, sqlite)
    own = Settings(data_dir=str(tmp_path), partitions=4)
    both = Settings(data_dir=str(tmp_path), partitions=4, appdb_url=sqlite.url)
    with pytest.raises(WarehouseError, match="rebu warehouse load"):
        verify_warehouse(own)
    assert load_warehouse(own).rides == 4
    for settings in (own, both):
        found = verify_warehouse(settings)
        assert (found.equal, found.rules, found.examples) == (True, [], {})
        rides = [day for day in found.days if day.table == "rides"]
        assert [(day.date, day.source_rows, day.warehouse_rows) for day in rides] == [
            (f"2026-03-0{2 + number}", 1, 1) for number in range(4)
        ]
    sqlite.execute("DELETE FROM rides WHERE ride_id = 'r0'")
    sqlite.execute("UPDATE rides SET status = 'failed' WHERE ride_id = 'r2'")
    sqlite.put("users", user_id="new", name="New", updated_at=NOW)
    found = verify_warehouse(both)
    assert not found.equal
    assert found.examples == {"rides": ["r0", "r2"], "users": ["new"]}
    wrong = [(day.table, day.date, day.source_rows, day.warehouse_rows) for day in found.days if not day.equal]
    assert sorted(wrong) == [
        ("rides", "2026-03-02", 0, 1),
        ("rides", "2026-03-04", 1, 1),
        ("users", "2026-03-02", 2, 1),
    ]
    assert verify_warehouse(own).equal


def test_a_table_that_does_not_say_when_rows_changed_is_compared_without(
    house: House, sqlite: Sqlite, tmp_path: Path
) -> None:
    sqlite.execute("CREATE TABLE users (user_id, name)")
    sqlite.execute("INSERT INTO users VALUES ('ada', 'Ada'), ('bob', 'Bob')")
    house.write(
        row(Source.USERS, {"user_id": "ada", "name": "Ada"}), row(Source.USERS, {"user_id": "bob", "name": "B"})
    )
    settings = Settings(data_dir=str(tmp_path), partitions=4, appdb_url=sqlite.url)
    load_warehouse(settings)
    assert verify_warehouse(settings).examples == {"users": ["bob"]}


def test_the_commands_say_what_they_did(house: House, sqlite: Sqlite, tmp_path: Path) -> None:
    sqlite.create()
    fill(house, sqlite)
    here = ["--data-dir", str(tmp_path)]

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words, *here])
        return done.exit_code, done.output

    assert run("warehouse", "path") == (0, f"{house.path}\n")
    status, said = run("warehouse", "load")
    assert status == 0
    assert "no platform runs" in said
    assert "4 rides" in said
    assert "up to date already" in run("warehouse", "load")[1]
    assert "rebuilt" in run("warehouse", "load", "--rebuild")[1]
    status, said = run("warehouse", "verify", "--appdb", sqlite.url)
    assert (status, " NO" in said) == (0, False)
    sqlite.execute("DELETE FROM rides WHERE ride_id = 'r3'")
    status, said = run("warehouse", "verify", "--appdb", sqlite.url)
    assert (status, " NO" in said) == (1, True)
    assert "rides that differ, for example: r3" in said
    [note] = house.rows("SELECT max(load_id) AS loads FROM meta.loads")
    assert json.dumps(note) == '{"loads": 1}'
