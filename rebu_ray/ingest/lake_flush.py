"""The Ray task that turns sealed segments into Parquet, and the owner's commit of its outcome."""

from __future__ import annotations

from collections.abc import Sequence

import ray

from rebu_ray.store.flush import Flushed, flush
from rebu_ray.store.journal import SegmentName, open_journal
from rebu_ray.store.lake import Lake, Manifest


@ray.remote(num_cpus=0.25, max_retries=3)
def flush_task(
    journal_uri: str, lake_uri: str, segments: Sequence[SegmentName], manifests: dict[int, Manifest]
) -> list[Flushed]:
    """`store.flush.flush` where there is room for it."""
    return flush(open_journal(journal_uri), Lake(lake_uri), segments, manifests)


def commit_flushed(lake: Lake, manifests: dict[int, Manifest], results: Sequence[Flushed]) -> dict[int, Manifest]:
    """Make what a flush wrote count. Only for the owner of the partitions."""
    return {
        r.partition: lake.commit(r.partition, manifests[r.partition], r.files, r.covered_seq, r.rides) for r in results
    }
