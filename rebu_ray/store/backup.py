"""Backups: a copy of everything that cannot be made anew, of a platform that runs or of one that does not.

What is copied is in motion, so the order makes it whole. Whatever says how far something has come goes first, so that
it is behind the data and never ahead of them: what was done twice changes nothing, what was not done would be missing.
Then the journal, then the lake: what leaves the one is in the other by then. Then who is erased, so that whoever is
erased while this copies is erased in the copy as well. The list of all files with their checksums comes last: without
it a folder is no backup. The index and the warehouse are not copied; they are made anew from these.

A backup is laid out as a data dir, but is not to be used as one: `restore` copies it to a new place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.fs as pafs
import xxhash

from rebu_ray.store.cursor import NEW
from rebu_ray.store.files import opened, sync
from rebu_ray.store.journal import Journal, SegmentName, epoch_name, open_journal, unpack
from rebu_ray.store.lake import DataFile, Lake, Manifest, TallyFile, manifest_name
from rebu_ray.store.layout import NAME as LAYOUT
from rebu_ray.store.layout import known_layout
from rebu_ray.store.tombstones import FOLDER as ERASURES
from rebu_ray.store.tombstones import SECRET, TombstoneStore
from rebu_ray.store.versions import read

FORMAT: Final = 1
LIST: Final = "backup.json"
KEYS: Final = "keys.json"
UNFINISHED: Final = "restore.unfinished"
"""A file in a data dir to which a backup is being copied."""
_CHUNK: Final = 4 * 1024 * 1024
_ATTEMPTS: Final = 100
_AGAIN_SECONDS: Final = 0.1
_PRIVATE: Final = (KEYS, SECRET)

Told = Callable[[str, int], None]
"""Told of each file that was copied, and its bytes."""


class BackupError(Exception):
    """A backup cannot be made or used; the message says why."""


class File(msgspec.Struct, frozen=True):
    """A file of a backup."""

    path: str
    size: int
    hash: str
    """XXH3, 128 bits, hex."""


class Backup(msgspec.Struct, frozen=True):
    """What is in a backup."""

    platform_id: str
    partitions: int
    began_at: int
    """In ms: everything that was acknowledged before is there."""
    ended_at: int
    build: str
    """The version that made it."""
    rows: int
    """The last sequence numbers of all partitions, summed up."""
    files: tuple[File, ...]
    v: int = FORMAT

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class Stores(NamedTuple):
    """Where a platform's data are: URIs or folders."""

    data_dir: str
    journal: str
    cursors: str
    lake: str


class Folder:
    """Files below a folder or a `pyarrow.fs` URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._fs, self._root, self._local = opened(uri)

    def names(self, below: str = "") -> list[str]:
        """Every file, or those of one folder in it, by its path below this folder."""
        root = self._root.rstrip("/")
        selector = pafs.FileSelector(f"{root}/{below}".rstrip("/"), recursive=True, allow_not_found=True)
        infos = (info for info in self._fs.get_file_info(selector) if info.is_file)
        return sorted(info.path[len(root) + 1 :] for info in infos)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of a file, piece by piece. Raises FileNotFoundError."""
        with self._fs.open_input_stream(f"{self._root}/{name}") as file:
            while data := file.read(_CHUNK):
                yield bytes(data)

    def write(self, name: str, chunks: Iterable[bytes]) -> File:
        """Write a file, durable when this returns; what it holds."""
        path, found, size = f"{self._root}/{name}", xxhash.xxh3_128(), 0
        self._fs.create_dir(path.rpartition("/")[0], recursive=True)
        if self._local and name in _PRIVATE:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        with self._fs.open_output_stream(path) as out:
            for chunk in chunks:
                out.write(chunk)
                found.update(chunk)
                size += len(chunk)
        if self._local:
            sync(path)
            sync(path.rpartition("/")[0])
        return File(name, size, found.hexdigest())

    def remove(self, name: str) -> None:
        """Delete a file."""
        self._fs.delete_file(f"{self._root}/{name}")


class _Copying:
    """A backup under way."""

    def __init__(self, to: Folder, told: Told) -> None:
        self._to = to
        self._told = told
        self.files: dict[str, File] = {}

    def take(self, name: str, chunks: Iterable[bytes]) -> None:
        self.files[name] = self._to.write(name, chunks)
        self._told(name, self.files[name].size)

    def drop(self, name: str) -> None:
        self._to.remove(name)
        del self.files[name]

    def folder(self, source: Folder, prefix: str, wanted: Callable[[str], bool], below: str = "") -> None:
        """Files that name one another, of a time when none of them came or went. Looked for in a folder of it alone
        where one is named.
        """

        def there() -> list[str]:
            return [name for name in source.names(below) if wanted(name) and not name.endswith(NEW)]

        for _ in range(_ATTEMPTS):
            names = there()
            try:
                for name in names:
                    self.take(f"{prefix}/{name}", source.chunks(name))
            except FileNotFoundError:
                continue
            if names == there():
                for left in [f for f in self.files if _below(f, prefix) and wanted(_below(f, prefix))]:
                    if _below(left, prefix) not in names:
                        self.drop(left)
                return
            time.sleep(_AGAIN_SECONDS)
        raise BackupError(f"the files at {source.uri} come and go too fast to be copied: try again")

    def journal(self, journal: Journal, files: Folder) -> dict[int, list[tuple[int, int]]]:
        """The segments, as far as they count; by partition the (first, last) sequence numbers in them."""
        spans: dict[int, list[tuple[int, int]]] = {}
        for segment in journal.segments():
            try:
                data = _settled(journal, segment, files)
            except FileNotFoundError:  # all of it is in the lake
                continue
            for frame in unpack(data, str(segment)):
                for span in frame.header.spans:
                    spans.setdefault(span.partition, []).append((span.first_seq, span.first_seq + span.count - 1))
            self.take(f"journal/{segment}", [data])
        # Only now: whoever claims a slot of the copy has to be later than every owner of what was copied.
        for slot in sorted(journal.slots()):
            self.take(f"journal/{epoch_name(slot, journal.epoch(slot))}", [])
        return spans

    def partition(self, lake: Lake, source: Folder, partition: int) -> Manifest:
        """A partition of the lake, as its newest manifest has it."""
        folder = f"partition={partition:04d}"
        for _ in range(_ATTEMPTS):
            manifest = lake.manifest(partition)
            files: tuple[DataFile | TallyFile, ...] = (*manifest.files, *manifest.rides, *(manifest.tallies or ()))
            paths = [f"{folder}/{file.name}" for file in files]
            try:
                for path in paths:
                    if f"lake/{path}" not in self.files:
                        self.take(f"lake/{path}", source.chunks(path))
            except FileNotFoundError:  # merged into another one meanwhile
                continue
            for left in [f for f in self.files if _below(f, f"lake/{folder}")]:
                if left not in {f"lake/{path}" for path in paths}:
                    self.drop(left)
            if manifest.version:
                name = manifest_name(manifest.version)
                self.take(f"lake/{folder}/{name}", [msgspec.msgpack.encode(manifest)])
            return manifest
        raise BackupError(f"the files of partition {partition} come and go too fast to be copied: try again")


def _below(path: str, prefix: str) -> str:
    """A path below a folder; empty where it is not there."""
    return path[len(prefix) + 1 :] if path.startswith(f"{prefix}/") else ""


def _settled(journal: Journal, segment: SegmentName, files: Folder) -> bytes:
    """What counts of a segment: nothing that a stale owner wrote while another one was just claiming the slot."""
    for _ in range(_ATTEMPTS):
        data = journal.read(segment)
        if journal.epoch(segment.slot) == segment.epoch:
            return data
        # Between the epoch and the fence of a claim nothing says yet how much of this counts.
        fences = [name for name in files.names() if name.endswith(".fence")]
        if any(int(fence[:3]) == segment.slot and int(fence[4:10]) > segment.epoch for fence in fences):
            return journal.read(segment)
        time.sleep(_AGAIN_SECONDS)
    return data  # whoever claimed the slot ended before anything was fenced, and appended nothing


def backup(stores: Stores, to: str, build: str, told: Told) -> Backup:
    """Copy a platform's data to a folder or URI where nothing is yet. The platform may run meanwhile.

    Raises BackupError, LayoutError, LakeError, JournalError or OSError.
    """
    target = Folder(to)
    if target.names():
        raise BackupError(f"there is something at {to} already: name another place")
    layout = known_layout(stores.lake)
    if layout is None:
        raise BackupError(f"there is no platform's lake at {stores.lake}: nothing to copy")
    began_at = _now()
    copying = _Copying(target, told)
    cursors, lake, files = Folder(stores.cursors), Lake(stores.lake), Folder(stores.lake)
    copying.folder(cursors, "journal-cursors", lambda name: not name.startswith(f"{ERASURES}/"))
    spans = copying.journal(open_journal(stores.journal), Folder(stores.journal))
    copying.take(f"lake/{LAYOUT}", files.chunks(LAYOUT))
    rows = 0
    for partition in range(layout.partitions):
        rows += _whole(partition, copying.partition(lake, files, partition), spans.get(partition, []))
    for source, prefix in ((cursors, "journal-cursors"), (files, "lake")):
        copying.folder(source, prefix, lambda name: name.startswith(f"{ERASURES}/"), ERASURES)
    for name in _PRIVATE:
        if (Path(stores.data_dir) / name).exists():
            copying.take(name, Folder(stores.data_dir).chunks(name))
    found = Backup(
        platform_id=layout.platform_id,
        partitions=layout.partitions,
        began_at=began_at,
        ended_at=_now(),
        build=build,
        rows=rows,
        files=tuple(copying.files[name] for name in sorted(copying.files)),
    )
    target.write(LIST, [msgspec.json.format(msgspec.json.encode(found), indent=1)])
    return found


def _whole(partition: int, manifest: Manifest, spans: list[tuple[int, int]]) -> int:
    """The last sequence number of a partition in a copy. Raises BackupError where one before it is missing."""
    at = manifest.covered_seq
    for first, last in sorted(spans):
        if first > at + 1:
            raise BackupError(
                f"the rows {at + 1} to {first - 1} of partition {partition} are in neither journal nor lake"
            )
        at = max(at, last)
    return at


def contents(place: str) -> Backup:
    """What is in a backup. Raises BackupError where there is none."""
    try:
        data = b"".join(Folder(place).chunks(LIST))
    except (FileNotFoundError, pa.ArrowException) as error:
        raise BackupError(f"there is no whole backup at {place}: it has no {LIST}") from error
    try:
        return read(data, Backup, FORMAT, f"the backup at {place}", BackupError)
    except msgspec.DecodeError as error:
        raise BackupError(f"there is no whole backup at {place}: its {LIST} is damaged ({error})") from error


def check(place: str, told: Told) -> Backup:
    """Read all of a backup. Raises BackupError for a file that is missing or is not what it was."""
    found, folder = contents(place), Folder(place)
    for file in found.files:
        for _ in _verified(folder, file):
            pass
        told(file.path, file.size)
    return found


def restore(place: str, to: Stores, told: Told) -> Backup:
    """Copy a backup to where a platform's data are to be, where nothing is yet.

    Raises BackupError, also for a file that is missing or is not what it was, or OSError.
    """
    found, source = contents(place), Folder(place)
    places = {"journal": Folder(to.journal), "journal-cursors": Folder(to.cursors), "lake": Folder(to.lake)}
    for folder in places.values():
        if folder.names():
            raise BackupError(f"there is something at {folder.uri} already: restore to another place, or remove it")
    own = Folder(to.data_dir)
    own.write(UNFINISHED, [])
    for file in found.files:
        first, _, name = file.path.partition("/")
        (places[first] if name else own).write(name or first, _verified(source, file))
        told(file.path, file.size)
    own.remove(UNFINISHED)
    return found


def bring_erasures(source: Stores, to: Stores, secret: bytes) -> int:
    """Have whoever is erased at one place erased at another as well; how many those are.

    Raises TombstoneError where the two were not made with the same secret.
    """
    there = TombstoneStore(to.cursors, to.lake, secret)
    known = there.load().stones
    found = TombstoneStore(source.cursors, source.lake, secret).load().stones
    new = [stone for person, stone in found.items() if known.get(person) != stone]
    for stone in new:
        there.save(stone)
    return len(new)


def _verified(folder: Folder, file: File) -> Iterator[bytes]:
    found, size = xxhash.xxh3_128(), 0
    try:
        for chunk in folder.chunks(file.path):
            found.update(chunk)
            size += len(chunk)
            yield chunk
    except FileNotFoundError as error:
        raise BackupError(f"{file.path} is missing in the backup at {folder.uri}") from error
    if (size, found.hexdigest()) != (file.size, file.hash):
        raise BackupError(f"{file.path} in the backup at {folder.uri} is not what it was when it was copied")


def _now() -> int:
    return time.time_ns() // 1_000_000
