"""What gateways report, and what the coordinator makes of it, with a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.traffic import WINDOW_S, Demand, Meter, Report, Work
from tests.clock import Clock


def test_work_is_what_is_worked_on_at_once_and_a_refusal_is_none() -> None:
    clock = Clock()
    work = Work(clock)
    work.begun()
    clock.now += 1.0
    work.begun()
    clock.now += 1.0
    work.ended(False)
    work.begun()
    work.ended(True)
    clock.now += 2.0
    assert work.report() == Report(4.0, 1, 1, 1.0 + 2.0 + 2.0)
    clock.now += 2.0
    work.ended(False)
    assert work.report() == Report(2.0, 1, 0, 2.0)


@given(st.lists(st.tuples(st.floats(0.01, 5), st.booleans()), max_size=30))
def test_no_work_is_counted_twice_however_often_is_reported(steps: list[tuple[float, bool]]) -> None:
    clock = Clock()
    seldom, often = Work(clock), Work(clock)
    found: list[Report] = []
    for seconds, report in steps:
        for work in (seldom, often):
            work.begun()
        clock.now += seconds
        if report:
            found.append(often.report())
        for work in (seldom, often):
            work.ended(False)
    found.append(often.report())
    whole = seldom.report()
    assert sum(r.answered for r in found) == whole.answered
    assert sum(r.busy_s for r in found) == pytest.approx(whole.busy_s)


def test_replicas_add_up_and_whoever_is_silent_no_longer_counts() -> None:
    clock = Clock()
    meter = Meter(clock)
    assert meter.demand() is None
    meter.note("a", Report(1.0, 10, 0, 2.0))
    meter.note("b", Report(2.0, 40, 0, 8.0))
    assert meter.demand() == Demand(6.0, 30.0, 0.0, 0.2)
    clock.now += WINDOW_S / 2
    meter.note("b", Report(2.0, 40, 0, 8.0))
    clock.now += WINDOW_S / 2
    found = meter.demand()
    assert found is not None
    assert (found.ongoing, found.answered_s) == (4.0, 20.0)
    clock.now += WINDOW_S
    assert meter.demand() is None


def test_a_refusal_counts_as_the_work_that_it_would_have_been() -> None:
    meter = Meter(Clock())
    meter.note("a", Report(1.0, 20, 5, 10.0))
    found = meter.demand()
    assert found is not None
    assert found.at_once == pytest.approx(10.0 + 5 * 0.5)


def test_those_who_come_again_and_again_do_not_count_as_more_and_more() -> None:
    assert Demand(8.0, 20.0, 5000.0, 0.4).at_once == pytest.approx(16.0)
