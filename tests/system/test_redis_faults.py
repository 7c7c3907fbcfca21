"""A Redis of somebody else's that goes down, is emptied, replaced or full: writes go on, reads are right or refused,
and nothing is missing afterwards. One platform for all of it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from redis import Redis

from rebu_ray.platform.local_ray import free_port
from rebu_ray.platform.redis_server import RedisServer
from rebu_ray.store.index import parse_position, position_key
from tests.system.load import Load
from tests.system.running import Item, Running, await_true, ids, kill, processes_of, rebu

pytestmark = pytest.mark.system

PARTITIONS = 16


class Site(NamedTuple):
    """A platform, and its Redis beside it."""

    platform: Running
    redis: RedisServer
    folder: Path
    port: int

    @contextlib.contextmanager
    def client(self) -> Iterator[Redis]:
        with Redis.from_url(self.redis.url, protocol=2) as client:
            yield client


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="rebu-redis-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        server = RedisServer(str(folder / "redis"), port)
        server.start()
        platform = Running(folder / "data", REBU_REDIS_URL=server.url, REBU_FLUSH_SECONDS="2", REBU_HOT_EVENTS="100")
        try:
            platform.start("--shards", "2")
            yield Site(platform, server, folder, port)
            assert platform.stop() == 0, platform.said()
        finally:
            platform.clean_up()
            server.stop()


def shards(site: Site) -> list[Item]:
    found: list[Item] = site.platform.status()["shards"]
    return found


def await_current(site: Site) -> None:
    def current() -> bool:
        whole = all(shard["index"] == "current" for shard in shards(site))
        return whole and site.platform.http.get("/readyz").status_code == 200

    await_true(current, "the index to be whole")


def refusal(site: Site, load: Load) -> str:
    """What reads are told while the index is not whole."""
    answers = [site.platform.get(f"/v1/users/{user}/events") for user in load.users]
    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    return str(answers[0].json()["message"])


def check_so_far(site: Site, load: Load) -> None:
    """A history has everything that was acknowledged when it was asked for, or is refused until it has."""
    for user in load.users:
        acknowledged = list(load.acknowledged[user])
        found = ids(site.platform.history(user, limit=1000))
        assert len(set(found)) == len(found)
        assert set(acknowledged) <= set(found)


def test_down_for_a_while(site: Site) -> None:
    with Load(site.platform, "down") as load:
        load.await_more(300)
        assert site.redis.pid is not None
        kill(site.redis.pid)
        load.await_more(300)
        assert "the index" in refusal(site, load)
        await_true(lambda: all("detail" in shard for shard in shards(site)), "the status to say what is the matter")
        state = site.platform.status()
        assert state["redis"]["used_memory_bytes"] is None
        assert all(shard["index"] == "behind" and shard["unindexed_rows"] > 0 for shard in state["shards"])
        assert site.platform.http.get("/readyz").status_code == 503
        site.redis.start()
        await_current(site)
        load.await_more(100)
    load.check(site.platform)
    assert load.answers.keys() == {200}


def test_emptied(site: Site) -> None:
    with Load(site.platform, "emptied") as load:
        load.await_more(300)
        site.platform.flush()
        with site.client() as client:
            client.flushall()
            check_so_far(site, load)  # at once
        load.await_more(100)
    await_current(site)
    load.check(site.platform)
    assert load.answers.keys() == {200}


def test_replaced_by_another_at_the_same_address(site: Site) -> None:
    with Load(site.platform, "replaced") as load:
        load.await_more(300)
        site.redis.stop()
        fresh = site.folder / "fresh"
        fresh.mkdir()
        shutil.copy(site.folder / "redis" / "password", fresh)
        other = RedisServer(str(fresh), site.port)
        other.start()
        try:
            load.await_more(100)
            await_current(site)
            check_so_far(site, load)
        finally:
            other.stop()
            load.await_more(100)
            site.redis.start()  # with a snapshot that is older now
        check_so_far(site, load)
        await_current(site)
        load.await_more(100)
    load.check(site.platform)
    assert load.answers.keys() == {200}


def test_full(site: Site) -> None:
    with Load(site.platform, "full") as load, site.client() as client:
        load.await_more(300)
        client.config_set("maxmemory", 1)
        try:
            load.await_more(300)
            refusal(site, load)
            found = await_true(lambda: [s for s in shards(site) if "detail" in s], "the status to say why")
            assert "memory" in found[0]["detail"]
        finally:
            client.config_set("maxmemory", 0)
        await_current(site)
        load.await_more(100)
    load.check(site.platform)
    assert load.answers.keys() == {200}


def test_a_worker_that_dies_while_it_rebuilds_is_replaced(site: Site) -> None:
    with Load(site.platform, "worker") as load, site.client() as client:
        load.await_more(300)
        site.platform.flush()

        def begun() -> bool:
            found: list[Any] = client.mget([position_key(p) for p in range(PARTITIONS)])
            return any(at is not None and at.anew for at in map(parse_position, found))

        for _ in range(20):  # the moment in which it is at work has to be met
            client.flushall()
            await_true(begun, "it to begin")
            client.client_pause(8000, all=False)  # writes wait, tasks with them
            at_work = processes_of(site.platform.data_dir, "^ray::rebuild")
            if at_work:
                break
            client.client_unpause()
            await_current(site)
        assert at_work
        told = [site.platform.get(f"/v1/users/{user}/events") for user in load.users]
        rebuilding = [answer.json()["message"] for answer in told if answer.status_code == 503]
        assert any("records of this partition are there" in message for message in rebuilding), rebuilding
        states = await_true(lambda: [s["rebuilding"] for s in shards(site) if "rebuilding" in s], "progress to show")
        assert all(0 <= at["rows_done"] < at["rows_total"] for at in states)
        for process in at_work:
            kill(process.pid)
        psutil.wait_procs(at_work, timeout=10)
        client.client_unpause()
        await_current(site)
        load.await_more(100)
    load.check(site.platform)
    assert load.answers.keys() == {200}


def test_rebuilt_on_demand_while_records_come_in(site: Site) -> None:
    with Load(site.platform, "demand") as load:
        load.await_more(300)
        done = rebu("reindex", "--data-dir", site.platform.data_dir)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"the index is rebuilt: {PARTITIONS} partitions with "), done.stdout
        assert "rebuilding the index" in done.stderr
        load.await_more(100)
    load.check(site.platform)
    assert load.answers.keys() == {200}


def test_one_that_drops_keys_is_refused(site: Site, tmp_path: Path) -> None:
    with site.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            done = rebu("up", "--data-dir", tmp_path / "other", REBU_REDIS_URL=site.redis.url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert done.returncode == 1
    assert "noeviction" in done.stderr
    assert done.stderr.startswith("rebu: Redis at redis://127.0.0.1:")
    assert done.stderr.count("\n") == 1
