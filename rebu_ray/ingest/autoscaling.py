"""Autoscaling, on the loop of the coordinator: what is asked for now, what is expected, and what follows from it.

Gateways are made by Serve, whose policy asks for `advice` (see `access.autoscaling`). Shards are scaled here, by moving
partitions. Nodes follow what does not fit on those that there are; ahead of a rush they are asked for here, as long
before as a node takes to start, and are let go of when nothing more is expected.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import ray
from ray.autoscaler.sdk import request_resources

from rebu_ray.clock import week_clock
from rebu_ray.ingest.sizing import Load, ShardSize, bundles, gateways
from rebu_ray.ingest.traffic import Meter, Report
from rebu_ray.ingest.week import Saved, Week
from rebu_ray.settings import PREDICTIVE, Settings
from rebu_ray.store.cursor import Cursors

log = logging.getLogger("rebu.autoscaling")

STEP_SECONDS: Final = 1.0
REPLICA_START_SECONDS: Final = 20.0
"""How long before its time a gateway or a shard is there: its process starts, and partitions move."""
HEADROOM: Final = 1.1
"""What is expected is an average of minutes, and no week is quite as the last."""
_SAVED: Final = "traffic-week"


class Advice(NamedTuple):
    """What Serve's policy is told."""

    at_once: float | None
    """Requests that would be worked on at once now, if none was refused; None where no gateway reports."""
    floor: float
    """As many as are expected until a replica that is begun now can serve."""


class Autoscaling:
    """Measures, learns, and has shards and nodes."""

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        states: Callable[[], tuple[int, bool, Mapping[int, dict[str, Any]]]],
        scale: Callable[[int], Awaitable[object]],
        cursors: Cursors,
        request: Callable[[list[dict[str, float]]], None] = lambda wanted: request_resources(bundles=wanted),
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`states` tells how many shards there are to be, whether a scaling is under way, and how each shard is.

        `wall` is the time of day in seconds, `clock` never goes back.
        """
        self._settings = settings
        self._states = states
        self._scale = scale
        self._cursors = cursors
        self._request = request
        self._predicts = settings.autoscaling == PREDICTIVE
        self._now, self._speed = week_clock(settings.traffic_clock, wall)
        self._meter = Meter(clock)
        self._week: Week | None = None
        self._size: ShardSize | None = None
        if settings.scales_shards:
            low, high = (min(n, partitions) for n in (settings.min_shards, settings.max_shards))
            self._size = ShardSize(low, high, settings.shard_bytes_s, settings.downscale_seconds, clock)
        self._advice = Advice(None, 0.0)
        self._expected = 0
        self._bytes_s = 0.0
        self._requested: list[dict[str, float]] | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Go on by itself from now on, where there is anything to scale."""
        if self._task is None and self._settings.autoscales:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(_tell)

    def close(self) -> None:
        """Stop, and want nothing more of the nodes."""
        if self._task is not None:
            self._task.cancel()
        if self._requested:
            self._request([])

    def note(self, replica: str, report: Report) -> None:
        """A gateway has reported."""
        self._meter.note(replica, report)

    @property
    def advice(self) -> Advice:
        """What Serve's policy is to know now."""
        return self._advice

    def status(self) -> dict[str, Any]:
        """What there is to see of it; nothing where nothing scales."""
        if self._task is None:
            return {}
        demand = self._meter.demand()
        return {
            "autoscaling": {
                "policy": "stopped: the log says why" if self._task.done() else self._settings.autoscaling,
                "requests_at_once": None if demand is None else round(demand.at_once, 2),
                "answered_s": None if demand is None else round(demand.answered_s, 1),
                "refused_s": None if demand is None else round(demand.refused_s, 1),
                "bytes_s": round(self._bytes_s),
                "expected_at_once": round(self._advice.floor, 2),
                "expected_gateways": self._expected,
                "reserved_cpus": math.fsum(bundle["CPU"] for bundle in self._requested or ()),
            }
        }

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(STEP_SECONDS)
            await self.step()

    async def step(self) -> None:
        """Look, learn, and have done what follows."""
        if self._week is None:
            self._week = Week(self._settings.timezone, await asyncio.to_thread(self._load))
        week = self._week
        demand = self._meter.demand()
        wanted, busy, states = self._states()
        self._bytes_s = bytes_s = math.fsum(state.get("load_bytes_s", 0) for state in states.values())
        now = self._now()
        if demand is not None and week.observe(now, demand.at_once, bytes_s):
            await self._save(week)
        floor = floor_bytes = 0.0
        if self._predicts:
            soon = week.expected(now, self._after(now, REPLICA_START_SECONDS))
            floor, floor_bytes = HEADROOM * soon.at_once, HEADROOM * soon.bytes_s
            await self._prewarm(week, now, wanted)
        self._advice = Advice(None if demand is None else demand.at_once, floor)
        if self._size is not None:
            away = [state for state in states.values() if state["index"] != "current"]
            age = max((state.get("queue_age_s", 0.0) for state in states.values()), default=0.0)
            steady = not busy and not away and len(states) == wanted
            size = self._size.wanted(Load(wanted, bytes_s, age, steady), floor_bytes)
            if size != wanted:
                log.info("%d shards take %d bytes/s, the oldest queue is %.1f s: %d", wanted, bytes_s, age, size)
                await self._scale(size)

    async def _prewarm(self, week: Week, now: int, shards: int) -> None:
        """Have nodes for what is expected by the time they are there."""
        settings = self._settings
        later = week.expected(now, self._after(now, settings.node_start_seconds + REPLICA_START_SECONDS))
        low, high = settings.gateway_bounds
        self._expected = gateways(0.0, HEADROOM * later.at_once, settings.target_requests, low, high)
        wanted = bundles(self._expected, shards)
        if wanted == self._requested:
            return
        try:
            await asyncio.to_thread(self._request, wanted)
        except ray.exceptions.RayError as error:
            log.warning("nodes for %d gateways are not asked for: %s", self._expected, error)
            return
        self._requested = wanted

    def _after(self, now: int, seconds: float) -> int:
        return now + round(1000 * seconds * self._speed)

    def _load(self) -> Saved | None:
        try:
            data = self._cursors.load(_SAVED)
            return None if data is None else msgspec.msgpack.decode(data, type=Saved)
        except (OSError, msgspec.DecodeError) as error:
            log.error("what was learned of the week cannot be read, and is learned anew: %s", error)
            return None

    async def _save(self, week: Week) -> None:
        try:
            await asyncio.to_thread(self._cursors.save, _SAVED, msgspec.msgpack.encode(week.saved()))
        except OSError as error:
            log.warning("what was learned of the week is not kept: %s", error)


def _tell(task: asyncio.Task[None]) -> None:
    """Without its autoscaling a platform stays as large as it is; that is to be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("nothing is scaled any more, until the coordinator is started anew", exc_info=error)
