"""Which shard owns which partition, and how that is kept."""

from __future__ import annotations

from typing import Final

import msgspec

from rebu_ray.store.cursor import FORMAT, Cursors
from rebu_ray.store.journal import JournalError
from rebu_ray.store.versions import read

NAMESPACE = "rebu"
COORDINATOR = "rebu-coordinator"
_SAVED: Final = "routing"


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


class Standing(msgspec.Struct, frozen=True):
    """What is on disk about who owns what: saved by the coordinator before it acts on it, read by shards that start."""

    routing: Routing
    shards: int
    """Slots 0 to shards - 1 have an actor."""
    wanted: int
    """How many are to have one, at most `shards`: the others are being emptied."""
    leaving: dict[int, int] = {}
    """Partitions on their way, and the slot that each comes from. Until that slot is known to have let go, or is
    fenced, nobody begins to own them."""
    release: int = 0
    """How often all shards were made anew while they ran: those of an earlier release are to be replaced."""
    v: int = FORMAT

    def owned_by(self, slot: int) -> list[int]:
        """The partitions that a slot which starts now may take up."""
        return [p for p in self.routing.owned_by(slot) if p not in self.leaving]


def load_standing(cursors: Cursors) -> Standing | None:
    """What was saved last; None for a platform that never ran. Raises OSError, or JournalError for what it is not."""
    data = cursors.load(_SAVED)
    try:
        return None if data is None else read(data, Standing, FORMAT, f"the cursor `{_SAVED}`", JournalError)
    except msgspec.DecodeError as error:
        raise JournalError(
            f"the cursor `{_SAVED}` beside the journal is damaged ({error}): with the platform stopped, remove it"
        ) from error


def save_standing(cursors: Cursors, standing: Standing) -> None:
    """Make it durable. Raises OSError."""
    cursors.save(_SAVED, msgspec.msgpack.encode(standing))


def spread(partitions: int, shards: int, version: int = 1) -> Routing:
    """Partitions in equal ranges over shards; no shard is left without one."""
    shards = min(shards, partitions)
    return Routing(version, tuple(p * shards // partitions for p in range(partitions)))


def shard_name(slot: int) -> str:
    """The name under which the shard of a slot is found in Ray."""
    return f"rebu-shard-{slot:03d}"
