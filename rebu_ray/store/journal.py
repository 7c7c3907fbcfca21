"""The journal: what is on disk here has been acknowledged, and nothing else is the truth.

A shard writes one sequence of segments, each named by its owner's slot, the owner's epoch and a number.
A segment is a row of frames; a frame is one group commit:

    magic (4) | header length (4) | payload length (4) | CRC-32 of header and payload (4) | header | payload

The header (msgpack) says which rows of which partitions the payload (Arrow, `WIRE`, in zstd) holds, and with
which sequence numbers. A segment that ends inside a frame was torn by a crash before its acknowledgement: the
torn bytes are dropped. A damaged frame with sound ones behind it is damage, and raises; `quarantine.py` is the way
out of that.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Final, NamedTuple, Protocol

import msgspec
import pyarrow as pa
import pyarrow.fs as pafs
import zstandard

from rebu_ray.store.conditional import creator
from rebu_ray.store.files import sync
from rebu_ray.store.rows import decode, with_seq
from rebu_ray.store.tally import Entry
from rebu_ray.store.versions import format_of, read, refuse_newer

FORMAT: Final = 2
"""1: the payload is not compressed. Magic, lengths and checksum stay as they are in any format that comes, so that
whoever does not know it finds a frame's end, and says so."""
_LEVEL: Final = -5
"""Takes less time than writing the bytes that it saves."""
_MAGIC: Final = b"RBJ1"
_HEAD: Final = struct.Struct(">4sIII")
_PEEKED: Final = 256 * 1024
_SEGMENT: Final = re.compile(r"^(\d{3})-(\d{6})-(\d{8})\.seg$")
_EPOCH: Final = re.compile(r"^(\d{3})-(\d{6})\.epoch$")
_FENCE: Final = re.compile(r"^(\d{3})-(\d{6})\.fence$")


class JournalError(Exception):
    """The journal cannot be trusted or written."""


class JournalCorrupt(JournalError):
    """A frame in the middle of a segment fails its checksum."""


class StaleOwner(JournalError):
    """A later epoch of this slot exists: this owner must not acknowledge anything more."""


class Span(msgspec.Struct, array_like=True):
    """A run of one partition's rows in a frame."""

    partition: int
    first_seq: int
    count: int
    tallies: list[Entry] | None = None
    """What came in with these rows; None in frames from before there were tallies."""


class Header(msgspec.Struct):
    """What a frame holds: its rows lie partition after partition, in the order of `spans`."""

    v: int
    epoch: int
    committed_at: int
    spans: list[Span]


class Frame(NamedTuple):
    """A frame as read back."""

    header: Header
    packed: bytes

    @property
    def payload(self) -> bytes:
        """What was packed."""
        return self.packed if self.header.v == 1 else zstandard.decompress(self.packed)

    def rows(self) -> pa.RecordBatch:
        """All rows of the frame, as `ROWS`."""
        seqs = [s for span in self.header.spans for s in range(span.first_seq, span.first_seq + span.count)]
        return with_seq(decode(self.payload), pa.array(seqs, pa.int64()))


class SegmentName(NamedTuple):
    """slot, epoch and number of a segment; sorts in the order in which an owner writes."""

    slot: int
    epoch: int
    number: int

    def __str__(self) -> str:
        return f"{self.slot:03d}-{self.epoch:06d}-{self.number:08d}.seg"

    @classmethod
    def parse(cls, text: str) -> SegmentName | None:
        found = _SEGMENT.match(text)
        return cls(*map(int, found.groups())) if found else None


def pack(header: Header, payload: bytes) -> bytes:
    """The bytes of a frame."""
    head = msgspec.msgpack.encode(header)
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(payload)
    crc = zlib.crc32(packed, zlib.crc32(head))
    return b"".join((_HEAD.pack(_MAGIC, len(head), len(packed), crc), head, packed))


def unpack(data: bytes, where: str = "segment") -> Iterator[Frame]:
    """The frames of a segment's bytes; a torn end is left out. Raises JournalCorrupt for damage before the end."""
    for at, end, frame in stretches(data):
        if frame is not None:
            yield frame
        elif end < len(data):
            raise JournalCorrupt(
                f"{where}: damaged frame at byte {at}; sound data follows at byte {end}: `rebu journal quarantine "
                f"{where}` sets the segment aside and keeps what of it can be read"
            )


def stretches(data: bytes) -> Iterator[tuple[int, int, Frame | None]]:
    """All of a segment's bytes as (start, end, frame), None where no sound frame lies there."""
    at = 0
    while at < len(data):
        frame, end = _frame(data, at)
        if frame is None:
            end = data.find(_MAGIC, at + 1)
            while end != -1 and _frame(data, end)[0] is None:
                end = data.find(_MAGIC, end + 1)
            end = len(data) if end == -1 else end
        yield at, end, frame
        at = end


def _frame(data: bytes, at: int) -> tuple[Frame | None, int]:
    if at + _HEAD.size > len(data):
        return None, at
    magic, head_len, packed_len, crc = _HEAD.unpack_from(data, at)
    start, end = at + _HEAD.size, at + _HEAD.size + head_len + packed_len
    if magic != _MAGIC or end > len(data):
        return None, at
    head, packed = data[start : start + head_len], data[start + head_len : end]
    if zlib.crc32(packed, zlib.crc32(head)) != crc:
        return None, at
    return Frame(read(head, Header, FORMAT, "a frame of the journal", JournalError), packed), end


def check_format(journal: Journal, segment: SegmentName) -> None:
    """Raises JournalError for a segment of a newer format; the beginning is read, which tells of all of it."""
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):  # whoever reads all of it says what is amiss
        data = journal.peek(segment, _PEEKED)
        if len(data) >= _HEAD.size and data.startswith(_MAGIC):
            head = data[_HEAD.size : _HEAD.size + _HEAD.unpack_from(data)[1]]
            refuse_newer(format_of(head), FORMAT, f"the segment {segment} of the journal", JournalError)


class Journal(Protocol):
    """Where segments are kept. Every call blocks; `append` returns when the bytes are durable."""

    def claim(self, slot: int) -> int:
        """Become the owner of a slot: a new epoch, larger than all before, that no one else gets."""

    def append(self, slot: int, epoch: int, frame: bytes) -> SegmentName:
        """Make a frame durable; the segment that holds it. Raises StaleOwner when a later epoch exists."""

    def roll(self) -> None:
        """Seal the open segment: the next append begins a new one."""

    def segments(self) -> list[SegmentName]:
        """All segments, oldest epoch first."""

    def read(self, segment: SegmentName) -> bytes:
        """The bytes of a segment. Raises FileNotFoundError where it has been removed."""

    def peek(self, segment: SegmentName, size: int) -> bytes:
        """The first bytes of a segment, whether or not they count. Raises FileNotFoundError."""

    def remove(self, segment: SegmentName) -> None:
        """Remove a segment whose rows are all in the lake."""

    def replace(self, segment: SegmentName, data: bytes) -> str:
        """Set a segment aside, under a name that nobody reads, and have `data` in its place; where it is now."""

    def epoch(self, slot: int) -> int:
        """The newest epoch of a slot, 0 where there is none."""

    def slots(self) -> set[int]:
        """Every slot that ever had an owner here."""

    def close(self) -> None:
        """Let go of open files."""


def open_journal(uri: str) -> Journal:
    """The journal at a local folder or at any `pyarrow.fs` URI (``s3://bucket/prefix``)."""
    if "://" not in uri or uri.startswith("file://"):
        return DirectoryJournal(uri.removeprefix("file://"))
    return ObjectJournal(uri)


class DirectoryJournal:
    """Segments as files of a local folder, appended to and fsynced."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, exist_ok=True)
        self._file: int | None = None
        self._open: SegmentName | None = None
        self._number = 0

    def claim(self, slot: int) -> int:
        epoch = max(self._epochs(slot), default=0) + 1
        while not self._create(self._epoch_path(slot, epoch)):
            epoch += 1
        for older in self._epochs(slot):
            if older < epoch:
                with contextlib.suppress(FileNotFoundError):  # another claimant was quicker
                    os.unlink(self._epoch_path(slot, older))
        # From here on older owners are refused. What they made durable until now counts, later bytes do not.
        sizes: dict[str, int] = {}
        for name in self._names():
            if name.slot == slot and name.epoch < epoch:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile: all of it is in the lake
                    sizes[str(name)] = os.path.getsize(self._path(name))
        fence = self._path(_fence_name(slot, epoch))
        try:
            with open(fence + ".new", "wb") as file:
                file.write(msgspec.msgpack.encode(sizes))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.unlink(fence + ".new")  # each claim on a full disk would leave one
            raise
        os.rename(fence + ".new", fence)
        sync(self._folder)
        return epoch

    def append(self, slot: int, epoch: int, frame: bytes) -> SegmentName:
        try:
            segment, file = self._segment(slot, epoch)
            size = os.fstat(file).st_size
        except OSError as error:
            self.roll()
            raise JournalError(f"journal {self._folder}: {error.strerror}") from error
        try:
            written = 0
            while written < len(frame):
                written += os.write(file, frame[written:] if written else frame)
            os.fdatasync(file)
        except OSError as error:
            # A frame that is only partly there must not be followed by a sound one, nor may a file be
            # trusted whose sync failed once. Where even the cut fails, that is no JournalError: the frame may
            # be whole, so its sequence numbers must not be given out again by this owner.
            try:
                os.ftruncate(file, size)
                if not size:
                    os.unlink(self._path(segment))  # each attempt on a full disk would leave one
            finally:
                self.roll()
            raise JournalError(f"journal {self._folder}: {error.strerror}") from error
        # Looked at after the write: an owner that claims later reads what this one has just made durable.
        if not os.path.exists(self._epoch_path(slot, epoch)):
            raise StaleOwner(f"slot {slot} has a later owner than epoch {epoch}")
        return segment

    def roll(self) -> None:
        file, self._file, self._open = self._file, None, None
        if file is not None:
            os.close(file)

    def segments(self) -> list[SegmentName]:
        return sorted(self._names(), key=lambda n: (n.epoch, n.slot, n.number))

    def read(self, segment: SegmentName) -> bytes:
        limit = self._fenced_at(segment)
        with open(self._path(segment), "rb") as file:
            return file.read(-1 if limit is None else limit)

    def peek(self, segment: SegmentName, size: int) -> bytes:
        with open(self._path(segment), "rb") as file:
            return file.read(size)

    def remove(self, segment: SegmentName) -> None:
        os.unlink(self._path(segment))
        left = {n.epoch for n in self._names() if n.slot == segment.slot}
        for epoch in self._fences(segment.slot):
            if epoch < max(self._epochs(segment.slot), default=0) and not any(e < epoch for e in left):
                os.unlink(self._path(_fence_name(segment.slot, epoch)))

    def replace(self, segment: SegmentName, data: bytes) -> str:
        path = self._path(segment)
        with open(path + ".new", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside = _aside(path, os.path.exists)
        os.link(path, aside)
        os.replace(path + ".new", path)
        sync(self._folder)
        return aside

    def close(self) -> None:
        self.roll()

    def epoch(self, slot: int) -> int:
        return max(self._epochs(slot), default=0)

    def slots(self) -> set[int]:
        """Every slot that ever had an owner here."""
        return {int(m[1]) for m in map(_EPOCH.match, os.listdir(self._folder)) if m}

    def _segment(self, slot: int, epoch: int) -> tuple[SegmentName, int]:
        """The open segment, a new one where there is none. It counts as open once the folder lists it for good."""
        if self._open is None or self._file is None or self._open[:2] != (slot, epoch):
            self.roll()
            self._number += 1
            name = SegmentName(slot, epoch, self._number)
            self._file = os.open(self._path(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
            sync(self._folder)
            self._open = name
        return self._open, self._file

    def _fenced_at(self, segment: SegmentName) -> int | None:
        later = [epoch for epoch in self._fences(segment.slot) if epoch > segment.epoch]
        if not later:
            return None
        with open(self._path(_fence_name(segment.slot, min(later))), "rb") as file:
            return msgspec.msgpack.decode(file.read(), type=dict[str, int]).get(str(segment), 0)

    def _names(self) -> list[SegmentName]:
        return [name for name in map(SegmentName.parse, os.listdir(self._folder)) if name]

    def _epochs(self, slot: int) -> list[int]:
        return [int(m[2]) for m in map(_EPOCH.match, os.listdir(self._folder)) if m and int(m[1]) == slot]

    def _fences(self, slot: int) -> list[int]:
        return [int(m[2]) for m in map(_FENCE.match, os.listdir(self._folder)) if m and int(m[1]) == slot]

    def _path(self, name: SegmentName | str) -> str:
        return os.path.join(self._folder, str(name))

    def _epoch_path(self, slot: int, epoch: int) -> str:
        return self._path(epoch_name(slot, epoch))

    def _create(self, path: str) -> bool:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        sync(self._folder)
        return True


class ObjectJournal:
    """Segments as objects of a store that `pyarrow.fs` reaches: a frame an object, durable when the put returns.

    An epoch is an object that only one claimant can create, one after the other without a gap, and stays for ever: so
    an owner asks for the next one alone to learn that it is stale.
    """

    def __init__(self, uri: str) -> None:
        self._fs, self._root = pafs.FileSystem.from_uri(uri)
        self._fs.create_dir(self._root, recursive=True)
        self._create = creator(uri, self._fs, self._root)
        self._number = 0
        self._fences: list[tuple[int, int]] | None = None

    def claim(self, slot: int) -> int:
        epoch = max(self._epochs(slot), default=0) + 1
        while not self._create(epoch_name(slot, epoch)):
            epoch += 1
        segments = self.segments()
        names = {str(n): 1 for n in segments if n.slot == slot and n.epoch < epoch}
        self._put(_fence_name(slot, epoch), msgspec.msgpack.encode(names))
        for theirs, fence in self._fences or ():
            if theirs == slot and fence < epoch and not any(n.slot == slot and n.epoch < fence for n in segments):
                with contextlib.suppress(FileNotFoundError):  # another claimant was quicker
                    self._fs.delete_file(f"{self._root}/{_fence_name(slot, fence)}")
        self._fences = None
        return epoch

    def append(self, slot: int, epoch: int, frame: bytes) -> SegmentName:
        self._number += 1
        name = SegmentName(slot, epoch, self._number)
        try:
            self._put(str(name), frame)
        except OSError as error:
            # The store may have taken it all the same, and its sequence numbers are given out again. Where it
            # cannot be deleted either, that is no JournalError: this owner must leave.
            with contextlib.suppress(FileNotFoundError):
                self._fs.delete_file(f"{self._root}/{name}")
            raise JournalError(f"journal {self._root}: {error}") from error
        # Looked at after the put: an owner that claims later lists what this one has just made durable.
        if self._fs.get_file_info(f"{self._root}/{epoch_name(slot, epoch + 1)}").type != pafs.FileType.NotFound:
            raise StaleOwner(f"slot {slot} has a later owner than epoch {epoch}")
        return name

    def roll(self) -> None:
        """Every object is sealed already."""

    def segments(self) -> list[SegmentName]:
        names = self._names()
        # What is listed here was there before any fence that comes later: these fences are enough to read it.
        self._fences = [(int(m[1]), int(m[2])) for m in map(_FENCE.match, names) if m]
        return sorted((n for n in map(SegmentName.parse, names) if n), key=lambda n: (n.epoch, n.slot, n.number))

    def read(self, segment: SegmentName) -> bytes:
        if self._fences is None:
            self.segments()
        later = [epoch for slot, epoch in self._fences or () if slot == segment.slot and epoch > segment.epoch]
        if later:
            try:
                fence = self._get(_fence_name(segment.slot, min(later)))
            except FileNotFoundError:  # a later claim removed it: then all before it is in the lake, or fenced anew
                self._fences = None
                return self.read(segment)
            if str(segment) not in msgspec.msgpack.decode(fence, type=dict[str, int]):
                return b""
        return self._get(str(segment))

    def peek(self, segment: SegmentName, size: int) -> bytes:
        with self._fs.open_input_stream(f"{self._root}/{segment}") as file:
            return bytes(file.read(size))

    def remove(self, segment: SegmentName) -> None:
        self._fs.delete_file(f"{self._root}/{segment}")

    def replace(self, segment: SegmentName, data: bytes) -> str:
        names = set(self._names())
        aside = _aside(str(segment), names.__contains__)
        self._put(aside, self._get(str(segment)))
        self._put(str(segment), data)
        return f"{self._root}/{aside}"

    def epoch(self, slot: int) -> int:
        return max(self._epochs(slot), default=0)

    def slots(self) -> set[int]:
        """Every slot that ever had an owner here."""
        return {int(m[1]) for m in map(_EPOCH.match, self._names()) if m}

    def close(self) -> None:
        """No file stays open."""

    def _names(self) -> list[str]:
        return [PurePosixPath(i.path).name for i in self._fs.get_file_info(pafs.FileSelector(self._root))]

    def _epochs(self, slot: int) -> list[int]:
        return [int(m[2]) for m in map(_EPOCH.match, self._names()) if m and int(m[1]) == slot]

    def _put(self, name: str, data: bytes) -> None:
        with self._fs.open_output_stream(f"{self._root}/{name}") as out:
            out.write(data)

    def _get(self, name: str) -> bytes:
        with self._fs.open_input_stream(f"{self._root}/{name}") as file:
            return bytes(file.read())


def epoch_name(slot: int, epoch: int) -> str:
    return f"{slot:03d}-{epoch:06d}.epoch"


def _fence_name(slot: int, epoch: int) -> str:
    return f"{slot:03d}-{epoch:06d}.fence"


def _aside(name: str, exists: Callable[[str], bool]) -> str:
    """A name for what is set aside, of which there may be some already."""
    number = 1
    while exists(f"{name}.damaged-{number}"):
        number += 1
    return f"{name}.damaged-{number}"
