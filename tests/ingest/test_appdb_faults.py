"""The puller after restarts, beside shards and databases that are away, and what it may be told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from rebu_ray.ingest.appdb.database import Away, database_url
from rebu_ray.ingest.appdb.puller import Puller
from rebu_ray.ingest.appdb.triggers import TRIGGERS
from rebu_ray.records import BadRequest
from rebu_ray.settings import SettingsError
from rebu_ray.store.cursor import Cursors
from tests.ingest.applications import NEVER, Application, Postgres, Session, Shards, Sqlite, at, names, play
from tests.ingest.postgres import postgres_server

pytestmark = pytest.mark.usefixtures("small_ledger")


# -- restarts and failures ----------------------------------------------------------------------------------------


def test_a_restart_goes_on_from_the_cursor(application: Application, tmp_path: Path) -> None:
    application.create()
    for number in range(20):
        application.ride(number, at(number))

    async def scene(session: Session) -> None:
        shards = await session.settle()
        calls = len(shards.calls)
        await session.restart()
        await session.settle()
        assert len(shards.calls) == calls
        await session.restart()
        application.ride(20, at(20))
        application.ride(2, at(21), status="accepted")
        application.execute("DELETE FROM rides WHERE ride_id = 'r7'")
        await session.settle()
        assert names(shards) == sorted(f"r{number}" for number in range(21) if number != 7)
        assert shards.latest()["u1", "r2"]["status"] == "accepted"
        assert sum(shards.calls) == 23

    play(application, tmp_path, scene)


class Stopped(Exception):
    """The process is gone."""


def test_a_first_load_is_resumed_and_shows_how_far_it_is(application: Application, tmp_path: Path) -> None:
    application.create()
    for number in range(40):
        application.ride(number, at(number // 7))

    async def scene(session: Session) -> None:
        assert await session.puller.pull()
        state = session.puller.status()["tables"]["rides"]
        assert (state["state"], state["rows"], state["to_load"]) == ("loading", 15, 40)
        await session.restart()
        session.shards.faults.append(Stopped())
        with pytest.raises(Stopped):
            await session.settle()
        await session.restart()
        shards = await session.settle()
        assert len(shards.bodies()) == sum(shards.calls) == 40
        assert session.puller.status()["tables"]["rides"]["state"] == "following"

    play(application, tmp_path, scene)


def test_a_crash_between_the_shards_and_the_cursor_repeats_the_same_ids(
    application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.create()

    async def scene(session: Session) -> None:
        await session.settle()
        for number in range(10):
            application.ride(number, at(number))

        def lost(cursors: Cursors, name: str, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Cursors, "save", lost)
            with pytest.raises(OSError, match="No space"):
                await session.settle()
        assert len(session.shards.records) == 3
        await session.restart()
        shards = await session.settle()
        assert len(shards.bodies()) == 10
        assert sum(shards.calls) == 13

    play(application, tmp_path, scene)


def test_shards_that_are_away_are_waited_for(sqlite: Sqlite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite.create()
    for number in range(10):
        sqlite.ride(number)
    sleep = asyncio.sleep

    async def scene(session: Session) -> None:
        async def brief(seconds: float) -> None:
            if seconds:
                assert "a shard" in session.puller.status()["detail"]
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", brief)
        session.shards.faults = [BadRequest(503, "unavailable", "a shard is away", 5) for _ in range(3)]
        shards = await session.settle()
        assert (len(shards.bodies()), sum(shards.calls)) == (10, 10)
        assert session.puller.status()["detail"] == ""

    play(sqlite, tmp_path, scene)


def test_a_sqlite_that_is_away_and_comes_back(sqlite: Sqlite, tmp_path: Path) -> None:
    sqlite.create()
    sqlite.ride(1)
    aside = sqlite.path.with_name("aside")

    async def scene(session: Session) -> None:
        sqlite.path.rename(aside)
        with pytest.raises(Away):
            await session.puller.pull()
        assert not sqlite.path.exists()
        state = session.puller.status()
        assert state["connected"] is False
        assert state["detail"]
        aside.rename(sqlite.path)
        assert names(await session.settle()) == ["r1"]
        assert session.puller.status()["connected"] is True
        sqlite.path.rename(aside)
        with pytest.raises(Away):
            await session.puller.pull()
        aside.rename(sqlite.path)
        sqlite.ride(2)
        assert names(await session.settle()) == ["r1", "r2"]

    play(sqlite, tmp_path, scene)


def test_a_postgresql_that_is_away_and_comes_back(tmp_path: Path) -> None:
    with postgres_server() as server:
        app = Postgres(server)
        app.create()
        app.ride(1, at(1))

        async def scene(session: Session) -> None:
            await session.settle()
            app.close()
            server.stop()
            with pytest.raises(Away) as away:
                await session.puller.pull()
            assert "secret" not in str(away.value) + json.dumps(session.puller.status())
            with pytest.raises(Away):
                await session.puller.pull()
            server.start()
            again = server.connect(app.database)
            again.execute("INSERT INTO rides SELECT 'r2', 'u1', NULL, NULL, 'x', requested_at FROM rides")
            again.execute("UPDATE rides SET updated_at = %s", (at(2),))
            again.close()
            assert names(await session.settle()) == ["r1", "r2"]

        play(app, tmp_path, scene)


def test_a_run_survives_everything_and_ends_when_cancelled(
    sqlite: Sqlite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite.create()
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def scene(session: Session) -> None:
        async def brief(seconds: float) -> None:
            if seconds:
                pauses.append(seconds)
                if len(pauses) == 8:
                    aside.rename(sqlite.path)
            await sleep(0)

        aside = sqlite.path.with_name("aside")
        sqlite.ride(1)
        sqlite.path.rename(aside)
        monkeypatch.setattr(asyncio, "sleep", brief)
        work = asyncio.create_task(session.puller.run())
        await asyncio.wait_for(session.shards.arrived.wait(), 60)
        session.shards.arrived.clear()
        sqlite.ride(2)
        await asyncio.wait_for(session.shards.arrived.wait(), 60)
        assert names(session.shards) == ["r1", "r2"]
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    play(sqlite, tmp_path, scene)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_triggers_wake_it(postgres: Postgres, tmp_path: Path) -> None:
    postgres.create()
    postgres.execute(TRIGGERS.replace("%", "%%"))

    async def scene() -> None:
        shards = Shards()
        pulling = Puller(postgres.url, Cursors(str(tmp_path)), shards.append, poll_seconds=600, pace=NEVER)
        while await pulling.pull():
            pass
        work = asyncio.create_task(pulling.run())
        try:
            for number in range(3):
                postgres.ride(number, at(number))
                await asyncio.wait_for(shards.arrived.wait(), 60)
                shards.arrived.clear()
            assert names(shards) == ["r0", "r1", "r2"]
        finally:
            postgres.execute("NOTIFY rebu")
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            postgres.execute("NOTIFY rebu")
            await pulling.close()

    asyncio.run(scene())


def test_nothing_is_written_to_the_database(postgres: Postgres, sqlite: Sqlite, tmp_path: Path) -> None:
    async def scene(session: Session) -> None:
        await session.settle()
        writing = "CREATE TABLE mine (a TEXT)"
        with pytest.raises(Exception, match=r"read-?only"):
            await session.puller._ask(lambda: session.puller._database._connection.exec_driver_sql(writing))  # type: ignore[union-attr]

    play(sqlite, tmp_path / "a", scene)
    play(postgres, tmp_path / "b", scene)


# -- the URL ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgres://u:p%40@h:1/d?sslmode=require", "postgresql+psycopg://u:p%40@h:1/d?sslmode=require"),
        ("sqlite:////tmp/a b.sqlite", "sqlite:////tmp/a b.sqlite"),
    ],
)
def test_urls(url: str, full: str) -> None:
    assert database_url(url) == database_url(full) == full


def test_a_relative_file_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_url("sqlite:///app.sqlite") == f"sqlite:///{tmp_path}/app.sqlite"


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://u:secret@h/d",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql:/secret",
        "://",
        "sqlite://h/d",
    ],
)
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        database_url(url)
    assert "secret" not in str(wrong.value)
    assert "\n" not in str(wrong.value)
