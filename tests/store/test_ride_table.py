"""The ride table: documents of rides go to files of their own, stay rows, and are listed as they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.access.tape import END, START, after
from rebu_ray.store import flush as flush_module
from rebu_ray.store import lake as lake_module
from rebu_ray.store.lake import Lake, Manifest
from rebu_ray.store.log import ShardLog
from rebu_ray.store.member import time_place
from rebu_ray.store.ride_files import RideFiles
from rebu_ray.store.ride_scan import NOTHING_FRESH, Overlay, RideQuery, last_place, newest_rides
from rebu_ray.store.ride_table import RIDES, Wanted, fresh
from rebu_ray.store.rows import partition_of
from tests.records import NOW, routed, said, seeded
from tests.ride_documents import Document, Rides, Said, conditions, milliseconds, spread, statements
from tests.store.disk import PARTITIONS, Disk, batch, everything, unsynced


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are merged soon, and a row group is soon full."""
    monkeypatch.setattr(flush_module, "_SMALL_FILES", 2)
    monkeypatch.setattr(lake_module, "_RIDE_ROW_GROUP", 2)


def listed(disk: Disk, query: RideQuery, overlay: Overlay = NOTHING_FRESH, size: int = 100) -> list[Document]:
    tables = newest_rides(RideFiles(Lake(disk.lake_uri)), PARTITIONS, query, overlay, size)
    return [json.loads(body) for table in tables for body in table["body"].to_pylist()]


def every(wanted: Wanted | None = None, *, descending: bool = True, as_of: int | None = None) -> RideQuery:
    return RideQuery(START, END, descending, wanted or Wanted(), as_of)


def manifests(disk: Disk) -> Iterator[tuple[int, Manifest]]:
    for partition in range(PARTITIONS):
        yield partition, Lake(disk.lake_uri).manifest(partition)


# -- files ----------------------------------------------------------------------------------------------------------


def test_documents_of_rides_have_files_of_their_own(tmp_path: Path) -> None:
    disk, rides = Disk(tmp_path), Rides()
    log = disk.shard()
    late, early = rides.computed(Said("r2", requested_at=NOW + 5)), rides.computed(Said("r1", premature=True))
    log.commit(batch(said("ada", "1"), late, early), NOW)
    disk.flush(log)
    partition = partition_of("u:ada", PARTITIONS)
    manifest = Lake(disk.lake_uri).manifest(partition)
    assert [(f.rows, f.first_seq, f.last_seq) for f in manifest.files] == [(1, 1, 1)]
    assert [(f.rows, f.first_seq, f.last_seq) for f in manifest.rides] == [(2, 2, 3)]
    name = manifest.rides[0].name
    assert name.startswith("rides-")
    table = pq.read_table(Path(disk.lake_uri) / f"partition={partition:04d}" / name, partitioning=None)
    assert table.column_names == RIDES.names
    assert table["name"].to_pylist() == ["r1", "r2"]
    assert table.select(["status", "city", "driver_id", "premature", "version", "moved"]).to_pylist()[0] == {
        "status": "completed",
        "city": "berlin",
        "driver_id": "d1",
        "premature": True,
        "version": 1,
        "moved": False,
    }
    assert table["known_at"].to_pylist() == [rides.clock - 500, rides.clock - 1500]


@pytest.mark.usefixtures("small_files")
@settings(seeded, max_examples=50)
@given(st.lists(st.sampled_from(["event", "flush", "restart"]) | statements, max_size=30), st.integers(0, 12))
def test_every_row_comes_back_in_sequence_and_is_known_again(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str | Said], since: int
) -> None:
    disk, rides = Disk(tmp_path_factory.mktemp("disk")), Rides()
    records = []
    with unsynced():
        log = disk.shard()
        for number, step in enumerate(steps):
            if step == "flush":
                disk.flush(log)
            elif step == "restart":
                log.close()
                log = disk.shard()
            else:
                records.append(rides.computed(step) if isinstance(step, Said) else said("ada", f"{number}"))
                log.commit(batch(records[-1]), NOW)
        found = everything(log)
        assert [(key, i) for key, i, _ in found] == sorted(
            (row.key, row.record.id) for row in routed(records, PARTITIONS)
        )
        assert everything(log, since) == [row for row in found if row[2] > since]
        bodies = {
            row["id"]: row["body"] for b in log.since(dict.fromkeys(range(PARTITIONS), 0)) for row in b.to_pylist()
        }
        assert bodies == {record.id: record.body for record in records}
        again = disk.shard()
        if records:
            assert not again.commit(batch(*records), NOW).new.any()


@pytest.mark.usefixtures("small_files")
def test_small_files_become_one_and_keep_every_version(tmp_path: Path) -> None:
    disk, rides = Disk(tmp_path), Rides()
    log = disk.shard()
    for n in range(7):
        log.commit(batch(rides.computed(Said("r1", app=n)), said("ada", f"{n}")), NOW)
        disk.flush(log)
    [manifest] = [m for _, m in manifests(disk) if m.rides]
    assert len(manifest.rides) < 4
    assert all(before.last_seq < after.first_seq for before, after in pairwise(manifest.rides))
    assert sum(file.rows for file in manifest.rides) == 7
    for n in range(7):
        known = listed(disk, every(as_of=NOW + 1000 * n + 500))
        assert [d["errors"]["app"] for d in known] == [n]


def test_a_flush_without_documents_leaves_the_ride_files_alone(tmp_path: Path) -> None:
    disk, rides = Disk(tmp_path), Rides()
    log = disk.shard()
    log.commit(batch(rides.computed(Said("r1"))), NOW)
    disk.flush(log)
    partition = partition_of("u:ada", PARTITIONS)
    before = log.manifests[partition]
    assert before.files == ()
    log.commit(batch(said("ada", "1")), NOW)
    disk.flush(log)
    assert (log.manifests[partition].rides, len(log.manifests[partition].files)) == (before.rides, 1)
    assert log.manifests[partition].covered_seq == 2


def test_a_manifest_from_before_there_were_ride_files_is_read(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    log.commit(batch(said("ada", "1")), NOW)
    disk.flush(log)
    partition = partition_of("u:ada", PARTITIONS)
    path = next((Path(disk.lake_uri) / f"partition={partition:04d}").glob("manifest-*"))
    old = msgspec.msgpack.decode(path.read_bytes())
    del old["rides"]
    path.write_bytes(msgspec.msgpack.encode(old))
    assert len(everything(disk.shard())) == 1
    assert listed(disk, every()) == []


# -- lists ----------------------------------------------------------------------------------------------------------

_STEPS = st.lists(st.lists(statements, max_size=6), min_size=1, max_size=6)


def _written(disk: Disk, rides: Rides, parts: list[list[Said]]) -> ShardLog:
    """Each part flushed by itself."""
    log = disk.shard()
    flat = spread(one for part in parts for one in part)
    for part in parts:
        taken, flat = flat[: len(part)], flat[len(part) :]
        if taken:
            log.commit(batch(*(rides.computed(one) for one in taken)), NOW)
            disk.flush(log)
    return log


@pytest.mark.usefixtures("small_files")
@settings(seeded, max_examples=60)
@given(_STEPS, conditions, st.booleans(), st.integers(1, 4), st.none() | st.integers(0, 20))
def test_a_list_has_the_newest_version_of_each_ride_that_is_wanted(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[list[Said]],
    wanted: Wanted,
    descending: bool,
    size: int,
    seconds: int | None,
) -> None:
    disk, rides = Disk(tmp_path_factory.mktemp("disk")), Rides()
    with unsynced():
        _written(disk, rides, parts)
    as_of = None if seconds is None else NOW + 1000 * seconds
    expected = rides.listed(wanted, as_of=as_of, descending=descending)
    assert listed(disk, every(wanted, descending=descending, as_of=as_of), size=size) == expected


@pytest.mark.usefixtures("small_files")
@settings(seeded, max_examples=40)
@given(_STEPS, st.booleans(), st.integers(-1001, 5), st.integers(-1001, 5), st.integers(1, 3))
def test_pages_one_after_the_other_within_bounds(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[list[Said]],
    descending: bool,
    since: int,
    until: int,
    size: int,
) -> None:
    disk, rides = Disk(tmp_path_factory.mktemp("disk")), Rides()
    with unsynced():
        _written(disk, rides, parts)
    query = RideQuery(time_place(NOW + since), time_place(NOW + until), descending)
    files = RideFiles(Lake(disk.lake_uri))
    met: list[Document] = []
    while (page := next(newest_rides(files, PARTITIONS, query, NOTHING_FRESH, size), None)) is not None:
        met += [json.loads(body) for body in page["body"].to_pylist()]
        place = last_place(page)
        query = query._replace(high=place) if descending else query._replace(low=after(place))
    expected = rides.listed(Wanted(), descending=descending)
    assert met == [d for d in expected if NOW + since <= milliseconds(d["requested_at"]) < NOW + until]


@pytest.mark.usefixtures("small_files")
def test_a_ride_that_goes_to_another_user_is_listed_once(tmp_path: Path) -> None:
    """Its documents are in two partitions then."""
    users = ("ada", "bob", "carl", "dora", "ada")
    assert len({partition_of(f"u:{user}", PARTITIONS) for user in users}) > 1
    disk, rides = Disk(tmp_path), Rides()
    _written(disk, rides, [[Said("r1", user=user, requested_at=NOW + n % 2)] for n, user in enumerate(users)])
    for n, user in enumerate(users):
        assert [d["user"]["user_id"] for d in listed(disk, every(as_of=NOW + 1000 * n + 500))] == [user]
    assert listed(disk, every(Wanted(user_id="bob"))) == []


@pytest.mark.usefixtures("small_files")
def test_a_deleted_ride_is_in_no_list_but_those_of_before(tmp_path: Path) -> None:
    disk, rides = Disk(tmp_path), Rides()
    _written(disk, rides, [[Said("r1"), Said("r2")], [Said("r1", deleted=True)]])
    assert [d["ride_id"] for d in listed(disk, every())] == ["r2"]
    assert [d["ride_id"] for d in listed(disk, every(as_of=NOW + 2000))] == ["r2", "r1"]
    assert listed(disk, every(as_of=NOW)) == []


def test_what_the_lake_does_not_hold_yet_counts_before_what_it_holds(tmp_path: Path) -> None:
    disk, rides = Disk(tmp_path), Rides()
    _written(disk, rides, [[Said(f"r{n}", requested_at=NOW + n) for n in range(6)]])
    bodies = [rides.computed(Said(f"r{n}", requested_at=NOW + n, app=1)).body for n in (1, 4, 7)]
    overlay = Overlay(["r0", "r1", "r4", "r7"], fresh(bodies))
    found = listed(disk, every(), overlay, 2)
    assert [(d["ride_id"], d["errors"]["app"]) for d in found] == [
        ("r7", 1),
        ("r5", 0),
        ("r4", 1),
        ("r3", 0),
        ("r2", 0),
        ("r1", 1),
    ]
    assert [d["ride_id"] for d in listed(disk, every(Wanted(min_errors=1), descending=False), overlay)] == [
        "r1",
        "r4",
        "r7",
    ]


def test_a_page_reads_no_further_than_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_module, "_RIDE_ROW_GROUP", 10)
    disk, rides = Disk(tmp_path), Rides()
    users = ["ada", "bob", "carl", "dora"]
    _written(disk, rides, [[Said(f"r{n:03}", users[n % 4], NOW + n) for n in range(800)]])
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, i: int, **options: Any) -> Any:
        read.append(i)
        return original(self, i, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    files = RideFiles(Lake(disk.lake_uri))
    for query, expected in (
        (every(), range(799, 779, -1)),
        (every(descending=False), range(20)),
        (RideQuery(time_place(NOW + 400), time_place(NOW + 420), True), range(419, 399, -1)),
    ):
        read.clear()
        [page] = islice(newest_rides(files, PARTITIONS, query, NOTHING_FRESH, 20), 1)
        assert page["name"].to_pylist() == [f"r{n:03}" for n in expected]
        assert len(read) < 20
