"""The warehouse: whatever comes, in whatever pieces, it holds what one load of everything would make of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.records import Kind, MatchedBy, Source
from rebu_ray.store.ride_table import Wanted
from rebu_ray.store.tombstones import Hashing, Names, Tombstones
from rebu_ray.store.warehouse import published
from rebu_ray.store.warehouse.load import alone
from rebu_ray.store.warehouse.schema import SchemaChange, WarehouseError
from rebu_ray.store.warehouse.verify import opened as verifying
from tests.records import NOW, said, seeded
from tests.ride_documents import Rides, Said, milliseconds, spread, statements
from tests.store.disk import unsynced
from tests.store.warehouses import House, Row, ride_row, row, selected, user

DAY = 86_400_000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).replace(tzinfo=None)


# -- facts ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The warehouse of all examples of a property: what an example says is of rides and people of its own."""
    made = House(tmp_path_factory.mktemp("shared"))
    with unsynced():
        yield made
    made.close()


def test_rides_are_those_of_their_newest_documents(shared: House) -> None:
    numbers = count()

    @settings(seeded, max_examples=15)
    @given(st.lists(st.sampled_from(["load", "flush"]) | statements, max_size=20))
    def holds(steps: list[str | Said]) -> None:
        own, rides = f"{next(numbers)} ", Rides()
        possible = iter(spread([step for step in steps if isinstance(step, Said)]))
        wanted = next(possible, None)
        for step in steps:
            if step == "load":
                shared.load()
            elif isinstance(step, Said) and step == wanted:
                shared.write(rides.computed(step._replace(ride_id=own + step.ride_id)))
                wanted = next(possible, None)
        shared.load()
        expected = {document["ride_id"]: document for document in rides.listed(Wanted())}
        found = {row["ride_id"]: row for row in shared.rows(f"FROM fact_ride WHERE starts_with(ride_id, '{own}')")}
        assert found.keys() == expected.keys()
        for ride_id, document in expected.items():
            shown = found[ride_id]
            assert shown["requested_at"] == time(milliseconds(document["requested_at"]))
            assert shown["user_id"] == (document["user"] or {}).get("user_id")
            errors = document["errors"]
            assert (shown["errors_app"], shown["errors_server"]) == (errors["app"], errors["server"])
            for name in ("status", "city", "premature", "cause", "fare_cents", "quality", "flags", "version"):
                assert shown[name] == document[name]

    holds()
    found = shared.rows("FROM fact_ride ORDER BY ride_id")
    assert shared.load(rebuild=True).rides == len(found) > 0
    assert shared.rows("FROM fact_ride ORDER BY ride_id") == found


def test_a_ride_that_becomes_another_users_is_counted_once(house: House) -> None:
    rides = Rides()
    for owner in ("ada", "bob", "eve", "ada"):
        house.write(rides.computed(Said("r1", user=owner)))
        house.load()
        [found] = house.rows("FROM fact_ride")
        assert found["user_id"] == owner
    house.write(rides.computed(Said("r1", user="ada", deleted=True)))
    house.load()
    assert house.rows("FROM fact_ride") == []


def test_events_are_counted_by_day_each_of_them_once(house: House) -> None:
    house.write(said("ada", "1"), said("ada", "2", NOW - DAY), said(phone="p", record_id="1"))
    house.load()
    late = NOW - 30 * DAY
    house.write(said("ada", "3"), said("bob", "4", late))
    house.load()
    house.write(said("bob", "5", late), said("bob", "4", late + 1, received_at=NOW + 1))
    house.load()
    lines = [
        said("ada", "6", kind=Kind.SERVER_ACCESS, name="GET /users/ada/rides", source=Source.ACCESS),
        said(request="q", record_id="7", kind=Kind.SERVER_ERROR, name="error", source=Source.ERROR),
    ]
    copy = said("ada", "7", kind=Kind.SERVER_ERROR, name="error", source=Source.ERROR)
    copy.matched_by = MatchedBy.REQUEST_ID
    house.write(*lines, copy)
    house.load()
    counted = house.rows("SELECT date, kind, name, events FROM fact_event_daily ORDER BY ALL")
    assert [(str(r["date"]), r["kind"], r["name"], r["events"]) for r in counted] == [
        ("2026-01-31", "app_event", "Ride Requested", 2),
        ("2026-03-01", "app_event", "Ride Requested", 1),
        ("2026-03-02", "app_event", "Ride Requested", 3),
        ("2026-03-02", "server_access", "GET", 1),
        ("2026-03-02", "server_error", "error", 1),
    ]
    assert house.verify().equal
    assert len(house.rows("FROM dim_date WHERE year = 2026")) == 365


# -- dimensions of type 2 -------------------------------------------------------------------------------------------


class Version(NamedTuple):
    """Something said of a user: a version of the row, or that it is gone."""

    user_id: str
    updated_at: int
    name: str
    gone: bool
    received: int


versions = st.builds(
    Version,
    user_id=st.sampled_from(["ada", "é🚕"]),
    updated_at=st.integers(0, 6).map(lambda n: NOW + n * 1000),
    name=st.sampled_from(["A", "B", ""]),
    gone=st.sampled_from([False] * 3 + [True]),
    received=st.integers(0, 2).map(lambda n: NOW + 10_000 + n),
)


def record(version: Version) -> Any:
    if version.gone:
        values = {"user_id": version.user_id, "deleted": True, "updated_at": version.updated_at}
        return row(Source.USERS, values, version.received)
    return user(version.user_id, version.updated_at, version.received, name=version.name)


def chains(said: list[Version]) -> list[tuple[Any, ...]]:
    """The versions of every user by the words of the contract: (user, from, to, current, deleted, name)."""
    found = []
    for user_id in sorted({version.user_id for version in said}):
        at: dict[int, Version] = {}
        for version in (v for v in said if v.user_id == user_id):
            other = at.get(version.updated_at)
            if other is None or (version.received, record(version).id) > (other.received, record(other).id):
                at[version.updated_at] = version
        chain = [at[moment] for moment in sorted(at)]
        while chain and chain[0].gone:
            chain.pop(0)
        ends: list[int | None] = [*(version.updated_at for version in chain[1:]), None]
        spans = list(zip(chain, ends, strict=False))
        while spans and spans[-1][0].gone:
            spans.pop()
        found += [
            (user_id, time(v.updated_at), None if end is None else time(end), end is None, v.gone)
            + ((None,) if v.gone else (v.name,))
            for v, end in spans
        ]
    return found


def test_versions_of_people_neither_overlap_nor_leave_gaps_in_whatever_order_they_come(shared: House) -> None:
    numbers = count()
    columns = "user_id, valid_from, valid_to, is_current, is_deleted, name"

    @settings(seeded, max_examples=25)
    @given(st.lists(st.lists(versions, max_size=4), max_size=4))
    def holds(batches: list[list[Version]]) -> None:
        own = f"{next(numbers)} "
        first: dict[tuple[str, str], Version] = {}
        for part in ([version._replace(user_id=own + version.user_id) for version in batch] for batch in batches):
            shared.write(*map(record, part))
            shared.load()
            for version in part:  # a record that came before is a duplicate, whenever it was received
                first.setdefault((version.user_id, record(version).id), version)
        shared.load()
        found = shared.rows(
            f"SELECT {columns} FROM dim_user WHERE starts_with(user_id, '{own}') ORDER BY user_id, valid_from"
        )
        assert [tuple(row.values()) for row in found] == chains(list(first.values()))

    holds()
    assert shared.verify().rules == []
    found = shared.rows("FROM dim_user ORDER BY user_id, valid_from")
    assert shared.load(rebuild=True).users == sum(row["is_current"] for row in found) > 0
    assert shared.rows("FROM dim_user ORDER BY user_id, valid_from") == found


def test_facts_point_at_the_version_that_was_valid_then(house: House) -> None:
    rides = Rides()
    house.write(user("ada", NOW, name="Ada"), rides.computed(Said("before", requested_at=NOW - DAY)))
    house.write(*(rides.computed(Said(f"r{n}", requested_at=NOW + n * DAY)) for n in range(3)))
    house.load()
    house.write(user("ada", NOW + DAY, name="Ada L"))
    house.load()
    house.write(user("ada", NOW + DAY // 2, name="in between, and late"))
    house.load()
    named = house.rows("SELECT ride_id, name FROM fact_ride JOIN dim_user USING (user_key) ORDER BY requested_at")
    assert [tuple(row.values()) for row in named] == [
        ("before", "Ada"), ("r0", "Ada"), ("r1", "Ada L"), ("r2", "Ada L"),
    ]  # fmt: skip
    assert house.verify().rules == []


# -- the source changes ---------------------------------------------------------------------------------------------


def test_a_new_column_is_added_and_one_that_is_gone_is_kept(house: House) -> None:
    rides = Rides()
    house.write(user("ada", NOW, name="Ada"), ride_row("r1"), rides.computed(Said("r1")))
    assert house.load().notes == []
    house.write(user("bob", NOW, tier=3, name_="x"), ride_row("r2", surge=1.5, City="y"), rides.computed(Said("r2")))
    notes = house.load().notes
    assert len(notes) == 4
    assert any("users.tier is new" in note for note in notes)
    house.write(user("bob", NOW + 1000), ride_row("r2", NOW + 1000), user("cat", NOW, tier=2.5))
    [widened, *gone] = sorted(house.load().notes, key=lambda note: "tier" not in note)
    assert "became DOUBLE" in widened
    assert all("kept, null from now on" in note for note in gone)
    found = house.rows("SELECT user_id, tier FROM dim_user ORDER BY user_id, valid_from")
    assert [tuple(row.values()) for row in found] == [("ada", None), ("bob", 3.0), ("bob", None), ("cat", 2.5)]
    found = house.rows("SELECT ride_id, city, surge, source_City FROM fact_ride ORDER BY ride_id")
    assert [tuple(row.values()) for row in found] == [("r1", "berlin", None, None), ("r2", "berlin", None, None)]


def test_a_type_that_changed_is_refused_with_advice(house: House) -> None:
    house.write(user("ada", NOW, tier=3))
    house.load()
    before = house.path.read_bytes()
    house.write(user("ada", NOW + 1000, tier="gold"))
    with pytest.raises(SchemaChange, match=r"users\.tier was BIGINT and now has values of type VARCHAR .*--rebuild"):
        house.load()
    assert house.path.read_bytes() == before
    house.load(rebuild=True)
    found = house.rows("SELECT tier FROM dim_user ORDER BY valid_from")
    assert [row["tier"] for row in found] == ["3", "gold"]


def test_a_number_that_is_none_any_more_is_refused_unless_it_is_one_among_many(house: House) -> None:
    house.write(ride_row("r1", fare_cents=100))
    house.load()
    house.write(ride_row("r2", fare_cents="a lot"), ride_row("r3", fare_cents=200))
    [note] = house.load().notes
    assert "rides.fare_cents: 1 new rows have no number" in note
    house.write(ride_row("r4", fare_cents="12,50 EUR"))
    with pytest.raises(SchemaChange, match=r"rides\.fare_cents is a number"):
        house.load()


# -- erasure, other files -------------------------------------------------------------------------------------------


def test_nothing_of_somebody_erased_is_left_in_the_file(house: House) -> None:
    rides = Rides()
    secret = "Zaphod-4711"
    house.write(
        user(secret, NOW, name="Zaphod-4711 the name"),
        user("bob", NOW, name="Bob"),
        rides.computed(Said("r1", user=secret)),
        rides.computed(Said("r2", user="bob")),
        said(secret, "1"),
        said("bob", "1"),
    )
    house.load()
    assert secret.encode() in house.path.read_bytes()
    hashing = Hashing(b"secret")
    names = Names(secret, {"o:r1"})
    stones = Tombstones(hashing, [hashing.tombstone(names, NOW, "admin", {})])
    # The lake still has the rows: they are taken out of it a moment later.
    found = house.load(stones)
    assert (found.rebuilt, found.rides, found.users, found.events) == (True, 1, 1, 1)
    assert secret.encode() not in house.path.read_bytes()
    assert house.load(stones).changed is False


def test_another_file_is_not_touched(house: House) -> None:
    with duckdb.connect(str(house.path)) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1 AS a")
    with pytest.raises(WarehouseError, match="no warehouse of Rebu"):
        house.load()
    assert house.rows("FROM mine") == [{"a": 1}]


# -- crashes --------------------------------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from pathlib import Path
from rebu_ray.store.lake import Lake
from rebu_ray.store.layout import open_layout
from rebu_ray.store.tombstones import none
from rebu_ray.store.warehouse.load import load

lake, path = sys.argv[1], Path(sys.argv[2])

def step(name):
    global steps
    steps += 1
    if steps == number:
        print(name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    number, steps = int(line), 0
    child = os.fork()
    if not child:
        load(Lake(lake), open_layout(lake, 0), path, none(), step=step)
        print("done", flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] not in (0, signal.SIGKILL):
        print("failed", flush=True)
"""
"""A process that begins a load for every number that it reads, each in a process that is killed before that step."""


@pytest.fixture
def killed(house: House) -> Iterator[Callable[[int], str]]:
    """Run a load that is killed before its step of a number; which that was, "done" after the last."""
    command = [sys.executable, "-c", _KILLED, house.disk.lake_uri, str(house.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def run(number: int) -> str:
            print(number, file=stdin, flush=True)
            return stdout.readline().strip()

        yield run
        stdin.close()
        assert process.wait(60) == 0


def contents(house: House) -> dict[str, list[Row]]:
    """All tables, whatever the order of their rows."""
    named = "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'"
    with duckdb.connect(str(house.path), read_only=True) as connection:
        tables = [row["table_name"] for row in selected(connection, named)]
        return {table: sorted(selected(connection, f"FROM {table}"), key=str) for table in tables}


def test_a_load_that_is_killed_at_any_step_leaves_what_was_and_the_next_one_makes_it_right(
    house: House, killed: Callable[[int], str]
) -> None:
    rides = Rides()
    house.write(user("ada", NOW, name="Ada"), rides.computed(Said("r1")), said("ada", "1"))
    house.load()
    house.write(user("ada", NOW + DAY, name="Ada L", tier=1), rides.computed(Said("r1", premature=True)))
    house.write(rides.computed(Said("r2", user="bob")), said("bob", "2", NOW - 30 * DAY))
    before, seen = contents(house), []
    for number in count(1):
        seen.append(killed(number))
        if seen[-1] == "published":
            break
        assert seen[-1] not in ("done", "failed")
        assert contents(house) == before
    assert {"look", "copy", "columns", "dimensions", "progress", "checkpoint", "publish", "published"} <= set(seen)
    after = contents(house)
    assert after != before
    house.load()
    assert contents(house) == after
    house.load(rebuild=True)
    assert contents(house) == after
    left = {name for name in os.listdir(house.path.parent) if name.startswith("warehouse")}
    assert left == {"warehouse.duckdb", "warehouse.duckdb.lock"}


def test_two_loads_at_once_are_one(house: House) -> None:
    house.write(user("ada", NOW))
    with alone(house.path), pytest.raises(WarehouseError, match="another load is under way"):
        house.load()
    assert house.load().users == 1


def test_a_reader_goes_on_with_what_was_while_a_load_publishes(house: House) -> None:
    house.write(user("ada", NOW))
    house.load()
    with duckdb.connect(str(house.path), read_only=True) as reader:
        assert reader.execute("SELECT count(*) FROM dim_user").fetchall() == [(1,)]
        house.write(user("bob", NOW))
        house.load()
        assert reader.execute("SELECT count(*) FROM dim_user").fetchall() == [(1,)]
    assert len(house.rows("FROM dim_user")) == 2


# -- what is left behind --------------------------------------------------------------------------------------------


def beside(path: Path) -> set[str]:
    """What lies beside the published file, of its own."""
    return {entry.name for entry in path.parent.iterdir() if path.name in entry.name} - {path.name, path.name + ".lock"}


def test_what_readers_who_were_killed_left_behind_goes_when_it_is_old(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.write(user("ada", NOW))
    house.load()
    name, mine = "0" * 32, house.path.with_name(f".{house.path.name}.swp")
    link = house.path.with_name(f".{house.path.name}.{name}")
    spilled = house.path.with_name(f"{link.name}.tmp")
    os.link(house.path, link)
    spilled.mkdir()
    (spilled / "duckdb_temp_block-1.block").write_bytes(b"ada")
    mine.write_bytes(b"an editor's")
    house.load()
    assert beside(house.path) == {link.name, spilled.name, mine.name}
    monkeypatch.setattr(published, "LEFT_SECONDS", -1.0)
    house.load()
    assert beside(house.path) == {mine.name}
    assert len(house.rows("FROM dim_user")) == 1


def test_a_comparison_leaves_nothing_of_what_it_spilled(house: House) -> None:
    house.write(user("ada", NOW))
    house.load()
    with verifying(house.path) as connection:
        connection.execute("SET memory_limit = '16MB'")
        connection.execute("CREATE TABLE spilled AS SELECT range AS n, hash(range) AS h FROM range(2_000_000)")
        assert any(name.endswith(".tmp") for name in beside(house.path))
    assert beside(house.path) == set()
