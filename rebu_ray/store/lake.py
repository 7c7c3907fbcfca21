"""The lake: sealed journal segments as Parquet, a folder a partition, on local disk or any `pyarrow.fs` URI.

    partition=0007/{first_seq}-{last_seq}-{version}.parquet         rows of `ROWS`, sorted by (key, event time, id)
    partition=0007/rides-{first_seq}-{last_seq}-{version}.parquet   documents of rides, as ride_table.py has them
    partition=0007/tallies-{version}.parquet                        what came in, as tally.py counts it
    partition=0007/manifest-{version}.msgpack                       which files count, and up to which seq

Only the owner of a partition commits its manifests; a file that no manifest names does not exist. A
manifest is written beside the last one, whole, and the highest version wins.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rebu_ray.records import HISTORY_KINDS, MAX_TIME_MS, Kind
from rebu_ray.store.conditional import conditional
from rebu_ray.store.files import sync
from rebu_ray.store.member import place, place_time
from rebu_ray.store.replays import apart, resolved
from rebu_ray.store.ride_table import RIDES
from rebu_ray.store.rows import ROWS
from rebu_ray.store.tally import TALLIES
from rebu_ray.store.versions import read

FORMAT: Final = 1
ATTEMPTS: Final = 5
"""How often reading is begun anew because a file was merged into another one meanwhile."""
_MANIFEST: Final = re.compile(r"manifest-(\d{10})\.msgpack$")
_KEPT_MANIFESTS: Final = 3
_ROW_GROUP: Final = 32_768
_RIDE_ROW_GROUP: Final = 1024
"""Small: a list of rides holds a row group of every file at the same time of day at once."""
_DICTIONARIES: Final = ("key", "kind", "name", "source", "user_id", "matched_by")
_RIDE_DICTIONARIES: Final = ("key", "kind", "source", "user_id", "status", "city", "driver_id", "cause")
_SHOWN: Final = pa.array([str(kind) for kind in (*HISTORY_KINDS, Kind.DEAD_LETTER, Kind.REPLAYED)])
"""What a page shows; the rest of a stream's rows steer the platform."""

Answer = TypeVar("Answer")


class LakeError(Exception):
    """The lake cannot be read or written."""


class DataFile(msgspec.Struct, frozen=True):
    """A Parquet file of one partition. Times are ms; bounds are inclusive."""

    name: str
    rows: int
    bytes: int
    first_seq: int
    last_seq: int
    min_event_time: int
    max_event_time: int
    min_received_at: int
    max_received_at: int


class TallyFile(msgspec.Struct, frozen=True):
    """A file of tallies of one partition."""

    name: str
    rows: int


class Manifest(msgspec.Struct, frozen=True):
    """The files of a partition that count; every row up to `covered_seq` is in one of them."""

    v: int = FORMAT
    version: int = 0
    covered_seq: int = 0
    files: tuple[DataFile, ...] = ()
    """Rows of every kind but documents of rides."""
    rides: tuple[DataFile, ...] = ()
    """Documents of rides."""
    tallies: tuple[TallyFile, ...] | None = None
    """What came in of all that is covered; None where a version without tallies wrote it."""
    erased: str = ""
    """The digest of the tombstones whose rows are in none of the files."""


class Lake:
    """The Parquet files of all partitions. Calls block."""

    def __init__(self, uri: str) -> None:
        if "://" in uri:
            self._fs, self._root = pafs.FileSystem.from_uri(uri)
        else:
            self._fs, self._root = pafs.LocalFileSystem(), uri
        self._create = conditional(uri)
        self._fs.create_dir(self._root, recursive=True)

    def folder(self, partition: int) -> str:
        return f"{self._root}/partition={partition:04d}"

    def manifest(self, partition: int) -> Manifest:
        """The newest manifest of a partition; an empty one where there is none yet."""
        versions = self._versions(partition)
        while versions:
            try:
                with self._fs.open_input_stream(self._manifest_path(partition, versions[-1])) as file:
                    return read(file.read(), Manifest, FORMAT, f"partition {partition} of the lake", LakeError)
            except FileNotFoundError:  # pruned by its owner while we looked
                versions = self._versions(partition)
                continue
        return Manifest()

    def write(self, partition: int, rows: pa.Table, version: int) -> DataFile:
        """Write rows (any order, all of one partition) as one file, which counts once manifest `version` names it."""
        rows = rows.sort_by([("key", "ascending"), ("event_time", "ascending"), ("id", "ascending")])
        return self._write(partition, "", version, [rows], _ROW_GROUP, _DICTIONARIES)

    def write_rides(self, partition: int, rides: pa.Table, version: int) -> DataFile:
        """`write` for `RIDES`, which can be read as rows. Those that moved are in row groups of their own."""
        rides = rides.sort_by([("event_time", "ascending"), ("name", "ascending"), ("seq", "ascending")])
        parts = [rides.filter(rides["moved"]), rides.filter(pc.invert(rides["moved"]))]
        return self._write(partition, "rides-", version, parts, _RIDE_ROW_GROUP, _RIDE_DICTIONARIES)

    def _write(
        self,
        partition: int,
        prefix: str,
        version: int,
        parts: Sequence[pa.Table],
        row_group: int,
        dictionaries: Sequence[str],
    ) -> DataFile:
        """Write tables, none of whose row groups reaches from one into the next."""
        table = pa.concat_tables(parts)
        seq, event, received = (pc.min_max(table[c]).as_py() for c in ("seq", "event_time", "received_at"))
        name = f"{prefix}{seq['min']:012d}-{seq['max']:012d}-{version:010d}.parquet"
        self._fs.create_dir(self.folder(partition), recursive=True)
        path = f"{self.folder(partition)}/{name}"
        try:
            with pq.ParquetWriter(
                path,
                table.schema,
                filesystem=self._fs,
                compression="zstd",
                use_dictionary=list(dictionaries),
                write_statistics=True,
            ) as writer:
                for part in parts:
                    if part.num_rows:
                        writer.write_table(part, row_group)
            self._make_durable(path)
        except OSError:
            with contextlib.suppress(OSError):  # on a full disk, room for the next attempt
                self._fs.delete_file(path)
            raise
        return DataFile(
            name=name,
            rows=table.num_rows,
            bytes=self._fs.get_file_info(path).size,
            first_seq=seq["min"],
            last_seq=seq["max"],
            min_event_time=event["min"],
            max_event_time=event["max"],
            min_received_at=received["min"],
            max_received_at=received["max"],
        )

    def commit(
        self,
        partition: int,
        before: Manifest,
        files: Sequence[DataFile],
        covered_seq: int,
        rides: Sequence[DataFile] = (),
        tallies: tuple[TallyFile, ...] | None = None,
        erased: str | None = None,
    ) -> Manifest:
        """Make `files` and `rides` the partition's, covering the journal up to `covered_seq`. Only for its owner.
        Tallies stay as they were where none are given. Where `erased` is, no earlier manifest is kept.

        Durable when it returns. Raises LakeError where somebody else has committed since `before`.
        """
        if max(self._versions(partition), default=0) != before.version:
            raise LakeError(f"partition {partition} has a later manifest than version {before.version}")
        after = Manifest(
            version=before.version + 1,
            covered_seq=covered_seq,
            files=tuple(files),
            rides=tuple(rides),
            tallies=before.tallies if tallies is None else tallies,
            erased=before.erased if erased is None else erased,
        )
        self._fs.create_dir(self.folder(partition), recursive=True)
        if not self._named(partition, after):
            raise LakeError(f"partition {partition} has a later manifest than version {before.version}")
        for version in self._versions(partition)[: -(_KEPT_MANIFESTS if erased is None else 1)]:
            self._fs.delete_file(self._manifest_path(partition, version))
        return after

    def _named(self, partition: int, manifest: Manifest) -> bool:
        """Write a manifest, durable when this returns; whether nobody else has written one of that version."""
        name, data = manifest_name(manifest.version), msgspec.msgpack.encode(manifest)
        if self._create is not None:
            return self._create(f"{self.folder(partition).removeprefix(self._root).strip('/')}/{name}", data)
        path = f"{self.folder(partition)}/{name}"
        new = f"{path}.{uuid.uuid4().hex}.new"
        try:
            with self._fs.open_output_stream(new) as out:
                out.write(data)
            self._make_durable(new)
            if not isinstance(self._fs, pafs.LocalFileSystem) or not _linked(new, path):
                self._fs.move(new, path)
        except FileExistsError:
            self._fs.delete_file(new)
            return False
        except OSError:
            with contextlib.suppress(OSError):  # on a full disk, room for the next attempt
                self._fs.delete_file(new)
            raise
        self._make_durable(self.folder(partition))
        return True

    def remove(self, partition: int, files: Sequence[DataFile | TallyFile]) -> None:
        """Delete files that no manifest names any more."""
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # an erasure was quicker
                self._fs.delete_file(f"{self.folder(partition)}/{file.name}")

    def remove_unnamed(self, partition: int, manifest: Manifest) -> None:
        """Delete every Parquet file that a partition's newest manifest does not name. Only for its owner."""
        named = {file.name for file in (*manifest.files, *manifest.rides)}
        named |= {file.name for file in manifest.tallies or ()}
        selector = pafs.FileSelector(self.folder(partition), allow_not_found=True)
        for info in self._fs.get_file_info(selector):
            if info.base_name.endswith(".parquet") and info.base_name not in named:
                self._fs.delete_file(info.path)

    def write_tallies(self, partition: int, tallies: pa.Table, version: int) -> TallyFile:
        """Write tallies as one file, which counts once manifest `version` names it."""
        self._fs.create_dir(self.folder(partition), recursive=True)
        name = f"tallies-{version:010d}.parquet"
        pq.write_table(tallies, f"{self.folder(partition)}/{name}", filesystem=self._fs, compression="zstd")
        self._make_durable(f"{self.folder(partition)}/{name}")
        return TallyFile(name, tallies.num_rows)

    def read_tallies(self, partition: int, files: Sequence[TallyFile]) -> list[pa.Table]:
        """The tallies of files, one table each."""
        paths = [f"{self.folder(partition)}/{file.name}" for file in files]
        return [pq.read_table(path, filesystem=self._fs, columns=TALLIES.names) for path in paths]

    def read(self, partition: int, files: Sequence[DataFile], columns: list[str] | None = None) -> pa.Table:
        """The rows of files, whole, as `ROWS`; of ride files other columns can be asked for as well."""
        columns = columns or ROWS.names
        tables = [
            pq.read_table(f"{self.folder(partition)}/{f.name}", filesystem=self._fs, columns=columns) for f in files
        ]
        if not tables:
            return pa.schema([RIDES.field(c) for c in columns]).empty_table()
        return pa.concat_tables(tables)

    def read_streams(self, partition: int, file: DataFile, prefix: str) -> pa.Table:
        """The rows (`ROWS`) of a file whose stream begins so. Only the row groups are read that may hold some."""
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        with self.open(partition, file) as parquet:
            groups = [n for n in range(parquet.num_row_groups) if may_hold(parquet, n, prefix, after)]
            table = parquet.read_row_groups(groups, columns=ROWS.names).cast(ROWS)
        return table.filter(pc.starts_with(table["key"], prefix))

    def info(self, partition: int, file: DataFile) -> pafs.FileInfo:
        """What the store says of a file: size, time of change, whether it is there."""
        return self._fs.get_file_info(f"{self.folder(partition)}/{file.name}")

    def open(self, partition: int, file: DataFile, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """A file, to read parts of it; its metadata need not be read again where they are known."""
        path = f"{self.folder(partition)}/{file.name}"
        return pq.ParquetFile(path, filesystem=self._fs, metadata=metadata)

    def page(
        self, partition: int, key: str, low: bytes, high: bytes, descending: bool, limit: int, files: Sequence[DataFile]
    ) -> pa.Table:
        """The first `limit` rows of a stream with low <= place < high, in the order asked for, each id once.

        Row groups are visited from the end where the page begins, and no further than it reaches: a page
        of a stream with a million rows costs a few row groups.
        """
        # A bound shorter than a time is the beginning or the end of everything.
        first = place_time(low) if len(low) >= 8 else 0
        last = place_time(high) if len(high) >= 8 else MAX_TIME_MS
        groups = []
        for file in files:
            if file.min_event_time > last or file.max_event_time < first:
                continue
            parquet = self.open(partition, file)
            groups += [
                (bounds, parquet, i)
                for i in range(parquet.num_row_groups)
                if (bounds := _bounds(parquet, i, key, first, last)) is not None
            ]
        groups.sort(key=lambda g: g[0][1] if descending else g[0][0], reverse=descending)
        found = marks = ROWS.empty_table()
        for n, (_, parquet, i) in enumerate(groups):
            rows = parquet.read_row_group(i)
            rows = rows.filter(
                pc.and_(
                    pc.and_(pc.equal(rows["key"], key), pc.is_in(rows["kind"], value_set=_SHOWN)),
                    pc.and_(pc.greater_equal(rows["event_time"], first), pc.less_equal(rows["event_time"], last)),
                )
            )
            rows, more = apart(rows.cast(ROWS))
            marks = pa.concat_tables([marks, more])
            found = resolved(_within(pa.concat_tables([found, rows]), low, high, descending), marks)
            if found.num_rows >= limit and n + 1 < len(groups):
                edge = found["event_time"][limit - 1].as_py()
                following = groups[n + 1][0]
                if (following[1] < edge) if descending else (following[0] > edge):
                    break
        return found.slice(0, limit)

    def _make_durable(self, path: str) -> None:
        """Have a local file or folder on the disk itself: the journal is removed on the strength of it."""
        if isinstance(self._fs, pafs.LocalFileSystem):
            sync(path)

    def _versions(self, partition: int) -> list[int]:
        selector = pafs.FileSelector(self.folder(partition), allow_not_found=True)
        found = (_MANIFEST.search(info.path) for info in self._fs.get_file_info(selector))
        return sorted(int(m[1]) for m in found if m)

    def _manifest_path(self, partition: int, version: int) -> str:
        return f"{self.folder(partition)}/{manifest_name(version)}"


def again(read: Callable[[], Answer]) -> Answer:
    """What `read` answers, which asks for manifests and reads their files; anew where one was merged meanwhile.

    Raises FileNotFoundError where a file is missing again and again.
    """
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(FileNotFoundError):
            return read()
    return read()


def _linked(new: str, path: str) -> bool:
    """Give a file the name of none that there is: a move would replace it. False where the disk knows no links.

    Raises FileExistsError.
    """
    try:
        os.link(new, path)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
            return False
        raise
    os.unlink(new)
    return True


def manifest_name(version: int) -> str:
    return f"manifest-{version:010d}.msgpack"


def may_hold(parquet: pq.ParquetFile, group: int, first: str, last: str) -> bool:
    """Whether a row group may hold rows of streams with first <= key <= last."""
    keys = _statistics(parquet, group, "key")
    return keys is None or bool(keys.min <= last and keys.max >= first)


def _statistics(parquet: pq.ParquetFile, group: int, column: str) -> pq.Statistics | None:
    """The least and the greatest value of a column in a row group, where the file says them."""
    found = parquet.metadata.row_group(group).column(parquet.schema.names.index(column)).statistics
    return found if found is not None and found.has_min_max else None


def _bounds(parquet: pq.ParquetFile, group: int, key: str, first: int, last: int) -> tuple[int, int] | None:
    """The event times that a row group may hold of a stream; None where it holds none in [first, last]."""
    if not may_hold(parquet, group, key, key):
        return None
    times = _statistics(parquet, group, "event_time")
    if times is None:
        return first, last
    if times.min > last or times.max < first:
        return None
    return times.min, times.max


def _within(rows: pa.Table, low: bytes, high: bytes, descending: bool) -> pa.Table:
    """Rows of one stream in the order of their places, each id once, cut to low <= place < high."""
    rows = first_of_each(rows)
    order = "descending" if descending else "ascending"
    rows = rows.sort_by([("event_time", order), ("id", order)])
    places = [place(t, i) for t, i in zip(rows["event_time"].to_pylist(), rows["id"].to_pylist(), strict=True)]
    return rows.filter(pa.array([low <= p < high for p in places], pa.bool_()))


def first_of_each(rows: pa.Table) -> pa.Table:
    """Of rows with the same (key, id), the one that was journalled first."""
    if rows.num_rows < 2:
        return rows
    firsts = rows.group_by(["key", "id"]).aggregate([("seq", "min")])["seq_min"]
    if len(firsts) == rows.num_rows:
        return rows
    return rows.filter(pc.is_in(rows["seq"], value_set=firsts))
