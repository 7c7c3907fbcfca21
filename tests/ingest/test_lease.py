"""Leases, with a clock of our own."""

from __future__ import annotations

from rebu_ray.ingest.lease import Leases


def test_a_slot_is_lost_when_its_shard_was_asked_in_vain_for_as_long_as_the_lease() -> None:
    now = 100.0
    leases = Leases(20, lambda: now)
    leases.renew(0)
    leases.renew(1)
    assert leases.answering(range(3)) == [0, 1]
    for second in range(2, 20, 2):
        now = 100.0 + second
        leases.failed(0)
        leases.renew(1)
        assert leases.held(0)
    assert leases.answering(range(2)) == [1]
    now = 120.0
    assert not leases.held(0)
    assert leases.held(1)
    leases.renew(0)
    assert leases.held(0)
    assert leases.answering(range(2)) == [0, 1]


def test_a_coordinator_that_slept_asks_once_more() -> None:
    now = 0.0
    leases = Leases(20, lambda: now)
    leases.renew(0)
    now = 1000.0
    assert leases.held(0)
    leases.failed(0)
    assert leases.held(0)
    leases.failed(0)
    assert not leases.held(0)


def test_a_slot_that_never_answered_has_its_time_too() -> None:
    now = 0.0
    leases = Leases(20, lambda: now)
    leases.failed(7)
    leases.failed(7)
    assert leases.held(7)
    now = 20.0
    assert not leases.held(7)
    leases.renew(7, grace=100)
    leases.failed(7)
    leases.failed(7)
    now = 139.0
    assert leases.held(7)
    now = 140.0
    assert not leases.held(7)
