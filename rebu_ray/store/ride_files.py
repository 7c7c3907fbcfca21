"""Ride files as they are read: row group by row group, with what their ends say of them remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rebu_ray.store.lake import DataFile, Lake

_REMEMBERED: Final = 2048
_MOVED: Final = ("name", "seq", "received_at", "known_at")
_VERSION: Final = ("name", "event_time", "version")


class RideGroup(NamedTuple):
    """A row group of a ride file, and the event times (ms) that it reaches from and to."""

    partition: int
    file: DataFile
    number: int
    low: int
    high: int
    moved: bool
    """Whether its rows have moved, all or none."""


class _Known(NamedTuple):
    metadata: pq.FileMetaData
    groups: tuple[RideGroup, ...]
    moved: pa.Table


class RideFiles:
    """The ride files of a lake. Every call blocks; several threads may make them. A file never changes."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._known: OrderedDict[tuple[int, str], _Known] = OrderedDict()
        self._lock = Lock()

    def groups(self, partition: int, file: DataFile) -> Sequence[RideGroup]:
        """The row groups of a file. Raises FileNotFoundError where it was merged into another one."""
        return self._file(partition, file).groups

    def moved(self, partition: int, file: DataFile) -> pa.Table:
        """Columns name, seq, received_at and known_at of the rows of a file that have moved."""
        return self._file(partition, file).moved

    def read(self, group: RideGroup, columns: Sequence[str]) -> pa.Table:
        """The rows of a row group. Raises FileNotFoundError."""
        metadata = self._file(group.partition, group.file).metadata
        with self.lake.open(group.partition, group.file, metadata) as parquet:
            return parquet.read_row_group(group.number, columns=list(columns), use_threads=False)

    def read_all(self, groups: Sequence[RideGroup], columns: Sequence[str]) -> pa.Table:
        """The rows of several row groups of one file. Raises FileNotFoundError."""
        partition, file = groups[0].partition, groups[0].file
        with self.lake.open(partition, file, self._file(partition, file).metadata) as parquet:
            return parquet.read_row_groups([g.number for g in groups], columns=list(columns), use_threads=False)

    def _file(self, partition: int, file: DataFile) -> _Known:
        key = partition, file.name
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        with self.lake.open(partition, file) as parquet:
            groups = tuple(_groups(partition, file, parquet.metadata))
            moved = parquet.read_row_groups([group.number for group in groups if group.moved], columns=list(_MOVED))
            known = _Known(parquet.metadata, groups, moved)
        with self._lock:
            self._known[key] = known
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known


def _groups(partition: int, file: DataFile, metadata: pq.FileMetaData) -> Iterator[RideGroup]:
    columns = {metadata.schema.column(i).name: i for i in range(metadata.num_columns)}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        times, moved = (group.column(columns[name]).statistics for name in ("event_time", "moved"))
        yield RideGroup(partition, file, number, times.min, times.max, moved.max)


def moved(files: RideFiles, partition: int, stored: Sequence[DataFile], rides: pa.Table) -> pa.Array:
    """Of each of a partition's new documents whether it has moved; `stored` are its ride files so far.

    It has not where the version before it is in the same partition and has the same event time: then both are found
    at one place, whoever looks there. It has where it is a deletion, and where its ride ever had.
    """
    names = rides["name"]
    earlier = [files.moved(partition, file)["name"] for file in stored]
    gone = {
        name for column in earlier for name in column.filter(pc.is_in(column, value_set=pc.unique(names))).to_pylist()
    }
    gone |= set(names.filter(rides["deleted"]).to_pylist())
    later = rides.filter(pc.greater(rides["version"], 1))
    wanted = {(name, at, version - 1) for name, at, version in _versions(later) if name not in gone}
    wanted -= set(_versions(rides))
    if wanted:
        times = [at for _, at, _ in wanted]
        groups = (group for file in reversed(stored) for group in reversed(files.groups(partition, file)))
        for group in groups:
            if wanted and group.low <= max(times) and group.high >= min(times):
                wanted -= set(_versions(files.read(group, _VERSION)))
    gone |= {name for name, _, _ in wanted}
    return pc.is_in(names, value_set=pa.array(sorted(gone), pa.string()))


def _versions(rides: pa.Table) -> Iterator[tuple[str, int, int]]:
    return zip(*(rides[name].to_pylist() for name in _VERSION), strict=True)
