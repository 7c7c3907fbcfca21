"""How many there are to be: gateways, shards and nodes, from what is asked for now and what is expected.

Pure, but for a clock that is given. What is decided is carried out elsewhere: Serve makes and drains replicas,
`Placement` moves partitions, Ray's autoscaler starts and ends nodes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

UP_SECONDS: Final = 5.0
"""How long shards have to be too few before there are more: a heart-beat or two."""
LATE_SECONDS: Final = 0.5
"""A queue that is older means that its shard is behind, whatever it takes a second."""
FILL: Final = 0.8
"""To how much of what a shard is meant to take it is filled."""
MARGIN: Final = 0.85
"""Shards become fewer only where what is asked for fits into those that stay with as much room again."""
GATEWAY_CPUS: Final = 0.5
SHARD_CPUS: Final = 0.25
READER_CPUS: Final = 0.25
"""Of the lake, and of the warehouse."""


def gateways(at_once: float, floor: float, target: float, low: int, high: int) -> int:
    """How many gateways: for what is asked for now (requests at once), and no fewer than for what is expected."""
    return min(max(math.ceil(max(at_once, floor) / target - 1e-9), low), high)


class Load(NamedTuple):
    """What the shards are asked for."""

    shards: int
    bytes_s: float
    """Bytes of rows a second, all shards together."""
    queue_age_s: float
    """Of the shard whose queue is the oldest."""
    steady: bool
    """Whether every shard runs and nothing moves: only then it can be told what is needed."""


class ShardSize:
    """The number of shards, over time. `clock` is in seconds and never goes back."""

    def __init__(
        self, low: int, high: int, shard_bytes_s: float, down_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._low, self._high = low, high
        self._fill = FILL * shard_bytes_s
        self._down_s = down_seconds
        self._clock = clock
        self._short_since: float | None = None
        self._since: float | None = None
        """From when on it has been known what is needed, without a gap."""
        self._needs: deque[tuple[float, int]] = deque()

    def wanted(self, load: Load, floor_bytes_s: float = 0.0) -> int:
        """How many shards there are to be. Asked every second or two."""
        now = self._clock()
        if not load.steady:
            self._short_since = self._since = None
            self._needs.clear()
            return load.shards
        if self._since is None:
            self._since = now
        asked = max(load.bytes_s, floor_bytes_s)
        need = self._within(math.ceil(asked / self._fill - 1e-9))
        roomy = self._within(math.ceil(asked / (MARGIN * self._fill) - 1e-9))
        if load.queue_age_s >= LATE_SECONDS:
            need = roomy = self._within(max(need, load.shards + 1))
        self._needs.append((now, roomy))
        while self._needs[0][0] < now - self._down_s:
            self._needs.popleft()
        if need > load.shards:
            if self._short_since is None:
                self._short_since = now
            return need if now - self._short_since >= UP_SECONDS else load.shards
        self._short_since = None
        most = max(roomy for _, roomy in self._needs)
        return most if most < load.shards and now - self._since >= self._down_s else load.shards

    def _within(self, shards: int) -> int:
        return min(max(shards, self._low), self._high)


def bundles(gateways: int, shards: int) -> list[dict[str, float]]:
    """What nodes must have room for: gateways, shards, and the readers that are always there."""
    sizes = [GATEWAY_CPUS] * gateways + [SHARD_CPUS] * shards + [READER_CPUS] * 2
    return [{"CPU": size} for size in sizes]
