"""Filters are applied where the data lies: what a list leaves out is not read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from rebu_ray.store.lake import Lake
from rebu_ray.store.member import time_place
from rebu_ray.store.ride_files import RideFiles, RideGroup
from rebu_ray.store.ride_scan import NOTHING_FRESH, RideQuery, newest_rides
from rebu_ray.store.ride_table import Wanted, to_rides
from rebu_ray.store.rows import ROWS
from tests.records import NOW, journalled, routed
from tests.ride_documents import Rides, Said

RIDES = 4096
GROUP = 1024
SECOND = 1000


class Watched(RideFiles):
    """Remembers what was read."""

    def __init__(self, lake: Lake) -> None:
        super().__init__(lake)
        self.seen: list[tuple[int, frozenset[str]]] = []

    def read(self, group: RideGroup, columns: Sequence[str]) -> pa.Table:
        self.seen.append((group.number, frozenset(columns)))
        return super().read(group, columns)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """One file of four row groups; the rides of driver `rare` are in the third."""
    rides = Rides()
    made = [
        rides.computed(
            Said(f"r{n:04}", requested_at=NOW + n * SECOND, driver="rare" if n in (2500, 2600) else f"d{n % 7}")
        )
        for n in range(RIDES)
    ]
    rows = pa.Table.from_batches([journalled(routed(made, 1))]).cast(ROWS)
    found = Lake(str(tmp_path_factory.mktemp("lake")))
    before = found.manifest(0)
    file = found.write_rides(0, to_rides(rows, lambda t: pa.array([False] * t.num_rows)), before.version + 1)
    found.commit(0, before, (), rows.num_rows, (file,))
    return found


def listed(lake: Lake, query: RideQuery, size: int) -> tuple[list[str], list[tuple[int, frozenset[str]]]]:
    """The first rides of a list, and what was read for them."""
    files = Watched(lake)
    table = next(newest_rides(files, 1, query, NOTHING_FRESH, size))
    return table["name"].to_pylist(), files.seen


def test_times_choose_row_groups(lake: Lake) -> None:
    low, high = time_place(NOW + 1100 * SECOND), time_place(NOW + 1200 * SECOND)
    names, seen = listed(lake, RideQuery(low, high, True), RIDES)
    assert names == [f"r{n:04}" for n in range(1199, 1099, -1)]
    assert {number for number, _ in seen} == {1}


def test_a_page_reads_from_its_end_alone(lake: Lake) -> None:
    for descending, groups in ((True, {3}), (False, {0})):
        names, seen = listed(lake, RideQuery(b"", b"\xff", descending), 10)
        assert len(names) == 10
        assert {number for number, columns in seen if "body" in columns} == groups
        assert len({number for number, _ in seen}) <= 2


def test_documents_are_read_where_rides_are_wanted_alone(lake: Lake) -> None:
    query = RideQuery(b"", b"\xff", True, Wanted(driver_id="rare"))
    names, seen = listed(lake, query, RIDES)
    assert names == ["r2600", "r2500"]
    assert [number for number, columns in seen if "body" in columns] == [2]
    for _, columns in seen:
        assert columns == {"body"} or "driver_id" in columns
        assert not columns & {"city", "status", "cause", "errors", "fingerprint", "id"}


def test_what_nobody_wants_costs_no_document(lake: Lake) -> None:
    files = Watched(lake)
    query = RideQuery(b"", b"\xff", True, Wanted(city=("nowhere",)))
    assert list(newest_rides(files, 1, query, NOTHING_FRESH, RIDES)) == []
    assert not any("body" in columns for _, columns in files.seen)
