"""The shard's log: what is acknowledged is found again, whatever was flushed, restarted or sent twice."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.records import Kind, Record, Source
from rebu_ray.store import flush as flush_module
from rebu_ray.store.journal import (
    FORMAT,
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
from rebu_ray.store.log import NEVER, NotOwner, ShardLog
from rebu_ray.store.rows import encode, partition_of
from tests.records import NOW, said, seeded, unlinked
from tests.store.disk import HOUR_MS, PARTITIONS, Disk, batch, everything, unsynced


def record(user: str, record_id: str, at: int = NOW) -> Record:
    return said(user, record_id, at)


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


@settings(seeded, max_examples=40)
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
    return pack(Header(v=FORMAT, epoch=1, committed_at=NOW, spans=[Span(partition, n, 1)]), payload)


@settings(seeded)
@given(cut=st.integers(0, 400))
def test_a_torn_end_is_dropped(cut: int) -> None:
    whole, last = frame(1), frame(2)
    found = list(unpack(whole + last[: min(cut, len(last) - 1)]))
    assert [f.rows()["id"].to_pylist() for f in found] == [["1"]]


@settings(seeded)
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


# -- owners side by side, and owners that die ------------------------------------------------------------------------


@settings(seeded, max_examples=60)
@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 40)), min_size=1, max_size=25),
            st.sampled_from(["flush", "flush together", "die in a flush", "die after a flush", "restart", "reshard"]),
        ),
        max_size=30,
    ),
    small_bytes=st.sampled_from([1, 4_050, 10**6]),
    since=st.integers(0, 20),
)
def test_rows_come_in_sequence_and_nothing_is_left_behind(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[str, int]] | str], small_bytes: int, since: int
) -> None:
    disk = Disk(tmp_path_factory.mktemp("disk"))
    shards = [disk.shard()]
    expected: set[tuple[str, str]] = set()

    def reborn(*which: int) -> None:
        for n in which:
            old = shards[n]
            old.close()
            shards[n] = disk.shard(old.slot, range(min(old.partitions), max(old.partitions) + 1))

    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.setattr(flush_module, "_SMALL_FILES", 3)
        patch.setattr(flush_module, "_SMALL_BYTES", small_bytes)
        for step in steps:
            if step == "flush":
                disk.flush(shards[0])
            elif step == "flush together":
                sealed = [log.seal() for log in shards]
                written = [disk.write(log, segments) for log, segments in zip(shards, sealed, strict=True)]
                manifests = [disk.commit(log, results) for log, results in zip(shards, written, strict=True)]
                for log, segments, committed in zip(shards, sealed, manifests, strict=True):
                    log.flushed(committed, segments)
            elif step == "die in a flush":
                disk.write(shards[0], shards[0].seal())
                reborn(0)
            elif step == "die after a flush":
                disk.commit(shards[0], disk.write(shards[0], shards[0].seal()))
                reborn(0)
            elif step == "restart":
                reborn(*range(len(shards)))
            elif step == "reshard":
                for log in shards:
                    log.close()
                halves = [range(2), range(2, 4)] if len(shards) == 1 else [range(PARTITIONS)]
                for slot in range(len(halves), len(shards)):
                    DirectoryJournal(disk.journal_uri).claim(slot)
                shards = [disk.shard(slot, part) for slot, part in enumerate(halves)]
            elif isinstance(step, list):
                for log in shards:
                    own = [u for u in step if partition_of(f"u:{u[0]}", PARTITIONS) in log.partitions]
                    if own:
                        log.commit(batch(*(record(user, f"{n}") for user, n in own)), NOW)
                expected |= {(f"u:{user}", f"{n}") for user, n in step}
        found = [row for log in shards for row in everything(log)]
        assert sorted((key, i) for key, i, _ in found) == sorted(expected)
        later = [row for log in shards for row in everything(log, since)]
        assert sorted(later) == sorted(row for row in found if row[2] > since)
        for log in shards:
            assert log.last_seq == {
                p: max((s for k, _, s in found if partition_of(k, PARTITIONS) == p), default=0) for p in log.partitions
            }
        # Everybody flushes once more, starts again, flushes: the journal is empty, and all of it in the lake.
        for _ in range(2):
            for log in shards:
                disk.flush(log)
            reborn(*range(len(shards)))
        assert [segment for segment in disk.segments() if segment.slot < len(shards)] == []
        assert sorted(row for log in shards for row in everything(log)) == sorted(found)


def test_owners_that_flush_an_old_segment_together_both_go_on(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.shard().commit(batch(*(record(f"user{n}", "1") for n in range(50))), NOW)
    pair = [disk.shard(0, range(2)), disk.shard(1, range(2, 4))]
    sealed = [log.seal() for log in pair]
    manifests = [disk.commit(log, disk.write(log, s)) for log, s in zip(pair, sealed, strict=True)]
    for log, segments, committed in zip(pair, sealed, manifests, strict=True):
        log.flushed(committed, segments)
    assert disk.segments() == []
    assert sum(len(everything(log)) for log in pair) == 50


def test_a_segment_of_another_owner_is_never_removed_while_it_may_be_written_to(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    other = DirectoryJournal(disk.journal_uri)
    epoch = other.claim(1)
    name = SegmentName(1, epoch, 1)
    (tmp_path / "journal" / str(name)).touch()  # begun, nothing in it yet
    low = disk.shard(0, range(2))
    disk.flush(low)
    disk.shard(0, range(2))
    assert name in disk.segments()


def test_a_flush_that_is_run_twice_writes_the_same(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    letter = said(None, "1", kind=Kind.DEAD_LETTER, source=Source.ACCESS)
    line = said(None, "1", kind=Kind.SERVER_ERROR, request="r1")
    log.commit(batch(*(record(f"user{n % 7}", f"{n}") for n in range(48)), letter, line), NOW)
    segments = log.seal()
    once, twice = disk.write(log, segments), disk.write(log, segments)
    assert once == twice
    assert {stream for result in once for stream in result.streams} == {"d:access", *(f"u:user{n}" for n in range(7))}
    log.flushed(disk.commit(log, once), segments)
    assert disk.write(log, []) == []
    assert len(everything(log)) == 50


def test_files_are_merged_with_their_neighbours_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flush_module, "_SMALL_FILES", 2)
    monkeypatch.setattr(flush_module, "_SMALL_BYTES", 20_000)
    disk = Disk(tmp_path)
    log = disk.shard()
    partition = partition_of("u:ada", PARTITIONS)
    for size in (1, 3_000, 1, 1, 1, 1):
        log.commit(batch(*(record("ada", f"{log.last_seq[partition]} {n}") for n in range(size))), NOW)
        disk.flush(log)
        spans = sorted((f.first_seq, f.last_seq) for f in log.manifests[partition].files)
        assert all(before[1] + 1 == after[0] for before, after in pairwise([(0, 0), *spans]))
    assert len(spans) < 6
    assert len(everything(log)) == 3_005


def test_what_is_in_the_journal_only_is_known(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    ada, bob = partition_of("u:ada", PARTITIONS), partition_of("u:bob", PARTITIONS)
    assert ada != bob
    assert (log.unflushed_bytes, log.unflushed_since, log.flushed_below(ada)) == (0, NEVER, NEVER)
    log.commit(batch(record("ada", "1", NOW - 5), record("ada", "2", NOW + 5), record("bob", "1", NOW)), NOW)
    again = disk.shard()
    for known in (log, again):
        assert known.unflushed_since == NOW
        assert known.unflushed_bytes > 0
        assert (known.flushed_below(ada), known.flushed_below(bob)) == (NOW - 5, NOW)
    disk.flush(again)
    assert (again.unflushed_bytes, again.unflushed_since, again.flushed_below(ada)) == (0, NEVER, NEVER)


def test_a_commit_says_where_its_partitions_stand(tmp_path: Path) -> None:
    log = Disk(tmp_path).shard()
    ada, bob = partition_of("u:ada", PARTITIONS), partition_of("u:bob", PARTITIONS)
    first = log.commit(batch(record("ada", "1"), record("bob", "1"), record("ada", "2"), record("ada", "1")), NOW)
    assert first.positions == {ada: 2, bob: 1}
    assert sorted(zip(first.rows["key"].to_pylist(), first.rows["seq"].to_pylist(), strict=True)) == [
        ("u:ada", 1),
        ("u:ada", 2),
        ("u:bob", 1),
    ]
    again = log.commit(batch(record("ada", "1")), NOW)
    assert (again.new.tolist(), again.rows.num_rows, again.positions) == ([False], 0, {ada: 2})


@pytest.mark.parametrize("flushed", ["never", "each by itself", "together"])
def test_recent_request_lines_come_back_in_the_order_of_the_journal(tmp_path: Path, flushed: str) -> None:
    """Who bound a request first is the one who counts, after a restart too."""
    disk = Disk(tmp_path)
    log = disk.shard()
    users = ["zoe", "ada", "mia"]
    for n, user in enumerate(users):
        log.commit(batch(said(user, f"{n}", NOW - n, kind=Kind.SERVER_ACCESS, request="r1")), NOW)
        if flushed == "each by itself":
            disk.flush(log)
    old = said("eva", "9", NOW, kind=Kind.SERVER_ACCESS, request="r1", received_at=NOW - HOUR_MS - 1)
    log.commit(batch(old), NOW)
    if flushed == "together":
        disk.flush(log)
    again = ShardLog(open_journal(disk.journal_uri), Lake(disk.lake_uri), 0, range(PARTITIONS))
    recent = [row for b in again.recover(NOW, HOUR_MS) for row in b.to_pylist()]
    assert [(row["key"], row["user_id"]) for row in recent] == [("r:r1", user) for user in users]


def test_ids_are_remembered_for_seven_days_of_restarts(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    day = 24 * HOUR_MS
    log = disk.shard()
    log.commit(batch(record("ada", "lake")), NOW)
    disk.flush(log)
    log.commit(batch(record("ada", "journal"), unlinked("ada", "phone", NOW)), NOW)
    for later in range(1, 8):
        again = ShardLog(open_journal(disk.journal_uri), Lake(disk.lake_uri), 0, range(PARTITIONS))
        again.recover(NOW + later * day, HOUR_MS)
        sent_again = batch(record("ada", "lake"), record("ada", "journal"), unlinked("ada", "phone", NOW))
        assert again.commit(sent_again, NOW + later * day).new.tolist() == [False] * 3
