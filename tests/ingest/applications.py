"""An application with its database, the puller upon it, and shards that remember what came."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from rebu_ray.ingest.appdb.puller import Puller
from rebu_ray.ingest.appdb.table import Pace
from rebu_ray.records import Parsed, Record, Refusal, Source
from rebu_ray.simulate.tables import TABLES
from rebu_ray.store.cursor import Cursors
from tests.ingest.postgres import PostgresServer

Result = TypeVar("Result")

AT: Final = "2026-03-01T08:00:00.000Z"
ALWAYS: Final = Pace(0.0, 1, 0.0, 0.0, 0.0)
"""Everything is looked at in every round."""
NEVER: Final = Pace(1e9, 1, 1e9, 0.0, 0.0)
"""After the first round, no table is swept or counted."""


def at(second: float) -> str:
    """A time of 2026-03-01, so many seconds after eight."""
    minute, second = divmod(second, 60)
    return f"2026-03-01T{8 + int(minute) // 60:02d}:{int(minute) % 60:02d}:{second:06.3f}Z"


class Shards:
    """Where rows end up: each id once, as in the shards."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.refusals: list[Refusal] = []
        self.calls: list[int] = []
        self.faults: list[Exception] = []
        self.arrived = asyncio.Event()

    async def append(self, source: Source, parsed: Parsed, received_at: int) -> object:
        await asyncio.sleep(0)
        if self.faults:
            raise self.faults.pop()
        self.calls.append(len(parsed))
        for entry in parsed:
            if isinstance(entry, Refusal):
                self.refusals.append(entry)
            else:
                assert entry.source is source
                self.records.setdefault(entry.id, entry)
        self.arrived.set()
        return None

    def bodies(self, source: Source = Source.RIDES) -> list[dict[str, Any]]:
        """Every version of a table's rows."""
        return [json.loads(record.body) for record in self.records.values() if record.source is source]

    def latest(self, source: Source = Source.RIDES) -> dict[tuple[str | None, str], dict[str, Any]]:
        """The version of each (user, row) that counts; nothing of one that is gone."""
        newest: dict[tuple[str | None, str], tuple[Any, ...]] = {}
        for number, record in enumerate(self.records.values()):
            if record.source is source:
                body = json.loads(record.body)
                rank = (body["updated_at"], record.received_at, number, body)
                key = (record.user_id, record.name)
                newest[key] = max(newest.get(key, rank), rank, key=lambda found: found[:2])
        return {key: rank[3] for key, rank in newest.items() if rank[3].get("deleted") is not True}


class Application(ABC):
    """The application and its database."""

    url: str

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""

    @abstractmethod
    def execute(self, statement: str, *values: Any) -> None:
        """Change the database and commit."""

    def create(self, *names: str, as_view: bool = False) -> None:
        """Make tables, or views of that name upon tables."""
        for name in names or TABLES:
            columns = ", ".join(self.column(column) for column in TABLES[name])
            self.execute(f"CREATE TABLE {'base_' * as_view}{name} ({columns})")
            if as_view:
                self.execute(f"CREATE VIEW {name} AS SELECT * FROM base_{name}")

    def column(self, definition: str) -> str:
        return definition.replace(" NOT NULL", "")

    def put(self, table: str, **row: Any) -> None:
        """Add a row, or replace it."""
        key = next(iter(row))
        marks = ", ".join("?" * len(row))
        changes = ", ".join(f"{name} = excluded.{name}" for name in row if name != key)
        conflict = "" if table.endswith("destinations") else f" ON CONFLICT ({key}) DO UPDATE SET {changes}"
        self.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks}){conflict}", *row.values())

    def ride(self, number: int | str, updated_at: Any = AT, user: str | None = "u1", **more: Any) -> None:
        self.put(
            more.pop("table", "rides"),
            ride_id=f"r{number}",
            user_id=user,
            status=more.pop("status", "requested"),
            requested_at=AT,
            updated_at=updated_at,
            **more,
        )


class Sqlite(Application):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.sqlite"
        self.url = f"sqlite:///{self.path}"
        self._connection = sqlite3.connect(self.path, isolation_level=None)

    def execute(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement, values)

    def close(self) -> None:
        self._connection.close()


class Postgres(Application):
    def __init__(self, server: PostgresServer) -> None:
        self.database = server.new_database()
        self.server = server
        self.url = server.url(self.database)
        self._connection = server.connect(self.database)

    def column(self, definition: str) -> str:
        definition = super().column(definition)
        name, _, rest = definition.partition(" ")
        return f"{name} timestamptz{rest.removeprefix('TEXT')}" if name.endswith("_at") else definition

    def execute(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement.replace("?", "%s").encode(), values or None)

    def close(self) -> None:
        self._connection.close()


class Session:
    """A puller and where its rows go."""

    def __init__(self, application: Application, folder: Path, pace: Pace = ALWAYS, chunk_rows: int = 3) -> None:
        self.shards = Shards()
        self.cursors = Cursors(str(folder / "cursors"))
        self._make: Callable[[], Puller] = lambda: Puller(
            application.url, self.cursors, self.shards.append, pace=pace, chunk_rows=chunk_rows, poll_seconds=0.01
        )
        self.puller = self._make()

    async def settle(self) -> Shards:
        """Pull until nothing is left."""
        while await self.puller.pull():
            pass
        return self.shards

    async def restart(self) -> None:
        """A new process, which knows what was saved."""
        await self.puller.close()
        self.puller = self._make()


def play(
    application: Application,
    folder: Path,
    scene: Callable[[Session], Awaitable[Result]],
    pace: Pace = ALWAYS,
    chunk_rows: int = 3,
) -> Result:
    """Play a scene with a puller."""

    async def playing() -> Result:
        session = Session(application, folder, pace, chunk_rows)
        try:
            return await scene(session)
        finally:
            await session.puller.close()

    return asyncio.run(playing())


def names(shards: Shards, source: Source = Source.RIDES) -> list[str]:
    return sorted(key for _, key in shards.latest(source))
