"""Moves with shards, disk and clock replaced: whoever dies at whichever step, a partition has one owner who can append,
and every one of them goes on where the last stopped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.balance import Move, balanced, moves
from rebu_ray.ingest.moves import Away, Handed, Moves, Released, Standstill
from rebu_ray.ingest.routing import Routing, Standing, spread
from tests.records import seeded

P, SLOTS = 6, 3
Disturb = tuple[str, int]


class Crash(Exception):
    """The coordinator's end."""


class Shard:
    """A shard's process: it claims its slot, reads what was saved, then takes up what is its own."""

    def __init__(self, world: World, slot: int) -> None:
        self._world = world
        self.slot = slot
        world.epochs[slot] += 1
        self.epoch = world.epochs[slot]
        self.version = -1
        self.own: dict[int, int] = {}
        """The last sequence number of each partition, as this shard knows it."""
        self.opened = False
        self.stopped = False
        self._mine: list[int] | None = None

    @property
    def stale(self) -> bool:
        return self._world.epochs[self.slot] != self.epoch

    def go_on(self) -> None:
        """One step further in its start."""
        if self._mine is None:
            self.version = self._world.saved.routing.version
            self._mine = self._world.saved.owned_by(self.slot)
        elif not self.opened:
            self.own = {p: self._world.end(p) for p in self._mine}
            self.opened = True

    def append(self, partition: int) -> None:
        """What a write does; the journal refuses a stale owner, which leaves."""
        if partition not in self.own or self.stopped:
            return
        if self.stale:
            self._world.shards[self.slot] = None
            return
        seq = self.own[partition] + 1
        assert seq == self._world.end(partition) + 1, f"two owners of partition {partition}"
        self._world.journal.append((partition, seq))
        self.own[partition] = seq

    def assign(self, standing: Standing) -> None:
        if standing.routing.version < self.version:
            return
        if self.stale:
            self._world.shards[self.slot] = None
            raise Away("it was stale")
        self.version = standing.routing.version
        mine = set(standing.owned_by(self.slot))
        self.own = {p: self.own.get(p, self._world.end(p)) for p in mine}


class World:
    """Shards, their disk, and the coordinator's hands."""

    def __init__(self, disturbances: list[Disturb] | None = None, crash_at: int = -1) -> None:
        self.saved = Standing(spread(P, SLOTS), SLOTS, SLOTS)
        self.epochs: Counter[int] = Counter()
        self.journal: list[tuple[int, int]] = []
        self.shards: dict[int, Shard | None] = {}
        self.disturbances: Iterator[Disturb] = iter(disturbances or [])
        self.crash_at = crash_at
        self.steps = 0
        self.lost_answers = 0
        for slot in range(SLOTS):
            self.start(slot)
        self.now = 0.0

    def end(self, partition: int) -> int:
        return max((seq for p, seq in self.journal if p == partition), default=0)

    def start(self, slot: int) -> None:
        shard = self.shards[slot] = Shard(self, slot)
        shard.go_on()
        shard.go_on()

    def disturb(self, what: Disturb) -> None:
        kind, n = what
        slot = n % SLOTS
        shard = self.shards[slot]
        if kind == "kill":
            self.shards[slot] = None
        elif kind == "stop" and shard is not None:
            shard.stopped = True
        elif kind == "continue" and shard is not None:
            shard.stopped = False
        elif kind == "begin" and shard is None:
            self.shards[slot] = Shard(self, slot)
        elif kind == "go on" and shard is not None:
            shard.go_on()
        elif kind == "restart":
            self.start(slot)
        elif kind == "no answer":
            self.lost_answers += 1
        elif kind == "write":
            for one in list(self.shards.values()):
                if one is not None:
                    one.append(n % P)
        self.check()

    def check(self) -> None:
        for partition in range(P):
            owners = [s.slot for s in self.shards.values() if s is not None and partition in s.own and not s.stale]
            assert len(owners) <= 1, f"partition {partition} is owned by {owners}"

    def _step(self) -> None:
        """Between any two things that happen, something else may; or the coordinator ends."""
        self.now += 0.01
        for what in (next(self.disturbances, None), next(self.disturbances, None)):
            if what is not None:
                self.disturb(what)
        self.steps += 1
        if self.steps == self.crash_at:
            raise Crash

    def _reach(self, slot: int) -> Shard:
        shard = self.shards.get(slot)
        if shard is None or shard.stopped or not shard.opened:
            raise Away("it does not answer")
        return shard

    def _answer(self) -> None:
        if self.lost_answers:
            self.lost_answers -= 1
            raise Away("its answer was lost")

    # -- hands ------------------------------------------------------------------------------------------------

    async def flush(self, slot: int) -> None:
        self._step()
        self._reach(slot)

    async def prepare(self, slot: int, partitions: tuple[int, ...]) -> None:
        self._step()
        self._reach(slot)

    async def release(self, slot: int, partitions: tuple[int, ...], version: int) -> Released:
        self._step()
        shard = self._reach(slot)
        if shard.stale:
            self.shards[slot] = None
            raise Away("it was stale")
        shard.version = max(version, shard.version)
        for partition in partitions:
            shard.own.pop(partition, None)
        self._step()
        self._answer()
        return Released({}, [], {}, 0.0)

    async def fence(self, slot: int) -> None:
        self._step()
        self.epochs[slot] += 1
        self._step()

    async def assign(self, slot: int, standing: Standing, handed: Handed) -> None:
        self._step()
        self._reach(slot).assign(standing)
        self.check()
        self._step()
        self._answer()

    async def save(self, standing: Standing) -> None:
        self._step()
        assert standing.routing.version > self.saved.routing.version
        self.saved = standing
        self._step()

    # -- afterwards -------------------------------------------------------------------------------------------

    async def settled(self, coordinator: Moves) -> None:
        """Everything runs again, and the heart-beat tells everybody: every partition can be written to."""
        self.disturbances, self.crash_at, self.lost_answers = iter([]), -1, 0
        for slot in range(SLOTS):
            shard = self.shards[slot]
            if shard is None:
                self.start(slot)
            else:
                shard.stopped = False
                shard.go_on()
                shard.go_on()
        await coordinator.resume()
        for slot in range(SLOTS):
            try:
                await self.assign(slot, coordinator.standing, {})
            except Away:
                self.start(slot)
        assert not self.saved.leaving
        assert self.saved.routing == coordinator.routing
        for partition in range(P):
            before = self.end(partition)
            self.disturb(("write", partition))
            assert self.end(partition) == before + 1, f"nobody takes writes for partition {partition}"
            owner = self.shards[coordinator.routing.owners[partition]]
            assert owner is not None
            assert partition in owner.own
        assert sorted(self.journal) == [(p, seq) for p in range(P) for seq in range(1, self.end(p) + 1)]


def coordinator(world: World) -> Moves:
    return Moves(world.saved, world, lambda: world.now)


async def driven(world: World, work: Callable[[Moves], Coroutine[Any, Any, None]]) -> None:
    """Let a coordinator do something; where it dies, the next one goes on."""
    found = coordinator(world)
    try:
        await work(found)
    except Crash:
        world.check()
        found = coordinator(world)
    except Away:
        pass
    await world.settled(found)


def one_move(found: Moves) -> Coroutine[Any, Any, None]:
    return found.move(Move(0, 2, (0, 1)))


def one_rescue(found: Moves) -> Coroutine[Any, Any, None]:
    return found.rescue(1, [0, 2])


@pytest.mark.parametrize("work", [one_move, one_rescue])
def test_a_crash_at_any_step_leaves_every_partition_with_one_owner(
    work: Callable[[Moves], Coroutine[Any, Any, None]],
) -> None:
    async def all_steps() -> int:
        step = 0
        while True:
            step += 1
            world = World([("write", n) for n in range(step)], crash_at=step)
            await driven(world, work)
            if world.steps < step:
                return step
            assert world.saved.routing.owners in (spread(P, SLOTS).owners, (2, 2, 1, 1, 2, 2), (0, 0, 0, 2, 2, 2))

    assert asyncio.run(all_steps()) > 6


disturbances = st.lists(
    st.tuples(
        st.sampled_from(
            ["kill", "begin", "go on", "restart", "restart", "write", "write", "stop", "continue", "no answer"]
        ),
        st.integers(0, 5),
    ),
    max_size=60,
)
works = st.one_of(
    st.tuples(st.just("move"), st.integers(0, SLOTS - 1), st.integers(0, SLOTS - 1), st.integers(0, P - 1)),
    st.tuples(st.just("rescue"), st.integers(0, SLOTS - 1), st.just(0), st.just(0)),
    st.tuples(st.just("restart"), st.just(0), st.just(0), st.just(0)),
)


@settings(seeded, max_examples=400)
@given(st.lists(works, min_size=1, max_size=5), disturbances, st.integers(-1, 40))
def test_whatever_dies_stops_or_comes_back_meanwhile_nothing_is_owned_twice(
    todo: list[tuple[str, int, int, int]], what: list[Disturb], crash_at: int
) -> None:
    async def play() -> None:
        world = World(what, crash_at)
        found = coordinator(world)
        for kind, slot, other, partition in todo:
            try:
                if kind == "restart":
                    found = coordinator(world)
                    await found.resume()
                elif kind == "rescue":
                    await found.rescue(slot, [s for s in range(SLOTS) if s != slot])
                elif slot != other:
                    await found.move(Move(slot, other, (partition, (partition + 1) % P)))
            except Away:
                continue
            except Crash:
                world.check()
                found = coordinator(world)
                await found.resume()
        await world.settled(found)

    asyncio.run(play())


def test_a_whole_scaling_goes_up_and_down_again() -> None:
    async def play() -> None:
        world = World([("write", n) for n in range(400)])
        found = coordinator(world)
        for slots in ([0], [0, 1], [0, 1, 2], [2]):
            after = balanced(found.routing.owners, slots)
            for move in moves(found.routing.owners, after, 1):
                await found.move(move)
            assert found.routing.owners == after
        assert (found.fenced, len(found.pauses_ms)) == (0, found.moved)
        await world.settled(found)

    asyncio.run(play())


def test_a_move_that_cannot_begin_changes_nothing() -> None:
    async def play() -> None:
        world = World()
        world.disturb(("stop", 2))
        found = coordinator(world)
        with pytest.raises(Away):
            await found.move(Move(0, 2, (0,)))
        assert world.saved.routing == spread(P, SLOTS)
        world.disturb(("continue", 2))
        await found.move(Move(1, 2, (0,)))  # it is not there any more: nothing to do
        assert world.saved.routing == spread(P, SLOTS)

    asyncio.run(play())


def test_nothing_moves_while_somebody_holds_still() -> None:
    async def play() -> list[str]:
        still, said = Standstill(), list[str]()
        enough = asyncio.Event()

        async def holder(name: str) -> None:
            async with still.hold():
                said.append(name)
                await enough.wait()

        async def mover() -> None:
            async with still.move():
                said.append("moved")

        tasks = [asyncio.create_task(work) for work in (holder("one"), mover(), holder("two"))]
        await asyncio.sleep(0.01)
        assert said == ["one", "two"]
        enough.set()
        await asyncio.gather(*tasks)
        return said

    assert asyncio.run(play()) == ["one", "two", "moved"]


def test_who_starts_while_partitions_are_on_their_way_takes_none_of_them_up() -> None:
    standing = Standing(Routing(3, (0, 0, 1, 1)), 2, 2, leaving={1: 1, 2: 0})
    assert (standing.owned_by(0), standing.owned_by(1)) == ([0], [3])
