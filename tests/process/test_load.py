"""Reading from a real index what documents are computed from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from rebu_ray.process.dirty import Touched
from rebu_ray.process.load import FACT_ROWS, IndexBehind, Loaded, load, subjects_of
from rebu_ray.process.tables import ERRORS
from rebu_ray.records import Kind, Source
from rebu_ray.store.index import position_key, position_value
from tests.conftest import Valkey
from tests.process.path import KEYS, P, Path, deleted, destination, driver, message, ride, user
from tests.records import NOW, identified, said, unlinked


@pytest.fixture
def path(valkey: Valkey) -> Iterator[Path]:
    with closing(Path(valkey)) as made:
        yield made


def read(path: Path, *subjects: str) -> Loaded:
    return load(path.index.redis, KEYS, subjects)


def facts(loaded: Loaded) -> list[tuple[str, str]]:
    rows = loaded.facts.to_pylist()
    return sorted((row["kind"], row["name"]) for row in rows)


def find(path: Path, touched: Touched) -> set[str]:
    return subjects_of(path.index.redis, KEYS, touched)


def test_nobody_and_somebody_unknown_have_nothing(path: Path) -> None:
    for subjects in ((), ("u:ada", "o:r1", "m:m1")):
        found = read(path, *subjects)
        assert [(s.key, s.rides, s.messages, s.known_at) for s in found.subjects] == [(k, (), (), 0) for k in subjects]
        assert (found.facts.schema, found.errors.schema) == (FACT_ROWS, ERRORS)
        assert (found.facts.num_rows, found.errors.num_rows) == (0, 0)


def test_everything_about_a_subject_is_read_and_nothing_of_others(path: Path) -> None:
    path.put(user(), ride(), ride(rating=1, updated_at=NOW), destination("r1", NOW, 57.0), driver(), message())
    path.put(user("bob"), ride("r2", "bob", driver_id="dora"), driver("dora"), message("m2", "bob"), ride("r3", None))
    found = read(path, "u:ada")
    assert facts(found) == [
        ("driver", "dan"),
        ("message", "m1"),
        ("ride", "r1"),
        ("ride", "r1"),
        ("ride_destination", "r1"),
        ("user", "ada"),
    ]
    [subject] = found.subjects
    assert (subject.rides, subject.messages, subject.listed) == (("r1",), ("m1",), frozenset())
    both = read(path, "u:ada", "u:bob", "o:r3")
    assert [(each.key, each.rides) for each in both.subjects] == [
        ("u:ada", ("r1",)),
        ("u:bob", ("r2",)),
        ("o:r3", ("r3",)),
    ]
    assert len(facts(both)) == 6 + 4 + 1
    assert json.loads(both.facts["body"][0].as_py())


def test_documents_that_stand_are_read_with_where_they_are_listed(path: Path) -> None:
    path.take(ride(), message())
    found = read(path, "u:ada")
    assert found.subjects[0].listed == {"o:r1", "m:m1"}
    assert json.loads(found.ride_documents["r1"]) == path.ride()
    assert json.loads(found.message_documents["m1"]) == path.message()


def test_errors_are_those_of_the_user_and_of_phones_while_they_were_theirs(path: Path) -> None:
    def boom(record_id: str, at: int, who: str | None = None) -> None:
        path.put(said(who, record_id, at, phone=None if who else "p1", kind=Kind.APP_ERROR, name="Boom"))

    path.put(ride(), ride("r2", "bob"), identified("ada", "p1", NOW), identified("bob", "p1", NOW + 10))
    boom("own", NOW - 9, "ada")
    for record_id, at in (("first", NOW - 1), ("edge", NOW), ("next", NOW + 1), ("last", NOW + 99)):
        boom(record_id, at)
    found = read(path, "u:ada", "u:bob").errors.to_pylist()
    assert sorted((row["user_id"], row["id"]) for row in found) == [
        ("ada", "edge"),
        ("ada", "first"),
        ("ada", "own"),
        ("bob", "last"),
        ("bob", "next"),
    ]
    path.put(unlinked("bob", "p1", NOW))
    assert {row["user_id"] for row in read(path, "u:ada", "u:bob").errors.to_pylist()} == {"ada"}


def test_what_is_known_is_as_new_as_the_newest_of_it(path: Path) -> None:
    def known_at() -> int:
        return read(path, "u:ada").subjects[0].known_at

    path.put(ride(received_at=NOW + 1))
    assert known_at() == NOW + 1
    path.put(driver(received_at=NOW + 2))
    assert known_at() == NOW + 2
    path.put(destination("r1", NOW, 57.0, received_at=NOW + 3))
    assert known_at() == NOW + 3
    path.put(said("ada", kind=Kind.APP_ERROR, received_at=NOW + 4))
    assert known_at() == NOW + 4
    path.put(identified("ada", "p1", received_at=NOW + 5))
    assert known_at() == NOW + 5
    path.put(unlinked("ada", "p1", NOW + 6))
    assert known_at() == NOW + 6
    path.put(message(received_at=NOW + 7), user(received_at=NOW + 6))
    assert known_at() == NOW + 7


def test_whom_phones_rides_messages_and_drivers_lead_to(path: Path) -> None:
    path.put(ride(), ride("r1", "bob", updated_at=NOW), ride("r2", None, driver_id="dora"), message(user_id=None))
    path.put(identified("ada", "p1"), identified("cyd", "p1"), unlinked("cyd", "p1", NOW), destination("r9", NOW, 57.0))
    assert find(path, Touched(subjects={"u:x"})) == {"u:x"}
    assert find(path, Touched(rides={"r1"})) == {"u:ada", "u:bob"}
    assert find(path, Touched(rides={"r2", "r9", "unknown"})) == {"o:r2"}
    assert find(path, Touched(messages={"m1", "unknown"})) == {"m:m1"}
    assert find(path, Touched(drivers={"dan", "unknown"})) == {"u:ada", "u:bob"}
    assert find(path, Touched(drivers={"dora"})) == {"o:r2"}
    assert find(path, Touched(phones={"p1"})) == {"u:ada", "u:cyd"}
    path.put(deleted(Source.RIDES, "r1"), message(updated_at=NOW))
    everything = Touched({"u:x"}, {"p1"}, {"r1"}, {"m1"}, {"dora"})
    assert find(path, everything) == {"u:x", "u:ada", "u:cyd", "u:bob", "o:r1", "m:m1", "o:r2"}


@pytest.mark.parametrize("partition", range(P))
@pytest.mark.parametrize("value", [None, position_value(7, behind=True), b"999:7"], ids=["lost", "behind", "other"])
def test_an_index_that_is_not_whole_is_not_read(path: Path, partition: int, value: bytes | None) -> None:
    path.take(ride())
    if value is None:
        path.index.redis.delete(position_key(partition))
    else:
        path.index.redis.set(position_key(partition), value)
    with pytest.raises(IndexBehind):
        read(path, "u:ada")
    with pytest.raises(IndexBehind):
        find(path, Touched(rides={"r1"}))
    assert find(path, Touched(subjects={"u:ada"})) == {"u:ada"}


def test_an_index_that_is_emptied_meanwhile_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.take(ride())
    whole = path.index.redis.pipeline
    opened = []

    def pipeline(**options: bool) -> object:
        opened.append(options)
        if len(opened) == 3:
            path.index.redis.flushall()
            path.index.set_positions(dict.fromkeys(range(P), 0))
        return whole(**options)

    monkeypatch.setattr(path.index.redis, "pipeline", pipeline)
    with pytest.raises(IndexBehind):
        read(path, "u:ada")


def test_the_same_error_under_two_streams_is_read_twice(path: Path) -> None:
    path.put(ride(), identified("ada", "p1"))
    path.put(said("ada", "e1", NOW, kind=Kind.APP_ERROR), said(None, "e1", NOW - 1, phone="p1", kind=Kind.APP_ERROR))
    assert read(path, "u:ada").errors["id"].to_pylist() == ["e1", "e1"]
