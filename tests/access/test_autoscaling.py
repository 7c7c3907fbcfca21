"""What Serve is told about the number of gateways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.config import AutoscalingConfig

from rebu_ray.access.autoscaling import FLOOR_SECONDS, FRESH_SECONDS, GatewayPolicy, of_gateways
from rebu_ray.ingest.autoscaling import Advice
from rebu_ray.settings import load


class Told:
    """A source that says what it is told to."""

    def __init__(self, advice: Advice | None = None, age: float = 0.0) -> None:
        self.advice, self.age = advice, age

    def latest(self) -> tuple[Advice, float] | None:
        return None if self.advice is None else (self.advice, self.age)


def asked(source: Told, ongoing: float = 0.0, low: int = 1, high: int = 10) -> int:
    found, state = GatewayPolicy(8, low, high, source)(SimpleNamespace(total_num_requests=ongoing))
    assert state == {}
    return found


def test_the_coordinator_is_believed_as_long_as_it_speaks() -> None:
    told = Told(Advice(33.0, 0.0))
    assert asked(told, ongoing=9) == 5
    told.age = FRESH_SECONDS
    assert asked(told, ongoing=9) == 2


def test_without_anybody_who_knows_better_serve_counts_itself() -> None:
    assert asked(Told(), ongoing=25) == 4
    assert asked(Told(Advice(None, 0.0)), ongoing=25) == 4


def test_what_is_expected_outlives_the_coordinator_for_a_while() -> None:
    told = Told(Advice(1.0, 50.0), FRESH_SECONDS)
    assert asked(told, ongoing=3) == 7
    told.age = FLOOR_SECONDS
    assert asked(told, ongoing=3) == 1


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 200), st.floats(0, 1e4))
def test_never_below_the_floor_nor_beyond_the_bounds(at_once: float, floor: float, age: float, ongoing: float) -> None:
    found = asked(Told(Advice(at_once, floor), age), ongoing, 2, 20)
    assert 2 <= found <= 20
    if age < FLOOR_SECONDS:
        assert found == 20 or found * 8 >= floor - 1e-6


@pytest.mark.parametrize(("low", "high"), [(2, 2), (1, 8), (4, 2)])
def test_serve_takes_the_configuration(low: int, high: int) -> None:
    options: dict[str, Any] = {"min_replicas": low, "max_replicas": high}
    config = AutoscalingConfig(**of_gateways(load({}, **options)))
    assert (config.min_replicas, config.max_replicas) == (min(low, high), high)
    policy = config.policy.get_policy()
    assert (policy is GatewayPolicy) == (low < high)
