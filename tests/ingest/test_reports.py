"""Numbers of replicas that come, go, and tell a coordinator that has forgotten them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.reports import GONE_SECONDS, Reports
from tests.clock import Clock


def test_who_comes_gets_the_lowest_number_that_is_free_and_keeps_it() -> None:
    clock = Clock()
    reports = Reports(clock)
    assert [reports.note("gateway", who, None, b"") for who in "abc"] == [0, 1, 2]
    assert reports.note("reader", "x", None, b"") == 0, "each kind has its own"
    clock.now += GONE_SECONDS
    assert [reports.note("gateway", who, number, b"") for who, number in (("c", 2), ("a", 0))] == [2, 0]
    clock.now += 1
    assert reports.note("gateway", "d", None, b"new") == 1, "b is gone"
    assert reports.note("gateway", "b", 1, b"") == 3, "its number is another's by now"
    told = {part.process: (part.labels, part.data) for part in reports.parts()}
    assert told["gateway-1"] == ({"replica": "1"}, b"new")
    assert told.keys() == {f"gateway-{n}" for n in range(4)}, "nor is the reader there any more"


def test_a_new_coordinator_leaves_everybody_the_number_that_they_had() -> None:
    before, after = Reports(Clock()), Reports(Clock())
    numbers = {who: before.note("gateway", who, None, b"") for who in "abcd"}
    assert {who: after.note("gateway", who, numbers[who], b"") for who in "dbca"} == numbers


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 2 * GONE_SECONDS)), max_size=40))
def test_no_two_have_a_number_at_once_and_there_are_no_more_than_processes(told: list[tuple[str, float]]) -> None:
    clock, known = Clock(), dict[str, int]()
    reports = Reports(clock)
    for who, pause in told:
        clock.now += pause
        known[who] = reports.note("gateway", who, known.get(who), b"")
        names = [part.process for part in reports.parts()]
        assert Counter(names).most_common(1)[0][1] == 1
        assert f"gateway-{known[who]}" in names
        assert known[who] < 6
