"""Rides counted over spans of time, each by the version that counts, from the lake and what it does not hold yet.

A UTC day's rides are remembered for as long as the row groups that may hold some of them are the same, which files
that never change see to: a flush costs the days that it touches, whatever the lake holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from threading import Lock
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from rebu_ray.store.lake import DataFile
from rebu_ray.store.ride_files import RideFiles, RideGroup
from rebu_ray.store.ride_scan import Overlay, Version, last_at_places, moved_versions, ride_files, standing

DAY_MS: Final = 86_400_000
_QUARTER_MS: Final = 900_000
"""Days begin at a multiple of it in every time zone of today."""
_QUARTERS: Final = DAY_MS // _QUARTER_MS
_READ: Final = ("seq", "name", "event_time", "received_at", "deleted", "status", "premature")
_KEPT: Final = 8_000_000
"""Rides that are remembered, at 13 bytes each."""
_GROUPS_AT_ONCE: Final = 512
_COUNTED, _COMPLETED, _PREMATURE = 1, 2, 4

Whole = npt.NDArray[np.int64]


class _Day(NamedTuple):
    """The rides of a UTC day in the lake."""

    groups: tuple[tuple[int, str, int], ...]
    """The row groups that it was read from: partition, file, number."""
    hashes: npt.NDArray[np.uint64]
    """Of the ids of its rides, ascending; those that moved elsewhere are among them."""
    times: npt.NDArray[np.uint32]
    """In ms of the day, in the order of the hashes."""
    marks: npt.NDArray[np.uint8]
    moved: frozenset[tuple[str, Version]]
    """What was known of these rides elsewhere."""
    quarters: Whole
    """Rides, completed and premature ones of each quarter of an hour: (96, 3)."""


class RideDays:
    """Counts of rides. Calls block; one at a time does something."""

    def __init__(self, files: RideFiles) -> None:
        self._files = files
        self._days: OrderedDict[int, _Day] = OrderedDict()
        self._stored: list[tuple[int, DataFile]] = []
        self._moved: dict[str, list[Version]] = {}
        self._moved_hashes: npt.NDArray[np.uint64] = _hashes([])
        self._lock = Lock()

    def counts(self, partitions: int, bounds: Sequence[int], overlay: Overlay) -> Whole:
        """Rides, completed and premature ones between each bound (ms, ascending) and the next: (bounds - 1, 3).

        Raises FileNotFoundError where a file was merged into another one meanwhile: begin anew.
        """
        edges = np.array(bounds, np.int64)
        even = bool((edges % _QUARTER_MS == 0).all())
        with self._lock:
            stored = ride_files(self._files, partitions)
            if stored != self._stored:
                self._moved = moved_versions(self._files, stored)
                self._moved_hashes = _hashes(sorted(self._moved))
                self._stored = stored
            wanted = self._wanted(stored, int(edges[0]), int(edges[-1]))
            total = np.zeros((len(edges) - 1, 3), np.int64)
            hidden = np.unique(_hashes(overlay.rides))
            for number, day in self._read(wanted):
                _add(total, edges, even, number, day, hidden)
            self._let_go()
        fresh = overlay.documents
        if fresh.num_rows:
            marks = _marks(fresh, np.full(fresh.num_rows, True))
            _add_rides(total, edges, fresh["event_time"].to_numpy(), marks)
        return total

    def _wanted(self, stored: Iterable[tuple[int, DataFile]], low: int, high: int) -> dict[int, list[RideGroup]]:
        """The days of [low, high) of which there may be rides, with the row groups that may hold some of them."""
        found: dict[int, list[RideGroup]] = {}
        for partition, file in stored:
            if file.max_event_time < low or file.min_event_time >= high:
                continue
            for group in self._files.groups(partition, file):
                for number in range(max(group.low, low) // DAY_MS, min(group.high, high - 1) // DAY_MS + 1):
                    found.setdefault(number, []).append(group)
        return dict(sorted(found.items()))

    def _read(self, wanted: Mapping[int, list[RideGroup]]) -> Iterator[tuple[int, _Day]]:
        """These days, remembered or read, neighbours together."""
        missing: list[int] = []
        groups: set[RideGroup] = set()
        for number, of_day in wanted.items():
            if self._is_current(number, of_day):
                self._days.move_to_end(number)
                yield number, self._days[number]
                continue
            missing.append(number)
            groups.update(of_day)
            if len(groups) >= _GROUPS_AT_ONCE:
                yield from self._load(missing, groups, wanted)
                missing, groups = [], set()
        if missing:
            yield from self._load(missing, groups, wanted)

    def _is_current(self, number: int, groups: Sequence[RideGroup]) -> bool:
        day = self._days.get(number)
        return day is not None and day.groups == _names(groups) and day.moved == self._moved_of(day.hashes)

    def _moved_of(self, hashes: npt.NDArray[np.uint64]) -> frozenset[tuple[str, Version]]:
        """What is known to stand elsewhere of the rides with these hashes."""
        here = _among(self._moved_hashes, hashes)
        if not here.any():
            return frozenset()
        return frozenset(
            (name, version)
            for name, is_here in zip(sorted(self._moved), here.tolist(), strict=True)
            if is_here
            for version in self._moved[name]
        )

    def _load(
        self, numbers: Sequence[int], groups: Iterable[RideGroup], wanted: Mapping[int, list[RideGroup]]
    ) -> Iterator[tuple[int, _Day]]:
        low, high = numbers[0] * DAY_MS, (numbers[-1] + 1) * DAY_MS
        tables = []
        ordered = sorted(groups, key=lambda g: (g.partition, g.file.name, g.number))
        for (partition, _), of_file in groupby(ordered, key=lambda g: (g.partition, g.file.name)):
            rows = self._files.read_all(list(of_file), _READ)
            at = rows["event_time"]
            rows = rows.filter(pc.and_(pc.greater_equal(at, low), pc.less(at, high)))
            tables.append(rows.append_column("partition", pa.array(np.full(rows.num_rows, partition))))
        rows = last_at_places(pa.concat_tables(tables))
        rows = rows.filter(pc.invert(rows["deleted"])).combine_chunks()
        # In the order of their times: a day is a slice.
        ends = np.searchsorted(rows["event_time"].to_numpy(), np.array(numbers, np.int64) * DAY_MS)
        after = np.searchsorted(rows["event_time"].to_numpy(), (np.array(numbers, np.int64) + 1) * DAY_MS)
        for number, start, end in zip(numbers, ends.tolist(), after.tolist(), strict=True):
            self._days[number] = self._day(number, _names(wanted[number]), rows.slice(start, end - start))
            self._days.move_to_end(number)
            yield number, self._days[number]

    def _day(self, number: int, groups: tuple[tuple[int, str, int], ...], rows: pa.Table) -> _Day:
        rows = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
        counted = np.zeros(rows.num_rows, bool)
        counted[standing(rows, self._moved)["row"].to_numpy()] = True
        hashes, marks = _hashes(rows["name"].to_pylist()), _marks(rows, counted)
        times = (rows["event_time"].to_numpy() - number * DAY_MS).astype(np.uint32)
        order = np.argsort(hashes, kind="stable")
        hashes, times, marks = hashes[order], times[order], marks[order]
        quarters = np.zeros((_QUARTERS, 3), np.int64)
        _add_rides(quarters, np.arange(_QUARTERS + 1) * _QUARTER_MS, times.astype(np.int64), marks)
        return _Day(groups, hashes, times, marks, self._moved_of(hashes), quarters)

    def _let_go(self) -> None:
        """Forget the days that were asked for longest ago, where there are too many rides."""
        held = sum(len(day.hashes) for day in self._days.values())
        while held > _KEPT:
            held -= len(self._days.popitem(last=False)[1].hashes)


def _add(total: Whole, edges: Whole, even: bool, number: int, day: _Day, hidden: npt.NDArray[np.uint64]) -> None:
    """Add a day's rides, but for those that are hidden, to the spans between the edges; where these are all even they
    lie between quarters of hours.
    """
    start = number * DAY_MS
    if even:
        first = max(int(np.searchsorted(edges, start, "right")) - 1, 0)
        last = min(int(np.searchsorted(edges, start + DAY_MS, "left")), len(edges) - 1)
        places = np.clip((edges[first : last + 1] - start) // _QUARTER_MS, 0, _QUARTERS)
        sums = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(day.quarters, axis=0)])
        total[first:last] += np.diff(sums[places], axis=0)
    else:
        _add_rides(total, edges, day.times.astype(np.int64) + start, day.marks)
    # Look for the fewer among the more.
    if len(hidden) < len(day.hashes):
        hidden = hidden[_among(hidden, day.hashes)]
    if len(hidden):
        # A ride that has moved may stand in a day more than once.
        gone = _among(day.hashes, hidden)
        _add_rides(total, edges, day.times[gone].astype(np.int64) + start, day.marks[gone], -1)


def _add_rides(total: Whole, edges: Whole, times: Whole, marks: npt.NDArray[np.uint8], sign: int = 1) -> None:
    """Add rides at times (ms) to the spans between the edges."""
    spans = np.searchsorted(edges, times, "right") - 1
    inside = (spans >= 0) & (spans < len(total)) & ((marks & _COUNTED) > 0)
    for column, mark in enumerate((_COUNTED, _COMPLETED, _PREMATURE)):
        total[:, column] += sign * np.bincount(spans[inside & ((marks & mark) > 0)], minlength=len(total))


def _marks(rides: pa.Table, counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    completed = pc.fill_null(pc.equal(rides["status"], "completed"), False).to_numpy()
    premature = rides["premature"].to_numpy()
    found: npt.NDArray[np.uint8] = counted * _COUNTED | completed * _COMPLETED | premature * _PREMATURE
    return found.astype(np.uint8)


def _hashes(names: Sequence[str]) -> npt.NDArray[np.uint64]:
    return np.array([xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) for name in names], np.uint64)


def _among(sought: npt.NDArray[np.uint64], ascending: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Of each that is sought whether it is there."""
    if not len(ascending):
        return np.zeros(len(sought), bool)
    places = np.minimum(np.searchsorted(ascending, sought), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[places] == sought
    return found


def _names(groups: Iterable[RideGroup]) -> tuple[tuple[int, str, int], ...]:
    return tuple((group.partition, group.file.name, group.number) for group in groups)
