"""A partition's rows of the lake in the order of the journal, whichever files they are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.store.lake import DataFile, Lake, Manifest
from rebu_ray.store.rows import ROWS


def in_sequence(
    lake: Lake, partition: int, manifest: Manifest, after: int = 0, until: int | None = None
) -> Iterator[pa.Table]:
    """The rows (`ROWS`) with a sequence number beyond `after`, documents of rides included, in sequence; none beyond
    `until`, where that is given.

    Two files are held at a time, one of each sort: the files of a sort follow one another.
    """
    last = manifest.covered_seq if until is None else until
    rows, documents = (
        _files_in_sequence(lake, partition, files, after, last) for files in (manifest.files, manifest.rides)
    )
    left, right = next(rows, None), next(documents, None)
    while left is not None and right is not None:
        edge = min(_last_seq(left), _last_seq(right))
        ready = [table.filter(pc.less_equal(table["seq"], edge)) for table in (left, right)]
        yield pa.concat_tables(ready).sort_by("seq")
        left, right = (table.slice(done.num_rows) for table, done in zip((left, right), ready, strict=True))
        left = left if left.num_rows else next(rows, None)
        right = right if right.num_rows else next(documents, None)
    for table, following in ((left, rows), (right, documents)):
        if table is not None:
            yield table
        yield from following


def _files_in_sequence(
    lake: Lake, partition: int, files: Sequence[DataFile], after: int, until: int
) -> Iterator[pa.Table]:
    for file in sorted(files, key=lambda f: f.first_seq):
        if file.last_seq > after and file.first_seq <= until:
            table = lake.read(partition, [file]).cast(ROWS)
            wanted = pc.and_(pc.greater(table["seq"], after), pc.less_equal(table["seq"], until))
            table = table.filter(wanted).sort_by("seq")
            if table.num_rows:  # numbers have gaps where rows were erased
                yield table


def _last_seq(table: pa.Table) -> int:
    last: int = table["seq"][-1].as_py()
    return last
