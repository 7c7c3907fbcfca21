"""Which shard owns which partition."""

from __future__ import annotations

import msgspec

NAMESPACE = "rebu"
COORDINATOR = "rebu-coordinator"


class Routing(msgspec.Struct, frozen=True):
    """The owner slot of each partition. A new version replaces it whole."""

    version: int
    owners: tuple[int, ...]

    @property
    def partitions(self) -> int:
        return len(self.owners)

    @property
    def slots(self) -> int:
        return max(self.owners) + 1

    def owned_by(self, slot: int) -> list[int]:
        """The partitions of a slot."""
        return [p for p, owner in enumerate(self.owners) if owner == slot]


def spread(partitions: int, shards: int, version: int = 1) -> Routing:
    """Partitions in equal ranges over shards; no shard is left without one."""
    shards = min(shards, partitions)
    return Routing(version, tuple(p * shards // partitions for p in range(partitions)))


def shard_name(slot: int) -> str:
    """The name under which the shard of a slot is found in Ray."""
    return f"rebu-shard-{slot:03d}"
