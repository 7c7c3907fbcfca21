"""Tallies in the lake: a few small files a partition, which its manifest names beside those of the rows."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from rebu_ray.store.lake import Lake, Manifest, TallyFile
from rebu_ray.store.tally import COLUMNS, received_as_stored, together


def add_tallies(
    lake: Lake, partition: int, manifest: Manifest, found: Iterable[pa.Table]
) -> tuple[tuple[TallyFile, ...], tuple[TallyFile, ...]]:
    """Write tallies for the manifest after `manifest`: the files from now on, and those merged into the new one.

    Each file has more than twice the rows of the next, so there are few, and a flush seldom rewrites much. What a
    lake holds from before there were tallies counts as received, as it is there now.
    """
    tables = list(found)
    if manifest.tallies is None and manifest.files:
        tables.append(received_as_stored(lake.read(partition, manifest.files, COLUMNS)))
    files = list(manifest.tallies or ())
    new, merged = together(tables), []
    if not new.num_rows:
        return tuple(files), ()
    while files and files[-1].rows <= 2 * new.num_rows:
        merged.append(files.pop())
        new = together([new, *lake.read_tallies(partition, merged[-1:])])
    return (*files, lake.write_tallies(partition, new, manifest.version + 1)), tuple(merged)
