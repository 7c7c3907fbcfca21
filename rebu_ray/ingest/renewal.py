"""Shards of a new version in the place of those that run, one after the other, while data flows: what comes next.

A shard more than are wanted is made first, to be empty. Then, over and over: a shard that is new and owns least takes
everything from one that is not; when that one owns nothing it is stopped, and a new one made in its slot. In the end
the ordinary balance empties the shard that was made for this. Each partition moves, which is a pause of a moment;
no shard that owns something is ever stopped. Nothing is remembered: who runs what says what is to be done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rebu_ray.ingest.balance import Move


class Spare(NamedTuple):
    """Make a shard more."""


class Replace(NamedTuple):
    """Stop the shard of a slot, which owns nothing, and make a new one in its place."""

    slot: int


Step = Move | Spare | Replace


def next_step(
    owners: Sequence[int], releases: Mapping[int, int], wanted: int, release: int, at_once: int
) -> Step | None:
    """What is to be done so that all slots are of a release; None where they are.

    `releases` says of each slot that has a shard which release that is, `wanted` how many shards there are to be.
    """
    shares = Counter(owners)
    # One that is not wanted goes anyhow, as soon as it owns nothing.
    old = [slot for slot, at in sorted(releases.items()) if at < release and (slot < wanted or shares[slot])]
    if not old:
        return None
    empty = next((slot for slot in old if not shares[slot]), None)
    if empty is not None:
        return Replace(empty)
    new = [slot for slot, at in sorted(releases.items()) if at >= release]
    if not new:
        return Spare()
    source, target = old[0], min(new, key=lambda slot: (shares[slot], slot))
    return Move(source, target, tuple(p for p, owner in enumerate(owners) if owner == source)[:at_once])
