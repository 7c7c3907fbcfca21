"""A lake, a warehouse made from it, and what the warehouse must hold by plain reading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from rebu_ray.ingest.dialects import tables
from rebu_ray.records import Record, Source
from rebu_ray.store.lake import Lake
from rebu_ray.store.layout import open_layout
from rebu_ray.store.tombstones import Tombstones, none
from rebu_ray.store.warehouse.load import Loaded, load
from rebu_ray.store.warehouse.verify import Verdict, verify
from tests.records import NOW
from tests.store.disk import PARTITIONS, Disk, batch

Row = dict[str, Any]


def row(source: Source, values: Mapping[str, Any], received_at: int = NOW) -> Record:
    """The record of a row of the application database."""
    made = tables.row(source, values, received_at)
    assert isinstance(made, Record), made
    return made


def user(user_id: str, updated_at: int, received_at: int = NOW, **values: Any) -> Record:
    return row(Source.USERS, {"user_id": user_id, "updated_at": updated_at, **values}, received_at)


def ride_row(ride_id: str, updated_at: int = NOW, received_at: int = NOW, **values: Any) -> Record:
    said = {"ride_id": ride_id, "user_id": "ada", "requested_at": NOW, "updated_at": updated_at, **values}
    return row(Source.RIDES, said, received_at)


class House:
    """A shard's journal and lake, and the warehouse that loads from it."""

    def __init__(self, folder: Path) -> None:
        self.disk = Disk(folder)
        self.log = self.disk.shard()
        self.path = folder / "warehouse.duckdb"
        self.layout = open_layout(self.disk.lake_uri, PARTITIONS)

    def write(self, *records: Record) -> None:
        """Journal records and move them to the lake."""
        if records:
            self.log.commit(batch(*records), NOW)
            self.disk.flush(self.log)

    def load(self, tombstones: Tombstones | None = None, *, rebuild: bool = False) -> Loaded:
        return load(Lake(self.disk.lake_uri), self.layout, self.path, tombstones or none(), rebuild=rebuild)

    def verify(self) -> Verdict:
        return verify(self.path, None, Lake(self.disk.lake_uri), PARTITIONS, none())

    def rows(self, statement: str) -> list[Row]:
        """What a reader of the published file sees."""
        return read(self.path, statement)

    def close(self) -> None:
        self.log.close()


def read(path: Path, statement: str) -> list[Row]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return selected(connection, statement)


def selected(connection: duckdb.DuckDBPyConnection, statement: str) -> list[Row]:
    found: list[Row] = connection.sql(statement).to_arrow_table().to_pylist()
    return found
