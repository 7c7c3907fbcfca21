"""Formats: what earlier versions left on disk is read, what a newer one left is refused, and stays as it is."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest import week
from rebu_ray.ingest.appdb.table import Saved
from rebu_ray.ingest.erasure import Pending
from rebu_ray.ingest.processing import Cursor, known
from rebu_ray.ingest.routing import load_standing
from rebu_ray.platform.stores import check_versions
from rebu_ray.settings import Settings, load
from rebu_ray.store import cursor, journal, lake, layout, tombstones
from rebu_ray.store.audit import Auditor, Held
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.journal import JournalError, open_journal
from rebu_ray.store.lake import Lake, LakeError
from rebu_ray.store.layout import LayoutError, open_layout
from rebu_ray.store.quarantine import quarantine
from rebu_ray.store.tombstones import TombstoneStore
from rebu_ray.store.versions import format_of
from tests.records import NOW, seeded
from tests.store.disk import PARTITIONS, Disk, batch, everything
from tests.store.test_log import record

SECRET: Final = b"6" * 64
FIELDS: Final = {
    "partition": pa.uint16(), "fingerprint": pa.uint64(), "key": pa.string(), "id": pa.string(), "kind": pa.string(),
    "name": pa.string(), "source": pa.string(), "event_time": pa.int64(), "received_at": pa.int64(),
    "user_id": pa.string(), "anonymous_id": pa.string(), "request_id": pa.string(), "matched_by": pa.string(),
    "links": pa.string(), "body": pa.binary(),
}  # fmt: skip
"""The columns of a row, as all formats up to here have them."""
MUST: Final = ("partition", "fingerprint", "key", "id", "kind", "name", "source", "event_time", "received_at", "body")


class Old:
    """A data dir as an earlier version left it, written here byte by byte without anything that the product has."""

    def __init__(self, folder: Path, journal_format: int, *, counted: bool, numbered: bool) -> None:
        """`counted`: from when there were tallies and documents of rides; `numbered`: from when cursors said of which
        format they are.
        """
        self.folder = folder
        self._format, self._counted = journal_format, counted
        self.version = {"v": 1} if numbered else {}
        for name in ("journal", "journal-cursors/erasures", "journal-cursors/appdb", "lake/erasures"):
            (folder / name).mkdir(parents=True)
        facts = {"platform_id": "6c1c7a4e-5d50-4a0c-a6ec-4a3f0a9e7b11", "partitions": PARTITIONS, "format": 1}
        (folder / "lake" / "rebu.json").write_bytes(msgspec.json.encode(facts))

    def rows(self, partition: int, first: int, ids: list[str]) -> tuple[pa.RecordBatch, list[int]]:
        """Events of the user of a partition, with the sequence numbers that they are to have."""
        user = next(u for u in map(str, range(1000)) if batch(record(u, "x"))["partition"][0].as_py() == partition)
        stored = batch(*(record(user, i) for i in ids))
        return stored, list(range(first, first + len(ids)))

    def segment(self, name: str, *frames: tuple[int, int, list[str]]) -> None:
        """A segment with a frame for each (partition, first sequence number, ids)."""
        data = b""
        for partition, first, ids in frames:
            rows, _ = self.rows(partition, first, ids)
            fields = [pa.field(n, t, nullable=n not in MUST) for n, t in FIELDS.items()]
            payload = pa.record_batch([rows[n] for n in FIELDS], schema=pa.schema(fields)).serialize().to_pybytes()
            if self._format > 1:
                payload = zstandard.ZstdCompressor(level=-5).compress(payload)
            span: list[Any] = [partition, first, len(ids)]
            if self._counted:
                span.append([["app-events", NOW // 600_000 * 600_000, len(ids), 0, 0]])
            head = msgspec.msgpack.encode({"v": self._format, "epoch": 1, "committed_at": NOW, "spans": [span]})
            crc = zlib.crc32(payload, zlib.crc32(head))
            data += struct.pack(">4sIII", b"RBJ1", len(head), len(payload), crc) + head + payload
        (self.folder / "journal" / name).write_bytes(data)
        (self.folder / "journal" / "000-000001.epoch").touch()

    def partition(self, partition: int, ids: list[str], tallies: bool) -> None:
        """A partition of the lake with the first rows of it."""
        folder = self.folder / "lake" / f"partition={partition:04d}"
        folder.mkdir()
        rows, seqs = self.rows(partition, 1, ids)
        table = pa.table({"seq": pa.array(seqs, pa.int64()), **{n: rows[n].cast(t) for n, t in FIELDS.items()}})
        name = f"000000000001-{len(ids):012d}-0000000001.parquet"
        pq.write_table(table.sort_by("id"), folder / name, compression="zstd")
        file = {"name": name, "rows": len(ids), "bytes": (folder / name).stat().st_size, "first_seq": 1}
        file |= {"last_seq": len(ids), **dict.fromkeys(("min_event_time", "max_event_time"), NOW)}
        file |= dict.fromkeys(("min_received_at", "max_received_at"), NOW)
        manifest: dict[str, Any] = {"v": 1, "version": 1, "covered_seq": len(ids), "files": [file]}
        if tallies:
            counts = {"source": ["app-events"], "bucket": [NOW // 600_000 * 600_000], "received": [len(ids) + 1]}
            counts |= {"duplicate": [1], "suppressed": [0]}
            columns = [pa.field(n, pa.string() if n == "source" else pa.int64(), nullable=False) for n in counts]
            pq.write_table(pa.table(counts, schema=pa.schema(columns)), folder / "tallies-0000000001.parquet")
            manifest |= {"rides": [], "tallies": [{"name": "tallies-0000000001.parquet", "rows": 1}], "erased": ""}
        (folder / "manifest-0000000001.msgpack").write_bytes(msgspec.msgpack.encode(manifest))

    def cursors(self) -> None:
        """The cursors that a platform leaves."""
        folder = self.folder / "journal-cursors"
        owners = {"version": 3, "owners": [0] * PARTITIONS}
        standing = {"routing": owners, "shards": 1, "wanted": 1, "leaving": {2: 1}} | self.version
        (folder / "routing").write_bytes(msgspec.msgpack.encode(standing))
        done = {"done": {"0": 2, "1": 3}, "failed": ["u:somebody"]} | self.version
        (folder / "processed-000").write_bytes(msgspec.json.encode(done))
        saved = {"format": 1, "watermark": NOW, "loaded": True, "ledger": [[], [["ride-1", "ada", 5, 6]], 1]}
        (folder / "appdb" / "rides").write_bytes(msgspec.msgpack.encode(saved))
        learned = {"steps": {3: {"at_once": 1.5, "bytes_s": 20.0}}, "version": 1}
        (folder / "traffic-week").write_bytes(msgspec.msgpack.encode(learned))
        check = int.from_bytes(hashlib.blake2b(b"rebu", key=SECRET, digest_size=8).digest(), "big")
        stone = {"person": "ab" * 32, "check": check, "erased_at": NOW, "asked_by": "admin", "v": 1}
        (folder / "erasures" / f"{'ab' * 32}.tombstone").write_bytes(msgspec.msgpack.encode(stone))

    def settings(self) -> Settings:
        return load({}, data_dir=str(self.folder), erasure_secret=SECRET.decode())

    def disk(self) -> Disk:
        return Disk(self.folder)

    def digest(self) -> dict[str, str]:
        """Every file, and what is in it."""
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(
    params=[(1, False, False), (2, False, False), (2, True, False), (2, True, True)],
    ids=["journal 1", "journal 2", "with tallies", "with numbered cursors"],
)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    """Three rows of partition 1 in the lake and two more in the journal, two of partition 0 in the journal alone."""
    journal_format, counted, numbered = request.param
    found = Old(tmp_path / "data", journal_format, counted=counted, numbered=numbered)
    found.partition(1, ["a", "b", "c"], tallies=counted)
    found.segment("000-000001-00000001.seg", (1, 1, ["a", "b", "c"]), (0, 1, ["d"]))
    found.segment("000-000001-00000002.seg", (1, 4, ["e", "f"]), (0, 2, ["g"]))
    found.cursors()
    return found


def test_what_is_written_now_is_of_the_formats_that_these_tests_know() -> None:
    """Whoever gives something a new format adds here what writes the one before."""
    formats = (layout.FORMAT, journal.FORMAT, lake.FORMAT, cursor.FORMAT, tombstones.FORMAT)
    assert formats == (1, 2, 1, 1, 1)


def test_a_data_dir_of_an_earlier_version_opens_with_everything(old: Old) -> None:
    before = old.digest()
    check_versions(old.settings())
    assert old.digest() == before, "looking changes nothing"
    assert open_layout(old.settings().lake, 99).partitions == PARTITIONS
    log = old.disk().shard()
    assert log.last_seq == {0: 2, 1: 5, 2: 0, 3: 0}
    assert {i: seq for _, i, seq in everything(log)} == {"d": 1, "g": 2, "a": 1, "b": 2, "c": 3, "e": 4, "f": 5}
    again, _ = old.rows(1, 1, ["a", "f", "new"])
    assert log.commit(again, NOW).new.tolist() == [False, False, True]
    for flushed in (False, True):
        if flushed:
            old.disk().flush(log)
        held = [Held(dict(log.last_seq), log.pending.entries())]
        found = Auditor(open_journal(old.settings().journal), Lake(old.settings().lake), PARTITIONS).audit(held)
        assert found.balanced, (found.items, found.problems)
        assert sum(item["stored"] for item in found.items) == len(everything(log)) == 8
    assert old.disk().segments() == []


def test_cursors_of_an_earlier_version_are_read(old: Old) -> None:
    cursors = Cursors(old.settings().cursors)
    standing = load_standing(cursors)
    assert standing is not None
    assert (standing.routing.owners, standing.leaving, standing.v) == ((0,) * PARTITIONS, {2: 1}, 1)
    found = known(cursors, range(PARTITIONS), PARTITIONS)
    assert (found.done, found.failed) == ({0: 2, 1: 3}, ["u:somebody"])
    assert TombstoneStore(old.settings().cursors, old.settings().lake, SECRET).load().stones.keys() == {"ab" * 32}
    data = cursors.load("appdb/rides")
    assert data is not None
    saved = msgspec.msgpack.decode(data, type=Saved)
    assert (saved.watermark, saved.ledger.pending[0].key) == (NOW, "ride-1")
    data = cursors.load("traffic-week")
    assert data is not None
    assert msgspec.msgpack.decode(data, type=week.Saved).steps == {3: week.Expected(1.5, 20.0)}


def _newer(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write a map anew as a version to come might."""
    data = path.read_bytes()
    of_json = data[:1] == b"{"
    found = msgspec.json.decode(data) if of_json else msgspec.msgpack.decode(data, strict=False)
    change(found)
    path.write_bytes(msgspec.json.encode(found) if of_json else msgspec.msgpack.encode(found))


def _journal(old: Old) -> None:
    head = msgspec.msgpack.encode({"v": 3, "owner": "somebody", "spans": {"0": [1, 2]}})
    crc = zlib.crc32(b"packed otherwise", zlib.crc32(head))
    frame = struct.pack(">4sIII", b"RBJ1", len(head), 16, crc) + head + b"packed otherwise"
    (old.folder / "journal" / "001-000001-00000001.seg").write_bytes(frame)


def _lake(old: Old) -> None:
    path = old.folder / "lake" / "partition=0001" / "manifest-0000000001.msgpack"
    _newer(path, lambda found: found.update(v=2, files="elsewhere"))


def _cursor(name: str, field: str) -> Callable[[Old], None]:
    return lambda old: _newer(old.folder / "journal-cursors" / name, lambda found: found.update({field: 2, "done": 1}))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (_journal, JournalError, "001-000001-00000001.seg of the journal has format 3"),
        (_lake, LakeError, "partition 1 of the lake has format 2"),
        (
            lambda old: _newer(old.folder / "lake" / "rebu.json", lambda found: found.update(format=2, partitions="?")),
            LayoutError,
            "lake has format 2",
        ),
        (_cursor("routing", "v"), JournalError, "the cursor `routing` has format 2"),
        (_cursor("processed-000", "v"), JournalError, "the cursor `processed-000` has format 2"),
        (_cursor("traffic-week", "v"), JournalError, "the cursor `traffic-week` has format 2"),
        (_cursor("appdb/rides", "format"), JournalError, "the cursor `rides` has format 2"),
        (_cursor(f"erasures/{'ab' * 32}.tombstone", "v"), JournalError, "tombstone` has format 2"),
    ],
    ids=["journal", "lake", "layout", "routing", "processed", "week", "application database", "tombstone"],
)
def test_a_newer_version_s_data_are_refused_and_stay_as_they_are(
    tmp_path: Path, change: Callable[[Old], None], error: type[Exception], says: str
) -> None:
    old = Old(tmp_path / "data", 2, counted=True, numbered=True)
    old.partition(1, ["a"], tallies=True)
    old.segment("000-000001-00000001.seg", (0, 1, ["d"]))
    old.cursors()
    check_versions(old.settings())
    change(old)
    before = old.digest()
    with pytest.raises(error, match=r"knows it up to \d: start the version that wrote it.*nothing was changed") as told:
        check_versions(old.settings())
    assert says in str(told.value)
    assert old.digest() == before


def test_frames_of_a_newer_version_are_no_damage(tmp_path: Path) -> None:
    old = Old(tmp_path / "data", 2, counted=True, numbered=True)
    _journal(old)
    before = old.digest()
    own = open_journal(old.settings().journal)
    (segment,) = own.segments()
    with pytest.raises(JournalError, match="has format 3"):
        quarantine(own, segment)
    with pytest.raises(JournalError, match="has format 3"):
        old.disk().shard(1)
    after = old.digest()
    assert {name: after[name] for name in before} == before


@seeded
@given(
    version=st.integers(1, 2**63 - 1),
    more=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3) | st.lists(st.none(), max_size=3)),
    of_json=st.booleans(),
    name=st.sampled_from(["v", "format"]),
)
def test_the_format_is_read_whatever_else_is_there(
    version: int, more: dict[str, Any], of_json: bool, name: str
) -> None:
    more = {key: value for key, value in more.items() if key not in ("v", "format")}
    if any(isinstance(value, int) and not -(2**63) <= value < 2**64 for value in more.values()):
        more = {}
    encode = msgspec.json.encode if of_json else msgspec.msgpack.encode
    assert format_of(encode({**more, name: version})) == version
    assert format_of(encode(more)) == 1


def test_everything_that_is_saved_says_its_format() -> None:
    for saved in (Cursor(), Saved(), Pending("ada", "admin", NOW), week.Saved()):
        assert format_of(msgspec.msgpack.encode(saved)) == cursor.FORMAT
        assert {"v", "format"} & {*msgspec.structs.asdict(saved)}
