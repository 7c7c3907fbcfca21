"""From the journal to the lake: what a Ray task does with a shard's sealed segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.store.journal import Journal, SegmentName, unpack
from rebu_ray.store.lake import DataFile, Lake, Manifest, TallyFile, first_of_each
from rebu_ray.store.ride_files import RideFiles, moved
from rebu_ray.store.ride_table import RIDES, split, to_rides
from rebu_ray.store.rows import ROWS
from rebu_ray.store.tally import Entry, as_table, no_longer_stored, received_as_stored
from rebu_ray.store.tally_files import add_tallies
from rebu_ray.store.tombstones import Tombstones, none

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
    replaced: tuple[DataFile | TallyFile, ...]
    """Of all three sorts."""
    covered_seq: int
    streams: tuple[str, ...]
    """Of the streams that were written to, those that the index holds."""
    tallies: tuple[TallyFile, ...] = ()


def flush(
    journal: Journal,
    lake: Lake,
    segments: Sequence[SegmentName],
    manifests: dict[int, Manifest],
    tombstones: Tombstones | None = None,
) -> list[Flushed]:
    """Write the rows of `segments` that the manifests do not cover: a file of documents of rides and one of all
    others a partition. Those of erased people are left out. Commits nothing.

    Running it twice with the same manifests writes the same rows; only the owner's commit makes them count.
    """
    gathered: dict[int, list[pa.RecordBatch]] = {}
    entries: dict[int, list[Entry]] = {}
    untold: dict[int, list[pa.Table]] = {}
    for segment in segments:
        try:
            data = journal.read(segment)
        except FileNotFoundError:  # another owner of rows in it found that all of it is in the lake
            continue
        for frame in unpack(data, str(segment)):
            rows: pa.RecordBatch | None = None
            start = 0
            for span in frame.header.spans:
                manifest = manifests.get(span.partition)
                if manifest is not None and span.first_seq + span.count - 1 > manifest.covered_seq:
                    rows = rows if rows is not None else frame.rows()
                    part = rows.slice(start, span.count)
                    gathered.setdefault(span.partition, []).append(part)
                    if span.tallies is None:
                        untold.setdefault(span.partition, []).append(received_as_stored(part))
                    else:
                        entries.setdefault(span.partition, []).extend(span.tallies)
                start += span.count
    results: list[Flushed] = []
    try:
        for p, batches in sorted(gathered.items()):
            came = [as_table(entries.get(p, ())), *untold.get(p, ())]
            results.append(_flush_partition(lake, p, manifests[p], batches, came, tombstones or none()))
    except OSError:
        # The disk may be full: what nobody will name goes.
        for result in results:
            known = {file.name for file in (*manifests[result.partition].files, *manifests[result.partition].rides)}
            lake.remove(result.partition, [f for f in (*result.files, *result.rides) if f.name not in known])
        raise
    return results


def _flush_partition(
    lake: Lake,
    partition: int,
    manifest: Manifest,
    batches: list[pa.RecordBatch],
    came: list[pa.Table],
    erased: Tombstones,
) -> Flushed:
    # Sorting looks at every row many times, and each time finds out in which of many small batches it is.
    rows = pa.Table.from_batches(batches, ROWS).combine_chunks()
    rows = rows.filter(pc.greater(rows["seq"], manifest.covered_seq))
    covered_seq = pc.max(rows["seq"]).as_py()
    dead = erased.dead(rows)
    if dead.any():
        came = [*came, no_longer_stored(rows.filter(pa.array(dead)), "suppressed")]
        rows = rows.filter(pa.array(~dead))
    streams = tuple(k for k in pc.unique(rows["key"]).to_pylist() if k.startswith(("u:", "a:", "d:")))
    others, documents = split(rows)
    version = manifest.version + 1
    files, replaced, doubles = _joined(
        lake, partition, manifest.files, others, ROWS, partial(lake.write, version=version)
    )
    computed = to_rides(documents, partial(moved, RideFiles(lake), partition, manifest.rides))
    rides, merged, _ = _joined(
        lake, partition, manifest.rides, computed, RIDES, partial(lake.write_rides, version=version)
    )
    tallies, summed = add_tallies(lake, partition, manifest, [*came, no_longer_stored(doubles, "duplicate")])
    return Flushed(partition, files, rides, (*replaced, *merged, *summed), covered_seq, streams, tallies)


def _joined(
    lake: Lake,
    partition: int,
    files: tuple[DataFile, ...],
    rows: pa.Table,
    schema: pa.Schema,
    write: Callable[[int, pa.Table], DataFile],
) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...], pa.Table]:
    """Write rows beside files, or together with the small ones of them: the files from now on, those replaced, and
    the rows that were left out since others are the same record: sent again when that was forgotten already.
    """
    doubles = schema.empty_table()
    if not rows.num_rows:
        return files, (), doubles
    newest_first = sorted(files, key=lambda f: f.first_seq, reverse=True)
    small = tuple(takewhile(lambda f: f.bytes < _SMALL_BYTES, newest_first))
    replaced = small if len(small) >= _SMALL_FILES else ()
    if replaced:
        both = pa.concat_tables([lake.read(partition, replaced, schema.names).cast(schema), rows])
        rows = first_of_each(both)
        if rows.num_rows < both.num_rows:
            doubles = both.filter(pc.invert(pc.is_in(both["seq"], value_set=pc.unique(rows["seq"]))))
    written = write(partition, rows)
    return (*(f for f in files if f not in replaced), written), replaced, doubles
