"""The list of rides over a real index and lake, against plain reading of everything that was computed."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.access import rides_table
from rebu_ray.access.documentation import openapi
from rebu_ray.access.ride_formats import FLAT
from rebu_ray.store import flush as flush_module
from rebu_ray.store import lake as lake_module
from rebu_ray.store.index import position_key, position_value
from rebu_ray.store.ride_table import Wanted
from tests.access.serving import READ, WRITE, Backends, FakeIntake, reading, refused, visit
from tests.access.worlds import World
from tests.conftest import Valkey
from tests.records import NOW, seeded
from tests.ride_documents import Document, Rides, Said, conditions, spread, statements, text
from tests.store.disk import unsynced

FORMATS = ("csv", "parquet", "arrow")


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are merged soon, row groups are soon full, and streams come in many pieces."""
    monkeypatch.setattr(flush_module, "_SMALL_FILES", 2)
    monkeypatch.setattr(lake_module, "_RIDE_ROW_GROUP", 2)
    monkeypatch.setattr(rides_table, "_STREAMED", 2)
    monkeypatch.setattr(rides_table, "_FETCHED", 2)


def get(world: World, params: dict[str, Any] | None = None, headers: dict[str, str] = READ) -> httpx.Response:
    return reading(world, lambda client: client.get("/v1/rides", headers=headers, params=params))


def say(world: World, rides: Rides, *said: Said) -> None:
    """One after the other: what is in one batch has no order between partitions."""
    for one in said:
        world.write(rides.computed(one))


def parameters(wanted: Wanted) -> dict[str, str]:
    """Conditions as a query."""
    found = {}
    for name, value in wanted._asdict().items():
        if value is not None:
            found[name] = (
                ",".join(value)
                if isinstance(value, tuple)
                else json.dumps(value)
                if isinstance(value, bool)
                else str(value)
            )
    return found


def read(form: str, data: bytes) -> pa.Table:
    if form == "parquet":
        return pq.read_table(pa.BufferReader(data))
    return pa.ipc.open_stream(data).read_all()


# -- what a list holds ----------------------------------------------------------------------------------------------


def test_the_newest_rides_first_as_they_were_computed(world: World) -> None:
    rides = Rides()
    say(world, rides, Said("r1", requested_at=NOW), Said("r2", requested_at=NOW + 1), Said("r0", requested_at=NOW + 1))
    answer = get(world)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"items": rides.listed(Wanted()), "next": None}
    assert [d["ride_id"] for d in answer.json()["items"]] == ["r2", "r0", "r1"]
    assert [d["ride_id"] for d in get(world, {"order": "asc"}).json()["items"]] == ["r1", "r0", "r2"]


@pytest.mark.usefixtures("small_files")
@settings(seeded, max_examples=60)
@given(
    st.lists(st.sampled_from(["flush", "settle"]) | st.lists(statements, min_size=1, max_size=5), max_size=8),
    conditions,
    st.sampled_from(["asc", "desc"]),
    st.integers(1, 4),
    st.lists(st.sampled_from(["flush", "settle", "nothing"]), min_size=1),
)
def test_pages_meet_every_ride_that_is_wanted_once_while_documents_move_to_the_lake(
    valkey: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[str | list[Said]],
    wanted: Wanted,
    order: str,
    limit: int,
    between: list[str],
) -> None:
    rides = Rides()
    with closing(World(tmp_path_factory.mktemp("world"), valkey)) as world, unsynced():
        moves: dict[str, Callable[[], None]] = {
            "flush": world.flush,
            "settle": world.settle_rides,
            "nothing": lambda: None,
        }
        existing = iter(spread(one for step in steps if isinstance(step, list) for one in step))
        for step in steps:
            if isinstance(step, str):
                moves[step]()
            else:
                say(world, rides, *(one for one, _ in zip(existing, step, strict=False)))

        async def scene(client: httpx.AsyncClient) -> list[Document]:
            found: list[Document] = []
            params = {**parameters(wanted), "order": order, "limit": str(limit)}
            for n in range(50):
                body = (await client.get("/v1/rides", headers=READ, params=params)).json()
                assert len(body["items"]) == limit or body["next"] is None
                found += body["items"]
                if body["next"] is None:
                    break
                params["cursor"] = body["next"]
                moves[between[n % len(between)]]()
            return found

        assert reading(world, scene) == rides.listed(wanted, descending=order == "desc")


@pytest.mark.usefixtures("small_files")
def test_a_ride_that_changes_between_pages_is_neither_repeated_nor_skipped(world: World) -> None:
    rides = Rides()
    say(world, rides, *(Said(f"r{n}", requested_at=NOW + n) for n in range(9)))
    world.flush()
    world.settle_rides()

    async def scene(client: httpx.AsyncClient) -> list[str]:
        found: list[str] = []
        params = {"limit": "2"}
        while True:
            body = (await client.get("/v1/rides", headers=READ, params=params)).json()
            found += [f"{d['ride_id']} {d['errors']['app']}" for d in body["items"]]
            if body["next"] is None:
                return found
            params["cursor"] = body["next"]
            say(world, rides, *(Said(f"r{n}", requested_at=NOW + n, app=len(found)) for n in range(0, 9, 2)))
            if len(found) == 4:
                world.flush()
                world.settle_rides()

    assert reading(world, scene) == ["r8 0", "r7 0", "r6 2", "r5 0", "r4 4", "r3 0", "r2 6", "r1 0", "r0 8"]


def test_bounds_are_those_of_the_request(world: World) -> None:
    rides = Rides()
    say(world, rides, *(Said(f"r{n}", requested_at=NOW + 1000 * n) for n in range(5)))
    for _ in range(2):
        found = get(world, {"since": text(NOW + 1000), "until": NOW + 3000}).json()["items"]
        assert [d["ride_id"] for d in found] == ["r2", "r1"]
        world.flush()
        world.settle_rides()


def test_a_deleted_ride_is_gone_wherever_it_was(world: World) -> None:
    rides = Rides()
    say(world, rides, Said("r1"), Said("r2"))
    world.flush()
    world.settle_rides()
    say(world, rides, Said("r1", deleted=True))
    assert [d["ride_id"] for d in get(world).json()["items"]] == ["r2"]
    world.flush()
    world.settle_rides()
    assert [d["ride_id"] for d in get(world).json()["items"]] == ["r2"]
    assert [d["ride_id"] for d in get(world, {"as_of": text(rides.clock - 1000)}).json()["items"]] == ["r2", "r1"]


@pytest.mark.usefixtures("small_files")
@settings(seeded, max_examples=25)
@given(st.lists(statements, min_size=3, max_size=12), conditions, st.integers(-1, 13), st.integers(1, 3))
def test_as_of_answers_with_what_was_known_then(
    valkey: Valkey, tmp_path_factory: pytest.TempPathFactory, said: list[Said], wanted: Wanted, seconds: int, limit: int
) -> None:
    rides, as_of = Rides(), NOW + 1000 * seconds
    with closing(World(tmp_path_factory.mktemp("world"), valkey)) as world, unsynced():
        say(world, rides, *spread(said))

        async def scene(client: httpx.AsyncClient) -> list[Document]:
            found: list[Document] = []
            params = {**parameters(wanted), "as_of": text(as_of), "limit": str(limit)}
            while True:
                body = (await client.get("/v1/rides", headers=READ, params=params)).json()
                found += body["items"]
                if body["next"] is None:
                    return found
                params["cursor"] = body["next"]

        assert reading(world, scene) == rides.listed(wanted, as_of=as_of)


def test_nothing_is_an_empty_list_in_every_format(world: World) -> None:
    assert get(world).json() == {"items": [], "next": None}
    for more in ({}, {"limit": 5}):
        assert get(world, {"format": "csv", **more}).text.splitlines() == [",".join(f'"{name}"' for name in FLAT.names)]
        for form in ("parquet", "arrow"):
            table = read(form, get(world, {"format": form, **more}).content)
            assert (table.num_rows, table.schema) == (0, FLAT)


# -- formats --------------------------------------------------------------------------------------------------------


def cell(document: Document, name: str) -> Any:
    """What a flat table must show of a document under a name."""
    for prefix in ("user", "driver"):
        if name in (f"{prefix}_id", f"{prefix}_name"):
            return (document[prefix] or {}).get(name if name.endswith("_id") else "name")
    for prefix in ("pickup", "destination", "dropoff"):
        if name in (f"{prefix}_lat", f"{prefix}_lon"):
            return (document[prefix] or {}).get(name[-3:])
    for prefix in ("errors", "messages"):
        if name.startswith(f"{prefix}_"):
            return document[prefix][name.removeprefix(f"{prefix}_")]
    value = document["errors"]["items"] if name == "errors" else document[name]
    return datetime.fromisoformat(value) if name.endswith("_at") and value is not None else value


def test_every_format_shows_the_same(world: World, small_files: None) -> None:
    rides = Rides()
    names = ["r1", "r2", 'r"3,\n', "é", "🚕"]
    say(world, rides, *(Said(name, requested_at=NOW + n, premature=n % 2 == 0, app=n) for n, name in enumerate(names)))
    world.flush()
    say(world, rides, Said("r2", requested_at=NOW + 1, user=None, driver=None, city=None))
    expected = [{name: cell(d, name) for name in FLAT.names} for d in rides.listed(Wanted())]
    assert len(expected) == 5
    for form in ("parquet", "arrow"):
        answer = get(world, {"format": form})
        assert answer.headers["content-type"].startswith("application/vnd.apache.")
        table = read(form, answer.content)
        assert table.schema == FLAT
        assert [row | {"errors": json.loads(row["errors"])} for row in table.to_pylist()] == expected
    answer = get(world, {"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    for row, wanted in zip(rows, expected, strict=True):
        assert json.loads(row.pop("errors")) == wanted.pop("errors")
        assert row == {name: plain(value) for name, value in wanted.items()}


def plain(value: Any) -> str:
    """A value as CSV has it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return text(round(value.timestamp() * 1000))
    if isinstance(value, list):
        return " ".join(value)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.usefixtures("small_files")
def test_a_file_with_a_limit_is_a_page_and_one_without_is_everything(world: World, form: str) -> None:
    rides = Rides()
    say(world, rides, *(Said(f"r{n}", requested_at=NOW + n) for n in range(7)))
    world.flush()
    world.settle_rides()
    say(world, rides, *(Said(f"r{n}", requested_at=NOW + n, app=1) for n in (1, 5, 8)))

    def ids(answer: httpx.Response) -> list[str]:
        if form == "csv":
            return [row["ride_id"] for row in csv.DictReader(io.StringIO(answer.text))]
        found: list[str] = read(form, answer.content)["ride_id"].to_pylist()
        return found

    everything = ["r8", "r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert ids(get(world, {"format": form})) == everything
    assert ids(get(world, {"format": form, "order": "asc"})) == everything[::-1]
    first = get(world, {"format": form, "limit": 3})
    assert ids(first) == everything[:3]
    cursor = first.headers["x-rebu-next"]
    second = get(world, {"format": form, "limit": 5, "cursor": cursor})
    assert ids(second) == everything[3:]
    assert "x-rebu-next" not in second.headers
    assert ids(get(world, {"format": form, "cursor": cursor})) == everything[3:]
    assert [d["ride_id"] for d in get(world, {"cursor": cursor}).json()["items"]] == everything[3:]


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"limit": "0"}, "invalid_limit"),
        ({"limit": "1001"}, "invalid_limit"),
        ({"limit": "1001", "format": "csv"}, "invalid_limit"),
        ({"format": "xml"}, "invalid_format"),
        ({"order": "up"}, "invalid_order"),
        ({"premature": "yes"}, "invalid_premature"),
        ({"has_messages": ""}, "invalid_has_messages"),
        ({"min_errors": "-1"}, "invalid_min_errors"),
        ({"min_errors": "many"}, "invalid_min_errors"),
        ({"cause": "weather"}, "unknown_cause"),
        ({"cause": "app,"}, "unknown_cause"),
        ({"status": "done"}, "unknown_status"),
        ({"since": "yesterday"}, "invalid_time"),
        ({"as_of": "now"}, "invalid_time"),
        ({"cursor": "abc"}, "invalid_cursor"),
        ({"town": "berlin"}, "unknown_parameter"),
    ],
)
def test_what_is_not_understood_is_refused(world: World, params: dict[str, str], code: str) -> None:
    assert refused(get(world, params)) == (400, code)


def test_the_read_key_is_asked_for(world: World) -> None:
    assert refused(get(world, headers={})) == (401, "unauthorized")
    assert refused(get(world, headers=WRITE)) == (403, "forbidden")


@pytest.mark.parametrize(
    "changed", [{"order": "asc"}, {"city": "berlin"}, {"premature": "false"}, {"since": "0"}, {"as_of": str(NOW * 2)}]
)
def test_a_cursor_of_another_list_is_refused(world: World, changed: dict[str, str]) -> None:
    say(world, Rides(), *(Said(f"r{n}") for n in range(3)))
    cursor = get(world, {"limit": 1}).json()["next"]
    assert refused(get(world, {"cursor": cursor, **changed})) == (400, "invalid_cursor")
    assert len(get(world, {"cursor": cursor, "limit": "7"}).json()["items"]) == 2


@pytest.mark.parametrize("params", [{}, {"format": "csv"}])
@pytest.mark.parametrize("partition", [0, 3])
def test_half_an_index_is_no_answer(world: World, valkey: Valkey, partition: int, params: dict[str, str]) -> None:
    say(world, Rides(), Said("r1"))
    valkey.client.set(position_key(partition), position_value(0, behind=True))
    assert refused(get(world, params)) == (503, "index_catching_up")
    valkey.client.delete(position_key(partition))
    assert refused(get(world, params)) == (503, "index_rebuilding")


def test_only_a_first_page_of_the_past_has_the_lake_brought_up_to_date(world: World) -> None:
    rides = Rides()
    say(world, rides, Said("r1"), Said("r2"))

    async def play() -> list[str]:
        async with world.reading() as histories:
            backends = Backends(FakeIntake(world=world), histories)

            async def scene(client: httpx.AsyncClient) -> None:
                params = {"as_of": text(rides.clock), "limit": "1"}
                first = (await client.get("/v1/rides", headers=READ, params=params)).json()
                await client.get("/v1/rides", headers=READ, params={**params, "cursor": first["next"]})
                await client.get("/v1/rides", headers=READ)

            await visit(backends, scene)
            return backends.asked

    assert asyncio.run(play()) == ["flush"]


def test_the_interface_says_what_may_be_asked() -> None:
    paths = openapi()["paths"]
    operation = paths["/v1/rides"]["get"]
    assert {p["name"] for p in operation["parameters"]} == set(rides_table.PARAMETERS)
    assert len(operation["responses"]["200"]["content"]) == 4
    assert {"/v1/rides/{ride_id}", "/v1/rides/{ride_id}/messages", "/v1/messages/{message_id}"} <= paths.keys()
    assert {"/v1/users/{user_id}/rides", "/v1/users/{user_id}/messages", "/v1/records/{table}"} <= paths.keys()
