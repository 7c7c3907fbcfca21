"""Histories against brute force: whoever shared a phone, wherever the rows are, however the pages are cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio.connection import AbstractConnection

from rebu_ray.access import query
from rebu_ray.access import tape as tape_module
from rebu_ray.access.history import Histories, Person, answer
from rebu_ray.access.tape import END, START, Filter, Page
from rebu_ray.ingest.position import Position
from rebu_ray.records import BadRequest, Kind, Record, Source
from rebu_ray.store import flush as flush_module
from rebu_ray.store import lake as lake_module
from rebu_ray.store.index import commands, history_key, position_commands, position_key, position_value
from rebu_ray.store.links import Link
from rebu_ray.store.member import Codec, place
from rebu_ray.store.rows import partition_of
from tests.access.worlds import World
from tests.conftest import Valkey
from tests.records import NOW, identified, said, seeded, unlinked
from tests.store.disk import PARTITIONS, batch, unsynced

USERS = ("ada", "bob", "cyd")
PHONES = ("p1", "p2")
SPAN = 20
users, phones = st.sampled_from(USERS), st.sampled_from(PHONES)
at = st.integers(NOW, NOW + SPAN)
numbers = st.integers(0, 40).map(str)
shown = st.one_of(
    st.builds(said, users, numbers, at, name=st.sampled_from(["Ride", 'R"', "Ride Requested"])),
    st.builds(said, st.none(), numbers, at, phone=phones, name=st.sampled_from(["Ride", 'R"'])),
    st.builds(said, st.none(), numbers, at, phone=phones),
    st.builds(said, users, numbers, at, kind=st.just(Kind.SERVER_ERROR), source=st.just(Source.ERROR)),
    st.builds(
        said, st.none(), numbers, at, phone=phones, kind=st.just(Kind.APP_ERROR), source=st.just(Source.APP_ERRORS)
    ),
)
steering = st.one_of(
    st.builds(identified, users, phones, at, received_at=at),
    st.builds(identified, users, phones, at, received_at=at),
    st.builds(unlinked, users, phones, at),
)
moves = st.sampled_from(["flush", "flush", "trim 0", "trim 1", "trim 3", "evict"])
worlds = st.lists(
    st.one_of(st.lists(shown, min_size=1, max_size=8), st.lists(steering, min_size=1, max_size=2), moves), max_size=14
)
questions = st.fixed_dictionaries(
    {"order": st.sampled_from(["asc", "desc"])},
    optional={
        "since": at.map(str),
        "until": at.map(str),
        "kind": st.sampled_from(["app_event", "server_error", "app_error,server_error", "server_access"]),
        "source": st.sampled_from(["app-events", "error,app-errors", "otlp"]),
        "name": st.sampled_from(["Ride", 'R"', "Ri"]),
    },
)
Step = list[Record] | str


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """Everything comes in small pieces, so that small worlds have many."""
    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.setattr(lake_module, "_ROW_GROUP", 3)
        patch.setattr(flush_module, "_SMALL_FILES", 2)
        patch.setattr(tape_module, "FILTER_CHUNK", 3)
        yield


@pytest.fixture(scope="module")
def make(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], World]:
    """A new world, in place of the one before."""
    return lambda: World(tmp_path_factory.mktemp("world"), valkey)


@pytest.fixture
def world(make: Callable[[], World]) -> Iterator[World]:
    with closing(make()) as made:
        yield made


def same_times(records: list[Record], world: World) -> list[Record]:
    """One id has one time, in whichever stream it stands: sent again, it is the same event."""
    known = {record.id: record.event_time for record in world.records.values()}
    for record in records:
        if record.kind in (Kind.APP_EVENT, Kind.APP_ERROR, Kind.SERVER_ERROR) and record.links is None:
            record.event_time = known.setdefault(record.id, record.event_time)
    return records


def take(world: World, step: Step) -> None:
    if isinstance(step, list):
        world.write(*same_times(step, world))
    elif step == "flush":
        world.flush()
    elif step == "evict":
        world.evict()
    else:
        world.trim(int(step.split()[1]))


async def follow(
    histories: Histories,
    user: str,
    params: Mapping[str, str],
    limits: list[int],
    between: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """All items of a history as a client gets them, page by page, with what happens between the pages."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    for turn in range(1000):
        limit = limits[turn % len(limits)]
        desc, wanted = query.descending(params), query.filters(params)
        low, high = query.bounds(params)
        cursors = query.Cursors("history", user, desc, wanted, low, high)
        low, high = cursors.narrow(cursor, low, high, desc)
        page = await histories.page(user, low, high, wanted, desc, limit)
        cursor = None if page.resume is None else cursors.write(page.resume)
        body = json.loads(answer(user, page, cursor))
        assert body["next"] == cursor
        assert len(body["items"]) <= limit
        found += body["items"]
        if cursor is None:
            return found
        between()
    raise AssertionError("the pages never end")


def place_of(item: dict[str, Any]) -> bytes:
    return place(query.time({"t": item["timestamp"]}, "t") or 0, item["id"])


def wanted(records: list[Record], params: Mapping[str, str]) -> bool:
    return any(
        int(params.get("since", 0)) <= r.event_time < int(params.get("until", 2**60))
        and r.kind in params.get("kind", r.kind).split(",")
        and r.source in params.get("source", r.source).split(",")
        and r.name == params.get("name", r.name)
        for r in records
    )


def expected(world: World, user: str, params: Mapping[str, str]) -> list[bytes]:
    theirs = world.history(user)
    return sorted((p for p, found in theirs.items() if wanted(found, params)), reverse=params["order"] == "desc")


@settings(seeded, max_examples=150)
@given(worlds, users, questions, st.lists(st.integers(1, 7), min_size=1, max_size=4), st.sampled_from([3, 9, 10**6]))
def test_the_pages_of_a_history_are_all_of_it(
    make: Callable[[], World], steps: list[Step], user: str, params: dict[str, str], limits: list[int], budget: int
) -> None:
    with closing(make()) as world, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tape_module, "SCAN_BUDGET", budget)
        for step in steps:
            take(world, step)

        async def pages() -> list[dict[str, Any]]:
            async with world.reading() as histories:
                return await follow(histories, user, params, limits)

        if not world.exists(user):
            with pytest.raises(BadRequest) as refused:
                asyncio.run(pages())
            assert (refused.value.status, refused.value.code) == (404, "unknown_user")
            return
        items = asyncio.run(pages())
        assert [place_of(item) for item in items] == expected(world, user, params)
        history = world.history(user)
        for item in items:
            assert item["user_id"] == user
            assert (item["kind"], item["name"], item["source"], item["anonymous_id"], item["matched_by"]) in [
                (r.kind, r.name, r.source, r.anonymous_id, r.matched_by) for r in history[place_of(item)]
            ]


@settings(seeded, max_examples=80)
@given(
    worlds,
    users,
    questions,
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.lists(st.one_of(st.lists(shown, min_size=1, max_size=3), moves), max_size=12),
)
def test_what_comes_between_pages_repeats_and_hides_nothing(
    make: Callable[[], World], steps: list[Step], user: str, params: dict[str, str], limits: list[int], late: list[Step]
) -> None:
    with closing(make()) as world:
        for step in [*steps, [said(user, "there", NOW)]]:
            take(world, step)
        before = expected(world, user, params)
        left = list(late)

        async def pages() -> list[dict[str, Any]]:
            async with world.reading() as histories:
                return await follow(histories, user, params, limits, lambda: take(world, left.pop(0)) if left else None)

        items = [place_of(item) for item in asyncio.run(pages())]
        assert items == sorted(set(items), reverse=params["order"] == "desc")
        assert set(before) <= set(items) <= set(expected(world, user, params))


@settings(seeded, max_examples=80)
@given(
    worlds,
    users,
    questions,
    st.integers(1, 7),
    st.lists(st.one_of(st.none(), moves), min_size=1, max_size=12),
)
def test_rows_that_move_to_the_lake_under_a_reader_are_not_missed(
    make: Callable[[], World],
    steps: list[Step],
    user: str,
    params: dict[str, str],
    limit: int,
    meddling: list[str | None],
) -> None:
    """Whatever the owner moves between any two questions of a reader to Redis, the answer is the same."""
    with closing(make()) as world:
        for step in [*steps, [said(user, "there", NOW)]]:
            take(world, step)
        left = list(meddling)
        original = AbstractConnection.send_packed_command

        async def meddled(self: Any, *args: Any, **options: Any) -> Any:
            if left and (move := left.pop(0)) is not None:
                take(world, move)
            return await original(self, *args, **options)

        async def pages() -> list[dict[str, Any]]:
            async with world.reading() as histories:
                return await follow(histories, user, params, [limit])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AbstractConnection, "send_packed_command", meddled)
            items = asyncio.run(pages())
        assert [place_of(item) for item in items] == expected(world, user, params)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("kind", ["app_event", "app_event,server_error"])
def test_what_a_filter_hides_does_not_hide_what_stands_in_its_place(world: World, order: str, kind: str) -> None:
    """An error of the server and an event of the phone have one id and one time."""
    world.write(
        said("ada", "0", NOW - 1),
        said("ada", "1", NOW, kind=Kind.SERVER_ERROR),
        said(None, "1", NOW, phone="p1"),
        identified("ada", "p1", NOW + 1, record_id="2"),
    )

    async def pages() -> list[dict[str, Any]]:
        async with world.reading() as histories:
            return await follow(histories, "ada", {"order": order, "kind": kind}, [1])

    assert sorted(item["id"] for item in asyncio.run(pages())) == ["0", "1", "2"]


# -- what a reader waits for, and what it refuses ---------------------------------------------------------------------


def read(world: World, user: str, wait_seconds: float = 0.0, **options: Any) -> list[str]:
    """The ids of a whole history, oldest first."""

    async def ask() -> Page:
        async with world.reading(wait_seconds) as histories:
            return await histories.page(user, START, END, Filter(), False, 1000, **options)

    page = asyncio.run(ask())
    assert page.resume is None
    return [json.loads(b"{" + fragment)["id"] for fragment in page.fragments]


def names_in(partition: int, prefix: str) -> Iterator[str]:
    """Users or phones of a partition."""
    return (str(n) for n in range(1000) if partition_of(f"{prefix}:{n}", PARTITIONS) == partition)


def test_who_is_refused_is_told_how_far_a_rebuild_is(world: World) -> None:
    user = next(names_in(0, "u"))
    world.write(said(user))
    for anew, code in ((True, "index_rebuilding"), (False, "index_catching_up")):
        world.index.redis.set(position_key(0), position_value(1200, True, 9000, anew))
        with pytest.raises(BadRequest, match=r"1,200 of 9,000 records") as refused:
            read(world, user)
        assert (refused.value.status, refused.value.code) == (503, code)


@pytest.mark.parametrize("state", ["no position", "behind", "another format"])
@pytest.mark.parametrize("where", ["of the user", "of the phone", "of somebody else"])
def test_no_history_is_read_from_an_index_that_lacks_something(world: World, state: str, where: str) -> None:
    """Somebody else's link to the same phone may be among what is missing."""
    user, phone = next(names_in(0, "u")), next(names_in(1, "a"))
    world.write(identified(user, phone), said(None, "1", phone=phone))
    assert len(read(world, user)) == 2
    partition = {"of the user": 0, "of the phone": 1, "of somebody else": 2}[where]
    key, client = position_key(partition), world.index.redis
    value = client.get(key)
    if state == "no position":
        client.delete(key)
    else:
        client.set(key, value + b":behind" if state == "behind" else b"999:1")
    with pytest.raises(BadRequest) as refused:
        read(world, user)
    assert refused.value.status == 503
    assert refused.value.code == ("index_catching_up" if state == "behind" else "index_rebuilding")
    assert refused.value.retry_after


def test_a_user_without_phones_is_read_whatever_state_other_partitions_are_in(world: World) -> None:
    user = next(names_in(0, "u"))
    world.write(said(user, "1"))
    world.index.redis.delete(*(position_key(p) for p in range(1, PARTITIONS)))
    assert read(world, user) == ["1"]


def test_a_read_waits_for_the_whole_write_that_it_names(world: World) -> None:
    """Two people share a phone: what the one says about it is in the other's history as well."""
    ada, bob, phone = next(names_in(0, "u")), next(names_in(1, "u")), next(names_in(2, "a"))
    world.write(identified(ada, phone, NOW + 9, record_id="ada"), said(None, "1", NOW + 5, phone=phone))
    assert read(world, ada) == ["1", "ada"]
    _, rows, positions, _ = world.log.commit(batch(identified(bob, phone, NOW + 7, record_id="bob")), NOW)
    with pytest.raises(BadRequest) as refused:
        read(world, ada, min_position=Position(positions))
    assert (refused.value.status, refused.value.code) == (503, "not_yet_visible")
    assert refused.value.retry_after

    async def meanwhile() -> list[bytes]:
        async with world.reading(60.0) as histories:
            reading = asyncio.create_task(
                histories.page(ada, START, END, Filter(), False, 10, min_position=Position(positions))
            )
            await asyncio.sleep(0.05)
            assert not reading.done()
            world.index.send([*commands(rows, PARTITIONS, Codec()), *position_commands(positions)])
            return (await reading).fragments

    assert [json.loads(b"{" + f)["id"] for f in asyncio.run(meanwhile())] == ["ada"]
    assert read(world, bob, min_position=Position(positions)) == ["1", "bob"]


def test_a_position_of_another_platform_is_not_waited_for(world: World) -> None:
    world.write(said("ada", "1"))
    assert read(world, "ada", min_position=Position({PARTITIONS: 10})) == ["1"]


def test_a_user_whose_rows_are_all_in_the_lake_is_known(world: World) -> None:
    world.write(said("ada", "1"))
    world.flush()
    world.evict()
    assert world.index.redis.zcard(history_key(partition_of("u:ada", PARTITIONS), "u:ada")) == 0
    assert read(world, "ada") == ["1"]
    world.write(said("ada", "0", NOW - 5), said("ada", "2", NOW + 5))
    assert read(world, "ada") == ["0", "1", "2"]


def test_a_link_that_was_taken_back_is_no_item_wherever_it_is_read(world: World) -> None:
    world.write(identified("ada", "p1", record_id="identify"), said(None, "anonymous", NOW + 1, phone="p1"))
    assert read(world, "ada") == ["identify", "anonymous"]
    world.write(unlinked("ada", "p1", NOW + 1))
    assert read(world, "ada") == ["identify"]
    world.flush()
    world.evict()
    assert read(world, "ada") == ["identify"]
    world.write(identified("ada", "p1", NOW + 2, record_id="again", received_at=NOW + 2))
    assert read(world, "ada") == ["identify", "anonymous", "again"]


def test_a_person_is_their_phones_with_who_else_had_them(world: World) -> None:
    async def person(user: str) -> Person:
        async with world.reading() as histories:
            return await histories.person(user)

    assert asyncio.run(person("ada")) == Person(False, {})
    world.write(identified("ada", "p1", NOW), identified("bob", "p1", NOW + 1), identified("ada", "p2", NOW + 2))
    assert asyncio.run(person("ada")) == Person(
        True,
        {"p1": [Link(NOW, NOW, "ada"), Link(NOW + 1, NOW, "bob")], "p2": [Link(NOW + 2, NOW, "ada")]},
    )
    world.write(unlinked("ada", "p2", NOW))
    assert asyncio.run(person("ada")).phones["p2"] == []
