"""What a replica takes on: bounds that hold, places that come back, and a wait that follows what is done."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.admission import MAX_REQUESTS, MOST_WAIT_S, Admission, overloaded
from rebu_ray.records import BadRequest
from tests.clock import Clock
from tests.records import seeded


def wait(admission: Admission, amount: int) -> int:
    with pytest.raises(BadRequest) as refused, admission.request() as held:
        held.add(amount)
    assert (refused.value.status, refused.value.code) == (429, "overloaded")
    assert refused.value.retry_after is not None
    return refused.value.retry_after


@settings(seeded, max_examples=100)
@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=5), max_size=30))
def test_no_more_is_held_than_the_limit_unless_by_one_alone(requests: list[list[int]]) -> None:
    admission = Admission(100, Clock())
    with ExitStack() as open_requests:
        for chunks in requests:
            with suppress(BadRequest):
                held = open_requests.enter_context(admission.request())
                for chunk in chunks:
                    held.add(chunk)
            assert admission.held_bytes <= max(100, max((sum(c) for c in requests), default=0))
    assert (admission.held_bytes, admission.held_requests) == (0, 0)


def test_who_is_alone_is_always_taken() -> None:
    admission = Admission(10, Clock())
    for _ in range(3):
        with admission.request() as held:
            held.add(9)
            held.add(1_000_000)
    assert admission.held_bytes == 0


def test_requests_beyond_the_bound_are_refused_and_places_come_back() -> None:
    admission = Admission(1, Clock())
    with ExitStack() as stack:
        for _ in range(MAX_REQUESTS):
            stack.enter_context(admission.request())
        with pytest.raises(BadRequest), admission.request():
            pass
        assert admission.held_requests == MAX_REQUESTS
    with admission.request():
        assert admission.held_requests == 1


def worked(admission: Admission, clock: Clock, seconds: int) -> None:
    """100 bytes a second, for so long."""
    for _ in range(seconds):
        with admission.request() as held:
            held.add(100)
            clock.now += 1.0


@pytest.mark.parametrize("worked_s", [1, 4, 5, 7, 50])
@pytest.mark.parametrize("idle_s", [0.0, 3.0, 1000.0])
def test_the_wait_is_what_is_held_by_what_is_done_a_second(worked_s: int, idle_s: float) -> None:
    """Time in which there was nothing to do tells nothing."""
    clock = Clock()
    admission = Admission(1000, clock)
    worked(admission, clock, worked_s)
    clock.now += idle_s
    with admission.request() as held:
        held.add(1000)
        assert wait(admission, 1) == 10
    with admission.request() as held:
        held.add(1)
        assert wait(admission, 1000) == 1


def test_who_gets_nothing_done_asks_for_the_longest_wait() -> None:
    clock = Clock()
    admission = Admission(1000, clock)
    worked(admission, clock, 20)
    with admission.request() as held:
        held.add(1000)
        clock.now += 100.0
        assert wait(admission, 1) == MOST_WAIT_S


def test_a_refusal_does_not_make_the_replica_look_quick() -> None:
    clock = Clock()
    admission = Admission(1000, clock)
    worked(admission, clock, 20)
    with admission.request() as held:
        held.add(999)
        before = wait(admission, 500)
        for _ in range(50):
            wait(admission, 500)
        assert wait(admission, 500) == before


@pytest.mark.parametrize(("asked", "told"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.1, 2), (29.5, 30), (1e9, 30)])
def test_a_wait_is_whole_seconds_within_reason(asked: float, told: int) -> None:
    assert overloaded(asked).retry_after == told
