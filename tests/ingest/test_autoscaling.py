"""Autoscaling as the coordinator does it, with shards, nodes and clocks of our own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rebu_ray.ingest.autoscaling import HEADROOM, REPLICA_START_SECONDS, Autoscaling
from rebu_ray.ingest.sizing import UP_SECONDS, bundles
from rebu_ray.ingest.traffic import Report
from rebu_ray.settings import load
from rebu_ray.store.cursor import Cursors

MONDAY = datetime(2026, 3, 2, 8, tzinfo=UTC).timestamp()
WEEK_S = 7 * 86_400
NODE_S = 180.0
STEP_S = 300.0


class World:
    """A platform of which only the numbers are there. A second passes with each step."""

    def __init__(self, folder: Path, now: float = MONDAY, **settings: Any) -> None:
        given = {"min_replicas": 1, "max_replicas": 20, "target_requests": 10, "shards": 1, "max_shards": 4}
        self.now = now
        self.cursors = Cursors(str(folder))
        self.settings = load({}, **{**given, "shard_bytes_s": 1000.0, "downscale_seconds": 60.0, **settings})
        self.shards, self.busy = 1, False
        self.requested: list[list[dict[str, float]]] = []
        self.at_once = self.bytes_s = 0.0
        self.autoscaling = Autoscaling(
            self.settings,
            16,
            self._standing,
            self._scale,
            self.cursors,
            self.requested.append,
            lambda: self.now,
            lambda: self.now,
        )

    def _standing(self) -> tuple[int, bool, dict[int, dict[str, Any]]]:
        state = {"index": "current", "load_bytes_s": self.bytes_s / self.shards, "queue_age_s": 0.0}
        return self.shards, self.busy, {slot: dict(state) for slot in range(self.shards)}

    async def _scale(self, shards: int) -> None:
        self.shards = shards

    def live(self, seconds: float, at_once: float, bytes_s: float = 0.0) -> None:
        """Let time pass under a load."""
        self.at_once, self.bytes_s = at_once, bytes_s

        async def steps() -> None:
            for _ in range(round(seconds)):
                self.now += 1
                self.autoscaling.note("one", Report(1.0, round(10 * at_once), 0, at_once))
                await self.autoscaling.step()

        asyncio.run(steps())


def test_last_week_is_known_after_a_restart_and_the_rush_is_awaited(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.live(2 * STEP_S, 4)
    world.live(2 * STEP_S, 95)
    world.live(STEP_S, 4)
    again = World(tmp_path, MONDAY + WEEK_S)
    again.live(1, 4)
    assert again.autoscaling.advice.at_once == pytest.approx(4)
    assert again.autoscaling.advice.floor == pytest.approx(HEADROOM * 4, rel=0.05)
    # As long before the rush as a node takes, there is room for it; as long before it as a gateway takes, its gateways.
    again.live(2 * STEP_S - NODE_S - REPLICA_START_SECONDS + 1, 4)
    assert again.requested[-1] == bundles(11, 1)
    assert again.autoscaling.advice.floor < 10
    again.live(NODE_S, 4)
    assert again.autoscaling.advice.floor == pytest.approx(HEADROOM * 95, rel=0.05)
    # What does not come is let go of when its time is over.
    again.live(3 * STEP_S, 4)
    assert again.autoscaling.advice.floor < 10
    assert again.requested[-1] == bundles(1, 1)


def test_who_only_reacts_awaits_nothing(tmp_path: Path) -> None:
    World(tmp_path).live(2 * STEP_S, 95)
    again = World(tmp_path, MONDAY + WEEK_S, autoscaling="reactive")
    again.live(STEP_S, 95)
    assert again.autoscaling.advice.at_once == pytest.approx(95)
    assert again.autoscaling.advice.floor == 0
    assert again.requested == []
    # It learns all the same, for those who come after it.
    assert World(tmp_path).cursors.load("traffic-week") is not None


def test_shards_follow_their_load(tmp_path: Path) -> None:
    world = World(tmp_path, autoscaling="reactive")
    world.live(UP_SECONDS + 2, 1, 2200)
    assert world.shards == 3
    world.live(50, 1, 100)
    assert world.shards == 3
    world.live(70, 1, 100)
    assert world.shards == 1


def test_no_shard_is_added_while_partitions_move(tmp_path: Path) -> None:
    world = World(tmp_path, autoscaling="reactive")
    world.busy = True
    world.live(60, 1, 9000)
    assert world.shards == 1


def test_shards_are_there_when_last_weeks_load_comes_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.live(STEP_S + 1, 1, 100)
    world.live(STEP_S, 1, 2200)
    again = World(tmp_path, MONDAY + WEEK_S)
    again.live(STEP_S - REPLICA_START_SECONDS / 2, 1, 100)
    assert again.shards == 4  # with headroom


def test_without_gateways_that_report_nothing_is_said_of_now(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.live(5, 50)
    assert world.autoscaling.advice.at_once == pytest.approx(50)
    world.now += 100
    asyncio.run(world.autoscaling.step())
    assert world.autoscaling.advice.at_once is None


def test_what_cannot_be_read_is_learned_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.cursors.save("traffic-week", b"\xc1 no msgpack")
    world.live(2 * STEP_S, 30)
    again = World(tmp_path, MONDAY + WEEK_S)
    again.live(1, 1)
    assert again.autoscaling.advice.floor == pytest.approx(HEADROOM * 30, rel=0.05)
