"""Tombstones: who was erased, kept so that it outlives replays, rebuilds, restored backups and late uploads.

A tombstone names nobody. It holds a keyed hash (BLAKE2b as a MAC) of the user id, and such hashes of the streams that
were theirs: rides, messages, requests, and phones with the stretch of time in which they were. The secret is made once
and kept in the data dir. Every tombstone lies twice, beside the journal's cursors and at the lake's root: either one
is enough, and what one of them lacks is put back when they are read.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import Kind
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.journal import JournalError
from rebu_ray.store.versions import read

FORMAT: Final = 1
FOLDER: Final = "erasures"
_SUFFIX: Final = ".tombstone"
SECRET: Final = "erasure.key"
_RIDES: Final = (Kind.RIDE, Kind.RIDE_DESTINATION, Kind.RIDE_DOCUMENT)
_MESSAGES: Final = (Kind.MESSAGE, Kind.MESSAGE_DOCUMENT)
_NAMED: Final = pa.array([str(kind) for kind in (*_RIDES, *_MESSAGES, Kind.MOVED)])
_HASHED: Final = 262_144
"""How many hashes are remembered: most rows are of somebody of whom there was one a moment ago."""

SCANNED: Final = ("key", "user_id", "kind", "name", "event_time", "received_at")
"""The columns that tell whether a row is of somebody erased; of dead letters the body as well."""

Linked = Callable[[str, int], bool]
"""(anonymous id, ms) -> whether somebody was identified on the phone after that time."""


class TombstoneError(JournalError):
    """The tombstones cannot be read: what is erased would come back."""


class Gone(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of a phone's stream that is erased: since <= event time < until (ms; None: no bound)."""

    since: int | None
    until: int | None
    last: int
    """Of a stretch without an end, when the erased user was identified on the phone for the last time."""


class Tombstone(msgspec.Struct, frozen=True):
    """One erased person."""

    person: str
    """Keyed hash of the user id, hex."""
    check: int
    """Keyed hash of a fixed text: another one was made with another secret."""
    erased_at: int
    asked_by: str
    """The scope of the key that asked."""
    streams: tuple[int, ...] = ()
    """Hashes of the streams that are erased whole: the user's, their rides', messages' and requests'."""
    phones: dict[int, tuple[Gone, ...]] = {}
    counts: dict[str, int] = {}
    """How much was erased, by what it was."""
    completed_at: int | None = None
    v: int = FORMAT

    @property
    def mark(self) -> str:
        """Stands for what this erases."""
        return hashlib.blake2b(repr((self.person, self.streams, sorted(self.phones.items()))).encode()).hexdigest()[:32]


class Names(msgspec.Struct):
    """What one person is called, in the clear: what a tombstone is made of."""

    user_id: str
    streams: set[str] = set()
    """``o:RIDE``, ``m:MESSAGE`` and ``r:REQUEST``."""
    phones: dict[str, tuple[Gone, ...]] = {}

    def add(self, other: Names) -> None:
        """Take in what was found later."""
        self.streams |= other.streams
        for phone, parts in other.phones.items():
            self.phones[phone] = tuple(dict.fromkeys((*self.phones.get(phone, ()), *parts)))


class Hashing:
    """Keyed hashes of names. `secret` is up to 64 bytes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

        @lru_cache(maxsize=_HASHED)
        def hashed(name: str) -> int:
            return int.from_bytes(hashlib.blake2b(_bytes(name), key=secret, digest_size=8).digest(), "big")

        self.hashed = hashed
        """64 bits that stand for a stream's name."""

    def __reduce__(self) -> tuple[type[Hashing], tuple[bytes]]:
        return Hashing, (self._secret,)

    def person(self, user_id: str) -> str:
        """256 bits, in hex, that stand for a user."""
        return hashlib.blake2b(_bytes(f"u:{user_id}"), key=self._secret, digest_size=32).hexdigest()

    @property
    def check(self) -> int:
        """What tells one secret from another."""
        return self.hashed("rebu")

    def tombstone(self, names: Names, erased_at: int, asked_by: str, counts: Mapping[str, int]) -> Tombstone:
        """The tombstone of a person."""
        return Tombstone(
            self.person(names.user_id),
            self.check,
            erased_at,
            asked_by,
            tuple(sorted(map(self.hashed, {f"u:{names.user_id}", *names.streams}))),
            {self.hashed(f"a:{phone}"): parts for phone, parts in sorted(names.phones.items())},
            dict(counts),
        )


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


class Tombstones:
    """All of them, as every path that rows take looks at them."""

    def __init__(self, hashing: Hashing, stones: Iterable[Tombstone] = ()) -> None:
        self.hashing = hashing
        self.stones = {stone.person: stone for stone in stones}
        self._streams: set[int] = set()
        self._phones: dict[int, list[tuple[Gone, int]]] = {}
        for stone in self.stones.values():
            self._streams.update(stone.streams)
            for phone, parts in stone.phones.items():
                self._phones.setdefault(phone, []).extend((part, stone.erased_at) for part in parts)
        marks = "".join(sorted(stone.mark for stone in self.stones.values()))
        self.digest = hashlib.blake2b(marks.encode()).hexdigest()[:32] if marks else ""
        """Stands for everything that is erased; empty where nothing is."""

    def __bool__(self) -> bool:
        return bool(self.stones)

    def __reduce__(self) -> tuple[type[Tombstones], tuple[Hashing, list[Tombstone]]]:
        return Tombstones, (self.hashing, list(self.stones.values()))

    def keep(self, rows: Any) -> Any:
        """Rows (a batch or table of `WIRE` or `ROWS`) without those of the erased."""
        dead = self.dead(rows)
        return rows.filter(pa.array(~dead)) if dead.any() else rows

    def dead(self, rows: pa.RecordBatch | pa.Table, linked: Linked | None = None) -> npt.NDArray[np.bool_]:
        """Which rows are of somebody erased. Of `SCANNED` all columns have to be there; the body where it is asked for.

        What a phone sent after the erasure, while it was theirs, counts only where `linked` is there to tell whether
        it became another's: such rows are stored only after that was asked, and need not be asked about again.
        """
        dead = np.zeros(rows.num_rows, np.bool_)
        if not self or not rows.num_rows:
            return dead
        hashed, streams = self.hashing.hashed, self._streams
        keys, at = _encoded(rows["key"])
        dead |= np.array([key[0] in "urom" and hashed(key) in streams for key in keys], np.bool_)[at]
        users, of = _encoded(rows["user_id"])
        if users:
            hit = np.array([*(hashed(f"u:{user}") in streams for user in users), False], np.bool_)
            dead |= hit[of]
        self._things(rows, dead)
        if self._phones:
            for number, key in enumerate(keys):
                if key.startswith("a:") and (parts := self._phones.get(hashed(key))) is not None:
                    mine = np.flatnonzero(at == number)
                    times, received = (rows[c].to_numpy()[mine] for c in ("event_time", "received_at"))
                    for row, time, receipt in zip(mine.tolist(), times.tolist(), received.tolist(), strict=True):
                        dead[row] |= _of_phone(parts, key[2:], time, receipt, linked)
        letters = pc.equal(rows["kind"], str(Kind.DEAD_LETTER)).to_numpy(zero_copy_only=False)
        if letters.any() and "body" in rows.schema.names:
            for row in np.flatnonzero(letters).tolist():
                body, time = rows["body"][row].as_py(), rows["event_time"][row].as_py()
                dead[row] = any(self._named(name, time) for name in named_in(body))
        return dead

    def _things(self, rows: pa.RecordBatch | pa.Table, dead: npt.NDArray[np.bool_]) -> None:
        """Rows of rides and messages that are erased, whoever's stream they are in."""
        chosen = pc.is_in(rows["kind"], value_set=_NAMED).to_numpy(zero_copy_only=False)
        where = np.flatnonzero(chosen)
        if not len(where):
            return
        kinds, names = (rows[c].take(pa.array(where)).to_pylist() for c in ("kind", "name"))
        for row, kind, name in zip(where.tolist(), kinds, names, strict=True):
            stream = name if kind == Kind.MOVED else f"{'o' if kind in _RIDES else 'm'}:{name}"
            dead[row] |= self.hashing.hashed(stream) in self._streams

    def _named(self, name: str, time: int) -> bool:
        found = self.hashing.hashed(name)
        parts = self._phones.get(found, ()) if name.startswith("a:") else ()
        return found in self._streams or any(_within(part, time) for part, _ in parts)


def _encoded(column: pa.Array | pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The different texts of a column and which of them stands where; -1, the last, for null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # no rows, no chunks
        column = pa.array([], pa.string())
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.fill_null(-1).to_numpy()


def _within(part: Gone, time: int) -> bool:
    return (part.since is None or part.since <= time) and (part.until is None or time < part.until)


def _of_phone(
    parts: Iterable[tuple[Gone, int]], phone: str, time: int, received_at: int, linked: Linked | None
) -> bool:
    for part, erased_at in parts:
        if not _within(part, time):
            continue
        if part.until is not None or time <= part.last or received_at <= erased_at:
            return True
        if linked is not None and not linked(phone, part.last):
            return True
    return False


_IDS: Final = {
    "userId": "u", "user_id": "u", "previousId": "u", "anonymousId": "a", "anonymous_id": "a",
    "ride_id": "o", "rideId": "o", "message_id": "m",
}  # fmt: skip
_IN_TEXT: Final = re.compile(r'"(userId|user_id|previousId|anonymousId|anonymous_id|ride_id|rideId)"\s*:\s*"([^"\\]+)"')
_IN_PATH: Final = re.compile(r"/users/([^/\s?\"]+)")


def named_in(body: bytes) -> set[str]:
    """The streams (``u:`` users, ``a:`` phones, ``o:`` rides, ``m:`` messages) that a refused record names.

    By the fields that say so, however deep; in a line that is no JSON by the same text, and by the path of a request.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        value = body.decode("utf-8", "replace")
    found: set[str] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for name, inner in value.items():
                if name in _IDS and isinstance(inner, str | int) and not isinstance(inner, bool):
                    found.add(f"{_IDS[name]}:{inner}")
                waiting.append(inner)
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            found.update(f"{_IDS[name]}:{text}" for name, text in _IN_TEXT.findall(value))
            found.update(f"u:{text}" for text in _IN_PATH.findall(value))
    return found


def none() -> Tombstones:
    """Nobody is erased."""
    return Tombstones(Hashing(b""))


def secret_of(data_dir: str) -> bytes:
    """The secret of a data dir, made at the first call (erasure.key, mode 600)."""
    path = Path(data_dir) / SECRET
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{SECRET}.{os.getpid()}")
        with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(new, path)
        except FileExistsError:  # another process was quicker
            pass
        finally:
            new.unlink()
    return path.read_text(encoding="ascii").strip().encode()


class TombstoneStore:
    """Tombstones on disk or in an object store, twice. Calls block."""

    def __init__(self, cursors_uri: str, lake_uri: str, secret: bytes) -> None:
        self._places = (Cursors(cursors_uri), Cursors(lake_uri))
        self.hashing = Hashing(secret[:64])

    def load(self) -> Tombstones:
        """All that either place has. Raises TombstoneError where they were made with another secret, or by a newer
        version.
        """
        found: dict[str, Tombstone] = {}
        held: list[dict[str, Tombstone]] = []
        for place in self._places:
            names = (name for name in place.names(FOLDER) if name.endswith(_SUFFIX))
            files = [data for name in names if (data := place.load(f"{FOLDER}/{name}")) is not None]
            stones = [read(data, Tombstone, FORMAT, "a tombstone", TombstoneError) for data in files]
            held.append({stone.person: stone for stone in stones})
            for stone in stones:
                found[stone.person] = max((found.get(stone.person, stone), stone), key=_worth)
        if any(stone.check != self.hashing.check for stone in found.values()):
            raise TombstoneError(
                "the erasures here were made with another secret than the data dir's erasure.key: put that one back, "
                "or what was erased could come back"
            )
        for place, has in zip(self._places, held, strict=True):
            for person, stone in found.items():
                if has.get(person) != stone:
                    place.save(f"{FOLDER}/{person}{_SUFFIX}", _ENCODER.encode(stone))
        return Tombstones(self.hashing, found.values())

    def save(self, stone: Tombstone) -> None:
        """Make a tombstone durable at both places."""
        for place in self._places:
            place.save(f"{FOLDER}/{stone.person}{_SUFFIX}", _ENCODER.encode(stone))


def _worth(stone: Tombstone) -> tuple[int, int, int]:
    """The one of two for one person that counts is the greater: tombstones only ever grow."""
    return len(stone.streams) + len(stone.phones), stone.completed_at or 0, stone.erased_at


_ENCODER: Final = msgspec.msgpack.Encoder()
