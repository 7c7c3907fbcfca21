"""A journal and a lake on disk, and the shards that come and go on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from rebu_ray.records import Record
from rebu_ray.store.flush import Flushed, flush
from rebu_ray.store.journal import SegmentName, open_journal
from rebu_ray.store.lake import Lake, Manifest
from rebu_ray.store.log import ShardLog
from rebu_ray.store.rows import to_batch
from tests.records import NOW, routed

PARTITIONS = 4
HOUR_MS = 3_600_000


def batch(*records: Record) -> pa.RecordBatch:
    """Records as they come to a shard."""
    return to_batch(routed(records, PARTITIONS))


@contextmanager
def unsynced() -> Iterator[None]:
    """Without waiting for the disk, where many small worlds are made and none of them has to survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(os, "fdatasync", lambda file: None)
        yield


class Disk:
    """Where it is, and what is done to it from outside a shard."""

    def __init__(self, folder: Path) -> None:
        self.journal_uri, self.lake_uri = str(folder / "journal"), str(folder / "lake")

    def shard(self, slot: int = 0, partitions: range = range(PARTITIONS)) -> ShardLog:
        """A shard that has just recovered."""
        log = ShardLog(open_journal(self.journal_uri), Lake(self.lake_uri), slot, partitions)
        log.recover(NOW, HOUR_MS)
        return log

    def write(self, log: ShardLog, segments: list[SegmentName]) -> list[Flushed]:
        """What the task of a flush does."""
        return flush(open_journal(self.journal_uri), Lake(self.lake_uri), segments, log.manifests, log.tombstones)

    def commit(self, log: ShardLog, results: list[Flushed]) -> dict[int, Manifest]:
        """Make it count."""
        lake = Lake(self.lake_uri)
        return {
            r.partition: lake.commit(
                r.partition, log.manifests[r.partition], r.files, r.covered_seq, r.rides, r.tallies
            )
            for r in results
        }

    def flush(self, log: ShardLog) -> None:
        """Move all that a shard has journalled to the lake."""
        segments = log.seal()
        log.flushed(self.commit(log, self.write(log, segments)), segments)

    def segments(self) -> list[SegmentName]:
        """What is in the journal."""
        return open_journal(self.journal_uri).segments()


def everything(log: ShardLog, since: int = 0) -> list[tuple[str, str, int]]:
    """(key, id, seq) of all rows that the log knows of from after a sequence number on, from lake and journal."""
    rows = [row for b in log.since(dict.fromkeys(log.partitions, since)) for row in b.to_pylist()]
    last = dict.fromkeys(log.partitions, since)
    for row in rows:
        assert row["seq"] > last[row["partition"]], "a reader that stops here could not go on from here"
        last[row["partition"]] = row["seq"]
    return sorted((row["key"], row["id"], row["seq"]) for row in rows)
