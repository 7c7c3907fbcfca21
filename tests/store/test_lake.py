"""The lake: pages against brute force, manifests that count once, and nothing that a crash of the machine undoes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.access.tape import END, START, after
from rebu_ray.records import MAX_TIME_MS, Kind
from rebu_ray.store import lake as lake_module
from rebu_ray.store.lake import DataFile, Lake, LakeError, Manifest, again, first_of_each
from rebu_ray.store.member import place, time_place
from rebu_ray.store.rows import Routed
from tests.records import NOW, ids, journalled, said, seeded
from tests.store.disk import unsynced

KEYS = ("u:a", "u:a\x01", "u:ab", "u:é", "a:a", "d:access")
Scheme = Callable[[Path], Lake]


class Entry(NamedTuple):
    """One row of a lake to be."""

    key: str
    at: int
    id: str
    file: int
    kind: Kind


entries = st.lists(
    st.builds(
        Entry,
        key=st.sampled_from(KEYS[:1]) | st.sampled_from(KEYS),
        at=st.integers(NOW, NOW + 2) | st.sampled_from([0, NOW, MAX_TIME_MS]),
        id=st.sampled_from("abcdefgh") | ids,
        file=st.integers(0, 2),
        kind=st.sampled_from([Kind.APP_EVENT, Kind.APP_EVENT, Kind.SERVER_ERROR, Kind.UNLINK, Kind.DEAD_LETTER]),
    ),
    min_size=8,
    max_size=40,
)


def table(found: list[Entry], first_seq: int = 1) -> pa.Table:
    rows = [Routed(3, e.key, said("a", e.id, e.at, kind=e.kind)) for e in found]
    return pa.Table.from_batches([journalled(rows, {3: first_seq - 1})])


def fill(lake: Lake, found: list[Entry]) -> tuple[list[DataFile], dict[tuple[str, bytes], int]]:
    """Files with the entries, and what a page may show: (key, place) -> the number of the row that was first."""
    files: list[DataFile] = []
    shown: dict[tuple[str, bytes], int] = {}
    seq = 0
    for number in range(3):
        rows = [e for e in found if e.file == number]
        if rows:
            files.append(lake.write(3, table(rows, seq + 1), 1))
        for row in rows:
            seq += 1
            if row.kind is not Kind.UNLINK:
                shown.setdefault((row.key, place(row.at, row.id)), seq)
    return files, shown


def places(rows: pa.Table) -> list[bytes]:
    return [place(at, i) for at, i in zip(rows["event_time"].to_pylist(), rows["id"].to_pylist(), strict=True)]


@st.composite
def bounds(draw: st.DrawFn, found: list[Entry]) -> bytes:
    """A bound as reads have them: none, a time, a place that a cursor names, the one after it."""
    at = draw(st.integers(NOW - 1, NOW + 5))
    spots = [place(e.at, e.id) for e in found] or [b""]
    spot = draw(st.sampled_from(spots))
    return draw(st.sampled_from([START, END, time_place(at), spot, after(spot)]))


@settings(seeded, max_examples=150)
@given(entries, st.data(), st.integers(1, 4), st.integers(1, 6), st.booleans())
def test_a_page_is_the_beginning_of_what_brute_force_finds(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[Entry],
    data: st.DataObject,
    row_group: int,
    limit: int,
    descending: bool,
) -> None:
    # An id that comes again says the same time: what is one record then is one place.
    found = list({(e.key, e.id, e.file): e for e in found}.values())
    first = {(e.key, e.id): e.at for e in reversed(found)}
    found = [e._replace(at=first[e.key, e.id]) for e in found]
    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.setattr(lake_module, "_ROW_GROUP", row_group)
        lake = Lake(str(tmp_path_factory.mktemp("lake")))
        files, shown = fill(lake, found)
    key = data.draw(st.sampled_from(KEYS[:1]) | st.sampled_from(KEYS))
    low, high = data.draw(bounds(found)), data.draw(bounds(found))
    page = lake.page(3, key, low, high, descending, limit, files)
    expected = sorted(((p, seq) for (k, p), seq in shown.items() if k == key and low <= p < high), reverse=descending)
    assert list(zip(places(page), page["seq"].to_pylist(), strict=True)) == expected[:limit]
    assert set(page["key"].to_pylist()) <= {key}


@settings(seeded, max_examples=60)
@given(entries, st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_pages_one_after_the_other_leave_no_record_out(
    tmp_path_factory: pytest.TempPathFactory, found: list[Entry], row_group: int, limit: int, descending: bool
) -> None:
    """Also where one id came at several times; a page shows it once."""
    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.setattr(lake_module, "_ROW_GROUP", row_group)
        lake = Lake(str(tmp_path_factory.mktemp("lake")))
        files, shown = fill(lake, found)
    low, high = START, END
    met: list[bytes] = []
    while True:
        page = places(lake.page(3, "u:a", low, high, descending, limit, files))
        assert len({p[8:] for p in page}) == len(page) <= limit
        met += page
        if len(page) < limit:
            break
        low, high = (low, page[-1]) if descending else (after(page[-1]), high)
    assert met == sorted(set(met), reverse=descending)
    assert set(met) <= {p for key, p in shown if key == "u:a"}
    assert {p[8:] for p in met} == {p[8:] for key, p in shown if key == "u:a"}


def test_a_page_reads_no_further_than_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_module, "_ROW_GROUP", 10)
    lake = Lake(str(tmp_path))
    file = lake.write(3, table([Entry("u:a", NOW + n, f"{n}", 0, Kind.APP_EVENT) for n in range(1000)]), 1)
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, i: int) -> pa.Table:
        read.append(i)
        return original(self, i)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    assert lake.page(3, "u:a", START, END, True, 15, [file])["id"].to_pylist() == [f"{n}" for n in range(999, 984, -1)]
    assert lake.page(3, "u:a", time_place(NOW + 500), END, False, 1, [file])["id"].to_pylist() == ["500"]
    assert lake.page(3, "u:b", START, END, True, 15, [file]).num_rows == 0
    assert len(read) < 6


def test_rows_keep_every_column(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    rows = table([Entry(key, NOW + n, f"é{n}", 0, Kind.APP_EVENT) for n, key in enumerate(KEYS)])
    file = lake.write(3, rows, 1)
    assert lake.read(3, [file]).sort_by("seq") == rows
    assert lake.read(3, [file, file], ["seq"]).num_rows == 2 * len(KEYS)
    assert lake.read(3, []).schema == rows.schema
    assert lake.read(3, [], ["seq", "id"]).schema.names == ["seq", "id"]
    assert (file.rows, file.first_seq, file.last_seq) == (6, 1, 6)
    assert (file.min_event_time, file.max_event_time) == (NOW, NOW + 5)
    assert (file.min_received_at, file.max_received_at) == (NOW, NOW)
    assert file.bytes == (tmp_path / "partition=0003" / file.name).stat().st_size


def test_of_equal_ids_the_first_in_the_journal_counts() -> None:
    found = [("u:a", "1"), ("u:a", "2"), ("u:b", "1"), ("u:a", "1"), ("u:a", "1")]
    rows = table([Entry(key, NOW - n, i, 0, Kind.APP_EVENT) for n, (key, i) in enumerate(found)])
    assert sorted(first_of_each(rows.take(pa.array([4, 2, 3, 0, 1])))["seq"].to_pylist()) == [1, 2, 3]


# -- manifests ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "uri"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path) if request.param == "folder" else tmp_path.as_uri())


def test_the_newest_manifest_counts_and_old_ones_go(lake: Lake, tmp_path: Path) -> None:
    assert lake.manifest(3) == Manifest()
    manifest = Manifest()
    for n in range(1, 8):
        file = lake.write(3, table([Entry("u:a", NOW, "1", 0, Kind.APP_EVENT)], n), n)
        manifest = lake.commit(3, manifest, (*manifest.files, file), n)
        assert lake.manifest(3) == manifest
        assert (manifest.version, manifest.covered_seq, len(manifest.files)) == (n, n, n)
    folder = tmp_path / "partition=0003"
    assert len(list(folder.glob("manifest-*"))) == 3
    assert lake.manifest(2) == Manifest()
    lake.remove(3, manifest.files[:2])
    assert {p.name for p in folder.glob("*.parquet")} == {f.name for f in manifest.files[2:]}


def test_a_manifest_that_was_not_finished_does_not_count(lake: Lake, tmp_path: Path) -> None:
    manifest = lake.commit(3, Manifest(), (), 5)
    folder = tmp_path / "partition=0003"
    (folder / "manifest-0000000002.msgpack.new").write_bytes(b"\x85")
    assert lake.manifest(3) == manifest
    assert lake.commit(3, manifest, (), 6).version == 2
    assert lake.manifest(3).covered_seq == 6


def test_who_did_not_see_the_last_manifest_cannot_commit(lake: Lake) -> None:
    """An owner that was thought dead comes back: what its successor committed stays."""
    first = lake.commit(3, Manifest(), (), 5)
    file = lake.write(3, table([Entry("u:a", NOW, "1", 0, Kind.APP_EVENT)], 9), 2)
    second = lake.commit(3, first, (file,), 9)
    for stale in (Manifest(), first):
        with pytest.raises(LakeError, match="later manifest"):
            lake.commit(3, stale, (), 7)
    assert lake.manifest(3) == second


def test_of_two_who_commit_at_the_same_moment_one_is_refused(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked at what is there before either of them writes."""
    first = lake.commit(3, Manifest(), (), 1)
    monkeypatch.setattr(lake, "_versions", lambda partition: [])
    with pytest.raises(LakeError, match="later manifest"):
        lake.commit(3, Manifest(), (), 9)
    monkeypatch.undo()
    assert lake.manifest(3) == first
    assert [path.name for path in (tmp_path / "partition=0003").iterdir()] == ["manifest-0000000001.msgpack"]


def test_a_manifest_that_goes_while_it_is_looked_for_is_looked_for_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = lake.commit(3, Manifest(), (), 1)
    listings = [[1, 99], [1]]
    monkeypatch.setattr(lake, "_versions", lambda partition: listings.pop(0))
    assert lake.manifest(3) == known
    assert listings == []


def test_another_format_is_refused(lake: Lake, tmp_path: Path) -> None:
    lake.commit(3, Manifest(), (), 1)
    path = tmp_path / "partition=0003" / "manifest-0000000001.msgpack"
    path.write_bytes(msgspec.msgpack.encode(Manifest(v=99, version=1)))
    with pytest.raises(LakeError, match="format 99"):
        lake.manifest(3)


def test_what_a_manifest_names_was_on_disk_before_it(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is removed on the strength of a manifest."""
    synced: list[str] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file}")
        synced.append(os.path.relpath(path, tmp_path) + ("" if os.path.isdir(path) else f" {os.path.getsize(path)}"))
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    file = lake.write(3, table([Entry("u:a", NOW, "1", 0, Kind.APP_EVENT)]), 1)
    lake.commit(3, Manifest(), (file,), 1)
    size = (tmp_path / "partition=0003" / "manifest-0000000001.msgpack").stat().st_size
    assert [re.sub(r"\.[0-9a-f]{32}\.", ".", name) for name in synced] == [
        f"partition=0003/{file.name} {file.bytes}",
        f"partition=0003/manifest-0000000001.msgpack.new {size}",
        "partition=0003",
    ]


@settings(seeded, max_examples=30)
@given(found=entries, prefix=st.sampled_from(["u:", "a:", "d:", "r:", "u:a\x01", "z"]), group=st.integers(1, 5))
def test_streams_are_found_by_how_they_begin(
    tmp_path_factory: pytest.TempPathFactory, found: list[Entry], prefix: str, group: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.setattr(lake_module, "_ROW_GROUP", group)
        lake = Lake(str(tmp_path_factory.mktemp("lake")))
        file = lake.write(3, table(found), 1)
        everything = lake.read(3, [file]).to_pylist()
        read = lake.read_streams(3, file, prefix).to_pylist()
    assert read == [row for row in everything if row["key"].startswith(prefix)]


def test_only_the_row_groups_of_a_stream_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_module, "_ROW_GROUP", 4)
    lake = Lake(str(tmp_path))
    file = lake.write(3, table([Entry(f"{k}:{n}", NOW, "1", 0, Kind.APP_EVENT) for k in "anru" for n in range(8)]), 1)
    groups: list[int] = []
    whole = pq.ParquetFile.read_row_groups

    def counted(self: pq.ParquetFile, numbers: list[int], **options: object) -> pa.Table:
        groups.extend(numbers)
        return whole(self, numbers, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    assert lake.read_streams(3, file, "r:").num_rows == 8
    assert groups == [4, 5]


def test_reading_begins_anew_until_a_file_is_missing_again_and_again() -> None:
    tries = 0

    def read(merged: int) -> int:
        nonlocal tries
        tries += 1
        if tries <= merged:
            raise FileNotFoundError("merged")
        return tries

    assert again(lambda: read(lake_module.ATTEMPTS - 1)) == lake_module.ATTEMPTS
    tries = 0
    with pytest.raises(FileNotFoundError, match="merged"):
        again(lambda: read(lake_module.ATTEMPTS))
    assert tries == lake_module.ATTEMPTS
