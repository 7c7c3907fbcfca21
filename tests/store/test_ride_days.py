"""Rides counted by spans of time, against counting of the newest document of each, while files come and go."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.store import flush as flush_module
from rebu_ray.store import lake as lake_module
from rebu_ray.store import ride_days as ride_days_module
from rebu_ray.store.lake import Lake
from rebu_ray.store.ride_days import DAY_MS, RideDays
from rebu_ray.store.ride_files import RideFiles
from rebu_ray.store.ride_scan import NOTHING_FRESH, Overlay
from rebu_ray.store.ride_table import Wanted, fresh
from tests.records import NOW, seeded
from tests.ride_documents import Rides, Said, milliseconds, spread, statements
from tests.store.disk import PARTITIONS, Disk, batch, unsynced

HOUR_MS = 3_600_000
MIDNIGHT = NOW - NOW % DAY_MS
far = st.builds(
    lambda said, days: said._replace(requested_at=said.requested_at + days * DAY_MS),
    statements,
    st.sampled_from([0, 0, 0, -1, -2]),
)
EDGES = (
    [MIDNIGHT - 2 * DAY_MS, MIDNIGHT - DAY_MS, MIDNIGHT, MIDNIGHT + DAY_MS],
    [NOW - DAY_MS - 9 * HOUR_MS, NOW - 9 * HOUR_MS, NOW, NOW + 1, NOW + 15 * HOUR_MS],
    [NOW - 2 * DAY_MS, NOW - DAY_MS - 900_000],
    [MIDNIGHT - 5 * DAY_MS, MIDNIGHT - 4 * DAY_MS],
)
"""Days of UTC, those of another zone with odd spans among them, and spans with few rides or none."""


def days(disk: Disk) -> RideDays:
    return RideDays(RideFiles(Lake(disk.lake_uri)))


def oracle(rides: Rides, edges: Sequence[int]) -> list[list[int]]:
    """The same, by plain reading of everything that was computed."""
    total = [[0, 0, 0] for _ in edges[1:]]
    for document in rides.listed(Wanted()):
        at = milliseconds(document["requested_at"])
        for number, (low, high) in enumerate(itertools.pairwise(edges)):
            if low <= at < high:
                total[number][0] += 1
                total[number][1] += document["status"] == "completed"
                total[number][2] += document["premature"]
    return total


@pytest.mark.parametrize("kept", [0, 8_000_000])
@settings(seeded, max_examples=60)
@given(st.lists(st.sampled_from(["flush", "ask"]) | st.lists(far, min_size=1, max_size=5), max_size=10))
def test_counts_are_right_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory, kept: int, steps: list[str | list[Said]]
) -> None:
    disk, rides = Disk(tmp_path_factory.mktemp("disk")), Rides()
    unflushed: dict[str, bytes] = {}
    with unsynced(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush_module, "_SMALL_FILES", 2)
        patch.setattr(lake_module, "_RIDE_ROW_GROUP", 2)
        patch.setattr(ride_days_module, "_GROUPS_AT_ONCE", 2)
        patch.setattr(ride_days_module, "_KEPT", kept)
        counting = days(disk)
        log = disk.shard()

        def agree() -> None:
            bodies = [body for body in unflushed.values() if not json.loads(body).get("deleted")]
            overlay = Overlay(sorted(unflushed), fresh(bodies))
            for edges in EDGES:
                assert counting.counts(PARTITIONS, edges, overlay).tolist() == oracle(rides, edges)

        existing = iter(spread(one for step in steps if isinstance(step, list) for one in step))
        for step in steps:
            if step == "flush":
                disk.flush(log)
                # What has just been moved may still be said to be missing.
                agree()
                unflushed.clear()
            elif step == "ask":
                agree()
            else:
                for said, _ in zip(existing, step, strict=False):
                    record = rides.computed(said)
                    log.commit(batch(record), NOW)
                    unflushed[said.ride_id] = record.body
        agree()
        log.close()


def test_a_flush_costs_the_days_that_it_touches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, rides = Disk(tmp_path), Rides()
    log = disk.shard()
    for n in range(4):
        log.commit(batch(rides.computed(Said(f"r{n}", requested_at=NOW - n * DAY_MS))), NOW)
        disk.flush(log)
    counting = days(disk)
    edges = [MIDNIGHT + n * DAY_MS for n in range(-3, 2)]
    read: list[int] = []
    real = RideFiles.read_all

    def counted(files: RideFiles, groups: Sequence[object], columns: Sequence[str]) -> pa.Table:
        read.append(len(groups))
        return real(files, groups, columns)  # type: ignore[arg-type]

    monkeypatch.setattr(RideFiles, "read_all", counted)
    assert counting.counts(PARTITIONS, edges, NOTHING_FRESH)[:, 0].tolist() == [1, 1, 1, 1]
    assert sum(read) == 4
    read.clear()
    assert counting.counts(PARTITIONS, edges, NOTHING_FRESH)[:, 0].tolist() == [1, 1, 1, 1]
    assert read == []
    log.commit(batch(rides.computed(Said("r9", requested_at=NOW - 2 * DAY_MS))), NOW)
    disk.flush(log)
    assert counting.counts(PARTITIONS, edges, NOTHING_FRESH)[:, 0].tolist() == [1, 2, 1, 1]
    assert sum(read) == 2
