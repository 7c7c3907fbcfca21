"""The puller over a real SQLite and a real PostgreSQL: what is committed arrives, what is gone is missed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rebu_ray.ingest.appdb import puller
from rebu_ray.ingest.appdb.table import Pace
from rebu_ray.records import Source
from rebu_ray.simulate.tables import TABLES
from tests.ingest.applications import ALWAYS, AT, NEVER, Application, Postgres, Session, Sqlite, at, names, play

pytestmark = pytest.mark.usefixtures("small_ledger")


# -- what arrives -------------------------------------------------------------------------------------------------


def test_rows_of_all_tables_arrive_in_one_form(sqlite: Sqlite, postgres: Postgres, tmp_path: Path) -> None:
    found = []
    for place, app in (("a", sqlite), ("b", postgres)):
        app.create()
        app.put("users", user_id="u1", name="Ada", created_at=AT, updated_at=at(1))
        app.put("drivers", driver_id="d1", name="Bo", rating=5, created_at=AT, updated_at=at(1))
        app.ride(1, at(2), pickup_lat=59.9, distance_m=1200, accepted_at="2026-03-01T09:01:00.5+01:00")
        for second, lat in ((4, 1), (3, 2)):
            app.put("ride_destinations", ride_id="r1", changed_at=at(second), destination_lat=lat, destination_lon=2)
        app.put(
            "messages", message_id="m1", user_id=None, channel="chat", direction="inbound", sent_at=at(2),
            body="Zürich: 'where?'", updated_at=at(5),
        )  # fmt: skip
        shards = play(app, tmp_path / place, lambda session: session.settle())
        found.append({(r.id, r.kind, r.user_id, r.event_time, r.body) for r in shards.records.values()})
    assert found[0] == found[1]
    assert len(found[0]) == 6
    [ride] = shards.bodies()
    assert (ride["accepted_at"], ride["pickup_lat"], ride["fare_cents"]) == ("2026-03-01T08:01:00.500Z", 59.9, None)


def test_what_is_known_is_not_sent_again(application: Application, tmp_path: Path) -> None:
    application.create()
    for number in range(7):
        application.ride(number)

    async def scene(session: Session) -> None:
        shards = await session.settle()
        calls = list(shards.calls)
        assert sum(calls) == 7
        assert max(calls) <= 3
        await session.settle()
        application.put("users", user_id="u1", created_at=AT, updated_at=AT)
        await session.settle()
        assert shards.calls == [*calls, 1]

    play(application, tmp_path, scene)


def test_whoever_waits_until_all_is_read_finds_what_was_there_when_he_began(
    application: Application, tmp_path: Path
) -> None:
    application.create()
    application.ride(1)

    async def scene(session: Session) -> None:
        for number in range(2, 6):
            since = time.monotonic()
            assert not session.puller.has_rested(since)
            application.ride(number)
            while not session.puller.has_rested(since):
                await session.puller.pull()
            assert names(session.shards) == [f"r{n}" for n in range(1, number + 1)]
        application.execute("DELETE FROM rides WHERE ride_id = 'r3'")
        since = time.monotonic()
        while not session.puller.has_rested(since):
            await session.puller.pull()
        assert ("u1", "r3") not in session.shards.latest()

    play(application, tmp_path, scene, Pace(0.05, 1, 0.05, 1.0, 1.0))


@pytest.mark.parametrize("pace", [ALWAYS, NEVER])
def test_rows_of_the_same_moment(application: Application, tmp_path: Path, pace: Pace) -> None:
    application.create()
    application.ride(5)

    async def scene(session: Session) -> None:
        await session.settle()
        for number in range(9):
            application.ride(number, status="accepted" if number == 5 else "requested")
            if number % 2:
                await session.settle()
        assert names(await session.settle()) == [f"r{number}" for number in range(9)]
        assert session.shards.latest()["u1", "r5"]["status"] == "accepted"

    play(application, tmp_path, scene, pace)


@pytest.mark.parametrize("pace", [ALWAYS, NEVER])
@pytest.mark.parametrize("older", [1, 3600])
def test_a_transaction_that_commits_late(postgres: Postgres, tmp_path: Path, pace: Pace, older: int) -> None:
    postgres.create()
    postgres.ride(0, at(0))
    late = psycopg.connect(postgres.url)
    late.execute("SET TIME ZONE 'UTC'")

    async def scene(session: Session) -> None:
        await session.settle()
        late.execute(
            "INSERT INTO rides (ride_id, user_id, status, requested_at, updated_at) VALUES ('A', 'u1', 'x', %s, %s)",
            (AT, at(7200 - older)),
        )
        postgres.ride("B", at(7200))
        assert names(await session.settle()) == ["r0", "rB"]
        postgres.ride("C", at(7201))
        assert names(await session.settle()) == ["r0", "rB", "rC"]
        late.commit()
        assert names(await session.settle()) == ["A", "r0", "rB", "rC"]

    play(postgres, tmp_path, scene, pace)
    late.close()


def test_a_transaction_that_is_open_when_the_puller_is_made_anew(postgres: Postgres, tmp_path: Path) -> None:
    postgres.create()
    late = Postgres.__new__(Postgres)
    connection = psycopg.connect(postgres.url)
    late._connection = connection

    async def scene(session: Session) -> None:
        late.ride("A", at(0))
        for number in range(10):
            postgres.ride(number, at(1000 + number))
        await session.settle()
        await session.restart()
        await session.settle()
        connection.commit()
        assert "rA" in names(await session.settle())

    play(postgres, tmp_path, scene, NEVER)
    connection.close()


def test_a_row_with_an_old_time_is_found(application: Application, tmp_path: Path) -> None:
    """Written by a clock that is behind, or loaded from elsewhere."""
    application.create()
    application.ride(0, at(7200))

    async def scene(session: Session) -> None:
        await session.settle()
        application.ride(1, at(0))
        assert names(await session.settle()) == ["r0", "r1"]
        application.ride(1, at(1), status="accepted")
        assert (await session.settle()).latest()["u1", "r1"]["status"] == "accepted"

    play(application, tmp_path, scene)


def test_a_time_to_come_hides_nothing(application: Application, tmp_path: Path) -> None:
    application.create()
    application.ride(0, "2126-03-01T08:00:00Z")

    async def scene(session: Session) -> None:
        await session.settle()
        application.ride(1, "2099-01-01T00:00:00Z")
        assert names(await session.settle()) == ["r0", "r1"]
        assert session.puller.status()["tables"]["rides"]["watermark"] < "2099"

    play(application, tmp_path, scene, NEVER)


def test_many_spellings_of_times(sqlite: Sqlite, tmp_path: Path) -> None:
    sqlite.create()
    spellings = [
        "2026-03-01T10:00:00Z", "2026-03-01T10:00:00.100Z", "2026-03-01 10:00:00.2", "2026-03-01T11:00:00.3+01:00",
        "2026-02-28T23:00:00.4-11:00", "2026-03-01 10:00:00", "2026-03-02T00:00:01+14:00", "2026-03-01T10:00:02+0000",
        "2026-03-01T10:00:03.123456789Z",
    ]  # fmt: skip

    async def scene(session: Session) -> None:
        sqlite.ride("first", "2026-03-01T10:00:01.000Z")
        await session.settle()
        for number, spelling in enumerate(spellings):
            sqlite.ride(number, spelling)
            shards = await session.settle()
            assert len(shards.bodies()) == number + 2, spelling
        assert session.puller.status()["tables"]["rides"]["watermark"] == "2026-03-01T10:00:03.123Z"

    play(sqlite, tmp_path, scene, NEVER)


@pytest.mark.parametrize("bad", ["soon", "", None, "infinity"])
def test_a_time_that_is_none_is_the_time_of_receipt(application: Application, tmp_path: Path, bad: Any) -> None:
    application.execute("CREATE TABLE rides (ride_id TEXT, user_id TEXT, requested_at TEXT, updated_at TEXT)")
    for number in range(5):
        application.execute(
            "INSERT INTO rides VALUES (?, 'u1', ?, ?)", f"r{number}", AT, None if bad is None else str(bad)
        )

    async def scene(session: Session) -> None:
        assert names(await session.settle()) == [f"r{number}" for number in range(5)]
        application.execute("UPDATE rides SET user_id = 'u2' WHERE ride_id = 'r3'")
        application.execute("DELETE FROM rides WHERE ride_id = 'r1'")
        shards = await session.settle()
        assert ("u2", "r3") in shards.latest()
        assert "r1" not in names(shards)
        calls = len(shards.calls)
        application.execute("CREATE TABLE other (a TEXT)")
        await session.settle()
        assert len(shards.calls) == calls

    play(application, tmp_path, scene)


def test_a_view_instead_of_a_table(application: Application, tmp_path: Path) -> None:
    application.create(as_view=True)
    application.ride(1, at(1), table="base_rides")

    async def scene(session: Session) -> None:
        await session.settle()
        application.ride(2, at(2), table="base_rides")
        application.ride(3, at(0), table="base_rides")
        assert names(await session.settle()) == ["r1", "r2", "r3"]
        application.execute("DELETE FROM base_rides WHERE ride_id = 'r2'")
        assert names(await session.settle()) == ["r1", "r3"]

    play(application, tmp_path, scene)


def test_missing_columns_and_tables(application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puller, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(puller, "MISSING_SECONDS", 0.0)
    application.execute('CREATE TABLE rides (ride_id TEXT, requested_at TEXT, surge REAL, "od:d" TEXT)')
    application.execute("CREATE TABLE users (name TEXT)")
    application.execute("INSERT INTO rides VALUES ('r1', ?, 1.5, 'x')", AT)
    application.execute("INSERT INTO rides VALUES (NULL, ?, 1.5, 'x')", AT)

    async def scene(session: Session) -> None:
        shards = await session.settle()
        [ride] = shards.bodies()
        assert (ride["ride_id"], ride["user_id"], ride["fare_cents"], ride["surge"], ride["od:d"]) == (
            "r1", None, None, 1.5, "x",
        )  # fmt: skip
        states = {name: table["state"] for name, table in session.puller.status()["tables"].items()}
        assert states == dict.fromkeys(TABLES, "missing") | {"rides": "following"}
        assert [refusal.reason.partition(":")[0] for refusal in shards.refusals] == ["missing_id"]
        application.execute("UPDATE rides SET surge = 2 WHERE ride_id = 'r1'")
        application.create("messages")
        application.put("messages", message_id="m1", channel="x", direction="y", sent_at=AT, body="", updated_at=AT)
        await session.settle()
        assert names(shards, Source.MESSAGES) == ["m1"]
        assert sorted(body["surge"] for body in shards.bodies()) == [1.5, 2]
        application.execute("DROP TABLE rides")
        application.put("messages", message_id="m2", channel="x", direction="y", sent_at=AT, body="", updated_at=AT)
        await session.settle()
        assert names(shards, Source.MESSAGES) == ["m1", "m2"]
        assert names(shards) == ["r1"]
        assert len(shards.refusals) == 1

    play(application, tmp_path, scene)


def test_a_new_column_is_seen_with_the_first_row_that_has_it(application: Application, tmp_path: Path) -> None:
    application.create()
    application.ride(1, at(0))

    async def scene(session: Session) -> None:
        await session.settle()
        application.execute("ALTER TABLE rides ADD COLUMN surge REAL")
        application.execute("UPDATE rides SET surge = 2.5, updated_at = ? WHERE ride_id = 'r1'", at(1))
        application.ride(2, at(2), surge=1.5)
        shards = await session.settle()
        assert [(body["ride_id"], body.get("surge")) for body in shards.bodies()] == [
            ("r1", None), ("r1", 2.5), ("r2", 1.5),
        ]  # fmt: skip
        application.execute("ALTER TABLE rides DROP COLUMN surge")
        application.ride(3, at(3))
        assert "surge" not in (await session.settle()).bodies()[-1]

    play(application, tmp_path, scene)


def test_bad_rows_become_dead_letters_once_and_hold_nobody_up(application: Application, tmp_path: Path) -> None:
    application.create()
    application.execute("ALTER TABLE rides RENAME TO old")
    application.execute("CREATE TABLE rides AS SELECT * FROM old")
    for number, requested_at in enumerate((AT, None, AT)):
        application.execute(
            "INSERT INTO rides (ride_id, status, requested_at, updated_at) VALUES (?, 'lost', ?, ?)",
            f"r{number}", requested_at, AT,
        )  # fmt: skip

    async def scene(session: Session) -> None:
        await session.settle()
        application.execute("UPDATE rides SET status = 'found' WHERE ride_id = 'r2'")
        shards = await session.settle()
        assert names(shards) == ["r0", "r2"]
        assert [(refusal.reason.partition(":")[0], refusal.id) for refusal in shards.refusals] == [
            ("invalid_time", "r1")
        ]
        assert session.puller.status()["tables"]["rides"]["refused"] == 1

    play(application, tmp_path, scene)


def test_broken_text(sqlite: Sqlite, tmp_path: Path) -> None:
    sqlite.create()
    sqlite.ride(1, city="x")
    sqlite.execute("UPDATE rides SET city = CAST(x'5afc72696368' AS TEXT)")
    shards = play(sqlite, tmp_path, lambda session: session.settle())
    assert shards.bodies()[0]["city"] == "Z\ufffdrich"


# -- what is gone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [ALWAYS, Pace(1e9, 1, 0.0, 0.0, 0.0)], ids=["swept", "counted"])
def test_deletes_are_noticed(application: Application, tmp_path: Path, pace: Pace) -> None:
    application.create()
    for number in range(10):
        application.ride(number, at(number), user=f"u{number % 2}" if number else None)
    application.put("ride_destinations", ride_id="r1", changed_at=AT)

    async def scene(session: Session) -> None:
        await session.settle()
        application.execute("DELETE FROM rides WHERE ride_id IN ('r0', 'r3', 'r9')")
        application.execute("DELETE FROM ride_destinations")
        shards = await session.settle()
        assert names(shards) == ["r1", "r2", "r4", "r5", "r6", "r7", "r8"]
        gone = [r for r in shards.records.values() if json.loads(r.body).get("deleted")]
        assert sorted((r.name, r.user_id or "") for r in gone) == [("r0", ""), ("r3", "u1"), ("r9", "u1")]
        application.ride(3, at(3), user="u1")  # as it was before
        shards = await session.settle()
        assert names(shards) == ["r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8"]
        calls = len(shards.calls)
        application.put("users", user_id="u1", created_at=AT, updated_at=AT)
        await session.settle()
        assert len(shards.calls) == calls + 1

    play(application, tmp_path, scene, pace)


def test_a_deleted_row_whose_time_is_to_come_is_gone(application: Application, tmp_path: Path) -> None:
    application.create()
    application.ride(1, "2126-03-01T08:00:00Z")

    async def scene(session: Session) -> None:
        await session.settle()
        application.execute("DELETE FROM rides")
        assert names(await session.settle()) == []

    play(application, tmp_path, scene)


def test_a_row_that_becomes_another_users_leaves_the_first(application: Application, tmp_path: Path) -> None:
    application.create()
    application.ride(1, at(1), user="u1")

    async def scene(session: Session) -> None:
        await session.settle()
        for second, user in ((2, "u2"), (3, None), (4, "u3")):
            application.ride(1, at(second), user=user)
            assert list((await session.settle()).latest()) == [(user, "r1")] or user is None
        # Whoever looks at all users at once sees the row as well.
        newest = max(session.shards.bodies(), key=lambda body: (body["updated_at"], not body.get("deleted")))
        assert newest["user_id"] == "u3"

    play(application, tmp_path, scene)
