"""The ledger: which rows of a table are known, so that a deleted one is missed and a known one not sent again.

In memory a row is four numbers (hash of its key, time of its version, digest, hash of its user), 33 bytes.
What has to survive is kept with the cursor: the newest entries in the cursor's own file, so that one atomic
write says how far the puller has come and what it knows; older ones in runs, immutable files which the cursor
names, merged when there are several of a size. A database of rows beside the platform would be simpler on one
machine; runs also live in an object store, and follow the puller to another node.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from rebu_ray.store.cursor import Cursors

PENDING: Final = 1_000
"""The most entries in the cursor's own file."""
_GROWTH: Final = 4
"""A run is merged with the one before it unless that is so many times as large."""
_NEVER: Final = 0

_RUN = pa.schema(
    [
        pa.field("hash", pa.uint64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("user", pa.string()),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("digest", pa.uint64(), nullable=False),
        pa.field("gone", pa.bool_(), nullable=False),
    ]
)

Hashes = npt.NDArray[np.uint64]


class Known(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A row as it was last handed on."""

    key: str
    user: str | None
    version: int
    """Milliseconds; 0 where the row does not say."""
    digest: int
    gone: bool = False


class Brief(NamedTuple):
    """What is kept of a row in memory."""

    version: int
    digest: int
    user: int
    """Hash of the user, 0 for nobody."""
    gone: bool


class Run(msgspec.Struct, array_like=True, frozen=True):
    """A file of entries, a key once."""

    number: int
    rows: int


class State(msgspec.Struct, array_like=True):
    """What the cursor's file says about a ledger; a newer entry for a key replaces an older one."""

    runs: list[Run] = []
    pending: list[Known] = []
    next_run: int = 1


def hash_of(text: str | None) -> int:
    """64 bits for a key or a user; 0 for none."""
    return _NEVER if text is None else xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


class Ledger:
    """The known rows of one table. Reading and writing its runs blocks; one thread at a time."""

    def __init__(self, cursors: Cursors, name: str, state: State) -> None:
        """Raises OSError where a run cannot be read."""
        self._cursors = cursors
        self._name = name
        self._state = state
        self._obsolete: list[Run] = []
        self._pending = {hash_of(known.key): known for known in state.pending}
        self._recent: dict[int, Brief] = {}
        tables = [self._read(run) for run in state.runs]
        self._base = _Base(_merged([*tables, _table(self._pending.values())]))
        self.live = int((~self._base.gone).sum())
        """Rows that are known and not gone."""

    def get(self, key_hash: int) -> Brief | None:
        """What is known of a row."""
        return self._recent.get(key_hash) or self._base.get(key_hash)

    def put(self, entries: Iterable[Known]) -> None:
        """Remember rows."""
        for known in entries:
            key_hash = hash_of(known.key)
            before = self.get(key_hash)
            self.live += (not known.gone) - (before is not None and not before.gone)
            self._pending[key_hash] = known
            self._recent[key_hash] = Brief(known.version, known.digest, hash_of(known.user), known.gone)
        if len(self._recent) > 4096 + len(self._base.hash) // 8:
            self._fold()

    def missing(self, seen: Iterable[int]) -> list[Known]:
        """The live rows whose hash is not among `seen`."""
        self._fold()
        base = self._base
        lost = base.hash[~base.gone & ~np.isin(base.hash, np.fromiter(seen, np.uint64))]
        return list(self.find(lost.tolist()).values())

    def find(self, key_hashes: Iterable[int]) -> dict[int, Known]:
        """The whole entries of rows, as far as these are known."""
        wanted = set(key_hashes)
        found = {key_hash: self._pending[key_hash] for key_hash in wanted & self._pending.keys()}
        for run in reversed(self._state.runs):
            left = np.fromiter(wanted - found.keys(), np.uint64)
            if not len(left):
                break
            table = self._read(run)
            for row in table.filter(pa.array(np.isin(table["hash"].to_numpy(), left))).to_pylist():
                key_hash = row.pop("hash")
                found[key_hash] = Known(**row)
        return found

    def state(self) -> State:
        """What to save. Writes a run where too much is pending."""
        state = self._state
        if len(self._pending) > PENDING:
            tables, runs = [_table(self._pending.values())], list(state.runs)
            rows = len(self._pending)
            while runs and runs[-1].rows < _GROWTH * rows:
                merged = runs.pop()
                rows += merged.rows
                tables.insert(0, self._read(merged))
                self._obsolete.append(merged)
            table = _merged(tables)
            run = Run(state.next_run, table.num_rows)
            self._cursors.save(self._file(run), _written(table))
            self._state = state = State([*runs, run], [], state.next_run + 1)
            self._pending = {}
        return State(state.runs, list(self._pending.values()), state.next_run)

    def saved(self) -> None:
        """The state is durable: what it does not name any more can go."""
        while self._obsolete:
            self._cursors.remove(self._file(self._obsolete[-1]))
            self._obsolete.pop()

    def _fold(self) -> None:
        self._base = self._base.updated(self._recent)
        self._recent = {}

    def _file(self, run: Run) -> str:
        return f"{self._name}.{run.number:06d}"

    def _read(self, run: Run) -> pa.Table:
        data = self._cursors.load(self._file(run))
        if data is None:
            raise FileNotFoundError(f"{self._file(run)}, which the application database's cursor names, is missing")
        return pa.ipc.open_stream(data).read_all()


class _Base:
    """Sorted columns of numbers."""

    def __init__(self, table: pa.Table) -> None:
        self.hash: Hashes = table["hash"].to_numpy()
        self.version: npt.NDArray[np.int64] = table["version"].to_numpy()
        self.digest: Hashes = table["digest"].to_numpy()
        self.user: Hashes = np.fromiter((hash_of(user) for user in table["user"].to_pylist()), np.uint64)
        self.gone: npt.NDArray[np.bool_] = table["gone"].to_numpy()

    def get(self, key_hash: int) -> Brief | None:
        at = int(np.searchsorted(self.hash, np.uint64(key_hash)))
        if at == len(self.hash) or int(self.hash[at]) != key_hash:
            return None
        return Brief(int(self.version[at]), int(self.digest[at]), int(self.user[at]), bool(self.gone[at]))

    def updated(self, recent: dict[int, Brief]) -> _Base:
        """With newer entries in place of older ones."""
        hashes = np.concatenate([np.fromiter(recent, np.uint64, len(recent)), self.hash])
        order = np.unique(hashes, return_index=True)[1]
        briefs = list(recent.values())
        made = _Base.__new__(_Base)
        made.hash = hashes[order]
        for column, (name, kind) in enumerate(
            (("version", np.int64), ("digest", np.uint64), ("user", np.uint64), ("gone", np.bool_))
        ):
            newer: Any = np.array([brief[column] for brief in briefs], kind)
            setattr(made, name, np.concatenate([newer, getattr(self, name)])[order])
        return made


def _table(entries: Iterable[Known]) -> pa.Table:
    rows = list(entries)
    return pa.table(
        [
            pa.array([hash_of(known.key) for known in rows], pa.uint64()),
            pa.array([known.key for known in rows], pa.string()),
            pa.array([known.user for known in rows], pa.string()),
            pa.array([known.version for known in rows], pa.int64()),
            pa.array([known.digest for known in rows], pa.uint64()),
            pa.array([known.gone for known in rows], pa.bool_()),
        ],
        schema=_RUN,
    )


def _merged(tables: list[pa.Table]) -> pa.Table:
    """The newest entry of each key, sorted by hash; the newest table comes last."""
    table = pa.concat_tables(reversed(tables))
    return table.take(np.unique(table["hash"].to_numpy(), return_index=True)[1]).combine_chunks()


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as out:
        out.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
