"""What has been seen, against a plain set."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.store import seen as seen_module
from rebu_ray.store.seen import DAY_MS, Seen
from tests.records import NOW, seeded

Step = tuple[str, list[int], int]
values = st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 2**63, 2**64 - 1, *range(100, 130)]), max_size=12)
steps = st.lists(st.tuples(st.sampled_from(["add", "add", "load", "discard"]), values, st.integers(0, 4)), max_size=40)


class Plain:
    """The same, slowly: every (day, fingerprint)."""

    def __init__(self, days: int) -> None:
        self.days = days
        self.known: set[tuple[int, int]] = set()

    def add(self, fingerprints: list[int], now: int) -> list[bool]:
        self.known = {(day, value) for day, value in self.known if day >= now // DAY_MS - self.days}
        new = []
        for value in fingerprints:
            new.append(all(value != known for _, known in self.known))
            if new[-1]:
                self.known.add((now // DAY_MS, value))
        return new


@pytest.fixture(autouse=True, scope="module")
def _few_recent() -> Iterator[None]:
    """Runs are made of a handful of fingerprints, so that small tests make and merge many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen_module, "_RECENT", 7)
        yield


@settings(seeded, max_examples=300)
@given(steps, st.integers(0, 3))
def test_it_is_a_set_that_forgets_by_the_day(steps: list[Step], days: int) -> None:
    seen, plain, now = Seen(days), Plain(days), NOW
    for what, fingerprints, step in steps:
        now += step * DAY_MS // 3
        batch = np.array(fingerprints, dtype=np.uint64)
        if what == "add":
            assert seen.add(batch, now).tolist() == plain.add(fingerprints, now)
        elif what == "load":
            day = now - step * DAY_MS
            seen.load(batch, day)
            plain.known |= {(day // DAY_MS, value) for value in fingerprints}
        else:
            seen.discard(batch)
            plain.known = {(day, value) for day, value in plain.known if value not in fingerprints}


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30, unique=True), st.integers(0, 29))
@settings(seeded)
def test_a_batch_that_was_taken_back_is_new_again(fingerprints: list[int], split: int) -> None:
    before, failed = fingerprints[:split], np.array(fingerprints, dtype=np.uint64)
    seen = Seen()
    seen.add(np.array(before, dtype=np.uint64), NOW)
    new = seen.add(failed, NOW)
    seen.discard(failed[new])
    assert seen.add(failed, NOW).tolist() == new.tolist()
    assert new.tolist() == [value not in before for value in fingerprints]


def test_seven_days_are_remembered_whatever_the_hour() -> None:
    for hour in range(24):
        seen = Seen()
        one = np.array([hour], dtype=np.uint64)
        seen.add(one, NOW + hour * DAY_MS // 24)
        assert not seen.add(one, NOW + hour * DAY_MS // 24 + 7 * DAY_MS).any()
        seen.add(np.array([], dtype=np.uint64), NOW + 20 * DAY_MS)
        assert len(seen) == 0


def test_an_event_costs_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "_RECENT", 4096)
    count, size = 24, 4096
    random = np.random.default_rng(7)
    seen = Seen()
    tracemalloc.start()
    try:
        for _ in range(count):
            assert seen.add(random.integers(0, 2**64, size, dtype=np.uint64), NOW).all()
        assert tracemalloc.get_traced_memory()[0] < 12 * count * size
    finally:
        tracemalloc.stop()
    assert len(seen) == count * size
    assert seen.nbytes == 8 * count * size
