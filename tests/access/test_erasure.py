"""Erasing one of several people who share phones: nothing of theirs is left, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.access.tape import END, START, Filter
from rebu_ray.records import BadRequest, Kind
from rebu_ray.store.journal import unpack
from rebu_ray.store.member import Codec
from rebu_ray.store.redis_cluster import Client
from tests.access.serving import ADMIN, READ, reading, refused
from tests.access.worlds import World, follow, take
from tests.conftest import Valkey
from tests.process.path import destination, message, ride, user
from tests.records import NOW, identified, said, seeded, unlinked
from tests.store.disk import PARTITIONS, batch, unsynced

ADA = "ada-who-leaves"
OTHERS = ("bob", "cyd")
PHONES = ("p", "q")
MAGIC = b"\x28\xb5\x2f\xfd"
"""What every zstd frame begins with."""


def histories(world: World, users: tuple[str, ...] = OTHERS) -> dict[str, list[bytes] | None]:
    """Each user's history, in the bytes that answers have; None for one of whom nothing is known."""

    async def read() -> dict[str, list[bytes] | None]:
        found: dict[str, list[bytes] | None] = {}
        async with world.reading() as reader:
            for who in users:
                try:
                    found[who] = (await reader.page(who, START, END, Filter(), False, 1000)).fragments
                except BadRequest as error:
                    if error.code != "unknown_user":
                        raise
                    found[who] = None
        return found

    return asyncio.run(read())


def stored(world: World) -> list[bytes]:
    """Everything that journal and lake hold, and every file that lies there."""
    found = []
    for segment in world._disk.segments():
        path = Path(world._disk.journal_uri) / str(segment)
        found += [frame.payload for frame in unpack(path.read_bytes())]
    for path in Path(world._disk.lake_uri).rglob("*.parquet"):
        found.append(repr(pq.read_table(path).to_pylist()).encode())
        found.append(path.read_bytes())
    return found


def indexed(redis: Client) -> list[bytes]:
    """Everything that the index holds, compressed texts as texts."""
    codec, raw = Codec(), []
    for key in redis.scan_iter(count=1000):
        raw.append(key)
        kind = redis.type(key)
        if kind == b"zset":
            raw += redis.zrange(key, 0, -1)
        elif kind == b"hash":
            raw += [part for pair in redis.hgetall(key).items() for part in pair]
        elif kind == b"set":
            raw += redis.smembers(key)
        else:
            raw.append(redis.get(key))
    return [*raw, *(codec.decompress(v[v.index(MAGIC) :]) for v in raw if MAGIC in v)]


def check_gone(world: World, *texts: str) -> None:
    for held in (*stored(world), *indexed(world.index.redis)):
        for text in texts:
            assert text.encode() not in held


instants = st.integers(0, 9).map(lambda step: NOW + step * 10)
people = st.sampled_from((ADA, *OTHERS))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("said"), people, st.integers(0, 5), instants),
        st.tuples(st.just("phone"), st.sampled_from(PHONES), st.integers(0, 9), instants),
        st.tuples(st.just("identified"), people, st.sampled_from(PHONES), instants),
        st.tuples(st.just("unlinked"), people, st.sampled_from(PHONES), st.integers(0, 3)),
        st.tuples(st.just("request"), people, st.sampled_from(("q1", "q2")), instants),
        st.tuples(st.just("flush")),
        st.tuples(st.just("evict")),
    ),
    max_size=30,
)


@settings(seeded, max_examples=60)
@given(steps=steps)
def test_others_keep_their_histories_byte_for_byte(
    valkey: Valkey, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    with unsynced(), closing(World(tmp_path_factory.mktemp("erasure"), valkey)) as world:
        for step in steps:
            match step:
                case ("said", who, number, at):
                    world.write(said(who, f"s{number}", at, body=b'{"of":"%b"}' % who.encode()))
                case ("phone", phone, number, at):
                    world.write(said(phone=phone, record_id=f"e{number}", at=at, kind=Kind.APP_ERROR))
                case ("identified", who, phone, at):
                    world.write(identified(who, phone, at))
                case ("unlinked", who, phone, number):
                    world.write(unlinked(who, phone, NOW + number))
                case ("request", who, request, at):
                    world.write(said(who, f"a{request}", at, kind=Kind.SERVER_ACCESS, request=request))
                case ("flush",):
                    world.flush()
                case ("evict",):
                    world.flush()
                    world.evict()
        before = histories(world)
        phone_owner = {(phone, at): world.owner(phone, at) for phone in PHONES for at in range(NOW, NOW + 100, 10)}
        world.erase(ADA, NOW + 1_000_000)
        assert histories(world, (*OTHERS, ADA)) == {**before, ADA: None}
        check_gone(world, ADA)
        for rows in world.log.since(dict.fromkeys(range(PARTITIONS), 0)):
            for key, at in zip(rows["key"].to_pylist(), rows["event_time"].to_pylist(), strict=True):
                assert not key.startswith("a:") or phone_owner.get((key[2:], at)) != ADA
        world.rebuild()
        assert histories(world, (*OTHERS, ADA)) == {**before, ADA: None}
        assert world.scrub() == 0


def populate(world: World) -> None:
    """Ada and Bob, who share a phone; both ride with Dan and write about it."""
    for who, phone, suffix in ((ADA, "p", "a"), ("bob", "p", "b")):
        first = NOW if who == ADA else NOW + 5_000_000
        take(
            world,
            identified(who, phone, first),
            said(phone=phone, record_id=f"anonymous-{suffix}", at=first - 10, body=b'{"of":"%b"}' % who.encode()),
            said(who, f"said-{suffix}", first + 10, body=b'{"of":"%b"}' % who.encode()),
            user(who, who.upper()),
            ride(f"ride-{suffix}", who),
            destination(f"ride-{suffix}", NOW + 1, 57.2),
            message(f"message-{suffix}", who, body=f"About my ride ride-{suffix}"),
        )
    letters = [
        said(None, f"letter {number}", kind=Kind.DEAD_LETTER, name="invalid_time: no", body=b'{"userId":"%b"}' % who)
        for number, who in enumerate((ADA.encode(), b"bob"))
    ]
    world.write(*letters)


def get(world: World, path: str) -> Any:
    return reading(world, lambda client: client.get(path, headers=ADMIN)).json()


@pytest.mark.parametrize("flushed", [False, True])
def test_rides_and_messages_go_and_those_of_others_stay(world: World, flushed: bool) -> None:
    populate(world)
    if flushed:
        world.flush()
    paths = ("/v1/rides/ride-b", "/v1/rides/ride-b/messages", "/v1/messages/message-b", "/v1/users/bob")
    before = [get(world, path) for path in paths]
    counts = world.erase(ADA, NOW + 10_000_000)
    assert counts == {"events": 3, "rides": 1, "messages": 1, "phones": 1, "dead_letters": 1}
    assert [get(world, path) for path in paths] == before
    assert [get(world, path)["code"] for path in ("/v1/rides/ride-a", "/v1/messages/message-a")] == [
        "unknown_ride",
        "unknown_message",
    ]
    assert get(world, f"/v1/users/{ADA}")["code"] == "unknown_user"
    assert [item["record"] for item in get(world, "/v1/deadletters")["items"]] == [{"userId": "bob"}]
    assert [item["ride_id"] for item in get(world, "/v1/rides")["items"]] == ["ride-b"]
    check_gone(world, ADA, ADA.upper(), "ride-a", "message-a", "anonymous-a")


def test_a_ride_that_became_anothers_stays_theirs(world: World) -> None:
    take(world, ride("moved", ADA))
    take(world, ride("moved", "bob", updated_at=NOW + 900_000))
    follow(world, f"u:{ADA}", "u:bob")
    before = get(world, "/v1/rides/moved")
    assert before["user"]["user_id"] == "bob"
    world.erase(ADA, NOW + 10_000_000)
    assert get(world, "/v1/rides/moved") == before
    check_gone(world, ADA)


def test_what_comes_later_is_suppressed_and_counted_as_that(world: World) -> None:
    populate(world)
    world.erase(ADA, NOW + 10_000_000)
    records = (
        said(ADA, "late"),
        said("bob", "late"),
        said("bob", "said-b", NOW + 5_000_010),
        destination("ride-a", NOW + 9, 57.3),
        said(phone="p", record_id="late", at=NOW - 5),
        said(phone="p", record_id="later", at=NOW + 5),
    )
    done = world.log.commit(batch(*records), NOW)
    assert list(done.verdicts) == [2, 1, 0, 2, 2, 1]
    assert ADA not in str(done.rows.to_pylist())


def test_a_restored_lake_is_scrubbed_again(world: World, tmp_path: Path) -> None:
    populate(world)
    world.flush()
    shutil.copytree(world._disk.lake_uri, tmp_path / "backup")
    world.erase(ADA, NOW + 10_000_000)
    shutil.rmtree(world._disk.lake_uri)
    shutil.copytree(tmp_path / "backup", world._disk.lake_uri)
    again = world._disk.shard()
    assert all(m.erased == "" for m in again.manifests.values())
    again.tombstones = world.log.tombstones
    rows = [row for found in again.since(dict.fromkeys(range(PARTITIONS), 0)) for row in found.to_pylist()]
    assert rows
    assert ADA not in str(rows)
    world.log = again
    assert world.scrub() > 5
    check_gone(world, ADA, "ride-a")


def lines(world: World, who: str) -> list[dict[str, Any]]:
    answer = reading(world, lambda client: client.get(f"/v1/users/{who}/export", headers=ADMIN))
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("evicted", [False, True])
def test_an_export_is_what_the_other_routes_answer(world: World, evicted: bool) -> None:
    populate(world)
    if evicted:
        world.flush()
        world.evict()
    found = lines(world, ADA)
    by_type: dict[str, list[dict[str, Any]]] = {}
    for line in found:
        by_type.setdefault(line.pop("type"), []).append(line)
    assert by_type["profile"] == [get(world, f"/v1/users/{ADA}")]
    assert by_type["event"] == get(world, f"/v1/users/{ADA}/events?order=asc&limit=1000")["items"]
    assert len(by_type["event"]) == 3
    assert by_type["ride"] == get(world, f"/v1/users/{ADA}/rides?order=asc")["items"]
    assert by_type["message"] == get(world, f"/v1/users/{ADA}/messages?order=asc")["items"]
    assert [(link["anonymous_id"], link["timestamp"]) for link in by_type["link"]] == [
        ("p", "2026-03-02T08:00:00.000Z")
    ]
    letters = get(world, "/v1/deadletters?order=asc")["items"]
    assert by_type["dead_letter"] == [item for item in letters if item["record"] == {"userId": ADA}]
    assert sorted(row["table"] for row in by_type["row"]) == ["messages", "ride_destinations", "rides", "users"]
    [end] = by_type["end"]
    assert found[-1] is end
    assert end["lines"] == {kind: len(items) for kind, items in by_type.items() if kind != "end"}
    assert not any("bob" in json.dumps(line) for line in found)


def test_exports_and_erasures_are_for_the_admin_and_of_somebody(world: World) -> None:
    def both(who: str, headers: dict[str, str]) -> list[tuple[int, str]]:
        return [
            refused(reading(world, lambda client: client.get(f"/v1/users/{who}/export", headers=headers))),
            refused(reading(world, lambda client: client.delete(f"/v1/users/{who}", headers=headers))),
        ]

    assert both("bob", READ) == [(403, "forbidden")] * 2
    assert both("nobody", ADMIN) == [(404, "unknown_user")] * 2
    answer = reading(world, lambda client: client.get("/v1/users/nobody/erasure", headers=ADMIN))
    assert refused(answer) == (404, "unknown_erasure")
