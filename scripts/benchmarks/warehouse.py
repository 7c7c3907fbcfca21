"""How long does a load of the warehouse take, against plain CREATE TABLE AS over the same Parquet files?

The lake is that of `backfill.py` with a document for each ride. The peer makes a table of the newest documents, one of
users and one of daily counts of events, in one DuckDB process with as many threads: no history, no keys, no later load
that takes only what is new, no file that readers may keep open meanwhile. Then a thousand rides change, and both bring
their tables up to date. Afterwards both must hold the same rides.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from backfill import make_lake
from backfill import options as lake_options
from report import Report, arguments, progress

from rebu_ray.process.documents import documents
from rebu_ray.process.ride_stats import statistics
from rebu_ray.process.tables import from_rows
from rebu_ray.records import Kind, Source
from rebu_ray.store.lake import Lake
from rebu_ray.store.layout import open_layout
from rebu_ray.store.ride_table import to_rides
from rebu_ray.store.rows import ROWS
from rebu_ray.store.tombstones import none
from rebu_ray.store.warehouse.load import load
from rebu_ray.store.warehouse.schema import RIDE_COLUMNS, RIDE_SHAPE, text

_CHANGED: Final = 1_000
_LATER_MS: Final = 1_900_000_000_000


def options(parser: argparse.ArgumentParser) -> None:
    lake_options(parser)
    parser.set_defaults(rides=1_000_000, events=1_000_000, messages=0)


def fill(lake: Lake, files: list[Path]) -> None:
    """The rows of all partitions in a lake, with a document of each ride."""
    for partition, file in enumerate(files):
        rows = pq.read_table(file, partitioning=None).select(ROWS.names).cast(ROWS)
        made = documents(statistics(from_rows(rows)))
        bodies = [body[:-1] + _END for body in made["document"].to_pylist()]
        count = len(bodies)
        seq = np.arange(rows.num_rows + 1, rows.num_rows + 1 + count)
        _commit(lake, partition, [rows], _documents(partition, seq, made, bodies))


_END: Final = b',"version":1,"known_at":"2026-03-01T08:00:00.000Z","computed_at":"2026-03-01T08:00:00.000Z"}'


def _documents(partition: int, seq: npt.NDArray[np.int64], made: pa.Table, bodies: list[bytes]) -> pa.Table:
    count = len(bodies)
    columns = {
        "seq": seq,
        "partition": np.full(count, partition),
        "fingerprint": seq.astype(np.uint64),
        "key": pc.binary_join_element_wise("u:", made["user_id"], ""),
        "id": pc.binary_join_element_wise(made["ride_id"], "@1", ""),
        "kind": pa.repeat(str(Kind.RIDE_DOCUMENT), count),
        "name": made["ride_id"],
        "source": pa.repeat(str(Source.COMPUTED), count),
        "event_time": made["requested_at"],
        "received_at": np.full(count, _LATER_MS),
        "user_id": made["user_id"],
        **{name: pa.nulls(count, pa.string()) for name in ("anonymous_id", "request_id", "matched_by", "links")},
        "body": pa.array(bodies, pa.binary()),
    }
    rows = pa.table([columns[name] for name in ROWS.names], names=ROWS.names).cast(ROWS)
    return to_rides(rows, lambda table: pa.repeat(False, table.num_rows))


def _commit(lake: Lake, partition: int, rows: list[pa.Table], rides: pa.Table) -> None:
    before = lake.manifest(partition)
    version = before.version + 1
    files = [*before.files, *(lake.write(partition, table, version) for table in rows)]
    last = pc.max(rides["seq"]).as_py()
    lake.commit(partition, before, files, last, [*before.rides, lake.write_rides(partition, rides, version)])


def change(lake: Lake, partitions: int) -> None:
    """A thousand rides have a newer document."""
    for partition in range(partitions):
        before = lake.manifest(partition)
        old = lake.read(partition, before.rides[:1]).slice(0, _CHANGED // partitions).cast(ROWS)
        seq = pa.array(np.arange(before.covered_seq + 1, before.covered_seq + 1 + old.num_rows))
        rows = old.set_column(0, ROWS.field("seq"), seq)
        _commit(lake, partition, [], to_rides(rows, lambda table: pa.repeat(False, table.num_rows)))


def peer(lake: Path, path: Path) -> float:
    """Seconds for three tables."""
    path.unlink(missing_ok=True)
    started = time.perf_counter()
    columns = ", ".join(f"{expression} AS {name}" for name, (_, expression) in RIDE_COLUMNS.items())
    with duckdb.connect(str(path), config={"threads": 2, "memory_limit": "1GB"}) as connection:
        connection.execute(f"""
            CREATE TABLE fact_ride AS SELECT ride_id, {columns} FROM (
                SELECT name AS ride_id, json_transform(decode(body), {text(RIDE_SHAPE)}) AS d
                FROM read_parquet('{lake}/*/rides-*.parquet')
                QUALIFY row_number() OVER (PARTITION BY name ORDER BY seq DESC) = 1)
        """)
        connection.execute(f"""
            CREATE TABLE users AS SELECT name AS user_id, decode(body) AS body, event_time
            FROM read_parquet('{lake}/*/0*.parquet') WHERE kind = 'user'
        """)
        connection.execute(f"""
            CREATE TABLE events AS
            SELECT make_timestamp_ms(event_time)::DATE AS date, kind, source, name, count(*) AS events
            FROM read_parquet('{lake}/*/0*.parquet')
            WHERE kind IN ('app_event', 'app_error', 'server_access', 'server_error') GROUP BY ALL
        """)
    return time.perf_counter() - started


def same(ours: Path, theirs: Path) -> bool:
    with duckdb.connect() as connection:
        for name, path in (("a", ours), ("b", theirs)):
            connection.execute(f"ATTACH '{path}' AS {name} (READ_ONLY)")
        columns = ", ".join(["ride_id", *RIDE_COLUMNS])
        counts = [
            connection.execute(f"SELECT count(*), bit_xor(hash({columns})) FROM {name}.fact_ride").fetchone()
            for name in "ab"
        ]
    return counts[0] == counts[1]


def measure(folder: Path, given: argparse.Namespace) -> bool:
    progress(f"making a lake with {given.rides:,} rides and {given.events:,} events")
    (folder / "raw").mkdir(parents=True)
    root = folder / "lake"
    files = make_lake(folder / "raw", given)
    layout, lake = open_layout(str(root), given.partitions), Lake(str(root))
    fill(lake, files)
    ours, theirs = folder / "warehouse.duckdb", folder / "peer.duckdb"
    report = Report("Loading the warehouse", "Rebu", "peer (CREATE TABLE AS)")
    whole, plain = [], []
    for _ in range(given.rounds):
        plain.append(peer(root, theirs))
        started = time.perf_counter()
        load(lake, layout, ours, none(), rebuild=True)
        whole.append(time.perf_counter() - started)
        progress(f"everything: {whole[-1]:.1f} s, {plain[-1]:.1f} s")
    report.add(f"{given.rides:,} rides, {given.events:,} events", "s", whole, plain, bytes=ours.stat().st_size)
    little, again = [], []
    for _ in range(given.rounds):
        change(lake, given.partitions)
        again.append(peer(root, theirs))
        started = time.perf_counter()
        load(lake, layout, ours, none())
        little.append(time.perf_counter() - started)
        progress(f"{_CHANGED:,} changed rides: {little[-1]:.2f} s, {again[-1]:.1f} s")
    report.add(f"{_CHANGED:,} changed rides", "s", little, again)
    equal = same(ours, theirs)
    if not equal:
        print("the two do not hold the same rides", file=sys.stderr)
    report.finish(given.json)
    return equal


def main() -> int:
    given = arguments(__doc__, options, rounds=3)
    if given.folder is not None:
        return 0 if measure(given.folder, given) else 1
    with tempfile.TemporaryDirectory(prefix="rebu-warehouse-") as folder:
        return 0 if measure(Path(folder), given) else 1


if __name__ == "__main__":
    sys.exit(main())
