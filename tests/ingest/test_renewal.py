"""Shards that are made anew one by one: whatever there is at the beginning, no shard that owns something is stopped."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.balance import Move, balanced, moves
from rebu_ray.ingest.renewal import Replace, Spare, next_step
from tests.records import seeded

RELEASE = 3


class Shards:
    """Slots with the release that each is of, and what the coordinator does about them."""

    def __init__(self, owners: list[int], releases: dict[int, int], wanted: int) -> None:
        self.owners, self.releases, self.wanted = owners, releases, wanted
        self.stopped = Counter[int]()
        self.moved = Counter[int]()

    def step(self, at_once: int) -> bool:
        """One thing that the coordinator would do; whether there was one."""
        step = next_step(self.owners, self.releases, self.wanted, RELEASE, at_once)
        match step:
            case Replace(slot):
                assert slot not in self.owners, "a shard that owned something was stopped"
                assert slot < self.wanted
                self.stopped[slot] += 1
                self.releases[slot] = RELEASE
            case Spare():
                assert RELEASE not in self.releases.values(), "one more is enough"
                self.releases[len(self.releases)] = RELEASE
            case Move():
                self._move(step, at_once)
            case None:
                return self._balance(at_once)
        return True

    def _balance(self, at_once: int) -> bool:
        todo = moves(self.owners, balanced(self.owners, range(self.wanted)), at_once)
        if todo:
            self._move(todo[0], at_once)
        elif len(self.releases) > self.wanted:
            self.releases = {slot: at for slot, at in self.releases.items() if slot < self.wanted}
        else:
            return False
        return True

    def _move(self, move: Move, at_once: int) -> None:
        assert 0 < len(move.partitions) <= at_once
        for partition in move.partitions:
            assert self.owners[partition] == move.source != move.target
            self.owners[partition] = move.target
            self.moved[partition] += 1
        assert move.target in self.releases


@st.composite
def worlds(draw: st.DrawFn) -> Shards:
    wanted = draw(st.integers(1, 5))
    shards = wanted + draw(st.integers(0, 2))
    partitions = draw(st.integers(shards, 12))
    owners = draw(st.lists(st.integers(0, shards - 1), min_size=partitions, max_size=partitions))
    releases = {slot: draw(st.integers(0, RELEASE)) for slot in range(shards)}
    return Shards(owners, releases, wanted)


@seeded
@given(world=worlds(), at_once=st.integers(1, 4))
def test_all_are_made_anew_and_share_evenly_in_the_end(world: Shards, at_once: int) -> None:
    before = dict(world.releases)
    partitions = len(world.owners)
    for _ in range(10 * partitions * (len(before) + 2)):
        if not world.step(at_once):
            break
    else:
        raise AssertionError("it comes to no end")
    assert world.releases == dict.fromkeys(range(world.wanted), RELEASE)
    shares = Counter(world.owners)
    assert len(shares) == world.wanted
    assert max(shares.values()) - min(shares.values()) <= 1
    assert all(count == 1 for count in world.stopped.values())
    assert world.stopped.keys() == {slot for slot in range(world.wanted) if before[slot] < RELEASE}


@seeded
@given(
    wanted=st.integers(1, 5),
    partitions=st.integers(5, 16),
    changes=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=3),
)
def test_a_number_of_shards_that_changes_meanwhile_is_reached_too(
    wanted: int, partitions: int, changes: list[tuple[int, int]]
) -> None:
    world = Shards([p * wanted // partitions for p in range(partitions)], dict.fromkeys(range(wanted), 0), wanted)
    at = dict(changes)
    for number in range(1000):
        if number in at:
            world.wanted = at[number]
            for slot in range(len(world.releases), world.wanted):
                world.releases[slot] = RELEASE
        if not world.step(4) and number > 20:
            break
    else:
        raise AssertionError("it comes to no end")
    assert world.releases == dict.fromkeys(range(world.wanted), RELEASE)


def test_a_partition_moves_once_and_those_of_the_first_shard_twice() -> None:
    world = Shards([p * 3 // 12 for p in range(12)], dict.fromkeys(range(3), 0), 3)
    while world.step(4):
        pass
    assert [world.moved[p] for p in range(12)] == [2] * 4 + [1] * 8


def test_nothing_is_done_where_all_are_of_the_release() -> None:
    assert next_step([0, 1, 1], {0: RELEASE, 1: RELEASE + 1}, 2, RELEASE, 4) is None
