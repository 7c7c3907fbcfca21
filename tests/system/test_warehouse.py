"""The warehouse of a running platform: loaded from its database and lake, asked in SQL, verified, and cleaned."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rebu_ray.client import Rebu, RebuError
from rebu_ray.simulate.tables import TABLES
from tests.store.warehouses import read
from tests.system.running import Running, await_true, rebu

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


class Application:
    """The application, which writes to its database."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, f"sqlite:///{path}"
        self.connection = sqlite3.connect(path, isolation_level=None)
        for name, columns in TABLES.items():
            self.connection.execute(f"CREATE TABLE {name} ({', '.join(columns)})")

    def add(self, table: str, **values: Any) -> None:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self.connection.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", list(values.values()))

    def count(self, table: str) -> int:
        return int(self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def at(minute: int) -> str:
    return f"2026-03-01T08:{minute:02d}:00.000Z"


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    made = Application(tmp_path / "app.sqlite")
    made.connection.execute("BEGIN")
    for number in range(40):
        made.add("users", user_id=f"u{number}", name=f"User {number}", created_at=at(0), updated_at=at(0))
    for number in range(5):
        made.add(
            "drivers", driver_id=f"d{number}", name=f"Driver {number}", rating=4.5, created_at=at(0), updated_at=at(0)
        )
    for number in range(200):
        made.add(
            "rides",
            ride_id=f"r{number}",
            user_id=f"u{number % 40}",
            driver_id=f"d{number % 5}",
            city="Riga",
            status="completed",
            requested_at=at(number % 50),
            picked_up_at=at(number % 50 + 1),
            ended_at=at(number % 50 + 9),
            pickup_lat=56.95,
            pickup_lon=24.1,
            fare_cents=number,
            updated_at=at(59),
        )
    made.add(
        "messages",
        message_id="m1", user_id="u1", channel="chat", direction="inbound", sent_at=at(55), body="about ride r1",
        updated_at=at(55),
    )  # fmt: skip
    made.connection.execute("COMMIT")
    yield made
    made.connection.close()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "data", REBU_FLUSH_SECONDS="100000", REBU_WAREHOUSE_SECONDS="0", REBU_SQL_ROWS="150")
    yield made
    made.clean_up()


def test_load_ask_verify_and_erase(platform: Running, application: Application) -> None:
    platform.start("--appdb", application.url)
    here = ("--data-dir", platform.data_dir)
    with Rebu(platform.url, platform.admin_key) as client:
        refused = platform.post("/v1/sql", {"sql": "SELECT 1"}, key=platform.read_key)
        assert (refused.status_code, refused.json()["code"]) == (503, "no_warehouse")
        assert rebu("warehouse", "verify", *here).returncode == 0  # which loads first
        path = Path(rebu("warehouse", "path", *here).stdout.strip())
        assert path == platform.data_dir / "warehouse.duckdb"
        _loaded(path, application)
        _asked(platform, client)
        _changed(platform, application, path)
        _retyped(platform, application, path)
        # An erased person is in no table, and not in the bytes of the file either.
        assert b"u7" in path.read_bytes()
        client.erase("u7")
        await_true(lambda: client.erasure("u7")["status"] == "erased", "the erasure to be complete")
        assert read(path, "FROM dim_user WHERE user_id = 'u7'") == []
        assert read(path, "FROM fact_ride WHERE user_id = 'u7'") == []
        assert b"User 7\x00" not in path.read_bytes()
        assert client.status()["warehouse"]["detail"] is None
    assert platform.stop() == 0
    # Without a platform: the lake as it is, against the database.
    done = rebu("warehouse", "load", *here)
    assert done.returncode == 0, done.stderr
    assert "no platform runs" in done.stderr
    done = rebu("warehouse", "verify", *here, "--appdb", application.url)
    assert done.returncode == 0, done.stdout + done.stderr
    application.add("drivers", driver_id="d9", name="New", created_at=at(0), updated_at=at(0))
    done = rebu("warehouse", "verify", *here, "--appdb", application.url)
    assert done.returncode == 1
    assert "drivers that differ, for example: d9" in done.stderr


def _loaded(path: Path, application: Application) -> None:
    assert [r["n"] for r in read(path, "SELECT count(*) AS n FROM fact_ride")] == [200]
    for table in ("user", "driver"):
        [found] = read(path, f"SELECT count(*) AS n FROM dim_{table} WHERE is_current")
        assert found["n"] == application.count(f"{table}s")
    [joined] = read(
        path,
        "SELECT count(*) AS n, sum(fare_cents)::BIGINT AS fares FROM fact_ride JOIN dim_user USING (user_key) "
        "JOIN dim_driver USING (driver_key) JOIN dim_date USING (date_key) JOIN dim_zone ON zone_key = pickup_zone_key",
    )
    assert joined == {"n": 200, "fares": sum(range(200))}
    [message] = read(path, "SELECT message_id, link_status, ride_id FROM fact_message")
    assert message["message_id"] == "m1"


def _asked(platform: Running, client: Rebu) -> None:
    found = list(client.sql("SELECT city, count(*) AS rides FROM fact_ride GROUP BY city"))
    assert found == [{"city": "Riga", "rides": 200}]
    assert client.sql("SELECT ride_id FROM fact_ride LIMIT 3").to_pandas().shape == (3, 1)
    with pytest.raises(RebuError, match="fact_ride") as refused:
        list(client.sql("FROM fact_rides"))
    assert (refused.value.status, refused.value.code) == (400, "invalid_sql")
    here = ("--data-dir", platform.data_dir)
    done = rebu("sql", "SELECT ride_id FROM fact_ride ORDER BY ride_id", *here)
    assert done.returncode == 0
    wanted = sorted(f"r{number}" for number in range(200))[:150]
    assert [json.loads(line)["ride_id"] for line in done.stdout.splitlines()] == wanted
    assert "more rows" in done.stderr
    out = platform.data_dir.with_name("rows.parquet")
    assert rebu("sql", "FROM dim_user", "-o", out, *here).returncode == 0
    assert out.read_bytes()[:4] == b"PAR1"
    answer = platform.post("/v1/sql", {"sql": "SELECT 1"})  # with the write key
    assert answer.status_code == 403
    for body, code in ((b"{", "invalid_json"), ({"sql": "SELECT 1", "format": "xml"}, "invalid_format")):
        answer = platform.post("/v1/sql", body, key=platform.read_key)
        assert (answer.status_code, answer.json()["code"]) == (400, code)


def _changed(platform: Running, application: Application, path: Path) -> None:
    """A driver changes, a row that was committed late has an old `updated_at`, a ride is deleted, a column comes."""
    application.connection.execute("ALTER TABLE users ADD COLUMN tier")
    application.add("drivers", driver_id="d1", name="Driver 1 again", rating=4.9, created_at=at(0), updated_at=at(30))
    application.add("users", user_id="u1", name="User 1", created_at=at(0), updated_at=at(40), tier=3)
    application.add("rides", ride_id="late", user_id="u2", requested_at=at(3), status="requested", updated_at=at(3))
    application.connection.execute("DELETE FROM rides WHERE ride_id = 'r5'")
    done = rebu("warehouse", "load", "--data-dir", platform.data_dir)
    assert done.returncode == 0, done.stderr
    assert "users.tier is new" in done.stderr
    assert {r["ride_id"] for r in read(path, "FROM fact_ride")} == {*(f"r{n}" for n in range(200)), "late"} - {"r5"}
    versions = read(path, "SELECT name, is_current FROM dim_driver WHERE driver_id = 'd1' ORDER BY valid_from")
    assert [tuple(v.values()) for v in versions] == [("Driver 1", False), ("Driver 1 again", True)]
    named = read(
        path,
        "SELECT DISTINCT name, requested_at >= '2026-03-01 08:30:00' AS later FROM fact_ride "
        "JOIN dim_driver USING (driver_key) WHERE fact_ride.driver_id = 'd1' ORDER BY later",
    )
    assert [tuple(v.values()) for v in named] == [("Driver 1", False), ("Driver 1 again", True)]
    done = rebu("warehouse", "verify", "--data-dir", platform.data_dir)
    assert done.returncode == 0, done.stdout + done.stderr


def _retyped(platform: Running, application: Application, path: Path) -> None:
    """A column changes its type: refused, what is published stays; taken with --rebuild."""
    here = ("--data-dir", platform.data_dir)
    before = path.read_bytes()
    application.add("users", user_id="u1", name="User 1", created_at=at(0), updated_at=at(50), tier="gold")
    done = rebu("warehouse", "load", *here)
    assert done.returncode == 1
    assert "users.tier was BIGINT and now has values of type VARCHAR" in done.stderr
    assert path.read_bytes() == before
    assert rebu("warehouse", "load", "--rebuild", *here).returncode == 0
    [found] = read(path, "SELECT tier FROM dim_user WHERE user_id = 'u1' AND is_current")
    assert found["tier"] == "gold"
