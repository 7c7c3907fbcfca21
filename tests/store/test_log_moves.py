"""Partitions that go from log to log: every row stays with whoever owns its partition, in sequence, whoever flushed,
restarted or was fenced meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.store import flush as flush_module
from rebu_ray.store.journal import SegmentName, StaleOwner, open_journal
from rebu_ray.store.lake import Lake, LakeError, Manifest
from rebu_ray.store.log import NotOwner, ShardLog
from rebu_ray.store.rows import partition_of
from tests.records import NOW, said, seeded
from tests.store.disk import HOUR_MS, PARTITIONS, Disk, batch, everything, unsynced

ADA = partition_of("u:ada", PARTITIONS)


def reader(disk: Disk, slot: int, partitions: set[int]) -> ShardLog:
    """What a new owner reads with, beside its own log."""
    return ShardLog(open_journal(disk.journal_uri), Lake(disk.lake_uri), slot, partitions)


def hand_over(disk: Disk, source: ShardLog, target: ShardLog, partitions: set[int], early: bool, named: bool) -> None:
    other = reader(disk, target.slot, partitions)
    if early:
        other.read_lake(NOW, HOUR_MS)
    ends, segments = source.release(frozenset(partitions))
    other.read_lake(NOW, HOUR_MS)
    other.read_journal(NOW, HOUR_MS, segments if named else None)
    assert other.last_seq == ends
    target.adopt(other)


def test_a_partition_moves_with_what_is_in_the_lake_and_what_is_not(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    source, target = disk.shard(0), disk.shard(1, range(0))
    source.commit(batch(said("ada", "1"), said("bob", "1")), NOW)
    disk.flush(source)
    source.commit(batch(said("ada", "2"), said("bob", "2")), NOW)
    hand_over(disk, source, target, {ADA}, early=True, named=True)
    with pytest.raises(NotOwner):
        source.commit(batch(said("ada", "3")), NOW)
    assert target.commit(batch(said("ada", "1"), said("ada", "2"), said("ada", "3")), NOW).new.tolist() == [0, 0, 1]
    assert source.commit(batch(said("bob", "3")), NOW).new.tolist() == [True]
    assert [seq for _, _, seq in everything(target)] == [1, 2, 3]
    assert [(key, seq) for key, _, seq in everything(source)] == [("u:bob", 1), ("u:bob", 2), ("u:bob", 3)]


def test_a_segment_that_is_still_written_to_holds_nothing_of_what_was_let_go(tmp_path: Path) -> None:
    """Else its next owner might remove it under the hands of the one before."""
    disk = Disk(tmp_path)
    source, target = disk.shard(0), disk.shard(1, range(0))
    source.commit(batch(said("ada", "1")), NOW)
    hand_over(disk, source, target, {ADA}, early=False, named=True)
    source.commit(batch(said("bob", "1")), NOW)
    disk.flush(target)
    source.commit(batch(said("bob", "2")), NOW)
    again = disk.shard(0, range(0))
    found = reader(disk, 0, set(range(PARTITIONS)) - {ADA})
    found.read_lake(NOW, HOUR_MS)
    found.read_journal(NOW, HOUR_MS)
    again.adopt(found)
    assert [(key, i) for key, i, _ in everything(again)] == [("u:bob", "1"), ("u:bob", "2")]


def test_what_comes_while_others_are_flushed_is_flushed_the_next_time(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    source, target = disk.shard(0), disk.shard(1, range(0))
    bob = partition_of("u:bob", PARTITIONS)
    source.commit(batch(said("ada", "1"), said("bob", "1")), NOW)
    hand_over(disk, source, target, {bob}, early=False, named=False)
    segments = target.seal()
    written = disk.write(target, segments)
    hand_over(disk, source, target, {ADA}, early=True, named=True)  # of the same segment
    target.flushed(disk.commit(target, written), segments)
    assert disk.segments() != []
    assert [i for _, i, _ in everything(target)] == ["1", "1"]
    disk.flush(target)
    assert disk.segments() == []
    assert [i for _, i, _ in everything(target)] == ["1", "1"]


def test_tallies_that_wait_stay_behind_in_the_lake(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    source, target = disk.shard(0), disk.shard(1, range(0))
    for _ in range(3):
        source.commit(batch(said("ada", "1"), said("bob", "1")), NOW)
    hand_over(disk, source, target, {ADA}, early=True, named=True)
    assert set(source.pending.entries()) == {partition_of("u:bob", PARTITIONS)}
    tables = Lake(disk.lake_uri).read_tallies(ADA, Lake(disk.lake_uri).manifest(ADA).tallies or ())
    assert [row["duplicate"] for table in tables for row in table.to_pylist()] == [2]


def test_tallies_are_not_worth_a_partition_that_nobody_owns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path)
    source, target = disk.shard(0), disk.shard(1, range(0))
    for _ in range(2):
        source.commit(batch(said("ada", "1")), NOW)

    def full(*_: object) -> Manifest:
        raise LakeError("no room")

    monkeypatch.setattr(Lake, "commit", full)
    hand_over(disk, source, target, {ADA}, early=False, named=True)
    assert not source.pending
    assert target.commit(batch(said("ada", "1")), NOW).new.tolist() == [False]


@settings(seeded, max_examples=80)
@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 40)), min_size=1, max_size=25),
            st.tuples(st.just("move"), st.integers(0, PARTITIONS - 1), st.integers(0, 2), st.booleans()),
            st.tuples(st.just("move"), st.integers(0, PARTITIONS - 1), st.integers(0, 2), st.booleans()),
            st.tuples(st.just("flush"), st.integers(0, 2), st.just(0), st.just(False)),
            st.tuples(st.just("flush and move"), st.integers(0, PARTITIONS - 1), st.integers(0, 2), st.booleans()),
            st.tuples(st.just("restart"), st.integers(0, 2), st.just(0), st.booleans()),
            st.tuples(st.just("rescue"), st.integers(0, 2), st.integers(0, 2), st.booleans()),
        ),
        max_size=25,
    )
)
def test_however_partitions_wander_each_record_stays_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[str, int]] | tuple[str, int, int, bool]]
) -> None:
    disk = Disk(tmp_path_factory.mktemp("disk"))
    journal = open_journal(disk.journal_uri)
    expected: set[tuple[str, str]] = set()
    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.setattr(flush_module, "_SMALL_FILES", 3)
        shards = [disk.shard(0), disk.shard(1, range(0)), disk.shard(2, range(0))]

        def owner(partition: int) -> ShardLog:
            return next(log for log in shards if partition in log.partitions)

        def born(slot: int, partitions: frozenset[int]) -> ShardLog:
            log = ShardLog(open_journal(disk.journal_uri), Lake(disk.lake_uri), slot, ())
            log.recover(NOW, HOUR_MS, own=lambda: partitions)
            return log

        def move(partition: int, slot: int, flag: bool) -> None:
            if owner(partition) is not shards[slot]:
                hand_over(disk, owner(partition), shards[slot], {partition}, early=flag, named=not flag)

        for step in steps:
            match step:
                case "move", int(partition), int(slot), bool(flag):
                    move(partition, slot, flag)
                case "flush", int(slot), _, _:
                    disk.flush(shards[slot])
                case "flush and move", int(partition), int(slot), bool(flag):
                    taker = shards[slot]
                    segments: list[SegmentName] = taker.seal()
                    written = disk.write(taker, segments)
                    move(partition, slot, flag)
                    taker.flushed(disk.commit(taker, written), segments)
                case "restart", int(slot), _, bool(closed):
                    if closed:
                        shards[slot].close()
                    shards[slot] = born(slot, shards[slot].partitions)
                case "rescue", int(slot), int(to), bool(alive) if slot != to:
                    lost, old = shards[slot].partitions, shards[slot]
                    journal.claim(slot)
                    found = reader(disk, to, set(lost))
                    found.read_lake(NOW, HOUR_MS)
                    found.read_journal(NOW, HOUR_MS)
                    shards[to].adopt(found)
                    if alive and lost:
                        # What it acknowledged is there; what it writes now is not.
                        user = next(u for u in map(str, range(99)) if partition_of(f"u:{u}", PARTITIONS) in lost)
                        with pytest.raises(StaleOwner):
                            old.commit(batch(said(user, "late")), NOW)
                    shards[slot] = born(slot, frozenset())
                case list(records):
                    for user, n in records:
                        log = owner(partition_of(f"u:{user}", PARTITIONS))
                        new = log.commit(batch(said(user, f"{n}")), NOW).new.tolist()
                        assert new == [(f"u:{user}", f"{n}") not in expected]
                        expected.add((f"u:{user}", f"{n}"))
        found_rows = [row for log in shards for row in everything(log)]
        assert sorted((key, i) for key, i, _ in found_rows) == sorted(expected)
        for log in shards:
            assert log.last_seq == {
                p: max((s for k, _, s in found_rows if partition_of(k, PARTITIONS) == p), default=0)
                for p in log.partitions
            }
        # Everybody flushes once more, starts again, flushes: the journal is empty, and all of it in the lake.
        for _ in range(2):
            for log in shards:
                disk.flush(log)
            shards = [born(log.slot, log.partitions) for log in shards]
        assert disk.segments() == []
        assert sorted(row for log in shards for row in everything(log)) == sorted(found_rows)
