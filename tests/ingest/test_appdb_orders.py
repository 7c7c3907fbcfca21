"""The puller while commits, pulls, restarts and crashes come in any order."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.applications import Application, Postgres, Session, Sqlite, at, play
from tests.ingest.postgres import PostgresServer
from tests.records import seeded
from tests.store.disk import unsynced

pytestmark = pytest.mark.usefixtures("small_ledger")


# -- any order of things -------------------------------------------------------------------------------------------

ROWS = st.integers(0, 5)
SECONDS = st.integers(0, 30) | st.integers(0, 20_000)
STEPS = st.lists(
    st.tuples(st.just("put"), ROWS, SECONDS)
    | st.tuples(st.just("delete"), ROWS, st.just(0))
    | st.tuples(st.sampled_from(["pull", "restart", "begin", "commit", "rollback", "crash"]), st.just(0), st.just(0)),
    min_size=5,
    max_size=25,
)


class Crash(Exception):
    """The process ends in the middle."""


def interleave(app: Application, other: Application | None, steps: Any, folder: Path) -> None:
    """Whatever order things happen in: at every quiet moment the shards know what the database says."""
    there: dict[str, str] = {}
    open_changes: dict[str, str | None] | None = None

    async def scene(session: Session) -> None:
        nonlocal open_changes
        for number, (step, row, second) in enumerate([*steps, ("commit", 0, 0), ("pull", 0, 0)]):
            # A transaction that is open writes the odd rows, so that nobody waits for a lock.
            inside = open_changes is not None and row % 2 == 1
            writer = other if inside and other is not None else app
            changes: dict[str, str | None] = {}
            if step == "put":
                writer.ride(row, at(second + number / 1000), status=f"s{number}")
                changes[f"r{row}"] = f"s{number}"
            elif step == "delete":
                writer.execute("DELETE FROM rides WHERE ride_id = ?", f"r{row}")
                changes[f"r{row}"] = None
            elif step == "begin" and other is not None and open_changes is None:
                other.execute("BEGIN")
                open_changes = {}
            elif step in ("commit", "rollback") and other is not None and open_changes is not None:
                other.execute(step)
                changes, open_changes = open_changes if step == "commit" else {}, None
                inside = False
            elif step == "restart":
                await session.restart()
            elif step == "crash":
                session.shards.faults.append(Crash())
                try:
                    await session.settle()
                except Crash:
                    await session.restart()
                session.shards.faults.clear()
            if inside and open_changes is not None:
                open_changes.update(changes)
            else:
                for key, status in changes.items():
                    if status is None:
                        there.pop(key, None)
                    else:
                        there[key] = status
            if step == "pull":
                shards = await session.settle()
                found = {key: body["status"] for (_, key), body in shards.latest().items()}
                statuses = {body.get("status") for body in shards.bodies()}
                assert set(there.values()) <= statuses
                assert found.keys() == there.keys()

    play(app, folder, scene, chunk_rows=2)


@settings(seeded, max_examples=60)
@given(STEPS)
def test_any_order_of_commits_and_pulls_in_sqlite(tmp_path_factory: pytest.TempPathFactory, steps: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    app = Sqlite(folder)
    app.create("rides")
    with unsynced():
        interleave(app, None, steps, folder)
    app.close()


def test_any_order_of_commits_and_pulls_in_postgresql(
    tmp_path_factory: pytest.TempPathFactory, server: PostgresServer
) -> None:
    app = Postgres(server)
    other = Postgres.__new__(Postgres)
    other._connection = server.connect(app.database)

    @settings(seeded, max_examples=40)
    @given(STEPS)
    def holds(steps: Any) -> None:
        other.execute("ROLLBACK")  # what an example that failed left open
        app.execute("DROP TABLE IF EXISTS rides")
        app.create("rides")
        with unsynced():
            interleave(app, other, steps, tmp_path_factory.mktemp("any"))

    with closing(app), closing(other):
        holds()
