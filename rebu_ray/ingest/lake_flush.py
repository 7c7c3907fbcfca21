"""The Ray task that turns sealed segments into Parquet, and the owner's commit of its outcome."""

from __future__ import annotations

from collections.abc import Sequence

import ray

from rebu_ray.store.flush import Flushed, flush
from rebu_ray.store.journal import SegmentName, open_journal
from rebu_ray.store.lake import Lake, Manifest
from rebu_ray.store.tombstones import Tombstones


@ray.remote(num_cpus=0.25, max_retries=3)
def flush_task(
    journal_uri: str,
    lake_uri: str,
    segments: Sequence[SegmentName],
    manifests: dict[int, Manifest],
    tombstones: Tombstones,
) -> list[Flushed]:
    """`store.flush.flush` where there is room for it."""
    return flush(open_journal(journal_uri), Lake(lake_uri), segments, manifests, tombstones)


def commit_flushed(
    lake: Lake, manifests: dict[int, Manifest], results: Sequence[Flushed], committed: dict[int, Manifest]
) -> None:
    """Make what a flush wrote count, partition by partition, each of which is in `committed` from then on.

    Only for the owner of the partitions.
    """
    for r in results:
        before = manifests[r.partition]
        committed[r.partition] = lake.commit(r.partition, before, r.files, r.covered_seq, r.rides, r.tallies)
