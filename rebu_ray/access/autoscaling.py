"""How many gateways Serve has: as many as the requests of now need, and no fewer than those of the minutes to come.

Serve asks ten times a second, on the loop of its controller: nothing here waits. What the gateways are asked for and
what is expected comes from the coordinator, once a second. Where that is away, the count of requests that Serve itself
keeps has to do: it knows nothing of what was refused, and takes live streams for work.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import ray

from rebu_ray.ingest.autoscaling import Advice
from rebu_ray.ingest.routing import COORDINATOR, NAMESPACE
from rebu_ray.ingest.sizing import gateways
from rebu_ray.ingest.traffic import Work
from rebu_ray.settings import Settings

log = logging.getLogger("rebu.gateway")

ASK_SECONDS: Final = 1.0
FRESH_SECONDS: Final = 5.0
"""For how long the demand of an advice counts."""
FLOOR_SECONDS: Final = 120.0
"""For how long what was expected counts while the coordinator is away."""
LOOK_BACK_SECONDS: Final = 10.5
"""Over how long Serve averages; it wants more than ten seconds."""


class Source(Protocol):
    """Where advice comes from."""

    def latest(self) -> tuple[Advice, float] | None:
        """The newest advice and how many seconds old it is; does not wait."""


class Coordinator:
    """Advice of the coordinator, asked for in the background."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._actor: Any = None
        self._asked_at = float("-inf")
        self._asked: Any = None
        self._found: tuple[Advice, float] | None = None

    def latest(self) -> tuple[Advice, float] | None:
        """See `Source.latest`."""
        now = self._clock()
        try:
            if self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
                asked, self._asked = self._asked, None
                self._found = Advice(*ray.get(asked)), now
            if self._asked is None and now - self._asked_at >= ASK_SECONDS:
                self._asked_at = now
                if self._actor is None:
                    self._actor = ray.get_actor(COORDINATOR, NAMESPACE)
                self._asked = self._actor.advice.remote()
        except (ray.exceptions.RayError, ValueError):  # ValueError: there is no such actor now
            self._actor = self._asked = None
        return None if self._found is None else (self._found[0], now - self._found[1])


class GatewayPolicy:
    """Serve's policy for the gateways. Serve itself sees to the delays before it acts, by the deployment's settings."""

    def __init__(self, target: float, low: int, high: int, source: Source | None = None) -> None:
        """`target`: requests at once that a gateway is meant to have."""
        self._target = target
        self._low, self._high = low, high
        self._source = Coordinator() if source is None else source

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """How many replicas there are to be."""
        found = self._source.latest()
        at_once, floor = None, 0.0
        if found is not None:
            advice, age = found
            at_once = advice.at_once if age < FRESH_SECONDS else None
            floor = advice.floor if age < FLOOR_SECONDS else 0.0
        if at_once is None:
            at_once = context.total_num_requests
        return gateways(at_once, floor, self._target, self._low, self._high), {}


async def reports(ask: Callable[..., Awaitable[Any]], work: Work) -> None:
    """Tell the coordinator once a second what a replica does, until cancelled."""
    replica = uuid.uuid4().hex
    while True:
        await asyncio.sleep(ASK_SECONDS)
        try:
            await ask("traffic", replica, work.report())
        except ray.exceptions.RayError as error:
            log.warning("the coordinator is away, and not told of the traffic: %s", type(error).__name__)


def of_gateways(settings: Settings) -> dict[str, Any]:
    """The `autoscaling_config` of the gateways."""
    low, high = settings.gateway_bounds
    config: dict[str, Any] = {
        "min_replicas": low,
        "max_replicas": high,
        "target_ongoing_requests": settings.target_requests,
        "look_back_period_s": LOOK_BACK_SECONDS,
        "upscale_delay_s": settings.upscale_seconds,
        "downscale_delay_s": settings.downscale_seconds,
    }
    if low < high:
        config["policy"] = {
            "policy_function": f"{__name__}:{GatewayPolicy.__name__}",
            "policy_kwargs": {"target": settings.target_requests, "low": low, "high": high},
        }
    return config
