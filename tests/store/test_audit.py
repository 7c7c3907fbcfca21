"""The audit: it balances whatever happens to a shard, and sees one record that is not there, or is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.records import Kind, MatchedBy, Record, Source
from rebu_ray.store.audit import Auditor, Findings, Held
from rebu_ray.store.journal import DirectoryJournal, Header, JournalError, Span, open_journal, pack, unpack
from rebu_ray.store.lake import Lake, Manifest
from rebu_ray.store.log import ShardLog
from rebu_ray.store.rows import WIRE, decode, encode, partition_of, to_batch
from rebu_ray.store.tally import BUCKET_MS, TALLIES, as_table, rows_of, together
from rebu_ray.store.tally_files import add_tallies
from tests.records import NOW, routed, said, seeded
from tests.store.disk import PARTITIONS, Disk, batch, unsynced

START = NOW // BUCKET_MS * BUCKET_MS
AUDITED = ("received", "stored", "duplicate", "dead_letter", "suppressed")


def letter(number: int, at: int = NOW, source: Source = Source.ACCESS) -> Record:
    return said(record_id=f"x{number}", at=at, kind=Kind.DEAD_LETTER, name="no: because", source=source)


def auditor(disk: Disk) -> Auditor:
    return Auditor(open_journal(disk.journal_uri), Lake(disk.lake_uri), PARTITIONS)


def held(*shards: ShardLog) -> list[Held]:
    return [Held(dict(log.last_seq), log.pending.entries()) for log in shards]


def audited(disk: Disk, *shards: ShardLog) -> Findings:
    return auditor(disk).audit(held(*shards))


def counts(found: Findings) -> dict[tuple[str, int], tuple[int, ...]]:
    """(source, bucket) -> received, stored, duplicate, dead letters, suppressed"""
    return {(i["source"], i["at"]): tuple(i[name] for name in AUDITED) for i in found.items}


def test_every_record_is_somewhere(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    first = [said("ada", "1"), said("ada", "2", NOW + BUCKET_MS), said("bob", "1"), said("ada", "1"), letter(1)]
    for moved in (False, True):
        log.commit(batch(*first), NOW)
        log.commit(batch(said("ada", "2", NOW + BUCKET_MS)), NOW)  # nothing of it is new: no frame
        if moved:
            disk.flush(log)
        again = 2 if moved else 1
        found = audited(disk, log)
        assert found.balanced
        assert counts(found) == {
            ("access", START): (again, 0, again - 1, 1, 0),
            ("app-events", START): (3 * again, 2, 3 * again - 2, 0, 0),
            ("app-events", START + BUCKET_MS): (2 * again, 1, 2 * again - 1, 0, 0),
        }
    first_item = audited(disk, log).items[0]
    assert first_item["bucket"] == "2026-03-02T08:00:00.000Z"
    assert audited(Disk(tmp_path / "elsewhere")) == Findings([], [])


def test_what_the_platform_adds_itself_is_in_no_count(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    line = said("ada", "1", kind=Kind.SERVER_ACCESS, request="r1", source=Source.ACCESS)  # binds its request as well
    error = said(None, "2", kind=Kind.SERVER_ERROR, request="r1", source=Source.ERROR)
    copy = said("ada", "2", kind=Kind.SERVER_ERROR, request="r1", source=Source.ERROR)
    copy.matched_by = MatchedBy.REQUEST_ID
    made = [
        said("ada", "3", kind=kind, source=Source.COMPUTED, name="o:1")
        for kind in (Kind.MESSAGE_DOCUMENT, Kind.MOVED, Kind.UNLINK, Kind.REPLAYED)
    ]
    assert len(routed([line], PARTITIONS)) == 2
    for _ in range(2):
        log.commit(batch(line, error, copy, *made), NOW)
    for moved in (False, True):
        if moved:
            disk.flush(log)
        found = audited(disk, log)
        assert found.balanced
        assert counts(found) == {("access", START): (2, 1, 1, 0, 0), ("error", START): (2, 1, 1, 0, 0)}


steps = st.one_of(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 12), st.sampled_from([*Source][:4]), st.integers(0, 3)),
        min_size=1,
        max_size=10,
    ),
    st.sampled_from(["flush", "settle", "crash", "stop", "reshard", "fail"]),
)


@settings(seeded, max_examples=60)
@given(st.lists(steps, max_size=25))
def test_it_balances_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[str, int, Source, int]] | str]
) -> None:
    """A crash may take counts with it, of duplicates that came alone; nothing else is ever lost or counted twice."""
    with unsynced():
        disk = Disk(tmp_path_factory.mktemp("disk"))
        shards = [disk.shard()]
        received: Counter[tuple[str, int]] = Counter()
        whole = True
        for step in steps:
            if step == "flush":
                for log in shards:
                    log.settle()
                    disk.flush(log)
            elif step == "settle":
                for log in shards:
                    log.settle()
            elif step in ("crash", "stop", "reshard"):
                whole = whole and (step == "stop" or not any(log.pending for log in shards))
                if step == "stop":
                    for log in shards:
                        log.close()
                parts = [range(PARTITIONS)] if len(shards) == 2 else [range(2), range(2, 4)]
                if step != "reshard":
                    parts = [range(min(log.partitions), max(log.partitions) + 1) for log in shards]
                shards = [disk.shard(slot, part) for slot, part in enumerate(parts)]
            else:
                said_now = [
                    letter(number, NOW + at * BUCKET_MS, source)
                    if user == "f"
                    else said(user, str(number), NOW + at * BUCKET_MS, source=source)
                    for user, number, source, at in (step if isinstance(step, list) else [("a", 99, Source.ERROR, 0)])
                ]
                rows = routed(said_now, PARTITIONS)
                for log in shards:
                    own = [row for row in rows if row.partition in log.partitions]
                    if not own:
                        continue
                    if step == "fail":
                        with pytest.MonkeyPatch.context() as patch:
                            patch.setattr(DirectoryJournal, "append", _full)
                            with pytest.raises(JournalError):
                                log.commit(to_batch([*own, *_unheard(own)]), NOW)
                        continue
                    log.commit(to_batch(own), NOW)
                    received.update((str(row.record.source), row.record.event_time) for row in own)
        found = audited(disk, *shards)
        assert found.balanced, found
        told = {place: came for place, (came, *_) in counts(found).items()}
        expected: Counter[tuple[str, int]] = Counter()
        for (source, at), came in received.items():
            expected[source, at // BUCKET_MS * BUCKET_MS] += came
        if whole:
            assert told == expected
        else:
            assert all(came <= expected[place] for place, came in told.items())


def _full(*_: object) -> None:
    raise JournalError("no space left")


def _unheard(rows: Iterable[Any]) -> Iterable[Any]:
    """Rows that are new whatever came before, so that there is something to write."""
    for row in list(rows)[:1]:
        yield row._replace(record=msgspec.structs.replace(row.record, id="never heard of"))


def stored(disk: Disk) -> ShardLog:
    log = disk.shard()
    log.commit(batch(*(said(f"user{n}", f"{n}") for n in range(40)), letter(1)), NOW)
    return log


def in_the_lake(disk: Disk, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite one Parquet file behind the platform's back."""
    path = next(p for p in sorted(Path(disk.lake_uri).rglob("0*.parquet")) if pq.read_metadata(p).num_rows > 2)
    table = pq.ParquetFile(path).read()
    pq.write_table(change(table), path)


def in_the_journal(disk: Disk, change: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
    """Rewrite the rows of the last frame behind the platform's back, and leave its header as it is."""
    (path,) = sorted(Path(disk.journal_uri).glob("*.seg"))
    *frames, last = unpack(path.read_bytes())
    whole = [pack(frame.header, frame.payload) for frame in frames]
    path.write_bytes(b"".join([*whole, pack(last.header, encode(change(decode(last.payload, WIRE))))]))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.slice(1),
        lambda rows: rows.slice(0, rows.num_rows - 1),
        lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]),
    ],
    ids=["the first is hidden", "the last is hidden", "one is there twice"],
)
def test_one_record_of_the_lake_is_seen(tmp_path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    disk = Disk(tmp_path)
    log = stored(disk)
    disk.flush(log)
    audit = auditor(disk)
    assert audit.audit(held(log)).balanced
    in_the_lake(disk, change)
    for reader in (audit, auditor(disk)):  # also by one that has counted the file before
        found = reader.audit(held(log))
        assert not found.balanced
        (wrong,) = (item for item in found.items if not item["balanced"])
        assert abs(wrong["received"] - sum(wrong[name] for name in AUDITED[1:])) == 1


def test_one_record_of_the_journal_is_seen(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = stored(disk)
    assert audited(disk, log).balanced
    in_the_journal(disk, lambda rows: rows.slice(1))
    found = audited(disk, log)
    assert not found.balanced
    assert sum(i["received"] - i["stored"] - i["dead_letter"] for i in found.items) == 1


def test_a_frame_a_file_or_tallies_that_are_gone_are_seen(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    for number in range(3):
        log.commit(batch(said("ada", f"{number}")), NOW)
    partition = partition_of("u:ada", PARTITIONS)
    (path,) = Path(disk.journal_uri).glob("*.seg")
    data = path.read_bytes()
    frames = [pack(frame.header, frame.payload) for frame in unpack(data)]
    assert b"".join(frames) == data
    for left, missing in ((frames[:2], "3 to 3"), (frames[::2], "2 to 2")):
        path.write_bytes(b"".join(left))
        found = audited(disk, log)
        assert (found.balanced, [item["balanced"] for item in found.items]) == (False, [True])
        assert found.problems == [f"partition {partition}: the rows {missing} are in no journal"]
    path.write_bytes(b"".join([frames[0], frames[1][:-1] + b"\0", frames[2]]))
    assert any("damaged" in problem for problem in audited(disk, log).problems)
    path.write_bytes(data)
    assert audited(disk, log).balanced
    disk.flush(log)
    for file in Path(disk.lake_uri).rglob("*.parquet"):
        kept = file.read_bytes()
        file.unlink()
        assert any("missing" in problem for problem in audited(disk, log).problems)
        file.write_bytes(b"no such thing")
        assert any("cannot be read" in problem for problem in audited(disk, log).problems)
        file.write_bytes(kept)
    assert audited(disk, log).balanced


def test_what_was_stored_before_there_were_tallies_counts_as_received(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    partition = partition_of("u:ada", PARTITIONS)
    log.commit(batch(said("ada", "1"), said("ada", "2")), NOW)
    disk.flush(log)
    log.commit(batch(said("ada", "3")), NOW)
    # As an earlier version left it: neither the manifest nor the frame says anything of tallies.
    before = msgspec.structs.replace(log.manifests[partition], tallies=None)
    (manifest,) = (Path(disk.lake_uri) / f"partition={partition:04d}").glob(f"manifest-{before.version:010d}.msgpack")
    said_of_it = msgspec.to_builtins(before)
    del said_of_it["tallies"]
    manifest.write_bytes(msgspec.msgpack.encode(said_of_it))
    (path,) = Path(disk.journal_uri).glob("*.seg")
    (frame,) = unpack(path.read_bytes())
    spans = [Span(s.partition, s.first_seq, s.count) for s in frame.header.spans]
    path.write_bytes(pack(msgspec.structs.replace(frame.header, spans=spans), frame.payload))
    old = msgspec.msgpack.encode({"v": 2, "epoch": 1, "committed_at": NOW, "spans": [[partition, 1, 1]]})
    assert msgspec.msgpack.decode(old, type=Header).spans == [Span(partition, 1, 1)]
    log = disk.shard()
    assert log.manifests[partition].tallies is None
    assert counts(audited(disk, log)) == {("app-events", START): (3, 3, 0, 0, 0)}
    log.commit(batch(said("ada", "3"), said("ada", "4")), NOW)
    assert counts(audited(disk, log)) == {("app-events", START): (5, 4, 1, 0, 0)}
    disk.flush(log)
    assert log.manifests[partition].tallies
    found = audited(disk, log)
    assert (found.balanced, counts(found)) == (True, {("app-events", START): (5, 4, 1, 0, 0)})
    in_the_lake_of(disk, partition, lambda rows: rows.slice(1))
    assert not audited(disk, log).balanced


def in_the_lake_of(disk: Disk, partition: int, change: Callable[[pa.Table], pa.Table]) -> None:
    path = sorted((Path(disk.lake_uri) / f"partition={partition:04d}").glob("0*.parquet"))[0]
    table = pq.ParquetFile(path).read()
    pq.write_table(change(table), path)


def test_a_record_that_comes_again_after_it_was_forgotten_is_a_duplicate_in_the_end(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    day = 86_400_000
    log = disk.shard()
    for number in range(12):
        log.commit(batch(said("ada", "1"), said("ada", f"new {number}")), NOW + number * 9 * day)
        disk.flush(log)
        assert audited(disk, log).balanced
    # Those that were merged into one file are there once each; the latest are not merged yet.
    ((came, kept, doubles, *_),) = counts(audited(disk, log)).values()
    assert came == 24
    assert doubles >= 7
    assert kept == 24 - doubles


def test_tallies_stay_few_files(tmp_path: Path) -> None:
    lake, manifest = Lake(str(tmp_path)), Manifest()
    for number in range(60):
        entry = ("access", number * BUCKET_MS, 2, 1, 0)
        files, merged = add_tallies(lake, 0, manifest, [as_table([entry, ("error", 0, 1, 0, 1)])])
        manifest = lake.commit(0, manifest, (), number, tallies=files)
        lake.remove(0, merged)
        assert len(files) <= 6
    assert len(list(tmp_path.rglob("tallies-*"))) == len(manifest.tallies or ())
    total = together(lake.read_tallies(0, manifest.tallies or ()))
    assert total.schema == TALLIES
    assert total.num_rows == 61
    assert pa.compute.sum(total["received"]).as_py() == 180
    assert pa.compute.sum(total["suppressed"]).as_py() == 60


def test_places_can_be_chosen(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    log.commit(batch(*(said("ada", f"{n}", NOW + n * BUCKET_MS) for n in range(4)), letter(1)), NOW)
    audit = auditor(disk)

    def places(**chosen: Any) -> list[tuple[str, int]]:
        return [(i["source"], (i["at"] - START) // BUCKET_MS) for i in audit.audit(held(log), **chosen).items]

    assert places() == [("access", 0), *(("app-events", n) for n in range(4))]
    assert places(sources=frozenset(["access"])) == [("access", 0)]
    assert places(since=START + BUCKET_MS) == [("app-events", n) for n in (1, 2, 3)]
    assert places(since=START + 2 * BUCKET_MS - 1, until=START + 2 * BUCKET_MS) == [("app-events", 1)]
    assert places(until=START) == []


def test_rows_are_counted_where_they_are() -> None:
    rows = pa.Table.from_batches([batch(said("a", "1", 0), said("a", "2", BUCKET_MS - 1), letter(1, BUCKET_MS))])
    assert sorted(map(tuple, (row.values() for row in rows_of(rows).to_pylist()))) == [
        ("access", BUCKET_MS, True, 1),
        ("app-events", 0, False, 2),
    ]
    assert rows_of(rows.slice(0, 0)).num_rows == 0
