"""The shard's log: what is acknowledged is found again, whatever was flushed, restarted or sent twice."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.records import Kind, MatchedBy, Record, Source
from rebu_ray.store.flush import flush
from rebu_ray.store.journal import (
    DirectoryJournal,
    Header,
    JournalCorrupt,
    ObjectJournal,
    SegmentName,
    Span,
    StaleOwner,
    open_journal,
    pack,
    unpack,
)
from rebu_ray.store.lake import Lake
from rebu_ray.store.log import NotOwner, ShardLog
from rebu_ray.store.rows import Routed, encode, partition_of, to_batch

NOW = 1_772_438_400_000
PARTITIONS = 4


def record(user: str, record_id: str, at: int = NOW) -> Record:
    return Record(
        kind=Kind.APP_EVENT,
        id=record_id,
        name="Ride Requested",
        source=Source.APP_EVENTS,
        event_time=at,
        received_at=NOW,
        body=b'{"n":1}',
        user_id=user,
        matched_by=MatchedBy.USER_ID,
    )


def batch(*records: Record) -> pa.RecordBatch:
    routed = []
    for r in records:
        key = f"u:{r.user_id}"
        routed.append(Routed(partition_of(key, PARTITIONS), key, r))
    return to_batch(routed)


class Disk:
    """A journal and a lake, and the shards that come and go on them."""

    def __init__(self, folder: Path) -> None:
        self.journal_uri, self.lake_uri = str(folder / "journal"), str(folder / "lake")

    def shard(self, slot: int = 0, partitions: range = range(PARTITIONS)) -> ShardLog:
        log = ShardLog(open_journal(self.journal_uri), Lake(self.lake_uri), slot, partitions)
        log.recover(NOW, 3_600_000)
        return log

    def flush(self, log: ShardLog) -> None:
        segments = log.seal()
        lake = Lake(self.lake_uri)
        results = flush(open_journal(self.journal_uri), lake, segments, log.manifests)
        manifests = {
            r.partition: lake.commit(r.partition, log.manifests[r.partition], r.files, r.covered_seq) for r in results
        }
        log.flushed(manifests, segments)


def everything(log: ShardLog) -> list[tuple[str, str, int]]:
    """(key, id, seq) of all rows that the log knows of, from lake and journal."""
    rows = [row for b in log.since(dict.fromkeys(log.partitions, 0)) for row in b.to_pylist()]
    return sorted((row["key"], row["id"], row["seq"]) for row in rows)


def test_a_record_is_stored_once_across_restarts_and_flushes(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    first = batch(record("ada", "1"), record("bob", "1"), record("ada", "2"), record("ada", "1"))
    assert log.commit(first, NOW).new.tolist() == [True, True, True, False]
    disk.flush(log)
    assert log.commit(batch(record("ada", "3"), record("ada", "2")), NOW).new.tolist() == [True, False]
    again = disk.shard()
    assert again.commit(first, NOW).new.tolist() == [False] * 4
    assert again.commit(batch(record("ada", "3"), record("ada", "4")), NOW).new.tolist() == [False, True]
    assert [(key, i) for key, i, _ in everything(again)] == [
        ("u:ada", "1"),
        ("u:ada", "2"),
        ("u:ada", "3"),
        ("u:ada", "4"),
        ("u:bob", "1"),
    ]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 30)), min_size=1, max_size=12),
            st.sampled_from(["flush", "restart", "reshard"]),
        ),
        max_size=25,
    )
)
def test_any_order_of_batches_flushes_and_restarts_keeps_each_record_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[str, int]] | str]
) -> None:
    disk = Disk(tmp_path_factory.mktemp("disk"))
    shards = [disk.shard()]
    expected: set[tuple[str, str]] = set()
    for step in steps:
        if step == "flush":
            for log in shards:
                disk.flush(log)
        elif step == "restart":
            shards = [disk.shard(log.slot, range(min(log.partitions), max(log.partitions) + 1)) for log in shards]
        elif step == "reshard":
            halves = [range(2), range(2, 4)] if len(shards) == 1 else [range(PARTITIONS)]
            shards = [disk.shard(slot, part) for slot, part in enumerate(halves)]
        elif isinstance(step, list):
            records = [record(user, f"{n}") for user, n in step]
            for log in shards:
                own = [r for r in records if partition_of(f"u:{r.user_id}", PARTITIONS) in log.partitions]
                if own:
                    commit = log.commit(batch(*own), NOW)
                    for r, new in zip(own, commit.new.tolist(), strict=True):
                        assert new == ((f"u:{r.user_id}", r.id) not in expected)
                        expected.add((f"u:{r.user_id}", r.id))
    found = [row for log in shards for row in everything(log)]
    assert sorted((key, i) for key, i, _ in found) == sorted(expected)
    for partition in range(PARTITIONS):
        seqs = sorted(s for key, _, s in found if partition_of(key, PARTITIONS) == partition)
        assert seqs == list(range(1, len(seqs) + 1))


def test_segments_go_once_the_lake_has_them(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    log.commit(batch(*(record(f"user{n}", "1") for n in range(50))), NOW)
    assert log.unflushed_bytes > 0
    disk.flush(log)
    assert open_journal(disk.journal_uri).segments() == []
    assert log.unflushed_bytes == 0
    assert len(everything(log)) == 50


def test_a_segment_stays_until_every_owner_in_it_has_flushed(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.shard().commit(batch(*(record(f"user{n}", "1") for n in range(50))), NOW)
    low, high = disk.shard(0, range(2)), disk.shard(1, range(2, 4))
    disk.flush(low)
    assert open_journal(disk.journal_uri).segments() != []
    assert len(everything(low)) + len(everything(high)) == 50
    disk.flush(high)
    assert open_journal(disk.journal_uri).segments() == []
    assert len(everything(low)) + len(everything(high)) == 50


def test_many_small_files_become_one(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard(partitions=range(PARTITIONS))
    for n in range(20):
        log.commit(batch(record("ada", f"{n}")), NOW)
        disk.flush(log)
    partition = partition_of("u:ada", PARTITIONS)
    assert len(log.manifests[partition].files) < 10
    assert len(everything(log)) == 20


def test_rows_of_a_stranger_are_refused_and_not_remembered(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    ada = batch(record("ada", "1"))
    partition = ada["partition"][0].as_py()
    log = disk.shard(0, range(partition + 1, PARTITIONS + 1))
    with pytest.raises(NotOwner):
        log.commit(ada, NOW)
    assert everything(log) == []


@pytest.mark.parametrize("scheme", ["", "file://", "object"])
def test_a_stale_owner_is_refused_and_its_late_bytes_do_not_count(tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme if scheme != 'object' else 'file://'}{tmp_path}/journal"
    make = ObjectJournal if scheme == "object" else open_journal
    old, new = make(uri), make(uri)
    lake = Lake(str(tmp_path / "lake"))
    stale = ShardLog(old, lake, 0, range(PARTITIONS))
    stale.recover(NOW, 0)
    stale.commit(batch(record("ada", "1")), NOW)
    owner = ShardLog(new, lake, 0, range(PARTITIONS))
    owner.recover(NOW, 0)
    with pytest.raises(StaleOwner):
        stale.commit(batch(record("ada", "2")), NOW)
    owner.commit(batch(record("ada", "3")), NOW)
    after = ShardLog(make(uri), lake, 0, range(PARTITIONS))
    after.recover(NOW, 0)
    assert [i for _, i, _ in everything(after)] == ["1", "3"]


def frame(n: int) -> bytes:
    payload = encode(batch(record("ada", f"{n}")))
    partition = partition_of("u:ada", PARTITIONS)
    return pack(Header(v=1, epoch=1, committed_at=NOW, spans=[Span(partition, n, 1)]), payload)


@given(cut=st.integers(0, 400))
def test_a_torn_end_is_dropped(cut: int) -> None:
    whole, last = frame(1), frame(2)
    found = list(unpack(whole + last[: min(cut, len(last) - 1)]))
    assert [f.rows()["id"].to_pylist() for f in found] == [["1"]]


@given(at=st.integers(0), flip=st.integers(1, 255))
def test_damage_before_sound_data_is_reported(at: int, flip: int) -> None:
    first, second = bytearray(frame(1)), frame(2)
    first[at % len(first)] ^= flip
    with pytest.raises(JournalCorrupt):
        list(unpack(bytes(first) + second))


def test_segment_names_round_trip() -> None:
    name = SegmentName(3, 12, 99)
    assert SegmentName.parse(str(name)) == name
    assert SegmentName.parse("003-000012.epoch") is None


def test_claims_grow(tmp_path: Path) -> None:
    journal = DirectoryJournal(str(tmp_path))
    assert [journal.claim(0), journal.claim(0), journal.claim(1), journal.claim(0)] == [1, 2, 1, 3]
    assert journal.slots() == {0, 1}
