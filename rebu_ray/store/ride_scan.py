"""Lists of rides from the lake, from either end, in memory that does not grow with the lake.

The files of all partitions are swept along the order of the list, a row group at a time. Of the versions of a ride
that stand at one place the last counts; a version that stands elsewhere than the one before it is known beforehand
(`RideFiles.moved`), and hides those. What the lake does not hold yet comes along in the order, and hides as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.store.lake import DataFile
from rebu_ray.store.member import place
from rebu_ray.store.ride_files import RideFiles, RideGroup
from rebu_ray.store.ride_table import FRESH, Wanted, times, within

LISTED: Final = pa.schema([FRESH.field(name) for name in ("event_time", "name", "body")])
"""A ride of a list: when it was requested (ms), its id and its document."""
_READ: Final = ("seq", "name", "event_time", "received_at", "known_at", "deleted")
_PLACED: Final = pa.schema([*list(LISTED)[:2], pa.field("group", pa.int64()), pa.field("row", pa.int64())])
"""Where the document of a ride is; group -1 stands for those that are in no file."""
_READERS: Final = 8


class RideQuery(NamedTuple):
    """Which rides, and from which end. Bounds are places of (event time, ride id); low is in the list, high is not."""

    low: bytes
    high: bytes
    descending: bool
    wanted: Wanted = Wanted()
    as_of: int | None = None
    """Only what was known at this time (ms)."""


class Overlay(NamedTuple):
    """What the lake may not hold yet: rides of which nothing in the lake counts, and `FRESH` of those that exist."""

    rides: Sequence[str]
    documents: pa.Table


NOTHING_FRESH: Final = Overlay((), FRESH.empty_table())


def in_order(rides: pa.Table, descending: bool) -> pa.Table:
    """Rides in the order of their places."""
    order = "descending" if descending else "ascending"
    return rides.sort_by([("event_time", order), ("name", order)])


def last_place(rides: pa.Table) -> bytes:
    """The place of the last of some rides."""
    return place(rides["event_time"][-1].as_py(), rides["name"][-1].as_py())


def newest_rides(
    files: RideFiles, partitions: int, query: RideQuery, overlay: Overlay, size: int
) -> Iterator[pa.Table]:
    """The newest version of each ride of a query, as `LISTED`, in tables of `size` rows; the last one may be shorter.

    Raises FileNotFoundError where a file was merged into another one meanwhile: begin anew.
    """
    yield from _Sweep(files, ride_files(files, partitions), query, overlay).tables(size)


def ride_files(files: RideFiles, partitions: int) -> list[tuple[int, DataFile]]:
    """Every ride file of the lake with its partition."""
    with ThreadPoolExecutor(_READERS) as pool:
        # The newest manifests, never remembered ones, read after the overlay: what left it is in them.
        manifests = list(pool.map(files.lake.manifest, range(partitions)))
    return [(partition, file) for partition, manifest in enumerate(manifests) for file in manifest.rides]


class _Sweep:
    """One list on its way."""

    def __init__(
        self, files: RideFiles, stored: Sequence[tuple[int, DataFile]], query: RideQuery, overlay: Overlay
    ) -> None:
        self._files = files
        self._query = query
        first, last = times(query.low, query.high)
        self._groups = [g for p, file in stored for g in files.groups(p, file) if g.low <= last and g.high >= first]
        self._groups.sort(key=self._begin, reverse=query.descending)
        self._moved = moved_versions(files, stored, query.as_of)
        self._columns = (*_READ, *query.wanted.columns)
        self._hidden = pa.array(overlay.rides, pa.string())
        fresh = query.wanted.of(within(overlay.documents, query.low, query.high))
        self._fresh = in_order(fresh, query.descending)

    def tables(self, size: int) -> Iterator[pa.Table]:
        """See `newest_rides`."""
        fresh = _placed(self._fresh, -1)
        unread: list[pa.Table] = []
        held, enough = 0, size
        ready = _PLACED.empty_table()
        for number, group in enumerate(self._groups):
            rows = self._read(number, group)
            unread.append(rows)
            held += rows.num_rows
            following = self._groups[number + 1 : number + 2]
            if following and held < enough:
                continue
            # What lies beyond where the next row group begins may have a newer version in there.
            rows, later = self._cut(pa.concat_tables(unread), following)
            unread, held, enough = [later], later.num_rows, max(2 * later.num_rows, size)
            waiting, fresh = self._cut(fresh, following)
            chosen = pa.concat_tables([self._newest(rows).select(_PLACED.names).cast(_PLACED), waiting])
            ready = pa.concat_tables([ready, in_order(chosen, self._query.descending)])
            while ready.num_rows >= size:
                yield self._documents(ready.slice(0, size))
                ready = ready.slice(size)
        ready = pa.concat_tables([ready, fresh])
        while ready.num_rows:
            yield self._documents(ready.slice(0, size))
            ready = ready.slice(size)

    def _begin(self, group: RideGroup) -> int:
        return group.high if self._query.descending else group.low

    def _cut(self, rows: pa.Table, following: Sequence[RideGroup]) -> tuple[pa.Table, pa.Table]:
        """Rows that come before all of the next row group, and the others."""
        if not following:
            return rows, rows.slice(0, 0)
        beyond = pc.greater if self._query.descending else pc.less
        before = beyond(rows["event_time"], self._begin(following[0]))
        return rows.filter(before), rows.filter(pc.invert(before))

    def _read(self, number: int, group: RideGroup) -> pa.Table:
        rows = _placed(self._files.read(group, self._columns), number)
        rows = rows.append_column("partition", pa.array(np.full(rows.num_rows, group.partition)))
        return _known(within(rows, self._query.low, self._query.high), self._query.as_of)

    def _newest(self, rows: pa.Table) -> pa.Table:
        """Of each ride the version that counts, where it is wanted. Versions at one place are all here or none."""
        rows = last_at_places(rows)
        rows = rows.filter(pc.invert(pc.or_(rows["deleted"], pc.is_in(rows["name"], value_set=self._hidden))))
        return self._query.wanted.of(standing(rows, self._moved))

    def _documents(self, chosen: pa.Table) -> pa.Table:
        """Rides with their documents."""
        groups, rows = (chosen[name].to_numpy() for name in ("group", "row"))
        bodies, places = [], []
        for number in np.unique(groups).tolist():
            here = np.flatnonzero(groups == number)
            table = self._fresh if number < 0 else self._files.read(self._groups[number], ["body"])
            bodies.append(table["body"].take(pa.array(rows[here])).combine_chunks())
            places.append(here)
        order = np.argsort(np.concatenate(places))
        body = pa.chunked_array(bodies, pa.binary()).take(pa.array(order))
        return pa.table([chosen["event_time"], chosen["name"], body], schema=LISTED)


class Version(NamedTuple):
    """Which version of a ride: of those in one partition the one with the highest seq counts."""

    partition: int
    seq: int
    received_at: int


def moved_versions(
    files: RideFiles, stored: Sequence[tuple[int, DataFile]], as_of: int | None = None
) -> dict[str, list[Version]]:
    """Ride id -> its versions that stand elsewhere than those before them."""
    found: dict[str, list[Version]] = {}
    for partition, file in stored:
        rows = _known(files.moved(partition, file), as_of)
        if rows.num_rows:
            columns = (rows[name].to_pylist() for name in ("name", "seq", "received_at"))
            for name, seq, received_at in zip(*columns, strict=True):
                found.setdefault(name, []).append(Version(partition, seq, received_at))
    return found


def last_at_places(rows: pa.Table) -> pa.Table:
    """Of the versions of a ride at one place in one partition the last, in the order of their places."""
    rows = rows.sort_by(
        [("event_time", "ascending"), ("name", "ascending"), ("partition", "ascending"), ("seq", "descending")]
    )
    first = np.ones(rows.num_rows, bool)
    first[1:] = False
    for name in ("event_time", "name", "partition"):
        column = rows[name].combine_chunks()
        first[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return rows.filter(pa.array(first))


def standing(rows: pa.Table, moved: Mapping[str, Sequence[Version]]) -> pa.Table:
    """Rows without those that have a newer version elsewhere."""
    suspect = pc.is_in(rows["name"], value_set=pa.array(moved, pa.string()))
    if not pc.any(suspect).as_py():
        return rows
    stands = pc.invert(suspect).to_numpy(zero_copy_only=False).copy()
    columns = [rows[name].to_pylist() for name in ("name", "partition", "seq", "received_at")]
    for i in np.flatnonzero(~stands).tolist():
        name, partition, seq, received_at = (column[i] for column in columns)
        stands[i] = not any(
            (other.seq > seq)
            if other.partition == partition
            else (other.received_at, other.partition) > (received_at, partition)
            for other in moved[name]
        )
    return rows.filter(pa.array(stands))


def _known(rows: pa.Table, as_of: int | None) -> pa.Table:
    if as_of is None:
        return rows
    return rows.filter(pc.less_equal(pc.coalesce(rows["known_at"], rows["received_at"]), as_of))


def _placed(rides: pa.Table, group: int) -> pa.Table:
    """Rides with where they are."""
    rides = rides.drop_columns("body") if group < 0 else rides
    rides = rides.append_column("group", pa.array(np.full(rides.num_rows, group)))
    rides = rides.append_column("row", pa.array(np.arange(rides.num_rows)))
    return rides.select(_PLACED.names).cast(_PLACED) if group < 0 else rides
