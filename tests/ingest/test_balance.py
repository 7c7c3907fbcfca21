"""Sharing out partitions, against every way in which it could be done."""

from __future__ import annotations

from collections import Counter
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.balance import balanced, moves, relieved
from tests.records import seeded

owners = st.lists(st.integers(0, 4), min_size=1, max_size=6)
slots = st.sets(st.integers(0, 4), min_size=1, max_size=3)


def changed(before: tuple[int, ...], after: tuple[int, ...]) -> int:
    return sum(old != new for old, new in zip(before, after, strict=True))


def even(found: tuple[int, ...], among: set[int]) -> bool:
    shares = [Counter(found)[slot] for slot in among]
    return set(found) <= among and max(shares) - min(shares) <= 1


@settings(seeded)
@given(owners, slots)
def test_shares_are_even_and_as_few_as_possible_move(before: list[int], among: set[int]) -> None:
    found = balanced(before, among)
    assert even(found, among)
    ways = [way for way in product(sorted(among), repeat=len(before)) if even(way, among)]
    assert changed(tuple(before), found) == min(changed(tuple(before), way) for way in ways)
    assert balanced(found, among) == found


@settings(seeded)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=300), st.sets(st.integers(0, 30), min_size=1))
def test_many_partitions_are_shared_evenly_too(before: list[int], among: set[int]) -> None:
    assert even(balanced(before, among), among)


@settings(seeded)
@given(owners, slots, st.integers(5, 6))
def test_what_a_lost_slot_had_goes_to_those_that_have_least_and_nothing_else_moves(
    before: list[int], live: set[int], lost: int
) -> None:
    with_lost = tuple(owner if n % 2 else lost for n, owner in enumerate(before))
    found = relieved(with_lost, lost, live)
    assert all(new == old for old, new in zip(with_lost, found, strict=True) if old != lost)
    assert lost not in found
    had, has = Counter(with_lost), Counter(found)
    grown = [slot for slot in live if has[slot] > had[slot]]
    assert all(has[slot] - 1 <= has[other] for slot in grown for other in live)


@settings(seeded)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30), st.integers(1, 5))
def test_moves_lead_from_one_to_the_other(ways: list[tuple[int, int]], at_once: int) -> None:
    now, after = [a for a, _ in ways], [b for _, b in ways]
    for move in moves(now, after, at_once):
        assert 1 <= len(move.partitions) <= at_once
        for partition in move.partitions:
            assert now[partition] == move.source
            now[partition] = move.target
    assert now == after
