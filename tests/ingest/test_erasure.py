"""The coordinator's part of an erasure, with shards that are not there, or go away in its middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rebu_ray.ingest.erasing import store_of
from rebu_ray.ingest.erasure import Erasures
from rebu_ray.settings import Settings
from rebu_ray.store.forgetting import ERASED
from tests.access.worlds import World
from tests.conftest import Valkey
from tests.records import NOW, identified, said
from tests.store.disk import PARTITIONS, batch, unsynced

ADA = "ada-who-leaves"


class Crash(Exception):
    """The platform is killed."""


class Remote:
    """A method of an actor."""

    def __init__(self, call: Callable[[], Awaitable[int]]) -> None:
        self.remote = call


class Shard:
    """The owner of everything in a world. It dies at the step that it is told."""

    def __init__(self, world: World, settings: Settings, dies_at: str = "") -> None:
        self._world = world
        self._store = store_of(settings)
        self._dies_at = dies_at
        self.forget, self.scrub = Remote(self._forget), Remote(self._scrub)

    async def _forget(self) -> int:
        if self._dies_at == "forget":
            raise Crash
        self._world.log.tombstones = self._store.load()
        return 0

    async def _scrub(self) -> int:
        if self._dies_at == "scrub":
            raise Crash
        self._world.flush()
        return self._world.scrub()


@pytest.fixture
def world(valkey: Valkey, tmp_path: Path) -> Iterator[World]:
    with unsynced(), closing(World(tmp_path, valkey)) as made:
        made.write(said(ADA), said("bob"), identified(ADA, "p"), said(phone="p", record_id="x", at=NOW - 1))
        yield made


@pytest.fixture
def settings(valkey: Valkey, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=str(tmp_path),
        redis_url=valkey.url,
        erasure_secret="a secret",
        journal_uri=str(tmp_path / "journal"),
        lake_uri=str(tmp_path / "lake"),
    )


def erasures(settings: Settings, *shards: Shard) -> Erasures:
    return Erasures(settings, PARTITIONS, lambda: shards)


async def ended(one: Erasures) -> None:
    """Wait for what goes on in the background; what fails there is raised here."""
    if one._work is not None:
        await one._work


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.endswith(".pending")]


def is_gone(world: World) -> bool:
    rows = [row for found in world.log.since(dict.fromkeys(range(PARTITIONS), 0)) for row in found.to_pylist()]
    return {row["key"] for row in rows} == {"u:bob"} and not any(b"ada" in key for key in world.index.redis.keys("*"))


def test_an_erasure_step_by_step(world: World, settings: Settings, tmp_path: Path) -> None:
    async def play() -> None:
        one = erasures(settings, Shard(world, settings))
        assert one.state(ADA) is None
        answer = await one.erase(ADA, "admin")
        assert (answer["status"], answer["asked_by"], answer["counts"]["phones"]) == ("erasing", "admin", 1)
        assert answer["counts"]["events"] == 3
        await ended(one)
        state = one.state(ADA)
        assert state is not None
        assert (state["status"], state["counts"]) == ("erased", answer["counts"])
        assert state["completed_at"] >= state["asked_at"]
        assert one.summary() == {"pending": 0, "completed": 1}
        assert await one.erase(ADA, "admin") == state
        one.close()

    asyncio.run(play())
    assert is_gone(world)
    assert files(tmp_path) == []
    assert list(world.log.commit(batch(said(ADA, "late"), said(phone="p", at=NOW - 2)), NOW).verdicts) == [2, 2]


@pytest.mark.parametrize("step", ["forget", "scrub"])
def test_a_crash_at_any_step_is_gone_on_with(world: World, settings: Settings, tmp_path: Path, step: str) -> None:
    async def killed() -> None:
        one = erasures(settings, Shard(world, settings, dies_at=step))
        with pytest.raises(Crash):  # noqa: PT012
            await one.erase(ADA, "admin")
            await ended(one)
        one.close()

    async def again() -> None:
        one = erasures(settings, Shard(world, settings))
        assert one.summary() == {"pending": 1, "completed": 0}
        await one.check_index()
        if world.index.redis.get("rebu{0}pos") is None:
            world.log.tombstones = store_of(settings).load()
            world.rebuild()
        one.resume()
        await ended(one)
        state = one.state(ADA)
        assert state is not None
        assert state["status"] == "erased"
        one.close()

    asyncio.run(killed())
    assert files(tmp_path) != []
    asyncio.run(again())
    assert is_gone(world)
    assert files(tmp_path) == []


def test_an_index_older_than_an_erasure_is_emptied(world: World, settings: Settings) -> None:
    async def play() -> None:
        one = erasures(settings, Shard(world, settings))
        await one.erase(ADA, "admin")
        await ended(one)
        before = world.index.redis.keys("*")
        await one.check_index()
        assert sorted(world.index.redis.keys("*")) == sorted(before)
        world.index.redis.delete(ERASED)
        await one.check_index()
        assert world.index.redis.keys("*") == [ERASED]
        one.close()

    asyncio.run(play())


def test_a_platform_that_erased_nobody_leaves_its_index_alone(world: World, settings: Settings) -> None:
    before = world.index.redis.keys("*")
    one = erasures(settings, Shard(world, settings))
    asyncio.run(one.check_index())
    one.close()
    assert sorted(world.index.redis.keys("*")) == sorted(before)
