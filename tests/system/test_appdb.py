"""The application database of a running platform: rows arrive, and go on arriving after a crash of the puller."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rebu_ray.records import Kind
from rebu_ray.simulate.tables import TABLES
from rebu_ray.store.journal import open_journal, unpack
from tests.system.running import Item, Running, await_true, kill, rebu

pytestmark = pytest.mark.system
AT = "2026-03-01T08:00:00.000Z"


class Application:
    """The application, which writes to its database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def open(self) -> None:
        """Make the database, empty."""
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        self._connection.execute("PRAGMA user_version = 1")

    def create(self) -> None:
        for name, columns in TABLES.items():
            self._connection.execute(f"CREATE TABLE {name} ({', '.join(columns)})")

    def rides(self, *numbers: int, status: str = "requested", second: int = 0) -> None:
        """Rides of ten users; the next second's are a later version."""
        at = AT.replace("00:00.000", f"{second // 60:02d}:{second % 60:02d}.000")
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT OR REPLACE INTO rides (ride_id, user_id, status, requested_at, updated_at) VALUES (?, ?, ?, ?, ?)",
            [(f"r{number}", f"u{number % 10}", status, AT, at) for number in numbers],
        )
        self._connection.execute("COMMIT")

    def execute(self, statement: str) -> None:
        self._connection.execute(statement)

    def close(self) -> None:
        if self.path.exists():
            self._connection.close()


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    made = Application(tmp_path / "app.sqlite")
    yield made
    made.close()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "data", REBU_FLUSH_SECONDS="100000")
    yield made
    made.clean_up()


def journalled(platform: Running) -> list[Item]:
    """Every row of the application database that the shards have made durable, in the order of each shard."""
    journal = open_journal(str(platform.data_dir / "journal"))
    rows: list[dict[str, Any]] = []
    for segment in journal.segments():
        for frame in unpack(journal.read(segment)):
            rows += frame.rows().to_pylist()
    return [row for row in rows if row["kind"] == Kind.RIDE]


def table(platform: Running) -> Item:
    """The state of the rides."""
    state: Item = platform.status().get("appdb", {}).get("tables", {}).get("rides", {})
    return state


def await_rides(platform: Running, rows: int, sent: int) -> None:
    await_true(
        lambda: (found := table(platform)).get("rows") == rows and found["sent"] >= sent,
        f"{rows} rides, {sent} versions of them: {platform.status().get('appdb')}",
    )


def test_rows_arrive_from_a_database_that_comes_later_and_go_on_arriving_after_a_crash(
    platform: Running, application: Application
) -> None:
    platform.start("--appdb", application.url)
    await_true(lambda: "tables" in platform.status().get("appdb", {}), "the puller to report")
    assert platform.status()["appdb"]["connected"] is False
    assert not application.path.exists()
    application.open()  # the database is empty: no table is there yet
    await_true(lambda: platform.status()["appdb"]["connected"], "the database to be connected")
    application.create()
    application.rides(*range(3_000))
    await_rides(platform, 3_000, 3_000)
    following = 'rebu_appdb_table_state{state="following",table="rides"} 1.0'
    await_true(lambda: following in platform.http.get("/metrics").text, "the table to show among the metrics")
    metrics = platform.http.get("/metrics").text
    assert "rebu_appdb_connected 1.0" in metrics
    assert 'rebu_appdb_sent_rows_total{table="rides"} 3000.0' in metrics
    assert 'rebu_ingest_records_total{source="rides",verdict="accepted"} 3000.0' in metrics
    pid = platform.status()["appdb"]["pid"]
    kill(pid)
    application.rides(*range(2_900, 3_100), status="completed", second=9)
    application.execute("DELETE FROM rides WHERE ride_id = 'r7'")
    await_rides(platform, 3_099, 3_200)
    assert platform.status()["appdb"]["pid"] != pid
    rows = journalled(platform)
    assert {row["key"] for row in rows} == {f"u:u{number}" for number in range(10)}
    assert len({(row["key"], row["id"]) for row in rows}) == len(rows) == 3_000 + 200 + 1
    [gone] = [row for row in rows if json.loads(row["body"]).get("deleted")]
    assert (gone["name"], gone["user_id"]) == ("r7", "u7")
    assert platform.stop() == 0
    # The next one goes on where this one ended.
    application.rides(3_100, second=10)
    platform.start("--appdb", application.url)
    await_rides(platform, 3_100, 3_201)
    assert len(journalled(platform)) == 3_202
    assert platform.stop() == 0


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "nonsense", "sqlite://"])
def test_a_url_that_cannot_be_used_is_said_in_one_sentence(tmp_path: Path, url: str) -> None:
    done = rebu("up", "--data-dir", tmp_path / "data", "--appdb", url)
    assert done.returncode == 1
    [line] = (done.stdout + done.stderr).splitlines()
    assert line.startswith("rebu: ")
    assert "application database" in line
    assert "secret" not in line
