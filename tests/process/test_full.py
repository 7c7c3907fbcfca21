"""Incremental equals batch: any order of arrival, any split, shards that overtake each other, and the lake alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path as Folder
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.process.full import Full, crossing, full
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.lake import Lake
from rebu_ray.store.rows import decode
from tests.conftest import Valkey
from tests.process.path import SHARDS, P, Path, deleted, destination, driver, message, ride, user
from tests.records import NOW, identified, said, seeded, unlinked

USERS = ("ada", "bob", "cyd")
RIDES = ("r1", "r2")
PHONES = ("p1", "p2")

_step = st.integers(0, 9).map(lambda n: NOW + n * 60_000)
_later = st.integers(0, 9).map(lambda n: NOW + n * 60_000 + 3_600_000)
_users = st.sampled_from((*USERS, *USERS, None))
_rides = st.builds(
    ride,
    st.sampled_from(RIDES),
    _users,
    received_at=_later,
    driver_id=st.sampled_from(("dan", "dora", None)),
    status=st.sampled_from(("completed", "cancelled_by_driver", "in_progress", "odd", None)),
    requested_at=_step,
    picked_up_at=_step | st.none(),
    ended_at=_step | st.none(),
    dropoff_lat=st.sampled_from((57.0, 56.96, 0.0, None)),
    updated_at=_later,
)
_messages = st.builds(
    message,
    st.sampled_from(("m1", "m2")),
    _users,
    received_at=_later,
    sent_at=_step,
    body=st.sampled_from(("Your driver left me in the rain", "My ride r2 ended early", "How do I close my account?")),
    ride_id=st.sampled_from((*RIDES, None, None)),
    thread_id=st.sampled_from(("t1", None)),
    updated_at=_later,
)
_gone = st.builds(
    deleted,
    st.sampled_from((Source.RIDES, Source.MESSAGES)),
    st.sampled_from((*RIDES, "m1")),
    st.sampled_from((*USERS, None, None, None)),
    st.integers(3, 12).map(lambda n: NOW + n * 60_000 + 3_600_000),
)
_numbers = st.integers(0, 10**6)
_own_errors = st.builds(
    lambda who, number, at, kind, received_at: said(
        who,
        f"e{number % 7}",
        at,
        kind=kind,
        name="Boom",
        received_at=received_at,
        body=b'{"status":%d}' % (497 + number % 7),
    ),
    st.sampled_from(USERS),
    _numbers,
    _step,
    st.sampled_from((Kind.APP_ERROR, Kind.SERVER_ERROR, Kind.SERVER_ACCESS)),
    _later,
)
_phone_errors = st.builds(
    lambda phone, number, at, received_at: said(
        None, f"e{number % 7}", at, phone=phone, kind=Kind.APP_ERROR, name="Crash", received_at=received_at
    ),
    st.sampled_from(PHONES),
    _numbers,
    _step,
    _later,
)
_links = st.builds(identified, st.sampled_from(USERS), st.sampled_from(PHONES), _step, received_at=_later)
_unlinks = st.builds(unlinked, st.sampled_from(USERS), st.sampled_from(PHONES), _later)
_others = (
    st.builds(driver, st.sampled_from(("dan", "dora")), st.sampled_from(("Dan", "D.")), _later)
    | st.builds(user, st.sampled_from(USERS), st.sampled_from(("Ada", "A.")), _later)
    | st.builds(destination, st.sampled_from(RIDES), _step, st.sampled_from((56.96, 57.1)), _later)
)


def _once(found: Sequence[Record]) -> list[Record]:
    """What is sent twice is received once."""
    return list({(r.kind, r.user_id, r.anonymous_id, r.id): r for r in found}.values())


worlds = st.lists(
    st.one_of(
        *(_rides, _rides, _rides, _messages, _messages, _gone, _gone),
        *(_own_errors, _phone_errors, _links, _unlinks, _others),
    ),
    min_size=8,
    max_size=20,
).map(_once)


def at_once(valkey: Valkey, world: Sequence[Record]) -> dict[str, Any]:
    """What is served after everything came together."""
    with closing(Path(valkey)) as path:
        path.take(*world)
        return path.served()


def recomputed(lake: Lake) -> list[Full]:
    """All partitions from the lake alone."""
    crossings = [crossing(lake, partition) for partition in range(P)]
    return [full(lake, partition, P, crossings, NOW) for partition in range(P)]


def check(path: Path) -> None:
    """The lake alone makes of it what stands."""
    with tempfile.TemporaryDirectory() as folder:
        found = recomputed(path.lake(Folder(folder)))
    for each in found:
        assert each.standing == each.computed, f"partition {each.partition}"
        assert each.changed == b""
    documents = [name for name in path.served() if name.startswith(("r:", "s:"))]
    assert sum(each.rides + each.messages for each in found) == len(documents)


@settings(seeded, max_examples=25)
@given(worlds, st.randoms(use_true_random=False))
def test_any_order_and_split_makes_the_same_documents(valkey: Valkey, world: list[Record], random: Random) -> None:
    wanted = at_once(valkey, world)
    arrived = list(world)
    random.shuffle(arrived)
    with closing(Path(valkey)) as path:
        while arrived:
            size = random.randint(1, 6)
            batch, arrived = arrived[:size], arrived[size:]
            path.take(*batch)
        assert path.served() == wanted
        check(path)


@settings(seeded, max_examples=25)
@given(worlds, st.randoms(use_true_random=False))
def test_shards_that_overtake_each_other_make_the_same_documents(
    valkey: Valkey, world: list[Record], random: Random
) -> None:
    wanted = at_once(valkey, world)
    arrived = list(world)
    random.shuffle(arrived)
    with closing(Path(valkey)) as path:
        while arrived:
            shard = random.randrange(SHARDS)
            match random.randrange(3):
                case 0:
                    path.put(arrived.pop())
                case 1:
                    path.begin(shard)
                case _:
                    path.end(shard)
        path.settle()
        assert path.served() == wanted
        check(path)


@settings(seeded, max_examples=15)
@given(worlds)
def test_an_index_that_was_emptied_is_the_same_again(valkey: Valkey, world: list[Record]) -> None:
    with closing(Path(valkey)) as path:
        for record in world:
            path.take(record)
        wanted = path.served()
        for order in (range(P), reversed(range(P))):
            path.rebuild(order)
            assert path.served() == wanted


@settings(seeded, max_examples=25)
@given(worlds)
def test_errors_of_a_ride_are_those_that_its_user_met(valkey: Valkey, world: list[Record]) -> None:
    with closing(Path(valkey)) as path:
        path.take(*world)
        for ride_id in RIDES:
            found, wanted = path.ride(ride_id), errors_of(ride_id, world)
            assert (found is None) == (wanted is None)
            if found is not None:
                assert [item["id"] for item in found["errors"]["items"]] == wanted


def errors_of(ride_id: str, world: Sequence[Record]) -> list[str] | None:
    """By the contract, record by record; None for a ride that does not exist."""
    versions = [(json.loads(r.body), r) for r in world if r.kind is Kind.RIDE and r.name == ride_id]
    if not versions:
        return None
    counts, _ = max(versions, key=lambda v: (v[0]["updated_at"], v[1].received_at, v[1].id))
    if counts.get("deleted"):
        return None
    met: dict[str, Record] = {}
    for record in sorted(world, key=lambda r: (r.received_at, r.event_time, r.kind, r.name)):
        if is_error(record) and counts["user_id"] is not None and owner(record, world) == counts["user_id"]:
            met.setdefault(record.id, record)
    began, ended = millis(counts["requested_at"]), millis(counts["ended_at"])
    within = [
        (record.event_time, record.id)
        for record in met.values()
        if began <= record.event_time <= (record.received_at if counts["ended_at"] is None else ended)
    ]
    return [record_id for _, record_id in sorted(within)]


def is_error(record: Record) -> bool:
    if record.kind is Kind.SERVER_ACCESS:
        return int(json.loads(record.body)["status"]) >= 500
    return record.kind in (Kind.APP_ERROR, Kind.SERVER_ERROR)


def owner(record: Record, world: Sequence[Record]) -> str | None:
    """Whose an error is: its user's, else of the first link of its phone at or after it, else of the last before."""
    if record.user_id is not None:
        return record.user_id
    links = sorted(
        (r.event_time, r.received_at, r.user_id)
        for r in world
        if r.links == record.anonymous_id and r.kind is not Kind.UNLINK and r.user_id is not None
        if not any(
            u.kind is Kind.UNLINK and (u.links, u.user_id) == (r.links, r.user_id) and u.received_at >= r.received_at
            for u in world
        )
    )
    following = [who for at, _, who in links if at >= record.event_time]
    return following[0] if following else links[-1][2] if links else None


def millis(text: str | None) -> int:
    return 0 if text is None else round(datetime.fromisoformat(text).timestamp() * 1000)


# -- by hand --------------------------------------------------------------------------------------------------------


def test_a_partition_of_nothing(valkey: Valkey, tmp_path: Folder) -> None:
    with closing(Path(valkey)) as path:
        found = recomputed(path.lake(tmp_path))
    assert [(each.rides, each.messages, each.changed) for each in found] == [(0, 0, b"")] * P
    assert len({each.standing for each in found} | {each.computed for each in found}) == 1


def test_what_was_never_computed_is_found_and_made(valkey: Valkey, tmp_path: Folder) -> None:
    with closing(Path(valkey)) as path:
        path.put(ride(), driver(), destination("r1", NOW + 90_000, 57.1), user(), message())
        path.put(identified("ada", "p1"), said(None, "e1", NOW + 1, phone="p1", kind=Kind.APP_ERROR, name="Boom"))
        found = recomputed(path.lake(tmp_path / "lake"))
        [differs] = [each for each in found if each.standing != each.computed]
        rows = decode(differs.changed).to_pylist()
        assert [(row["kind"], row["name"], row["key"]) for row in rows] == [
            ("ride_document", "r1", "u:ada"),
            ("message_document", "m1", "u:ada"),
        ]
        document = json.loads(rows[0]["body"])
        assert (document["version"], document["errors"]["app"], document["driver"]["name"]) == (1, 1, "Dan")
        assert document["destination"]["lat"] == 57.1
        path.append(differs.changed)
        assert path.ride() == document
        path.settle()
        assert path.ride() == document
        check(path)


@pytest.mark.parametrize("damage", ["other", "gone"])
def test_a_document_that_is_wrong_is_noticed(valkey: Valkey, tmp_path: Folder, damage: str) -> None:
    with closing(Path(valkey)) as path:
        path.take(ride(), message(body="My ride r1 ended early"))
        check(path)
        path.damage("r1", gone=damage == "gone")
        found = recomputed(path.lake(tmp_path))
        [differs] = [each for each in found if each.standing != each.computed]
        [row] = decode(differs.changed).to_pylist()
        assert (row["kind"], row["name"]) == ("ride_document", "r1")


def test_a_digest_is_of_what_is_said_whatever_its_version(valkey: Valkey, tmp_path: Folder) -> None:
    digests = []
    for number, steps in enumerate(([ride()], [ride(rating=1, updated_at=NOW), ride()])):
        with closing(Path(valkey)) as path:
            for step in steps:
                path.take(step)
            digests.append([each.standing for each in recomputed(path.lake(tmp_path / str(number)))])
    assert digests[0] == digests[1]
