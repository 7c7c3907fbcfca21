"""Tombstones: what they recognise, what they do not say, and that they are found again."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.tombstones import (
    Gone,
    Hashing,
    Linked,
    Names,
    TombstoneError,
    Tombstones,
    TombstoneStore,
    named_in,
    none,
    secret_of,
)
from tests.records import NOW, journalled, routed, said, unlinked
from tests.store.disk import PARTITIONS, batch

HASHING = Hashing(b"a secret")
NAMES = Names(
    "ada", {"o:r1", "m:m1", "r:q1"}, {"p": (Gone(NOW - 100, NOW + 1, NOW),), "open": (Gone(None, None, NOW),)}
)


def stones(names: Names = NAMES) -> Tombstones:
    return Tombstones(HASHING, [HASHING.tombstone(names, NOW + 1000, "admin", {"events": 3})])


def dead(*records: Record, linked: Linked | None = None) -> list[bool]:
    found: list[bool] = stones().dead(batch(*records), linked).tolist()
    return found


def of_table(kind: Kind, source: Source, name: str, user: str | None) -> Record:
    return said(user, f"{name}@1", kind=kind, source=source, name=name)


def test_what_is_theirs_is_recognised_and_nothing_else_is() -> None:
    assert dead(said("ada"), said("bob"), said("adalbert"), said("ada", kind=Kind.APP_ERROR)) == [1, 0, 0, 1]
    assert dead(said(phone="p", at=NOW), said(phone="p", at=NOW + 1), said(phone="p", at=NOW - 101)) == [1, 0, 0]
    assert dead(said(request="q1"), said(request="q2")) == [1, 0]
    rides = [
        of_table(Kind.RIDE_DESTINATION, Source.RIDE_DESTINATIONS, "r1", None),
        of_table(Kind.RIDE, Source.RIDES, "r1", "bob"),
        of_table(Kind.RIDE, Source.RIDES, "r2", "bob"),
        of_table(Kind.MESSAGE, Source.MESSAGES, "m1", None),
        of_table(Kind.DRIVER, Source.DRIVERS, "r1", None),
    ]
    assert dead(*rides) == [1, 1, 0, 1, 0]
    assert dead(unlinked("ada", "p", NOW), unlinked("bob", "p", NOW)) == [1, 0]


def test_the_binding_of_a_request_to_an_erased_user_goes() -> None:
    rows = batch(said("ada", kind=Kind.SERVER_ACCESS, request="new"), said("bob", kind=Kind.SERVER_ACCESS, request="x"))
    kept = stones().keep(rows)
    assert set(kept["user_id"].to_pylist()) == {"bob"}
    assert kept.num_rows == 2


def test_a_phone_that_was_theirs_last_stays_theirs_until_somebody_else_has_it() -> None:
    late = said(phone="open", at=NOW + 500, received_at=NOW + 9000)
    before = said(phone="open", at=NOW - 5, received_at=NOW + 9000)
    asked: list[tuple[str, int]] = []

    def linked(phone: str, last: int) -> bool:
        asked.append((phone, last))
        return True

    assert dead(late, before, linked=lambda *_: False) == [1, 1]
    assert dead(late, before, linked=linked) == [0, 1]
    assert asked == [("open", NOW)]
    assert dead(late, before) == [0, 1]  # it was asked about when it came in
    assert dead(said(phone="open", at=NOW + 500, received_at=NOW)) == [1]


@pytest.mark.parametrize(
    ("body", "gone"),
    [
        (b'{"userId":"ada"}', True),
        (b'{"batch":[{"context":{"user_id":"ada"}}]}', True),
        (b'{"previousId":"ada","userId":"bob"}', True),
        (b'{"user_id":"bob","ride_id":"r1"}', True),
        (b'{"user_id":"bob","ride_id":"r2","note":"ada"}', False),
        (b'{"anonymousId":"p"}', True),
        (b'{"message_id":"m1"}', True),
        (b'"{\\"userId\\": \\"ada\\", broken"', True),
        (b'"GET /users/ada/rides HTTP/1.1"', True),
        (b'"GET /users/adam HTTP/1.1"', False),
        (b"17", False),
        (b"null", False),
        (b'{"userId":7}', False),
    ],
)
def test_dead_letters_go_where_their_fields_name_the_person(body: bytes, gone: bool) -> None:
    letter = said(None, kind=Kind.DEAD_LETTER, source=Source.APP_EVENTS, name="invalid_time: no", body=body)
    assert dead(letter) == [gone]


def test_ids_that_are_numbers_are_named_as_text() -> None:
    assert named_in(b'{"userId":7,"ride_id":true}') == {"u:7"}


def test_a_tombstone_says_nobodys_name() -> None:
    stone = HASHING.tombstone(NAMES, NOW, "admin", {})
    assert not any(name in repr(stone) for name in ("ada", "'p'", "r1", "m1", "q1"))
    other = Hashing(b"another").tombstone(NAMES, NOW, "admin", {})
    assert other.person != stone.person
    assert not set(other.streams) & set(stone.streams)


def test_digests_tell_what_is_erased_and_nothing_more() -> None:
    assert none().digest == ""
    grown = stones(Names("ada", {*NAMES.streams, "o:r9"}, NAMES.phones))
    assert len({stones().digest, grown.digest, stones(Names("bob")).digest}) == 3
    assert stones().digest == stones().digest


def test_they_travel() -> None:
    sent: Tombstones = pickle.loads(pickle.dumps(stones()))
    assert sent.digest == stones().digest
    assert sent.dead(journalled(routed([said("ada"), said("bob")], PARTITIONS))).tolist() == [True, False]


@pytest.mark.parametrize("lost", ["cursors", "lake"])
def test_either_place_is_enough_and_the_other_is_mended(tmp_path: Path, lost: str) -> None:
    store = TombstoneStore(str(tmp_path / "cursors"), str(tmp_path / "lake"), b"a secret")
    assert not store.load()
    [stone] = stones().stones.values()
    store.save(stone)
    shutil.rmtree(tmp_path / lost)
    assert store.load().digest == stones().digest
    other = {"cursors": "lake", "lake": "cursors"}[lost]
    shutil.rmtree(tmp_path / other)
    assert list(store.load().stones.values()) == [stone]


def test_the_fuller_tombstone_of_a_person_counts(tmp_path: Path) -> None:
    cursors, lake = str(tmp_path / "cursors"), str(tmp_path / "lake")
    thin = HASHING.tombstone(Names("ada"), NOW, "admin", {})
    [full] = stones().stones.values()
    TombstoneStore(cursors, str(tmp_path / "x"), b"a secret").save(full)
    TombstoneStore(str(tmp_path / "y"), lake, b"a secret").save(thin)
    assert list(TombstoneStore(cursors, lake, b"a secret").load().stones.values()) == [full]


def test_another_secret_is_noticed(tmp_path: Path) -> None:
    [stone] = stones().stones.values()
    TombstoneStore(str(tmp_path / "c"), str(tmp_path / "l"), b"a secret").save(stone)
    with pytest.raises(TombstoneError, match=r"erasure\.key"):
        TombstoneStore(str(tmp_path / "c"), str(tmp_path / "l"), b"another").load()


def test_the_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    first = secret_of(str(tmp_path / "data"))
    assert len(first) == 64
    assert secret_of(str(tmp_path / "data")) == first
    assert (tmp_path / "data" / "erasure.key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["erasure.key"]
