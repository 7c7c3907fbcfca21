"""The simulated database, living beside the stream, and how soon what is committed there is served."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final

from rebu_ray.client import quoted
from rebu_ray.demo.served import Get
from rebu_ray.demo.stream import Clock
from rebu_ray.simulate.clock import MINUTE
from rebu_ray.simulate.live import LiveDatabase, Step

STEP_MS: Final = MINUTE
"""The longest simulated time of one transaction."""
PROBES: Final = 1
"""New rides that are waited for at a time: few, for to measure is to ask, and asking takes its time too."""
POLL_S: Final = 0.05
"""How exactly that is measured."""
PATIENCE_S: Final = 20.0
"""After this a ride that is not served counts as one that never will be."""


class Life:
    """Moves a database on as far as the clock has come.

    `fresh_ms` are the times from a ride's commit to its document being served, of a sample of the new rides; `never`
    the rides of that sample that were not served in time.
    """

    def __init__(self, database: LiveDatabase, end: int, get: Get) -> None:
        self.fresh_ms: list[float] = []
        self.never: list[str] = []
        self._database = database
        self._end = end
        self._get = get
        self._probes: set[asyncio.Task[None]] = set()

    async def live(self, clock: Clock, stop: threading.Event, progress: Callable[[int], None]) -> None:
        """Until the end of the world, or `stop`; `progress` is told of new rides."""
        while not stop.is_set():
            until = self._end if clock.over else min(clock.at, self._end)
            if self._database.at < until:
                step, committed = await asyncio.to_thread(self._step, min(self._database.at + STEP_MS, until))
                progress(len(step.new_rides))
                for ride_id in step.new_rides[: PROBES - len(self._probes)]:
                    probe = asyncio.create_task(self._await_ride(ride_id, committed))
                    self._probes.add(probe)
                    probe.add_done_callback(self._probes.discard)
            elif clock.over:
                break
            else:
                await asyncio.sleep(POLL_S)
        await asyncio.gather(*self._probes)

    def _step(self, at: int) -> tuple[Step, float]:
        step = self._database.step(at)
        return step, time.perf_counter()

    async def _await_ride(self, ride_id: str, committed: float) -> None:
        while time.perf_counter() < committed + PATIENCE_S:
            status, _ = await self._get(f"/v1/rides/{quoted(ride_id)}")
            if status == 200:
                self.fresh_ms.append((time.perf_counter() - committed) * 1000)
                return
            await asyncio.sleep(POLL_S)
        self.never.append(ride_id)
