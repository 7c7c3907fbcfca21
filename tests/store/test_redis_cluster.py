"""The index on a real Redis Cluster of three servers: what holds on one server holds there, and what can happen to a
cluster alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
import redis

from rebu_ray.platform.stores import StoreError, check_stores
from rebu_ray.settings import Settings
from rebu_ray.store.index import UNAVAILABLE, Index, Position, disconnect, position_key, watch_channel
from rebu_ray.store.redis_cluster import connect, connect_async, slot_of
from tests.access.test_history import (  # noqa: F401
    make,
    test_a_person_is_their_phones_with_who_else_had_them,
    test_a_read_waits_for_the_whole_write_that_it_names,
    world,
)
from tests.ingest.test_indexing import (  # noqa: F401
    Owner,
    Play,
    _small,
    play,
    test_a_redis_that_is_emptied_again_while_it_is_filled_is_filled_again,
    test_an_emptied_index_is_rebuilt_from_the_lake_while_records_come_in,
    test_an_owner_that_dies_while_it_rebuilds_leaves_the_next_one_to_begin_anew,
    test_one_partition_that_is_lost_keeps_the_others_from_nothing,
    test_what_is_released_is_indexed_no_more_and_found_as_it_was_left,
    test_who_is_erased_meanwhile_is_indexed_no_more,
)
from tests.process.test_load import (  # noqa: F401
    path,
    test_everything_about_a_subject_is_read_and_nothing_of_others,
    test_whom_phones_rides_messages_and_drivers_lead_to,
)
from tests.store.disk import PARTITIONS
from tests.valkeys import Valkeys, valkeys

NUMBERS = range(32)


class Server:
    """What tests of one server ask of it."""

    def __init__(self, servers: Valkeys) -> None:
        self.servers = servers
        self.url = servers.url
        self.client = connect(servers.url, protocol=2)

    def flush(self) -> None:
        self.servers.flush()


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    """A cluster, in the place of the one server that the tests from elsewhere ask for."""
    with valkeys() as servers:
        found = Server(servers)
        with closing(found.client):
            yield found


@pytest.fixture
def index(valkey: Server) -> Iterator[Index]:
    valkey.flush()
    with closing(Index(valkey.url, "a-writer")) as made:
        yield made


def holders(servers: Valkeys) -> list[set[bytes]]:
    """The keys that each server has."""
    found = []
    for member in servers.members:
        with member.client as client:
            found.append(set(client.scan_iter()))
    return found


def test_commands_go_to_the_servers_that_have_their_keys(index: Index, valkey: Server) -> None:
    index.send([("SET", position_key(p), b"1:%d" % p) for p in NUMBERS])
    assert all(holders(valkey.servers))
    assert set().union(*holders(valkey.servers)) == {position_key(p) for p in NUMBERS}
    assert index.redis.mget([position_key(p) for p in reversed(NUMBERS)]) == [b"1:%d" % p for p in reversed(NUMBERS)]


def test_what_is_sent_together_is_answered_in_its_order(index: Index) -> None:
    pipe = index.redis.pipeline()
    for p in NUMBERS:
        pipe.set(position_key(p), b"1:%d" % p)
    pipe.mget([position_key(p) for p in NUMBERS])
    pipe.zadd(b"rebu{1}x", {"a": 1}).exists(b"rebu{1}x", b"rebu{1}y")
    pipe.zrange(b"rebu{1}x", 0, -1, withscores=True)
    assert len(pipe) == len(NUMBERS) + 4
    assert pipe.execute() == [True] * len(NUMBERS) + [[b"1:%d" % p for p in NUMBERS], 1, 1, [(b"a", 1.0)]]


@pytest.mark.parametrize("what", ["emptied", "killed"])
def test_a_server_that_lost_all_has_every_partition_rebuilt(
    play: Play,  # noqa: F811
    valkey: Server,
    what: str,
) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        expected = owner.held()
        on_others = [p for p in range(PARTITIONS) if position_key(p) not in holders(valkey.servers)[1]]
        assert 0 < len(on_others) < PARTITIONS
        if what == "emptied":
            with valkey.servers.members[1].client as client:
                client.flushall()
        else:
            valkey.servers.members[1].kill()
            await owner.write(owner.event("user0"))  # durable, whatever the index does
            assert owner.indexing.behind
            valkey.servers.members[1].start()
            await asyncio.to_thread(valkey.servers.await_whole)
        assert set(owner.positions().values()) == {None}
        loop = asyncio.create_task(owner.indexing.run())
        while not owner.pieces or owner.indexing.behind:
            await asyncio.sleep(0.005)
        loop.cancel()
        assert owner.positions() == owner.whole
        assert {piece.partition for piece in owner.pieces} == set(range(PARTITIONS))
        assert expected.keys() <= owner.held().keys()

    play(scene)


def test_a_writer_that_is_fenced_writes_to_no_server_any_more(valkey: Server) -> None:
    valkey.flush()
    stale = False

    def check() -> None:
        if stale:
            raise OSError("somebody else owns this")

    everywhere = [("SET", position_key(p), b"1:1") for p in NUMBERS]
    with closing(Index(valkey.url, "old", check)) as old, closing(Index(valkey.url, "new")) as new:
        old.send(everywhere)
        stale = True
        assert disconnect(new.redis, "old") >= 3
        valkey.flush()
        for _ in range(3):
            with pytest.raises(UNAVAILABLE):
                old.send(everywhere)
        assert not any(holders(valkey.servers))
        new.send(everywhere)


def test_a_slot_that_moves_meanwhile_is_followed(index: Index, valkey: Server) -> None:
    key = position_key(0)
    owner = next(m for m in valkey.servers.members if slot_of(key) in slots_of(m.client))
    other = next(m for m in valkey.servers.members if m is not owner)
    index.send([("SET", key, b"1:1")])
    with owner.client as old, other.client as new:
        ids = old.execute_command("CLUSTER MYID").decode(), new.execute_command("CLUSTER MYID").decode()
        try:
            old.delete(key)
            new.execute_command("CLUSTER SETSLOT", slot_of(key), "IMPORTING", ids[0])
            old.execute_command("CLUSTER SETSLOT", slot_of(key), "MIGRATING", ids[1])
            index.send([("SET", position_key(p), b"1:2") for p in NUMBERS])  # the old one says: ask the new one
            for client in (new, old):
                client.execute_command("CLUSTER SETSLOT", slot_of(key), "NODE", ids[1])
            index.send([("SET", position_key(p), b"1:3") for p in NUMBERS])  # and now that it has moved
            assert new.get(key) == b"1:3"
            assert index.redis.mget([position_key(p) for p in NUMBERS]) == [b"1:3"] * len(NUMBERS)
        finally:
            new.delete(key)
            for client in (old, new):
                client.execute_command("CLUSTER SETSLOT", slot_of(key), "NODE", ids[0])
            with suppress(redis.ResponseError):
                old.execute_command("CLUSTER BUMPEPOCH")


def slots_of(client: Any) -> set[int]:
    """The slots of a server."""
    with client:
        own = client.execute_command("CLUSTER MYID").decode()
        found: set[int] = set()
        for first, last, *nodes in client.execute_command("CLUSTER", "SLOTS", NEVER_DECODE=True):
            if nodes[0][2].decode() == own:
                found |= set(range(first, last + 1))
        return found


def test_who_listens_hears_of_every_partition(index: Index, valkey: Server) -> None:
    channels = [watch_channel(p, "u:ada") for p in NUMBERS]

    async def listen() -> list[tuple[bytes, bytes]]:
        client = connect_async(valkey.url, protocol=2)
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(*channels)
            while await pubsub.get_message(timeout=0.2) is not None:
                pass
            index.send([("PUBLISH", channel, b"%d" % p) for p, channel in enumerate(channels)])
            heard: list[tuple[bytes, bytes]] = []
            while len(heard) < len(channels):
                message = await pubsub.get_message(timeout=5.0)
                if message is not None:
                    heard.append((message["channel"], message["data"]))
            return heard
        finally:
            await pubsub.aclose()
            await client.aclose()

    assert sorted(asyncio.run(listen())) == sorted((channel, b"%d" % p) for p, channel in enumerate(channels))


def test_the_servers_say_together_what_they_hold(valkey: Server) -> None:
    async def ask() -> int:
        client = connect_async(valkey.url, protocol=2)
        try:
            return int((await client.info("memory"))["used_memory"])
        finally:
            await client.aclose()

    alone = []
    for member in valkey.servers.members:
        with member.client as client:
            alone.append(client.info("memory")["used_memory"])
    assert asyncio.run(ask()) > 2 * max(alone)


def test_a_cluster_that_is_named_as_one_server_is_refused(
    valkey: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def settings(url: str) -> Settings:
        return Settings(data_dir=str(tmp_path_factory.mktemp("data")), redis_url=url)

    check_stores(settings(valkey.url))
    with pytest.raises(StoreError, match=r"redis\+cluster://"):
        check_stores(settings(valkey.url.replace("+cluster", "")))
    with pytest.raises(StoreError, match="REBU_REDIS_URL"):
        check_stores(settings("redis+cluster://127.0.0.1:1"))


def test_an_index_that_moved_in_with_a_partition_is_known(index: Index) -> None:
    index.set_positions({0: 3, 1: Position(4, True, 9, True)})
    assert index.positions([0, 1, 2]) == {0: Position(3), 1: Position(4, True, 9, True), 2: None}
    index.withdraw([0])
    assert index.positions([0]) == {0: Position(3, True)}
    index.clear(*range(4))
    assert index.positions(range(4)) == dict.fromkeys(range(4))
