"""A load: from the lake into a copy of the published file, which then takes its place."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import msgspec

from rebu_ray.records import Source
from rebu_ray.store.files import sync
from rebu_ray.store.lake import Lake, again
from rebu_ray.store.layout import Layout
from rebu_ray.store.tombstones import Tombstones
from rebu_ray.store.warehouse import dimensions, facts, source
from rebu_ray.store.warehouse.published import opened, sweep
from rebu_ray.store.warehouse.schema import DAYS, FACTS, FORMAT, KINDS, WarehouseError, ddl
from rebu_ray.store.warehouse.staging import Connection, Stage

log = logging.getLogger("rebu.warehouse")

MEMORY: Final = "1GB"
THREADS: Final = 2
NEW: Final = ".new"


class Loaded(msgspec.Struct):
    """What a load did. Counts are of what is in the warehouse after it."""

    path: str
    changed: bool = True
    """Whether there was anything new; else the published file is as it was."""
    rebuilt: bool = False
    rides: int = 0
    messages: int = 0
    users: int = 0
    drivers: int = 0
    events: int = 0
    seconds: float = 0.0
    notes: list[str] = []
    """What a person should know: columns that came, went or widened."""


def load(
    lake: Lake,
    layout: Layout,
    path: Path,
    tombstones: Tombstones,
    *,
    rebuild: bool = False,
    step: Callable[[str], None] = lambda name: None,
) -> Loaded:
    """Bring the warehouse at `path` up to what the lake has; made anew where it is not there, or with `rebuild`.

    An erasure makes everything anew as well: a file from which rows were deleted still has their bytes. `step` is told
    of each step before it is done. Raises WarehouseError, SchemaChange, LakeError, OSError.
    """
    begun = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + NEW)
    with alone(path):
        step("look")
        clear(new)
        sweep(path)
        try:
            standing = _standing(path, lake, layout, tombstones)
            if standing is not None and standing.current is not None and not rebuild:
                standing.current.seconds = round(time.monotonic() - begun, 3)
                return standing.current
            anew = rebuild or standing is None or not standing.fits
            step("copy")
            if not anew:
                shutil.copyfile(path, new)
            with _open(new) as connection:
                if anew:
                    step("create")
                    connection.execute(ddl())
                    connection.execute(
                        "INSERT INTO meta.warehouse VALUES (?, ?, ?)", [FORMAT, layout.platform_id, tombstones.digest]
                    )
                found = _fill(connection, lake, layout, tombstones, path, anew, step)
                _note(connection, found, begun)
                step("checkpoint")
                connection.execute("FORCE CHECKPOINT")
            step("publish")
            _publish(new, path)
        except duckdb.Error as error:
            raise WarehouseError(f"the warehouse at {path} cannot be loaded: {error}") from error
        finally:
            clear(new)
        step("published")
    found.seconds = round(time.monotonic() - begun, 3)
    return found


def _fill(
    connection: Connection,
    lake: Lake,
    layout: Layout,
    tombstones: Tombstones,
    path: Path,
    anew: bool,
    step: Callable[[str], None],
) -> Loaded:
    progress = _progress(connection)
    stage = Stage(connection, lake, tombstones)
    source.begin(connection)
    facts.begin(connection)
    moved: dict[int, int] = {}
    # Statements are run only where something came that they are about: most loads are of little.
    came: set[str] = set()
    events = False
    for partition in range(layout.partitions):
        since = progress.get(partition, 0)
        covered = _stage(stage, lake, partition, since, step)
        if covered is None:
            continue
        moved[partition] = covered
        step(f"take {partition}")
        came |= stage.kinds
        events |= stage.events
        rows = [table for table, kind in KINDS.items() if kind in stage.kinds]
        for table in rows:
            source.look(connection, table)
        for kind in facts.DOCUMENTS.values():
            if kind in stage.kinds:
                facts.take_documents(connection, kind, partition)
        for table in rows:
            if table in FACTS:
                facts.take_extras(connection, table)
            else:
                dimensions.take_versions(connection, table, str(KINDS[table]))
        if stage.events:
            if since and (days := facts.late_days(connection)):
                _recount(connection, stage, lake, partition, days, covered)
            facts.take_events(connection, partition)
    step("columns")
    notes: list[str] = []
    extras = source.settle(connection, notes, anew=anew)
    step("dimensions")
    for table, document in facts.DOCUMENTS.items():
        if came & {KINDS[table], document}:
            facts.fill_extras(connection, table, extras[table])
    for people in dimensions.PEOPLE:
        if KINDS[people] in came:
            dimensions.rebuild_people(connection, people, extras[people])
    for people, table, time_of in (
        (Source.USERS, Source.RIDES, "requested_at"),
        (Source.DRIVERS, Source.RIDES, "requested_at"),
        (Source.USERS, Source.MESSAGES, "sent_at"),
    ):
        if came & {KINDS[people], KINDS[table], facts.DOCUMENTS[table]}:
            dimensions.resolve(connection, people, table, time_of)
    if events:
        facts.sum_events(connection)
    if events or came & set(facts.DOCUMENTS.values()):
        dimensions.rebuild_places(connection)
    step("progress")
    for partition, covered in moved.items():
        connection.execute("DELETE FROM meta.progress WHERE partition = ?", [partition])
        connection.execute("INSERT INTO meta.progress VALUES (?, ?)", [partition, covered])
    return _counted(connection, Loaded(str(path), rebuilt=anew, notes=notes))


def _stage(stage: Stage, lake: Lake, partition: int, since: int, step: Callable[[str], None]) -> int | None:
    """Stage what is new in a partition; up to which seq that is, None where nothing is."""

    def fill() -> int | None:
        manifest = lake.manifest(partition)
        if manifest.covered_seq <= since:
            return None
        step(f"stage {partition}")
        stage.fill(partition, manifest, since)
        return manifest.covered_seq

    return again(fill)


def _recount(connection: Connection, stage: Stage, lake: Lake, partition: int, days: list[int], covered: int) -> None:
    """Count some days whole, with what is staged of the others."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE other_days AS SELECT * FROM staged_events WHERE date NOT IN {DAYS}",
        {"days": days},
    )
    again(lambda: stage.recount(partition, lake.manifest(partition), days, covered))
    facts.forget_days(connection, partition, days)
    connection.execute("INSERT INTO staged_events SELECT * FROM other_days")


class _Standing(NamedTuple):
    """What is published."""

    fits: bool
    """Whether a load can go on from it."""
    current: Loaded | None
    """What is in it, where there is nothing new."""


def _standing(path: Path, lake: Lake, layout: Layout, tombstones: Tombstones) -> _Standing | None:
    if not path.exists():
        return None
    with opened(path, {"threads": 1}) as connection:
        fits = _fits(connection, layout, tombstones)
        if not fits:
            return _Standing(False, None)
        progress = _progress(connection)
        if any(lake.manifest(p).covered_seq > progress.get(p, 0) for p in range(layout.partitions)):
            return _Standing(True, None)
        return _Standing(True, _counted(connection, Loaded(str(path), changed=False)))


def _progress(connection: Connection) -> dict[int, int]:
    return dict(connection.execute("SELECT partition, covered_seq FROM meta.progress").fetchall())


def _fits(connection: Connection, layout: Layout, tombstones: Tombstones) -> bool:
    """Whether a load may go on with this file: it is of this format and platform, and of nobody who is erased."""
    try:
        row = connection.execute("SELECT format, platform_id, erased FROM meta.warehouse").fetchone()
    except duckdb.CatalogException as error:
        raise WarehouseError("the file is no warehouse of Rebu: name another place with REBU_WAREHOUSE") from error
    if row is None or row[1] != layout.platform_id:
        raise WarehouseError(
            "the warehouse is of another platform: name another place with REBU_WAREHOUSE, or remove the file"
        )
    return bool(row[0] == FORMAT and row[2] == tombstones.digest)


def _counted(connection: Connection, found: Loaded) -> Loaded:
    """`found` with the counts of what is in the warehouse."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM fact_ride), (SELECT count(*) FROM fact_message), "
        "(SELECT count(*) FROM dim_user WHERE is_current), (SELECT count(*) FROM dim_driver WHERE is_current), "
        "(SELECT coalesce(sum(events), 0)::BIGINT FROM fact_event_daily)"
    ).fetchone()
    assert row is not None
    counts = dict(zip(("rides", "messages", "users", "drivers", "events"), row, strict=True))
    return msgspec.structs.replace(found, **counts)


def _note(connection: Connection, found: Loaded, begun: float) -> None:
    connection.execute(
        "INSERT INTO meta.loads SELECT coalesce(max(load_id), 0) + 1, make_timestamp_ms($start), "
        "make_timestamp_ms($end), $rebuilt, $rides, $messages, $users, $drivers, $events, $notes FROM meta.loads",
        {
            "start": round((time.time() - (time.monotonic() - begun)) * 1000),
            "end": time.time_ns() // 1_000_000,
            **{name: getattr(found, name) for name in ("rebuilt", "rides", "messages", "users", "drivers", "events")},
            "notes": found.notes,
        },
    )


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Connection]:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "threads": THREADS,
        "temp_directory": f"{path}.tmp",
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    connection = duckdb.connect(str(path), config=config)
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """One load at a time. Whoever is killed lets go."""
    with open(path.with_name(path.name + ".lock"), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WarehouseError("another load is under way: wait until it is done") from error
        yield


def _publish(new: Path, path: Path) -> None:
    """Put the new file in the published one's place; durable when this returns."""
    sync(new)
    os.replace(new, path)
    sync(path.parent)


def clear(new: Path) -> None:
    """Remove what a load that was killed left behind."""
    for name in (new, Path(f"{new}.wal")):
        name.unlink(missing_ok=True)
    shutil.rmtree(f"{new}.tmp", ignore_errors=True)
