"""Tasks over a lake of which files are merged while they read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rebu_ray.process.full import crossing
from rebu_ray.process.tasks import rides_task
from rebu_ray.store.lake import DataFile, Lake, Manifest
from tests.records import NOW
from tests.ride_documents import Rides, Said
from tests.store.disk import PARTITIONS, Disk, batch
from tests.store.warehouses import ride_row


@pytest.fixture
def merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A lake with one ride. The files that the first manifests name are gone by the time they are opened."""
    disk = Disk(tmp_path)
    log = disk.shard()
    log.commit(batch(Rides().computed(Said("r1")), ride_row("r1")), NOW)
    disk.flush(log)
    log.close()
    left = [True] * PARTITIONS
    real = Lake.manifest

    def manifest(lake: Lake, partition: int) -> Manifest:
        found = real(lake, partition)
        if not left[partition]:
            return found
        left[partition] = False
        return msgspec.structs.replace(found, files=_gone(found.files), rides=_gone(found.rides))

    monkeypatch.setattr(Lake, "manifest", manifest)
    return disk.lake_uri


def _gone(files: tuple[DataFile, ...]) -> tuple[DataFile, ...]:
    return tuple(msgspec.structs.replace(file, name=f"gone-{file.name}") for file in files)


def test_rides_are_counted_anew_where_files_were_merged(merging: str) -> None:
    edges = [NOW - 86_400_000, NOW + 86_400_000]
    assert rides_task._function(merging, PARTITIONS, edges) == [1]  # type: ignore[attr-defined]


def test_a_whole_recomputation_begins_anew_where_files_were_merged(merging: str) -> None:
    found = [crossing(Lake(merging), partition) for partition in range(PARTITIONS)]
    assert sum(len(one.things) for one in found) == 1
