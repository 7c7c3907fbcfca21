"""The page about databases of another shape: its SQL is run, and what the puller makes of its views."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest

from rebu_ray.ingest.appdb.table import Pace
from rebu_ray.process.documents import documents
from rebu_ray.process.ride_stats import statistics
from rebu_ray.process.tables import from_rows
from rebu_ray.records import Source
from rebu_ray.store.rows import ROWS
from tests.ingest.applications import ALWAYS, NEVER, Postgres, Session, Sqlite, names, play

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "other-databases.md"


def statements(label: str) -> list[str]:
    """The statements of a block of SQL."""
    [block] = re.findall(rf"^```sql {label}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [part for part in block.split(";\n") if part.strip()]


def test_tables_of_another_shape_in_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    for statement in [*statements("postgresql-tables"), *statements("postgresql-views")]:
        postgres.execute(statement)
    postgres.url += "&options=-csearch_path%3Drebu"
    # Their own tables of the same names are not ours.
    postgres.execute("CREATE TABLE rides (ride_id text, requested_at timestamptz)")
    postgres.execute("INSERT INTO rides VALUES ('theirs', now())")
    for statement in (
        "INSERT INTO towns VALUES (1, 'Riga', '2026-01-01Z')",
        "INSERT INTO accounts VALUES (17, 'Ada', 'L.', 'a@example.org', '+371 1', '2026-01-01Z', '2026-01-01Z')",
        "INSERT INTO chauffeurs VALUES (3, 'Bo', 4.75, '2026-01-01Z', '2026-01-01Z')",
        "INSERT INTO cars VALUES (3, 'AB-1', 'Dacia', '2026-01-02Z')",
        "INSERT INTO trips VALUES (5, 17, 3, 1, 8, '2026-03-01 10:00:00+02', '2026-03-01 08:01:00Z', "
        "'2026-03-01 08:05:00Z', '2026-03-01 08:20:00Z', '(24.1,56.95)', '(24.1,57.05)', '(24.1,56.96)', 12.3456, "
        "8.405, 'EUR', 2, '2026-03-01 08:21:00Z')",
        "INSERT INTO trip_goals VALUES (5, '2026-03-01 08:10:00Z', '(24.1,57.0)')",
        "INSERT INTO tickets VALUES (9, 17, 'phone', false, '2026-03-01 09:00:00Z', NULL, 'The car never came', 5, "
        "'00000000-0000-0000-0000-000000000001', '2026-03-01 09:00:00Z')",
    ):
        postgres.execute(statement)

    async def scene(session: Session) -> None:
        shards = await session.settle()
        assert not shards.refusals
        [ride] = shards.bodies()
        assert ride == {
            "ride_id": "trip-5", "user_id": "rider-17", "driver_id": "driver-3", "city": "Riga",
            "status": "cancelled_by_driver", "requested_at": "2026-03-01T08:00:00.000Z",
            "accepted_at": "2026-03-01T08:01:00.000Z", "picked_up_at": "2026-03-01T08:05:00.000Z",
            "ended_at": "2026-03-01T08:20:00.000Z", "pickup_lat": 56.95, "pickup_lon": 24.1, "destination_lat": 57.05,
            "destination_lon": 24.1, "dropoff_lat": 56.96, "dropoff_lon": 24.1, "distance_m": 12346, "fare_cents": 841,
            "currency": "EUR", "rating": 2, "updated_at": "2026-03-01T08:21:00.000Z",
        }  # fmt: skip
        [driver] = shards.bodies(Source.DRIVERS)
        assert (driver["vehicle_plate"], driver["updated_at"]) == ("AB-1", "2026-01-02T00:00:00.000Z")
        [message] = shards.bodies(Source.MESSAGES)
        assert (message["ride_id"], message["channel"], message["direction"]) == ("trip-5", "voice", "inbound")
        [document] = computed(session)
        assert (document["premature"], document["cause"]) == (True, "driver")
        assert document["destination_gap_m"] == pytest.approx(4448, abs=1)
        assert document["flags"] == []
        # A table behind the view changes, and the row with it; a row goes, and is missed.
        postgres.execute("UPDATE towns SET name = 'Jurmala', modified = '2026-03-02Z'")
        await session.settle()
        assert shards.latest()["rider-17", "trip-5"]["city"] == "Jurmala"
        postgres.execute("DELETE FROM trip_goals")
        postgres.execute("DELETE FROM trips")
        assert names(await session.settle()) == []

    play(postgres, tmp_path, scene)


@pytest.mark.parametrize("pace", [ALWAYS, NEVER])
def test_tables_of_another_shape_in_sqlite(sqlite: Sqlite, tmp_path: Path, pace: Pace) -> None:
    for statement in [*statements("sqlite-tables"), *statements("sqlite-views")]:
        sqlite.execute(statement)
    sqlite.execute("INSERT INTO towns VALUES (1, 'Riga', 1)")
    sqlite.execute("INSERT INTO accounts VALUES (17, 'Ada', NULL, NULL, NULL, 1772352000, 1772352000)")
    sqlite.execute(
        "INSERT INTO trips VALUES (5, 17, NULL, 1, 0, 1772352000, NULL, NULL, NULL, 56.95, 24.1, 57.05, 24.1, NULL, "
        "NULL, NULL, NULL, NULL, 1772352000)"
    )

    async def scene(session: Session) -> None:
        shards = await session.settle()
        assert not shards.refusals
        [user] = shards.bodies(Source.USERS)
        assert (user["user_id"], user["name"]) == ("rider-17", "Ada")
        [ride] = shards.bodies()
        assert (ride["driver_id"], ride["status"], ride["accepted_at"]) == (None, "requested", None)
        assert (ride["requested_at"], ride["updated_at"]) == ("2026-03-01T08:00:00.000Z",) * 2
        sqlite.execute("UPDATE trips SET state = 42, price = 12.5, modified = 1772352060 WHERE id = 5")
        await session.settle()
        newest = shards.latest()["rider-17", "trip-5"]
        assert (newest["status"], newest["fare_cents"]) == ("state 42", 1250)

    play(sqlite, tmp_path, scene, pace)


def computed(session: Session) -> list[dict[str, Any]]:
    """The documents of what has arrived."""
    rows = [
        {field.name: getattr(record, field.name, None) for field in ROWS} | {"kind": str(record.kind)}
        for record in session.shards.records.values()
    ]
    columns = ["kind", "name", "id", "user_id", "body", "event_time", "received_at"]
    table = pa.table({name: pa.array([row[name] for row in rows], ROWS.field(name).type) for name in columns})
    found: list[dict[str, Any]] = documents(statistics(from_rows(table))).to_pylist()
    return found
