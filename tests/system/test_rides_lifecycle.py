"""Rides while shards, Redis and the whole platform die: every ride is served afterwards, as the lake alone has it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.system.ride_load import RideLoad
from tests.system.running import Running, await_true, kill, redis_of

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def own() -> Iterator[Running]:
    """A platform that these tests may kill. Each of them leaves it running."""
    with tempfile.TemporaryDirectory(prefix="rebu-rides-", ignore_cleanup_errors=True) as folder:
        found = Running(Path(folder) / "data", REBU_FLUSH_SECONDS="2", REBU_HOT_EVENTS="100")
        try:
            found.start("--shards", "2")
            yield found
            assert found.stop() == 0, found.said()
        finally:
            found.clean_up()


def test_rides_outlive_shards_that_are_killed(own: Running) -> None:
    with RideLoad(own, "k1") as load:
        load.await_more(30)
        for slot in (0, 1):
            before = own.shard_pids()[slot]
            kill(before)
            load.await_more(20)
            await_true(lambda s=slot, b=before: own.shard_pids()[s] != b, "the shard to be there again")  # type: ignore[misc]
        load.await_more(10)
    load.check(own)


def test_rides_outlive_redis(own: Running) -> None:
    with RideLoad(own, "k2") as load:
        load.await_more(20)
        [server] = redis_of(own)
        server.kill()
        load.await_more(20)
        await_true(lambda: [p for p in redis_of(own) if p.pid != server.pid], "Redis to be started again")
        load.await_more(20)
        note = json.loads((own.data_dir / "platform.json").read_text())
        with redis.Redis.from_url(note["redis_url"]) as client:
            client.flushall()
        load.await_more(20)
    load.check(own)


def test_rides_outlive_the_whole_platform(own: Running) -> None:
    with RideLoad(own, "k3") as load:
        load.await_more(30)
        own.kill_group()
        own.start("--shards", "3")
        load.await_more(20)
    load.check(own)
    done = own.admin("POST", "/v1/admin/backfill")
    assert done["changed"] == 0
    assert done["rides"] >= len(load.done)
