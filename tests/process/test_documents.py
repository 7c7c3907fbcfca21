"""Ride documents: against the oracle, in any order, and as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.process.documents import documents
from rebu_ray.process.ride_stats import statistics
from rebu_ray.process.tables import LINKS, RIDE_DOCUMENTS, from_rows
from tests.process import oracle
from tests.process.worlds import Row, destination, documents_of, driver, error, people, ride, table, text, user, worlds
from tests.records import AWKWARD, NOW, seeded

KEYS = (
    "ride_id status city user driver requested_at accepted_at picked_up_at ended_at fare_cents currency distance_m "
    "rating pickup destination dropoff wait_s duration_s requested_distance_m destination_gap_m destination_matched "
    "progress errors premature cause quality flags messages"
)


def read(made: pa.Table) -> list[Any]:
    return [json.loads(text) for text in made["document"].to_pylist()]


def texts(rows: Sequence[Row]) -> dict[str, bytes]:
    made = documents_of(table(rows))
    return dict(zip(made["ride_id"].to_pylist(), made["document"].to_pylist(), strict=True))


@settings(seeded, max_examples=250)
@given(worlds)
def test_documents_are_those_of_the_oracle(rows: list[Row]) -> None:
    made = read(documents_of(table(rows)))
    expected = oracle.documents(rows)
    for found in made:
        for item in found["errors"]["items"]:
            item["timestamp"] = oracle.ms(item["timestamp"])
        del found["quality"], found["flags"], found["messages"]
    assert [found["ride_id"] for found in made] == [wanted["ride_id"] for wanted in expected]
    for found, wanted in zip(made, expected, strict=True):
        for name, tolerance in (("requested_distance_m", 0.051), ("destination_gap_m", 0.051), ("progress", 1e-6)):
            assert found.pop(name) == (pytest.approx(wanted[name], abs=tolerance) if wanted[name] is not None else None)
            del wanted[name]
        assert found == wanted


@settings(seeded, max_examples=150)
@given(worlds, st.randoms(use_true_random=False))
def test_any_order_and_any_batches_give_the_same_bytes(rows: list[Row], rng: Random) -> None:
    expected = documents_of(table(rows))
    shuffled = [*rows, *rng.sample(rows, len(rows) // 3)]
    rng.shuffle(shuffled)
    cut = rng.randrange(len(shuffled) + 1)
    batches = pa.concat_tables([table(shuffled[:cut]), table(shuffled[cut:])])
    assert documents_of(batches).equals(expected)


@settings(seeded, max_examples=100)
@given(worlds)
def test_a_ride_has_the_same_bytes_alone_and_among_others(rows: list[Row]) -> None:
    for ride_id, document in texts(rows).items():
        alone = [row for row in rows if row.name == ride_id or row.kind not in ("ride", "ride_destination")]
        assert texts(alone) == {ride_id: document}


@settings(seeded, max_examples=100)
@given(worlds, st.integers(0, 12))
def test_without_what_came_later_a_document_is_what_was_known_then(rows: list[Row], step: int) -> None:
    then = NOW + step * 500
    known = table(rows)
    early = known.filter(pa.array([at <= then for at in known["received_at"].to_pylist()], pa.bool_()))
    assert documents_of(early).equals(documents_of(table([row for row in rows if row.received_at <= then])))


def test_what_was_known_at_an_instant() -> None:
    rows = [
        *people,
        ride(status="in_progress", ended_at=None, dropoff_lat=None, updated_at=NOW + 60_000, received_at=NOW + 60_000),
        ride(received_at=NOW + 700_000),
        error("late", NOW + 100_000, received_at=NOW + 9_000_000),
    ]

    def as_of(at: int) -> Any:
        return read(documents_of(table([row for row in rows if row.received_at <= at])))[0]

    assert [as_of(at)["status"] for at in (NOW + 60_000, NOW + 700_000)] == ["in_progress", "completed"]
    assert [as_of(at)["errors"]["app"] for at in (NOW + 700_000, NOW + 9_000_000)] == [0, 1]


def test_no_rides_make_no_documents() -> None:
    for rows in ([], [error(), user(), driver(), destination("r1", NOW, 56.0, 24.0)]):
        made = documents_of(table(rows))
        assert made.num_rows == 0
        assert made.schema == RIDE_DOCUMENTS


def test_the_text_of_a_document() -> None:
    rows = [*people, ride(requested_at=NOW + 1), error("e1", NOW + 1), error("e2", NOW + 661_001)]
    [document] = documents_of(table(rows))["document"].to_pylist()
    assert document.decode() == (
        '{"ride_id":"r1","status":"completed","city":"Riga","user":{"user_id":"ada","name":"Ada"},'
        '"driver":{"driver_id":"dan","name":"Dan"},"requested_at":"2026-03-02T08:00:00.001Z",'
        '"accepted_at":"2026-03-02T08:00:10.000Z","picked_up_at":"2026-03-02T08:01:00.000Z",'
        '"ended_at":"2026-03-02T08:11:00.000Z","fare_cents":1250,"currency":"EUR","distance_m":7000,"rating":5,'
        '"pickup":{"lat":56.95,"lon":24.1},"destination":{"lat":57,"lon":24.1},"dropoff":{"lat":57,"lon":24.1},'
        '"wait_s":59.999,"duration_s":600,"requested_distance_m":5559.8,"destination_gap_m":0,'
        '"destination_matched":true,"progress":1,"errors":{"app":1,"server":0,"items":[{"id":"e1","kind":"app_error",'
        '"name":"Boom","timestamp":"2026-03-02T08:00:00.001Z"}]},"premature":false,"cause":null,"quality":1,'
        '"flags":[],"messages":{"linked":0,"ambiguous":0}}'
    )


@settings(seeded, max_examples=100)
@given(worlds)
def test_the_keys_of_a_document_have_one_order(rows: list[Row]) -> None:
    for document in documents_of(table(rows))["document"].to_pylist():
        assert list(json.loads(document)) == KEYS.split()


@pytest.mark.parametrize("awkward", AWKWARD)
def test_awkward_texts_survive(awkward: str) -> None:
    rows = [user(awkward, awkward), ride(awkward, user_id=awkward, city=awkward, status=awkward, currency=awkward)]
    [document] = read(documents_of(table([*rows, error(awkward, user_id=awkward, name=awkward)])))
    assert document["user"] == {"user_id": awkward, "name": awkward}
    assert [document[name] for name in ("ride_id", "city", "status", "currency")] == [awkward] * 4
    [item] = document["errors"]["items"]
    assert (item["id"], item["name"]) == (awkward, awkward)


@seeded
@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(0, 2**53))
def test_numbers_come_back_as_they_went_in(lat: float, lon: float, fare: int) -> None:
    [document] = read(documents_of(table([ride(pickup_lat=lat, pickup_lon=lon, fare_cents=fare)])))
    assert document["pickup"] == ({"lat": lat, "lon": lon} if lat or lon else None)
    assert document["fare_cents"] == fare


def test_the_last_instant_of_all_can_be_written() -> None:
    last = 253_402_300_799_999
    [document] = read(documents_of(table([ride(requested_at=0, ended_at=last)])))
    assert (document["requested_at"], document["ended_at"]) == (text(0), "9999-12-31T23:59:59.999Z")


def link(message_id: str, status: str, ride_id: str | None = None, candidates: Sequence[str] = ()) -> dict[str, Any]:
    about = [{"ride_id": candidate, "confidence": 0.5, "reasons": []} for candidate in candidates]
    found = {"message_id": message_id, "status": status, "ride_id": ride_id, "confidence": 0.9}
    return dict.fromkeys(LINKS.names) | found | {"candidates": about, "reasons": []}


def test_messages_are_counted() -> None:
    links = [
        link("m1", "linked", "r1", ["r1", "r2"]),
        link("m2", "linked", "r1", ["r1"]),
        link("m3", "ambiguous", None, ["r2", "r1"]),
        link("m4", "ambiguous", None, ["r2", "r2", "elsewhere"]),
        link("m5", "none", None, ["r1"]),
        link("m6", "linked", "elsewhere", ["elsewhere"]),
    ]
    stats = statistics(from_rows(table([ride("r1"), ride("r2"), ride("r3")])))
    made = documents(stats, pa.Table.from_pylist(links, schema=LINKS))
    assert list(zip(*(made[name].to_pylist() for name in ("messages_linked", "messages_ambiguous")), strict=True)) == [
        (2, 1),
        (0, 2),
        (0, 0),
    ]
    assert [document["messages"] for document in read(made)] == [
        {"linked": 2, "ambiguous": 1},
        {"linked": 0, "ambiguous": 2},
        {"linked": 0, "ambiguous": 0},
    ]
    assert documents(stats, LINKS.empty_table()).equals(documents(stats))
