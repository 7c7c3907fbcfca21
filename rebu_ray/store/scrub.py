"""Taking the rows of erased people out of Parquet files: what a Ray task writes, and the partition's owner commits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rebu_ray.records import Kind
from rebu_ray.store.lake import DataFile, Lake, Manifest, TallyFile
from rebu_ray.store.ride_table import RIDES
from rebu_ray.store.rows import ROWS
from rebu_ray.store.tally import no_longer_stored
from rebu_ray.store.tally_files import add_tallies
from rebu_ray.store.tombstones import SCANNED, Tombstones

_COLUMNS: Final = list(SCANNED)


class Scrubbed(NamedTuple):
    """The outcome for one partition: its files from now on, those replaced, and how many rows went."""

    partition: int
    files: tuple[DataFile, ...]
    rides: tuple[DataFile, ...]
    tallies: tuple[TallyFile, ...]
    replaced: tuple[DataFile | TallyFile, ...]
    rows: int


def scrub(lake: Lake, partition: int, manifest: Manifest, tombstones: Tombstones) -> Scrubbed:
    """Write the files of a partition that hold rows of the erased anew, without those. Commits nothing.

    Files without such rows stay as they are; to find out costs their narrow columns.
    """
    gone: list[pa.Table] = []
    files, old = _cleaned(lake, partition, manifest, manifest.files, ROWS, tombstones, gone)
    rides, older = _cleaned(lake, partition, manifest, manifest.rides, RIDES, tombstones, gone)
    # What was received was counted when it came; here it is only said where it went.
    tallies, merged = add_tallies(lake, partition, manifest, [no_longer_stored(rows, "suppressed") for rows in gone])
    return Scrubbed(partition, files, rides, tallies, (*old, *older, *merged), sum(rows.num_rows for rows in gone))


def commit_scrubbed(lake: Lake, manifest: Manifest, outcome: Scrubbed, digest: str) -> Manifest:
    """Make a scrubbing count, and remove at once what it replaced and whatever else no manifest names.

    Only for the owner of the partition, while it flushes nothing.
    """
    p = outcome.partition
    after = lake.commit(p, manifest, outcome.files, manifest.covered_seq, outcome.rides, outcome.tallies, erased=digest)
    lake.remove_unnamed(p, after)
    return after


def holds_erased(lake: Lake, partition: int, file: DataFile, tombstones: Tombstones) -> bool:
    """Whether a file has rows of the erased."""
    with lake.open(partition, file) as parquet:
        return any(_of_group(parquet, number, tombstones) for number in range(parquet.num_row_groups))


def _of_group(parquet: pq.ParquetFile, number: int, tombstones: Tombstones) -> bool:
    rows = parquet.read_row_group(number, columns=_COLUMNS)
    if pc.any(pc.equal(rows["kind"], str(Kind.DEAD_LETTER))).as_py():
        rows = parquet.read_row_group(number, columns=[*_COLUMNS, "body"])
    return bool(np.any(tombstones.dead(rows)))


def _cleaned(
    lake: Lake,
    partition: int,
    manifest: Manifest,
    files: Sequence[DataFile],
    schema: pa.Schema,
    tombstones: Tombstones,
    gone: list[pa.Table],
) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...]]:
    """The files from now on, and those that were replaced. The rows that went are added to `gone`, without bodies."""
    write = partial(lake.write if schema is ROWS else lake.write_rides, version=manifest.version + 1)
    kept: list[DataFile] = []
    replaced: list[DataFile] = []
    for file in files:
        if not holds_erased(lake, partition, file, tombstones):
            kept.append(file)
            continue
        rows = lake.read(partition, [file], schema.names).cast(schema)
        dead = tombstones.dead(rows)
        gone.append(rows.filter(pa.array(dead)).select(ROWS.names).drop_columns("body"))
        replaced.append(file)
        left = rows.filter(pa.array(~dead))
        if left.num_rows:
            kept.append(write(partition, left))
    return tuple(kept), tuple(replaced)
