"""Loading the warehouse and verifying it, as functions and as tasks; who only has them run need not load DuckDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import ray

from rebu_ray.ingest.appdb.database import Away, Database, Position, Unreadable, position
from rebu_ray.ingest.dialects import tables
from rebu_ray.ingest.erasing import store_of
from rebu_ray.ingest.identity import stream_of
from rebu_ray.ingest.secret import with_secret
from rebu_ray.records import Kind, Record
from rebu_ray.settings import Settings
from rebu_ray.store.lake import Lake, again
from rebu_ray.store.layout import open_layout
from rebu_ray.store.warehouse.load import Loaded, load
from rebu_ray.store.warehouse.schema import KINDS, WarehouseError
from rebu_ray.store.warehouse.verify import ROWS, Verdict, verify

CHUNK_ROWS: Final = 10_000


def load_warehouse(settings: Settings, rebuild: bool = False) -> Loaded:
    """Bring a platform's warehouse up to its lake. Raises WarehouseError, LakeError, OSError."""
    settings = with_secret(settings)
    layout = open_layout(settings.lake, settings.partitions)
    stones = store_of(settings).load()
    return load(Lake(settings.lake), layout, settings.warehouse_file, stones, rebuild=rebuild)


def verify_warehouse(settings: Settings) -> Verdict:
    """Compare a platform's warehouse with the application database, else with the rows in the lake.

    Raises WarehouseError.
    """
    settings = with_secret(settings)
    layout = open_layout(settings.lake, settings.partitions)
    stones = store_of(settings).load()
    path, lake = settings.warehouse_file, Lake(settings.lake)
    database = Database(settings.appdb_url) if settings.appdb_url else None

    def truth() -> Iterator[pa.Table] | None:
        return None if database is None else _database_rows(database, stones.dead)

    try:
        return again(lambda: verify(path, truth(), lake, layout.partitions, stones))
    except (Away, Unreadable) as error:
        raise WarehouseError(f"the application database cannot be read: {error}") from error
    finally:
        if database is not None:
            database.close()


def _database_rows(database: Database, dead: Callable[[pa.Table], Any]) -> Iterator[pa.Table]:
    """Every row of the application database that can be one, as `ROWS`."""
    for source, shape in database.shapes().items():
        if source not in KINDS:
            continue
        after: Position | None = None
        while True:
            page = database.by_key(shape, after, CHUNK_ROWS, True)
            now = time.time_ns() // 1_000_000
            made = (tables.row(source, row, now) for row in page)
            records = [record for record in made if isinstance(record, Record)]
            if records:
                rows = _arrow(records)
                alive = rows.filter(pa.array(~dead(rows))).select(ROWS.names)
                yield alive if shape.version else _untimed(alive)
            if len(page) < CHUNK_ROWS:
                break
            after = position(shape.keys, page[-1])


def _untimed(rows: pa.Table) -> pa.Table:
    """People whose table does not say when they changed: the time of a record is that of its receipt then."""
    at = rows.schema.get_field_index("event_time")
    dated = pc.is_in(rows["kind"], value_set=pa.array([str(Kind.RIDE), str(Kind.MESSAGE)]))
    return rows.set_column(at, "event_time", pc.if_else(dated, rows["event_time"], pa.scalar(None, pa.int64())))


def _arrow(records: list[Record]) -> pa.Table:
    columns = {
        "kind": [str(r.kind) for r in records],
        **{name: [getattr(r, name) for r in records] for name in ("name", "id", "event_time", "received_at")},
        "body": [r.body.decode() for r in records],
    }
    rows = pa.table([columns[name] for name in ROWS.names], schema=ROWS)
    users = [r.user_id for r in records]
    keys = [stream_of(r) for r in records]
    return rows.append_column("key", pa.array(keys, pa.string())).append_column("user_id", pa.array(users, pa.string()))


@ray.remote(num_cpus=0.5, max_retries=1)
def load_task(settings: Settings, rebuild: bool) -> Loaded:
    """`load_warehouse` where there is room for it."""
    return load_warehouse(settings, rebuild)


@ray.remote(num_cpus=0.5, max_retries=1)
def verify_task(settings: Settings) -> Verdict:
    """`verify_warehouse` where there is room for it."""
    return verify_warehouse(settings)
