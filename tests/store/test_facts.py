"""Facts about rides and messages in Redis: written and read back, the same in any order, each where it belongs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.dialects import parse_logs, tables
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.facts import (
    ERROR_KINDS,
    ErrorEntry,
    Fact,
    Keys,
    commands,
    counts_as_error,
    error_member,
    message_head,
    pack_fact,
    parse_error,
    parse_fact,
    ride_head,
    taken_in,
)
from rebu_ray.store.index import Index
from rebu_ray.store.member import Codec, place
from rebu_ray.store.rows import Routed, partition_of, to_batch, with_seq
from tests.conftest import Valkey
from tests.records import NOW, ids, journalled, routed, said, seeded, texts
from tests.store.contents import dump

P = 4
KEYS = Keys(P)
times = st.integers(0, 2**53)


@pytest.fixture(scope="module")
def index(valkey: Valkey) -> Iterator[Index]:
    made = Index(valkey.url)
    yield made
    made.close()


def row(source: Source, received_at: int = NOW, **values: Any) -> Record:
    found = tables.row(source, values, received_at)
    assert isinstance(found, Record)
    return found


def document(kind: Kind, name: str, key: str, seq: int, **body: Any) -> pa.RecordBatch:
    """A computed record as the journal has it."""
    user = key[2:] if key.startswith("u:") else None
    text = json.dumps(body, separators=(",", ":")).encode()
    record = Record(kind, f"{name}@{seq}", name, Source.COMPUTED, NOW, NOW, text, user)
    return with_seq(to_batch([Routed(partition_of(key, P), key, record)]), pa.array([seq], pa.int64()))


@settings(seeded)
@given(st.sampled_from([*Kind]), times, times, st.binary(min_size=1, max_size=40))
def test_a_fact_is_read_as_written(kind: Kind, received_at: int, event_time: int, body: bytes) -> None:
    codec = Codec()
    packed = pack_fact(kind, received_at, event_time, codec.compress([body])[0])
    assert parse_fact(packed, codec) == Fact(kind, received_at, event_time, body)


errors = st.builds(ErrorEntry, times, ids, st.sampled_from(ERROR_KINDS), times, texts)


@settings(seeded)
@given(errors)
def test_an_error_is_read_as_written(entry: ErrorEntry) -> None:
    assert parse_error(error_member(entry)) == entry


@settings(seeded)
@given(st.lists(errors, max_size=6))
def test_errors_stand_in_the_order_of_time_and_id(entries: list[ErrorEntry]) -> None:
    members = sorted(error_member(entry) for entry in entries)
    at = [place(entry.event_time, entry.id) for entry in map(parse_error, members)]
    assert at == sorted(at)


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        ("500", True),
        ("599", True),
        ("503.0", True),
        ("5e2", True),
        ('"502"', True),
        ("499", False),
        ("200", False),
        ("-500", False),
        ('"5xx"', False),
        ('"-"', False),
        ("null", False),
        ("true", False),
        ("[500]", False),
        ("1e999", False),
        ("9" * 400, False),
    ],
)
def test_an_access_entry_is_an_error_from_500_on(status: str, counts: bool) -> None:
    body = b'{"method":"GET","status": %b ,"path":"/"}' % status.encode()
    assert counts_as_error(Kind.SERVER_ACCESS, body) is counts
    assert counts_as_error(Kind.APP_ERROR, body)
    assert counts_as_error(Kind.SERVER_ERROR, b"{}")
    assert not counts_as_error(Kind.APP_EVENT, body)
    assert not counts_as_error(Kind.SERVER_ACCESS, b"{}")


STATUSES = (b"500", b'"500"', b"503.0", b"1e999", b"1" * 5000, b"null", b'"\\u0035"', b"[1]", b"{}", b"-0")


@pytest.mark.parametrize("status", STATUSES, ids=range(len(STATUSES)))
def test_whatever_the_access_log_takes_can_be_indexed(status: bytes) -> None:
    line = b'{"method":"GET","path":"/rides","user_id":"ada","id":"1","status":%b}' % status
    taken = [
        found for found in parse_logs(Source.ACCESS, "application/x-ndjson", line, NOW) if isinstance(found, Record)
    ]
    commands(journalled(routed(taken, P)), P, Codec())


def everything() -> pa.RecordBatch:
    """One of each."""
    records = [
        row(Source.USERS, user_id="ada", name="Ada", updated_at=NOW),
        row(Source.DRIVERS, driver_id="dan", name="Dan", updated_at=NOW),
        row(Source.RIDES, ride_id="r1", user_id="ada", driver_id="dan", requested_at=NOW, updated_at=NOW),
        row(Source.RIDES, ride_id="r2", driver_id="dan", requested_at=NOW, updated_at=NOW),
        row(Source.RIDE_DESTINATIONS, ride_id="r1", changed_at=NOW, destination_lat=1.0, destination_lon=2.0),
        row(Source.MESSAGES, message_id="m1", user_id="ada", sent_at=NOW, body="x", updated_at=NOW),
        row(Source.MESSAGES, message_id="m2", sent_at=NOW, body="x", updated_at=NOW),
        said("ada", "e1", NOW + 1, kind=Kind.APP_ERROR, name="Boom", received_at=NOW + 2),
        said(None, "e2", NOW + 3, phone="p1", kind=Kind.APP_ERROR, name="Boom"),
        said("ada", "a1", NOW, kind=Kind.SERVER_ACCESS, name="GET /", body=b'{"status":500}'),
        said("ada", "a2", NOW, kind=Kind.SERVER_ACCESS, name="GET /", body=b'{"status":200}'),
        said(None, "s1", NOW, request="q1", kind=Kind.SERVER_ERROR, name="error"),
        said("ada", "tap"),
    ]
    return journalled(routed(records, P))


def test_each_row_is_kept_where_it_is_asked_for(valkey: Valkey, index: Index) -> None:
    valkey.flush()
    index.send(commands(everything(), P, Codec()))
    found = dump(index.redis)
    assert set(found) == {
        *(KEYS.user("ada"), KEYS.driver("dan"), KEYS.ride("r1"), KEYS.ride("r2"), KEYS.message("m1")),
        *(KEYS.message("m2"), KEYS.things("u:ada"), KEYS.things("o:r2"), KEYS.things("m:m2"), KEYS.riders("dan")),
        *(KEYS.errors("u:ada"), KEYS.errors("a:p1")),
    }
    assert found[KEYS.things("u:ada")] == {b"o:r1", b"m:m1"}
    assert found[KEYS.things("o:r2")] == {b"o:r2"}
    assert found[KEYS.riders("dan")] == {b"u:ada", b"o:r2"}
    kinds = [parse_fact(data, Codec()).kind for data in index.redis.hgetall(KEYS.ride("r1")).values()]
    assert sorted(kinds) == [Kind.RIDE, Kind.RIDE_DESTINATION]
    entries = [parse_error(member) for member in index.redis.zrange(KEYS.errors("u:ada"), 0, -1)]
    assert [(entry.id, entry.event_time, entry.received_at) for entry in entries] == [
        ("a1", NOW, NOW),
        ("e1", NOW + 1, NOW + 2),
    ]
    for key in found:
        partition = int(key.split(b"{")[1].split(b"}")[0])
        assert partition in range(P)


@settings(seeded, max_examples=25)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 13), max_size=4))
def test_any_order_and_split_of_the_same_rows_makes_the_same_facts(
    valkey: Valkey, index: Index, random: Any, cuts: list[int]
) -> None:
    rows = everything()
    valkey.flush()
    index.send(commands(rows, P, Codec()))
    once = dump(index.redis)
    index.send(commands(rows, P, Codec()))
    assert dump(index.redis) == once
    order = list(range(rows.num_rows))
    random.shuffle(order)
    shuffled = rows.take(pa.array(order, pa.int64()))
    valkey.flush()
    for low, high in pairwise(sorted({0, *cuts, rows.num_rows})):
        index.send(commands(shuffled.slice(low, high - low), P, Codec()))
    assert dump(index.redis) == once


def test_a_row_that_comes_again_long_after_is_what_it_was(valkey: Valkey, index: Index) -> None:
    """As in the lake, where the first of two rows with one id counts."""
    valkey.flush()
    for received_at in (NOW, NOW + 10**9):
        again = row(Source.RIDES, received_at, ride_id="r1", requested_at=NOW, updated_at=NOW)
        index.send(commands(journalled(routed([again], P)), P, Codec()))
    [data] = index.redis.hgetall(KEYS.ride("r1")).values()
    assert parse_fact(data, Codec()).received_at == NOW


def test_documents_are_shown_listed_and_withdrawn(valkey: Valkey, index: Index) -> None:
    valkey.flush()
    partition = partition_of("u:ada", P)

    def send(batch: pa.RecordBatch) -> None:
        for _ in range(2):
            index.send(commands(batch, P, Codec()))

    send(document(Kind.RIDE_DOCUMENT, "r1", "u:ada", 1, ride_id="r1", city="é"))
    about = {"r1": {"message_id": "m1"}, "r2": {"message_id": "m1"}}
    send(document(Kind.MESSAGE_DOCUMENT, "m1", "u:ada", 2, message_id="m1", about=about, document={"a": 1}))
    codec = Codec()
    assert json.loads(codec.decompress(index.redis.get(KEYS.ride_document("r1")))) == {"ride_id": "r1", "city": "é"}
    assert codec.decompress(index.redis.get(KEYS.message_document("m1"))) == b'{"a":1}'
    assert codec.decompress(index.redis.hget(KEYS.about("r2"), "m1")) == b'{"message_id":"m1"}'
    assert index.redis.zrange(KEYS.rides("u:ada"), 0, -1, withscores=True) == [(b"r1", float(NOW))]
    assert index.redis.zrange(KEYS.messages("u:ada"), 0, -1) == [b"m1"]
    assert index.redis.zrange(KEYS.unflushed(partition), 0, -1, withscores=True) == [(b"r1", 1.0)]
    one = {"r1": {"message_id": "m1"}}
    send(document(Kind.MESSAGE_DOCUMENT, "m1", "u:ada", 3, message_id="m1", about=one, no_longer=["r2"], document={}))
    assert not index.redis.exists(KEYS.about("r2"))
    before = dump(index.redis)
    send(document(Kind.MOVED, "o:r1", "u:ada", 4))
    send(document(Kind.MOVED, "m:m1", "u:ada", 5, no_longer=["r1"]))
    gone = {KEYS.rides("u:ada"), KEYS.messages("u:ada"), KEYS.about("r1")}
    assert dump(index.redis) == {key: value for key, value in before.items() if key not in gone}
    send(document(Kind.RIDE_DOCUMENT, "r1", "u:ada", 6, ride_id="r1", deleted=True))
    send(document(Kind.MESSAGE_DOCUMENT, "m1", "u:ada", 7, message_id="m1", deleted=True))
    assert dump(index.redis) == {KEYS.unflushed(partition): [(b"r1", 6.0)]}


def test_heads_tell_what_is_gone() -> None:
    assert not ride_head(b'{"ride_id":"r1","city":"deleted"}').deleted
    assert ride_head(b'{"ride_id":"r1","deleted":true,"version":2}').deleted
    head = message_head(b'{"message_id":"m1","about":{"r1":{"x":1}},"no_longer":["r2"],"document":{"y":2}}')
    assert (bytes(head.about["r1"]), head.no_longer, bytes(head.document)) == (b'{"x":1}', ["r2"], b'{"y":2}')


def test_what_says_nothing_about_rides_is_left_out() -> None:
    rows = everything()
    assert taken_in(rows).num_rows == rows.num_rows - 1
    events = journalled(routed([said("ada", str(n)) for n in range(3)], P))
    assert commands(events, P, Codec()) == []


@settings(seeded)
@given(ids)
def test_a_key_lies_in_the_partition_of_what_it_is_about(name: str) -> None:
    for key, stream in (
        (KEYS.ride(name), f"o:{name}"),
        (KEYS.ride_document(name), f"o:{name}"),
        (KEYS.about(name), f"o:{name}"),
        (KEYS.message(name), f"m:{name}"),
        (KEYS.message_document(name), f"m:{name}"),
        (KEYS.user(name), f"u:{name}"),
        (KEYS.driver(name), f"v:{name}"),
        (KEYS.riders(name), f"v:{name}"),
        (KEYS.things(f"u:{name}"), f"u:{name}"),
        (KEYS.rides(f"u:{name}"), f"u:{name}"),
        (KEYS.messages(f"m:{name}"), f"m:{name}"),
        (KEYS.errors(f"a:{name}"), f"a:{name}"),
    ):
        assert key.startswith(b"rebu{%d}" % partition_of(stream, P))
        assert key.endswith(name.encode())
