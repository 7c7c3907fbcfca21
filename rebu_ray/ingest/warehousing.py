"""Loading and verifying the warehouse: by itself now and then, when told, and when somebody was erased."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import ray

from rebu_ray.ingest.appdb.database import Away, Database, Position, Unreadable, position
from rebu_ray.ingest.dialects import tables
from rebu_ray.ingest.erasing import store_of
from rebu_ray.ingest.identity import stream_of
from rebu_ray.ingest.roles import SCARCELY, place
from rebu_ray.ingest.secret import with_secret
from rebu_ray.records import Kind, Record
from rebu_ray.settings import Role, Settings
from rebu_ray.store.lake import Lake, LakeError, again
from rebu_ray.store.layout import open_layout
from rebu_ray.store.warehouse.load import Loaded, load
from rebu_ray.store.warehouse.schema import KINDS, WarehouseError
from rebu_ray.store.warehouse.verify import ROWS, Verdict, verify

log = logging.getLogger("rebu.warehouse")

LOOKS: Final = 3
"""How often what differs is looked at: while data flows, the source may be a moment ahead."""
CHUNK_ROWS: Final = 10_000
FIRST_SECONDS: Final = 20.0
"""How long after the start the first look is, where looks are further apart than that."""


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


class Warehousing:
    """The warehouse of a platform, on the loop of its coordinator."""

    def __init__(self, settings: Settings, gather: Callable[[], Awaitable[list[str]]]) -> None:
        """`gather` has everything that was acknowledged moved to the lake, and answers what to know of that."""
        self._settings = settings
        self._gather = gather
        self._one = asyncio.Lock()
        self._work: asyncio.Task[None] | None = None
        self._last: Loaded | None = None
        self._last_at: int | None = None
        self._failure: str | None = None

    def begin(self) -> None:
        """Load now and then, from now on."""
        if self._settings.warehouse_seconds > 0 and (self._work is None or self._work.done()):
            self._work = asyncio.create_task(self._turn())

    def close(self) -> None:
        """Stop; a load that is under way publishes, or leaves nothing."""
        if self._work is not None:
            self._work.cancel()

    async def load(self, rebuild: bool = False) -> Loaded:
        """Load what is acknowledged by now. Raises WarehouseError, LakeError, OSError."""
        async with self._one:
            notes = await self._gather()
            found = await self._load(rebuild)
            return msgspec.structs.replace(found, notes=[*notes, *found.notes])

    async def verify(self) -> Verdict:
        """Load, and compare; again where something differs, since the source may have moved on meanwhile."""
        async with self._one:
            for look in range(LOOKS):
                await self._gather()
                await self._load(False)
                found: Verdict = await _done(verify_task.options(resources=self._at()).remote(self._settings))
                if found.equal or look + 1 == LOOKS:
                    return found
        raise AssertionError("the last look returns")

    async def forget(self) -> None:
        """Make the warehouse anew without those who were erased, where there is one."""
        # On a node for it nobody here sees whether there is one.
        if bool(self._at()) or await asyncio.to_thread(self._settings.warehouse_file.exists):
            async with self._one:
                await self._load(False)

    def status(self) -> dict[str, Any]:
        """The state, as JSON can say it."""
        last = self._last
        return {
            "path": str(self._settings.warehouse_file),
            "loaded_at": self._last_at,
            "rides": None if last is None else last.rides,
            "detail": self._failure,
        }

    async def _load(self, rebuild: bool) -> Loaded:
        try:
            found: Loaded = await _done(load_task.options(resources=self._at()).remote(self._settings, rebuild))
        except (WarehouseError, LakeError, OSError, ray.exceptions.RayError) as error:
            self._failure = str(error)
            raise
        self._last, self._last_at, self._failure = found, time.time_ns() // 1_000_000, None
        for note in found.notes:
            log.warning("%s", note)
        return found

    def _at(self) -> dict[str, float]:
        """Where the file is."""
        return place(self._settings, Role.WAREHOUSE, SCARCELY)

    async def _turn(self) -> None:
        await asyncio.sleep(min(FIRST_SECONDS, self._settings.warehouse_seconds))
        while True:
            try:
                async with self._one:
                    # What is in the lake by now: nothing is moved there for this.
                    await self._load(False)
            except (WarehouseError, LakeError, OSError, ray.exceptions.RayError) as error:
                log.error("the warehouse was not loaded: %s", error)
            await asyncio.sleep(self._settings.warehouse_seconds)


async def _done(task: Any) -> Any:
    """What a task answers. Raises what it raised."""
    try:
        return await task
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (WarehouseError, LakeError, OSError)):
            raise error.cause from None
        raise
