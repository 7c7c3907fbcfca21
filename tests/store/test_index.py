"""The index on a real Valkey: the same rows make the same keys, however they come; what goes is in the lake."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.index import (
    UNAVAILABLE,
    Command,
    Index,
    IndexEmptied,
    Position,
    anonymous_key,
    commands,
    disconnect,
    floor_key,
    history_key,
    links_key,
    parse_link,
    parse_position,
    position_commands,
    position_key,
    position_value,
    quiet_key,
    traits_key,
    unlinks_key,
    watch_channel,
)
from rebu_ray.store.journal import StaleOwner
from rebu_ray.store.member import Codec, place, place_id, place_time, split, time_place
from rebu_ray.store.rows import partition_of
from tests.conftest import Valkey
from tests.records import NOW, identified, ids, journalled, routed, said, seeded, unlinked
from tests.store.contents import dump

P = 4
NEVER = 2**62
NUMBERS = st.integers(0, 2**48)


@pytest.fixture(scope="module")
def shared(valkey: Valkey) -> Iterator[Index]:
    """One index for all tests; those with examples flush its server before each."""
    index = Index(valkey.url)
    yield index
    index.close()


@pytest.fixture
def index(shared: Index, redis_url: str) -> Index:
    """An index of nothing."""
    return shared


def send(index: Index, rows: pa.RecordBatch) -> None:
    index.send(commands(rows, P, Codec()))


users = st.sampled_from(["ada", "bob", "ü:{1}"])
phones = st.sampled_from(["p1", "p2", "p {2}"])
at = st.integers(NOW - 5, NOW + 5)
records = st.one_of(
    st.builds(said, users, ids, at),
    st.builds(said, st.none(), ids, at, phone=phones),
    st.builds(said, st.none(), ids, at, request=st.just("r1"), kind=st.just(Kind.SERVER_ERROR)),
    st.builds(said, users, ids, at, request=st.just("r1"), kind=st.just(Kind.SERVER_ACCESS)),
    st.builds(
        said, st.none(), ids, at, kind=st.just(Kind.DEAD_LETTER), source=st.sampled_from([Source.ACCESS, Source.ERROR])
    ),
    st.builds(identified, users, phones, at, received_at=at, traits=st.sampled_from([b"{}", b'{"name":"A"}'])),
    st.builds(unlinked, users, phones, at),
)


@settings(seeded, max_examples=60)
@given(st.lists(records, max_size=14), st.randoms(use_true_random=False), st.lists(st.integers(0, 14), max_size=4))
def test_any_order_and_split_of_the_same_rows_makes_the_same_index(
    valkey: Valkey, shared: Index, found: list[Record], random: Any, cuts: list[int]
) -> None:
    rows = journalled(routed(found, P))
    valkey.flush()
    send(shared, rows)
    once = dump(valkey.client)
    send(shared, rows)
    assert dump(valkey.client) == once
    order = list(range(rows.num_rows))
    random.shuffle(order)
    shuffled = rows.take(pa.array(order, pa.int64()))
    valkey.flush()
    edges = sorted({0, *(min(cut, rows.num_rows) for cut in cuts), rows.num_rows})
    for low, high in pairwise(edges):
        send(shared, shuffled.slice(low, high - low))
    assert dump(valkey.client) == once


@settings(seeded, max_examples=60)
@given(st.lists(records, max_size=14))
def test_the_index_holds_what_the_rows_say(valkey: Valkey, shared: Index, found: list[Record]) -> None:
    rows = journalled(routed(found, P))
    valkey.flush()
    send(shared, rows)
    expected: dict[bytes, set[object]] = {}
    unlinks: dict[bytes, dict[bytes, float]] = {}
    for row in rows.to_pylist():
        partition, key, user = row["partition"], row["key"], row["user_id"]
        if row["kind"] in (Kind.APP_EVENT, Kind.SERVER_ACCESS, Kind.DEAD_LETTER) and key[0] in "uad":
            whole = (place(row["event_time"], row["id"]), row["seq"])
            expected.setdefault(history_key(partition, key), set()).add(whole)
        if row["links"] is None:
            continue
        theirs = partition_of(f"a:{row['links']}", P)
        if row["kind"] == Kind.UNLINK:
            times = unlinks.setdefault(unlinks_key(theirs, row["links"]), {})
            times[user.encode()] = max(times.get(user.encode(), 0), float(row["received_at"]))
            continue
        link = (row["event_time"], row["received_at"], user)
        expected.setdefault(links_key(theirs, row["links"]), set()).add(link)
        expected.setdefault(anonymous_key(partition, user), set()).add(row["links"].encode())
        traits = json.loads(row["body"])["traits"]
        if traits is not None:
            line = (place(row["event_time"], row["id"]), json.dumps(traits).replace(" ", ""))
            expected.setdefault(traits_key(partition, user), set()).add(line)
    dumped = dump(valkey.client)
    assert dumped.keys() == expected.keys() | unlinks.keys()
    for key, values in dumped.items():
        kind = key.split(b"}", 1)[1][:1]
        assert isinstance(values, list | set)
        plain = {value[0] if isinstance(value, tuple) else value for value in values}
        if kind == b"h":
            assert {(split(m).place, split(m).seq) for m in plain} == expected[key]
        elif kind == b"l":
            assert {parse_link(m) for m in plain} == expected[key]
        elif kind == b"t":
            assert {(m[: m.index(0, 8)], m[m.index(0, 8) + 1 :].decode()) for m in plain} == expected[key]
        elif kind == b"i":
            assert plain == expected[key]
        else:
            assert dict(values) == unlinks[key]


@pytest.mark.parametrize(
    ("body", "traits"),
    [
        (b'{"type":"identify","userId":"ada","traits":{"name":"Ada"}}', b'{"name":"Ada"}'),
        (b'{"userId":"ada","traits":{"name":"Ada"}}', b'{"name":"Ada"}'),
        (b'{"type":null,"traits":{"n":1e999}}', b'{"n":1e999}'),
        (b'{"type":"identify","context":{"traits":{"name":"Ada"}}}', b'{"name":"Ada"}'),
        (b'{"type":"track","event":"identify","traits":{"name":"Ada"}}', None),
        (b'{"event":"identify","context":{"traits":{"name":"Ada"}}}', None),
        (b'{"type":"identify","traits":"none"}', None),
        (b'{"type":"identify","context":["traits"]}', None),
        (b'{"type":"identify"}', None),
    ],
)
def test_traits_are_what_an_identify_says(index: Index, body: bytes, traits: bytes | None) -> None:
    send(index, journalled(routed([said("ada", "1", name="identify", body=body)], P)))
    found = index.redis.zrange(traits_key(partition_of("u:ada", P), "ada"), 0, -1)
    assert found == ([] if traits is None else [place(NOW, "1") + b"\0" + traits])


def test_rows_of_watched_streams_are_published_in_the_order_of_the_journal(index: Index) -> None:
    pubsub = index.redis.pubsub(ignore_subscribe_messages=True)
    channel = watch_channel(partition_of("u:ada", P), "u:ada")
    pubsub.subscribe(channel)
    assert pubsub.get_message(timeout=5) is None
    found = [said("ada", f"{n}", NOW - n) for n in range(5)] + [said("bob", "1")]
    index.send(commands(journalled(routed(found, P)), P, Codec(), frozenset({"u:ada"})))
    messages = [pubsub.get_message(timeout=5) for _ in range(5)]
    assert [message["channel"] for message in messages] == [channel] * 5
    assert [place_id(split(message["data"]).place) for message in messages] == ["0", "1", "2", "3", "4"]
    assert pubsub.get_message(timeout=0.01) is None
    pubsub.close()


# -- what Redis lets go of ------------------------------------------------------------------------------------------


STREAM = "u:ada"
PARTITION = partition_of(STREAM, P)
drops = st.one_of(
    st.tuples(st.just("settle"), st.integers(NOW, NOW + 30), st.integers(1, 6)),
    st.tuples(st.just("evict"), st.integers(NOW, NOW + 30) | st.just(NEVER), st.just(0)),
    st.tuples(st.just("late"), st.integers(NOW, NOW + 30), st.just(0)),
)


@settings(seeded, max_examples=80)
@given(st.lists(st.tuples(st.integers(NOW, NOW + 30), ids), max_size=20, unique=True), st.lists(drops, max_size=6))
def test_what_goes_was_old_enough_and_lies_below_the_floor(
    valkey: Valkey, shared: Index, found: list[tuple[int, str]], steps: list[tuple[str, int, int]]
) -> None:
    valkey.flush()
    last: dict[int, int] = {}
    send(shared, journalled(routed([said("ada", i, at) for at, i in found], P), last))
    there = {place(at, i) for at, i in found}
    floor = b""
    shared.settle(PARTITION, {STREAM: NOW}, 0, 10**6)
    for number, (step, when, keep) in enumerate(steps):
        if step == "late":
            send(shared, journalled(routed([said("ada", f"late{number}", when)], P), last))
            shared.settle(PARTITION, {STREAM: NOW}, 0, 10**6)
            there.add(place(when, f"late{number}"))
            continue
        newest = sorted(there)[-keep:] if step == "settle" else []
        if step == "settle":
            gone = shared.settle(PARTITION, {STREAM: NOW}, when, keep)
        else:
            gone = shared.evict(PARTITION, when, NOW)
        left = {split(m).place for m in shared.redis.zrange(history_key(PARTITION, STREAM), 0, -1)}
        went = there - left
        assert left <= there
        assert gone == len(went)
        assert all(place_time(p) < when and p not in newest for p in went)
        now_floor = shared.redis.get(floor_key(PARTITION, STREAM)) or b""
        assert now_floor >= floor
        assert all(p < now_floor for p in went)
        if step == "settle" and newest:
            edge = min(place_time(newest[0]), when)
            assert all(place_time(p) >= edge for p in left)
        if step == "evict" and went | left:
            assert all(place_time(p) >= when for p in left)
        there, floor = left, now_floor


def test_the_floor_rises_no_higher_than_the_newest_that_went(index: Index) -> None:
    send(index, journalled(routed([said("ada", "1", NOW), said("ada", "2", NOW + 7)], P)))
    index.settle(PARTITION, {STREAM: NOW}, 0, 10)
    assert index.evict(PARTITION, NEVER, NOW) == 2
    assert index.redis.get(floor_key(PARTITION, STREAM)) == time_place(NOW + 8)


def test_only_streams_that_were_quiet_long_enough_are_evicted(index: Index) -> None:
    users = [name for name in map(str, range(100)) if partition_of(f"u:{name}", P) == PARTITION][:6]
    send(index, journalled(routed([said(user, "1", NOW) for user in users], P)))
    for n, user in enumerate(users):
        index.settle(PARTITION, {f"u:{user}": NOW + n}, 0, 10)
    index.settle(PARTITION, {f"u:{users[3]}": NOW - 100}, 0, 10)
    assert index.evict(PARTITION, NEVER, NOW + 3, limit=2) == 2
    assert index.evict(PARTITION, NEVER, NOW + 3) == 2
    assert index.evict(PARTITION, NEVER, NOW + 3) == 0
    left = [user for user in users if index.redis.exists(history_key(PARTITION, f"u:{user}"))]
    assert left == users[4:]
    assert index.redis.zcard(quiet_key(PARTITION)) == 2


def test_a_quiet_stream_that_cannot_go_yet_goes_later(index: Index) -> None:
    send(index, journalled(routed([said("ada", "1", NOW)], P)))
    index.settle(PARTITION, {STREAM: NOW}, 0, 10)
    assert index.evict(PARTITION, NOW, NOW) == 0
    assert index.evict(PARTITION, NOW + 1, NOW) == 1
    assert index.redis.zcard(quiet_key(PARTITION)) == 0


# -- positions ------------------------------------------------------------------------------------------------------


@settings(seeded)
@given(NUMBERS, NUMBERS, st.booleans())
def test_a_position_is_read_as_written(seq: int, end: int, anew: bool) -> None:
    assert parse_position(position_value(seq)) == Position(seq)
    assert parse_position(position_value(seq, True, end, anew)) == Position(seq, True, end, anew)


def test_a_position_of_a_version_that_did_not_say_how_far_it_has_to_come_is_read() -> None:
    assert parse_position(position_value(7, behind=True).replace(b":behind:0", b":behind")) == Position(7, True)


def test_a_position_of_another_format_is_none() -> None:
    assert parse_position(None) is None
    assert parse_position(b"999:12") is None


def test_positions_are_moved_only_where_they_are(index: Index) -> None:
    index.set_positions({0: 5, 1: 6})
    index.move_positions({0: Position(7, True, 9)})
    assert index.positions([0, 1]) == {0: Position(7, True, 9), 1: Position(6)}
    index.redis.flushall()
    with pytest.raises(IndexEmptied):
        index.move_positions({0: 8})
    assert index.positions([0, 1]) == {0: None, 1: None}


def test_positions_are_set_moved_and_never_invented(index: Index) -> None:
    index.set_positions({0: Position(5, True, 8), 1: Position(6, True, 8, True)})
    assert index.positions(range(3)) == {0: Position(5, True, 8), 1: Position(6, True, 8, True), 2: None}
    index.send(position_commands({0: 9}))
    assert index.positions([0]) == {0: Position(9, False)}
    with pytest.raises(IndexEmptied):
        index.send(position_commands({0: 10, 2: 7}))
    assert index.positions([0, 2]) == {0: Position(10, False), 2: None}
    assert issubclass(IndexEmptied, UNAVAILABLE)


def test_a_full_redis_can_be_told_that_it_lacks_something(index: Index) -> None:
    index.set_positions({0: 5, 1: Position(6, True, 8, True)})
    index.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(UNAVAILABLE):
            index.move_positions({0: 6})
        index.withdraw([0, 1, 2])
        index.withdraw([0])  # once is enough
        assert index.redis.exists(position_key(0), position_key(1)) == 0
        lacking = {0: Position(5, True), 1: Position(6, True, 8, True), 2: None}
        assert index.positions(range(3)) == lacking
        with pytest.raises(UNAVAILABLE):
            index.restore({0: Position(5, end=9)})
        assert index.positions(range(3)) == lacking
    finally:
        index.redis.config_set("maxmemory", 0)
    with pytest.raises(IndexEmptied):
        index.move_positions({0: 6})
    index.restore({0: Position(5, end=9), 2: Position(7)})
    assert index.positions(range(3)) == {0: Position(5, True, 9), 1: Position(6, True, 8, True), 2: None}
    index.move_positions({0: 9})
    assert index.positions([0]) == {0: Position(9)}
    index.clear(0, 1)
    assert index.positions([0, 1]) == {0: None, 1: None}
    assert dump(index.redis) == {}


def test_a_partition_is_cleared_alone_and_forgets_everything_but_its_phones_people(index: Index) -> None:
    everybody = [f"user{n}" for n in range(40)]
    found: list[Record] = [identified(user, f"phone {user}", traits=b'{"n":1}') for user in everybody]
    found += [unlinked(user, f"phone {user}", NOW) for user in everybody[:5]]
    found += [said(None, "1", phone=f"phone {user}") for user in everybody]
    send(index, journalled(routed(found, P)))
    index.set_positions(dict.fromkeys(range(P), 7))
    for partition in range(P):
        index.settle(
            partition, {f"u:{user}": 1 for user in everybody if partition_of(f"u:{user}", P) == partition}, 0, 9
        )
    before = dump(index.redis)
    index.clear(1)
    after = dump(index.redis)
    gone = before.keys() - after.keys()
    assert {key.split(b"}")[0] for key in gone} == {b"rebu{1"}
    assert {key.split(b"}")[1][:1] for key in gone} == {b"h", b"i", b"t", b"q", b"p"}
    assert {key.split(b"}")[1][:1] for key in after if key.startswith(b"rebu{1}")} == {b"l", b"b"}
    assert after == {key: value for key, value in before.items() if key in after}
    assert index.positions(range(P)) == {p: None if p == 1 else Position(7, False) for p in range(P)}


def test_an_index_that_is_cleared_partition_by_partition_and_filled_again_is_the_same(index: Index) -> None:
    """Shards rebuild side by side: what one has written already must outlast the clearing by another."""
    found = [identified(f"user{n}", f"phone{n % 7}", NOW + n, traits=b'{"n":1}') for n in range(30)]
    found += [said(None, "1", phone=f"phone{n}") for n in range(7)]
    rows = journalled(routed(found, P))
    send(index, rows)
    before = dump(index.redis)
    partitions = rows["partition"].to_pylist()
    for partition in range(P):
        index.clear(partition)
        send(index, rows.take(pa.array([i for i, p in enumerate(partitions) if p == partition], pa.int64())))
    assert dump(index.redis) == before


# -- errors ---------------------------------------------------------------------------------------------------------


def test_one_command_that_fails_is_reported_and_the_rest_is_done(index: Index) -> None:
    index.redis.set("taken", "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        index.send([("SET", b"before", b"1"), ("ZADD", b"taken", b"0", b"m"), ("SET", b"after", b"1")])
    assert index.redis.mget("before", "after") == [b"1", b"1"]
    index.send([("SET", b"again", b"1")])
    assert index.redis.get("again") == b"1"


def test_a_lost_connection_is_reported_and_made_anew(index: Index, valkey: Valkey) -> None:
    index.send([("SET", b"k", b"1")])
    valkey.client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(UNAVAILABLE):
        index.send([("SET", b"k", b"2")])
    index.send([("SET", b"k", b"3")])
    assert valkey.client.get("k") == b"3"


def test_parts_arrive_in_their_order_and_what_fails_in_the_middle_leaves_no_replies_behind(index: Index) -> None:
    index.send_parts([[("RPUSH", "list", part * 10 + n) for n in range(10)] for part in range(3)])
    assert index.redis.lrange("list", 0, -1) == [b"%d" % n for n in range(30)]

    def broken() -> Iterator[list[Command]]:
        yield [("SET", position_key(1), b"1:7", "XX")] * 3
        raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        index.send_parts(broken())
    index.send_parts([[], [("SET", "a", "1")], []])
    index.send_parts([])
    assert index.redis.get("a") == b"1"


def test_many_commands_at_once_do_not_block(index: Index) -> None:
    many: Sequence[tuple[bytes | str | int, ...]] = [("SET", b"key%d" % n, b"x" * 500) for n in range(20_000)]
    index.send(many)
    assert index.redis.dbsize() == 20_000


def test_nothing_of_a_writer_whose_connections_were_closed_arrives_once_it_is_stale(valkey: Valkey) -> None:
    """A process that slept may wake up with commands that it was about to send."""
    stale: list[Exception] = []

    def check() -> None:
        if stale:
            raise stale[0]

    writer = Index(valkey.url, "a-writer", check)
    other = Index(valkey.url, "another")
    try:
        for one in (writer, other):
            one.set_positions({7: 1})
        assert disconnect(other.redis, "a-writer") == 1
        with pytest.raises(redis.ConnectionError):
            writer.set_positions({7: 2})
        writer.set_positions({7: 3})  # it is still the owner, and has connected anew
        stale.append(StaleOwner("slot 0 has a later owner"))
        assert disconnect(other.redis, "a-writer") == 1
        with pytest.raises(redis.ConnectionError):
            writer.set_positions({7: 4})
        for _ in range(2):
            with pytest.raises(StaleOwner):
                writer.set_positions({7: 4})
            with pytest.raises(StaleOwner):
                writer.clear(7)
        other.move_positions({7: 5})
        stale[:] = [OSError("the journal does not answer")]
        disconnect(other.redis, "a-writer")
        with pytest.raises(redis.ConnectionError):
            writer.clear(7)
        assert other.positions([7]) == {7: Position(5, False)}
    finally:
        other.clear(7)
        writer.close()
        other.close()
