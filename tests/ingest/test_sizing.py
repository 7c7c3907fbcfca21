"""How many gateways, shards and nodes: properties of the policies, with a clock of our own."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.sizing import FILL, LATE_SECONDS, UP_SECONDS, Load, ShardSize, bundles, gateways
from tests.clock import Clock

MB = 1_000_000.0
DOWN_S = 60.0
loads = st.floats(0, 1000 * MB)


class Shards:
    """Shards that become as many as are wanted, a while after."""

    def __init__(self, low: int, high: int, shards: int, takes_s: float = 0.0) -> None:
        self.clock = Clock()
        self.size = ShardSize(low, high, 10 * MB, DOWN_S, self.clock)
        self.shards = shards
        self.changes: list[tuple[float, int]] = []
        self._takes_s = takes_s
        self._busy_until = 0.0

    def step(self, bytes_s: float, age_s: float = 0.0, floor: float = 0.0, seconds: float = 2.0) -> int:
        self.clock.now += seconds
        steady = self.clock.now >= self._busy_until
        wanted = self.size.wanted(Load(self.shards, bytes_s, age_s, steady), floor)
        if wanted != self.shards:
            assert steady
            self.shards = wanted
            self.changes.append((self.clock.now, wanted))
            self._busy_until = self.clock.now + self._takes_s
        return self.shards


# -- gateways ---------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 1000), st.integers(1, 50), st.integers(0, 50))
def test_gateways_are_for_now_and_for_what_is_expected_within_their_bounds(
    at_once: float, floor: float, target: int, low: int, more: int
) -> None:
    found = gateways(at_once, floor, target, low, low + more)
    assert low <= found <= low + more
    assert found == low + more or found * target >= max(at_once, floor) - 1e-6 * target
    assert found == low or (found - 1) * target < max(at_once, floor)
    assert found >= gateways(0, floor, target, low, low + more)
    assert found >= gateways(at_once, 0, target, low, low + more)


# -- shards -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(loads, st.floats(0, 5), loads), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(0, 20),
    st.floats(0, 30),
)
def test_shards_stay_within_their_bounds_whatever_comes(
    seen: list[tuple[float, float, float]], low: int, more: int, takes_s: float
) -> None:
    shards = Shards(low, low + more, low, takes_s)
    for bytes_s, age_s, floor in seen:
        assert low <= shards.step(bytes_s, age_s, floor) <= low + more


@given(st.floats(0, 200 * MB), st.integers(1, 32))
def test_a_constant_load_is_answered_once_and_for_all(bytes_s: float, before: int) -> None:
    shards = Shards(1, 32, before)
    for _ in range(200):
        shards.step(bytes_s)
    enough = min(max(math.ceil(bytes_s / (FILL * 10 * MB) - 1e-9), 1), 32)
    assert shards.shards >= enough
    assert len(shards.changes) <= 1


@given(st.floats(1 * MB, 200 * MB), st.lists(st.floats(0.93, 1.07), min_size=100, max_size=100))
def test_a_load_that_trembles_does_not_make_shards_come_and_go(middle: float, trembling: list[float]) -> None:
    shards = Shards(1, 64, 1)
    for part in trembling * 3:
        shards.step(middle * part)
    counts = [count for _, count in shards.changes]
    ups = [b > a for a, b in zip([1, *counts], counts, strict=False)]
    assert ups == sorted(ups, reverse=True), f"up after down: {shards.changes}"


@given(st.lists(loads, min_size=10, max_size=80), st.floats(0, 20))
def test_no_shard_goes_before_its_time(seen: list[float], takes_s: float) -> None:
    shards = Shards(1, 16, 4, takes_s)
    for bytes_s in seen:
        shards.step(bytes_s)
    changes = [(0.0, 4), *shards.changes]
    for (at, before), (then, after) in itertools.pairwise(changes):
        if after < before:
            assert then - at >= DOWN_S, changes


def test_more_are_made_after_a_heart_beat_or_two_and_fewer_after_long() -> None:
    shards = Shards(1, 8, 1)
    assert shards.step(1 * MB) == 1
    waited = 0.0
    while shards.step(30 * MB, seconds=1.0) == 1:
        waited += 1.0
        assert waited < 60
    assert waited == UP_SECONDS
    assert shards.shards == 4
    for _ in range(29):
        assert shards.step(1 * MB) == 4
    for _ in range(5):
        shards.step(1 * MB)
    assert shards.shards == 1


def test_a_dip_costs_no_shard() -> None:
    shards = Shards(1, 8, 4)
    for number in range(300):
        shards.step(1 * MB if number % 25 else 30 * MB)
    assert shards.shards == 4


def test_a_queue_that_grows_old_asks_for_another_shard_whatever_the_bytes_say() -> None:
    shards = Shards(1, 4, 2)
    for _ in range(10):
        shards.step(1 * MB, age_s=2 * LATE_SECONDS)
    assert shards.shards == 4  # one after the other, as long as it does not help


def test_what_is_expected_is_there_before_it_comes() -> None:
    shards = Shards(1, 8, 1)
    for _ in range(10):
        shards.step(0.0, floor=39 * MB)
    assert shards.shards == 5
    for _ in range(100):
        shards.step(0.0, floor=39 * MB)
    assert shards.shards == 5


def test_nothing_is_decided_while_partitions_move() -> None:
    clock = Clock()
    size = ShardSize(1, 8, 10 * MB, DOWN_S, clock)
    for _ in range(50):
        clock.now += 2
        assert size.wanted(Load(3, 70 * MB, 9.0, False)) == 3
    clock.now += 2
    assert size.wanted(Load(3, 70 * MB, 9.0, True)) == 3


# -- nodes ------------------------------------------------------------------------------------------------------------


def test_nodes_have_room_for_all_that_is_expected() -> None:
    assert sum(bundle["CPU"] for bundle in bundles(6, 3)) == pytest.approx(6 * 0.5 + 3 * 0.25 + 2 * 0.25)
    assert bundles(6, 3) == bundles(6, 3)
    assert len(bundles(7, 3)) == len(bundles(6, 3)) + 1
