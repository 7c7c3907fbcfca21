"""Real databases for the puller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rebu_ray.ingest.appdb import ledger
from tests.ingest.applications import Application, Postgres, Sqlite
from tests.ingest.postgres import PostgresServer, postgres_server


@pytest.fixture
def small_ledger() -> Iterator[None]:
    """A few rows are many here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "PENDING", 3)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def postgres(server: PostgresServer) -> Iterator[Postgres]:
    made = Postgres(server)
    yield made
    made.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Sqlite]:
    made = Sqlite(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def application(request: pytest.FixtureRequest) -> Application:
    """Each of the two."""
    found: Application = request.getfixturevalue(request.param)
    return found
