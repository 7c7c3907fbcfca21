"""From the journal to the lake: what a Ray task does with a shard's sealed segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.store.journal import Journal, SegmentName, unpack
from rebu_ray.store.lake import DataFile, Lake, Manifest, first_of_each
from rebu_ray.store.ride_files import RideFiles, moved
from rebu_ray.store.ride_table import RIDES, split, to_rides
from rebu_ray.store.rows import ROWS

_SMALL_BYTES: Final = 16 * 1024 * 1024
_SMALL_FILES: Final = 8
"""So many small files of a partition, the newest ones, are merged into one at the next flush.

Only neighbours: the files of a partition stay in sequence, so that it can be read in sequence, file by file.
"""


class Flushed(NamedTuple):
    """The outcome for one partition: its files from now on, those replaced, what is covered, what was written to."""

    partition: int
    files: tuple[DataFile, ...]
    rides: tuple[DataFile, ...]
    replaced: tuple[DataFile, ...]
    """Of both."""
    covered_seq: int
    streams: tuple[str, ...]
    """Of the streams that were written to, those that the index holds."""


def flush(
    journal: Journal, lake: Lake, segments: Sequence[SegmentName], manifests: dict[int, Manifest]
) -> list[Flushed]:
    """Write the rows of `segments` that the manifests do not cover: a file of documents of rides and one of all
    others a partition. Commits nothing.

    Running it twice with the same manifests writes the same rows; only the owner's commit makes them count.
    """
    gathered: dict[int, list[pa.RecordBatch]] = {}
    for segment in segments:
        for frame in unpack(journal.read(segment), str(segment)):
            rows: pa.RecordBatch | None = None
            start = 0
            for span in frame.header.spans:
                manifest = manifests.get(span.partition)
                if manifest is not None and span.first_seq + span.count - 1 > manifest.covered_seq:
                    rows = rows if rows is not None else frame.rows()
                    gathered.setdefault(span.partition, []).append(rows.slice(start, span.count))
                start += span.count
    return [_flush_partition(lake, p, manifests[p], batches) for p, batches in sorted(gathered.items())]


def _flush_partition(lake: Lake, partition: int, manifest: Manifest, batches: list[pa.RecordBatch]) -> Flushed:
    rows = pa.Table.from_batches(batches, ROWS)
    rows = rows.filter(pc.greater(rows["seq"], manifest.covered_seq))
    covered_seq = pc.max(rows["seq"]).as_py()
    streams = tuple(k for k in pc.unique(rows["key"]).to_pylist() if k.startswith(("u:", "a:", "d:")))
    others, documents = split(rows)
    version = manifest.version + 1
    files, replaced = _joined(lake, partition, manifest.files, others, ROWS, partial(lake.write, version=version))
    table = to_rides(documents, partial(moved, RideFiles(lake), partition, manifest.rides))
    rides, merged = _joined(lake, partition, manifest.rides, table, RIDES, partial(lake.write_rides, version=version))
    return Flushed(partition, files, rides, (*replaced, *merged), covered_seq, streams)


def _joined(
    lake: Lake,
    partition: int,
    files: tuple[DataFile, ...],
    rows: pa.Table,
    schema: pa.Schema,
    write: Callable[[int, pa.Table], DataFile],
) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...]]:
    """Write rows beside files, or together with the small ones of them: the files from now on, and those replaced."""
    if not rows.num_rows:
        return files, ()
    newest_first = sorted(files, key=lambda f: f.first_seq, reverse=True)
    small = tuple(takewhile(lambda f: f.bytes < _SMALL_BYTES, newest_first))
    replaced = small if len(small) >= _SMALL_FILES else ()
    if replaced:
        rows = first_of_each(pa.concat_tables([lake.read(partition, replaced, schema.names).cast(schema), rows]))
    written = write(partition, rows)
    return (*(f for f in files if f not in replaced), written), replaced
