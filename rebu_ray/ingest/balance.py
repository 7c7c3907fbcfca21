"""How partitions are shared out: as evenly as can be, moving as few as possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

Owners = tuple[int, ...]
"""The slot of each partition."""


class Move(NamedTuple):
    """Partitions that go from one slot to another."""

    source: int
    target: int
    partitions: tuple[int, ...]


def balanced(owners: Sequence[int], slots: Collection[int]) -> Owners:
    """Owners among `slots` whose shares differ by one at most, reached from `owners` with the fewest moves.

    Slots that have the most keep one more than the others where the division leaves a remainder.
    """
    shares = Counter(owner for owner in owners if owner in slots)
    least, more = divmod(len(owners), len(slots))
    by_share = sorted(slots, key=lambda slot: (-shares[slot], slot))
    quota = {slot: least + (number < more) for number, slot in enumerate(by_share)}
    kept: Counter[int] = Counter()
    found: list[int | None] = []
    for owner in owners:
        stays = owner in quota and kept[owner] < quota[owner]
        found.append(owner if stays else None)
        kept[owner] += stays
    open_places = iter([slot for slot in sorted(slots) for _ in range(quota[slot] - kept[slot])])
    return tuple(next(open_places) if owner is None else owner for owner in found)


def relieved(owners: Sequence[int], lost: int, live: Collection[int]) -> Owners:
    """Owners where the partitions of a lost slot are with the live ones that have the least; all others stay."""
    shares = Counter(owners)
    found = list(owners)
    for partition, owner in enumerate(owners):
        if owner == lost:
            found[partition] = min(live, key=lambda slot: (shares[slot], slot))
            shares[found[partition]] += 1
    return tuple(found)


def moves(before: Sequence[int], after: Sequence[int], at_once: int) -> list[Move]:
    """The way from one to the other: moves of at most `at_once` partitions between two slots."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for partition, (source, target) in enumerate(zip(before, after, strict=True)):
        if source != target:
            pairs.setdefault((source, target), []).append(partition)
    return [
        Move(source, target, tuple(found[at : at + at_once]))
        for (source, target), found in sorted(pairs.items())
        for at in range(0, len(found), at_once)
    ]
