"""Forecasts: what holds for any series, and what must come out of simple ones."""

from __future__ import annotations

import csv
import math
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.process.forecast.backtest import NAMES, backtest, reach, said_by_all
from rebu_ray.process.forecast.bands import Past, band, coverage, roughness
from rebu_ray.process.forecast.candidates import BASELINE, ENSEMBLE
from rebu_ray.process.forecast.choice import FEWEST, Forecast, chosen, forecast
from rebu_ray.process.forecast.free_days import UnknownCountry, effect, holidays_of, masked
from rebu_ray.process.forecast.question import Question, answered, at_once
from rebu_ray.process.forecast.series import LONGEST, Numbers, Series, prepared, scale, weekday_means
from tests.real_data import DATA, needs_data
from tests.records import seeded

MONDAY = date(2026, 1, 5)


def weekly(days: int, level: float = 100.0, noise: float = 0.0, seed: int = 1) -> list[float]:
    """A day of the history's beginning, and then days with a week in them."""
    shape = np.array([1.0, 1.0, 1.0, 1.1, 1.3, 1.5, 0.7])
    errors = np.random.default_rng(seed).normal(0, noise, days) if noise else np.zeros(days)
    return [float(round(max(level * shape[n % 7] * math.exp(errors[n]), 1))) for n in range(days)]


def check(found: Forecast, after: date, days: int) -> None:
    """What every answer keeps to."""
    assert [item.date for item in found.items] == [after + timedelta(n) for n in range(1, days + 1)]
    for item in found.items:
        assert 0 <= item.lo95 <= item.lo80 <= item.mean <= item.hi80 <= item.hi95
        assert math.isfinite(item.hi95)


@settings(seeded, max_examples=25)
@given(
    st.lists(st.integers(0, 30) | st.integers(0, 3_000) | st.just(0), max_size=60),
    st.integers(1, 35),
    st.sets(st.integers(-80, 40)),
)
def test_any_history_has_a_forecast_in_order(counts: list[int], days: int, free: set[int]) -> None:
    today = MONDAY + timedelta(len(counts))
    series = prepared(MONDAY, counts)
    found = forecast(series, days, {today + timedelta(n) for n in free})
    check(found, today, days)
    known = int((~np.isnan(series.values)).sum())
    if known < FEWEST:
        assert found.model == BASELINE
        assert found.note is not None
        assert (found.backtest.windows, found.backtest.mase, found.backtest.coverage80) == (0, None, None)


@settings(seeded, max_examples=5)
@given(st.integers(60, 110), st.integers(0, 999), st.sampled_from([0.05, 0.3]))
def test_what_comes_later_changes_nothing_that_was_said_before(days: int, seed: int, noise: float) -> None:
    counts = weekly(days, 200, noise, seed)
    origin = days * 2 // 3
    before = said_by_all(Series(MONDAY, np.array(counts)).until(origin), 14, ())
    changed = [*counts[:origin], *(9_999.0 for _ in counts[origin:])]
    after = said_by_all(Series(MONDAY, np.array(changed)).until(origin), 14, ())
    assert all((before[name] == after[name]).all() for name in NAMES)


def test_a_week_that_repeats_is_forecast_as_it_is() -> None:
    counts = weekly(120)
    found = forecast(prepared(MONDAY, counts), 30)
    wanted = weekly(151)[121:]
    assert [item.mean for item in found.items] == pytest.approx(wanted, rel=0.02)
    assert found.backtest.mase_weekday_mean == pytest.approx(0, abs=0.01)


def test_the_baseline_is_the_mean_of_the_last_four_same_weekdays() -> None:
    counts = np.random.default_rng(3).integers(0, 100, 60).astype(float)
    found = weekday_means(Series(MONDAY, counts), 10)
    for n in range(10):
        same = [counts[d] for d in range(60) if d % 7 == (60 + n) % 7][-4:]
        assert found[n] == pytest.approx(np.mean(same))


def test_the_better_candidate_is_chosen_and_luck_is_not() -> None:
    scores = dict.fromkeys(NAMES, 1.0)
    assert chosen(scores | {"theta": 0.5}, 14) == "theta"
    assert chosen(scores | {"theta": 0.97}, 14) == ENSEMBLE
    assert chosen(scores | {"theta": 0.5}, 2) == ENSEMBLE
    assert chosen(scores | {BASELINE: 0.9}, 14) == BASELINE


def test_growth_is_followed_better_than_by_the_baseline() -> None:
    counts = [value * 1.01**n for n, value in enumerate(weekly(120, 100, 0.05))]
    found = forecast(prepared(MONDAY, counts), 14)
    assert found.backtest.mase is not None
    assert found.backtest.mase_weekday_mean is not None
    assert found.backtest.mase < 0.9 * found.backtest.mase_weekday_mean


def test_bands_hold_about_what_they_promise() -> None:
    inside: dict[float, list[float]] = {0.8: [], 0.95: []}
    for seed in range(4):
        counts = weekly(119, 500, 0.2, seed)
        made = forecast(prepared(MONDAY, counts[:90]), 28)
        came = counts[91:]
        inside[0.8] += [day.lo80 <= value <= day.hi80 for day, value in zip(made.items, came, strict=True)]
        inside[0.95] += [day.lo95 <= value <= day.hi95 for day, value in zip(made.items, came, strict=True)]
    assert 0.7 < np.mean(inside[0.8]) < 0.9
    assert np.mean(inside[0.95]) > 0.89


# -- gaps, beginnings, holidays -------------------------------------------------------------------------------------


def test_days_without_any_rides_are_an_outage_where_there_ought_to_be_many() -> None:
    counts = weekly(60)
    counts[30] = counts[31] = 0
    found = prepared(MONDAY, counts)
    assert np.flatnonzero(np.isnan(found.values)).tolist() == [29, 30]
    few = [float(n % 3 == 0) for n in range(60)]
    assert not np.isnan(prepared(MONDAY, few).values).any()
    named = prepared(MONDAY, weekly(60), {MONDAY + timedelta(8)})
    assert np.flatnonzero(np.isnan(named.values)).tolist() == [7]


def test_an_outage_is_not_learned() -> None:
    whole, gaps = weekly(100), weekly(100)
    gaps[70:90] = [0.0] * 20
    wanted = [item.mean for item in forecast(prepared(MONDAY, whole), 14).items]
    assert [item.mean for item in forecast(prepared(MONDAY, gaps), 14).items] == pytest.approx(wanted, rel=0.05)


def test_the_history_begins_after_the_day_of_the_first_ride() -> None:
    found = prepared(MONDAY, [0, 0, 5, 50, 60])
    assert (found.first, found.values.tolist()) == (MONDAY + timedelta(3), [50, 60])
    assert len(prepared(MONDAY, [0, 0]).values) == 0
    assert len(prepared(MONDAY, [1.0] * 3000).values) == LONGEST


def test_holidays_are_forecast_as_holidays_and_do_not_touch_other_days() -> None:
    counts = weekly(150)
    free = {MONDAY + timedelta(n) for n in (20, 51, 76, 98, 130, 155)}
    for n in (20, 51, 76, 98, 130):
        counts[n] = round(counts[n] / 2)
    series = prepared(MONDAY, counts)
    assert effect(series, free) == pytest.approx(math.log(0.5) * 5 / 7, rel=0.1)
    assert int(np.isnan(masked(series, free).values).sum()) == 5
    found = {item.date: item.mean for item in forecast(series, 14, free).items}
    wanted = weekly(170)
    assert found[MONDAY + timedelta(155)] < 0.75 * wanted[155]
    assert found[MONDAY + timedelta(158)] == pytest.approx(wanted[158], rel=0.05)


def test_calendars_of_countries() -> None:
    assert date(2026, 7, 4) in holidays_of("US", 2026, 2026)
    assert date(2026, 3, 8) in holidays_of("DE-BE", 2026, 2026)
    assert holidays_of("", 2020, 2030) == frozenset()
    with pytest.raises(UnknownCountry):
        holidays_of("QQ", 2026, 2026)


# -- backtest and bands ---------------------------------------------------------------------------------------------


@seeded
@given(st.integers(0, 400), st.integers(1, 91))
def test_a_backtest_never_looks_further_than_the_history_allows(days: int, horizon: int) -> None:
    found = reach(days, horizon)
    assert 0 <= found <= horizon
    assert found == 0 or days - found >= 14


def test_errors_of_the_backtest_are_what_came_less_what_was_said() -> None:
    series = prepared(MONDAY, weekly(80, 100, 0.2))
    found = backtest(series, 10)
    assert found is not None
    for number, day in enumerate(found.days):
        origin = (day - series.first).days + 1
        assert found.errors[number] == pytest.approx(series.values[origin : origin + 10] - found.said[number])
        assert found.scales[number] == pytest.approx(scale(series.until(origin)))
    assert found.days[0] == series.last - timedelta(10)


def past(errors: Numbers, roughness: float = 0.1, days_between: float = 0.0) -> Past:
    count = len(errors)
    return Past(
        errors,
        np.full_like(errors, 98.0),
        np.full(count, roughness, np.float64),
        days_between * np.arange(count, dtype=np.float64),
    )


def test_a_band_is_the_conformal_quantile_and_widens_beyond_what_was_seen() -> None:
    errors = np.arange(1.0, 9.0)[None, :]
    found = band(np.full(128, 98.0), past(errors), 0.1, 0.75)
    # The sixth of eight: all of them are near the first day, and near the last one that was seen.
    assert found.high[0] - 98 == pytest.approx(6)
    assert found.high[7] - 98 == pytest.approx(6)
    assert found.high[127] - 98 == pytest.approx(12)
    assert coverage(past(errors), 0.75) is None
    assert coverage(past(np.full((3, 8), 5.0)), 0.8) == 1


def test_a_band_follows_what_is_of_late_and_how_calm_it_is() -> None:
    means = np.array([98.0])
    errors = np.array([1.0] * 10 + [20.0] * 10)[:, None]
    # Half way back from bands that were too wide, by no more than a factor of 2.5, in ten of the 19 windows with others
    # before them.
    learnt = 0.4 ** (0.5 * 10 / 19)
    assert band(means, past(errors), 0.1, 0.8).high[0] == pytest.approx(98 + 20 * learnt)
    # Those before were long ago.
    assert band(means, past(errors, days_between=30), 0.1, 0.7).high[0] == pytest.approx(99, abs=0.02)
    # After weeks that are four times as rough the same errors say half as much.
    assert band(means, past(errors, roughness=0.4), 0.1, 0.8).high[0] == pytest.approx(98 + 10 * learnt)
    # Nothing known: as far as the forecast itself.
    assert band(means, past(np.full((3, 1), np.nan)), 0.1, 0.8).low[0] == 0


def test_a_band_learns_from_what_those_before_held() -> None:
    means = np.full(3, 98.0)

    def half(*windows: float) -> float:
        return float(band(means, past(np.repeat(np.array(windows)[:, None], 3, 1)), 0.1, 0.8).high[0]) - 98

    assert half(2.0) == pytest.approx(2)
    assert half(2.0, 2.0) == pytest.approx(2)
    assert half(1.0, 2.0) == pytest.approx(2 * math.sqrt(1 / 2))
    assert half(2.0, 1.0) == pytest.approx(2 * math.sqrt(2))


@pytest.mark.parametrize("noise", [0.05, 0.4])
def test_roughness_is_of_the_last_weeks_without_the_extremes(noise: float) -> None:
    counts = np.array(weekly(200, 1000, noise))
    rough = roughness(Series(MONDAY, counts))
    assert rough == pytest.approx(noise * 1.13, rel=0.25)
    counts[:100] *= 3
    assert roughness(Series(MONDAY, counts)) == rough
    counts[180] *= 50
    assert roughness(Series(MONDAY, counts)) < 1.4 * rough
    assert roughness(Series(MONDAY, np.full(3, 5.0))) > 0


# -- questions ------------------------------------------------------------------------------------------------------


def test_an_answer_is_of_the_days_after_today_and_says_what_it_lacks() -> None:
    counts = tuple(int(value) for value in weekly(90))
    today = MONDAY + timedelta(90)
    question = Question("UTC", today, 30, MONDAY, counts)
    check(answered(question), today, 30)
    instead = at_once(question)
    check(instead, today, 30)
    assert instead.model == BASELINE
    assert instead.note is not None
    unknown = answered(Question("UTC", today, 30, MONDAY, counts, "QQ"))
    assert "QQ" in (unknown.note or "")
    assert unknown.items == answered(question).items
    assert question.digest == Question("UTC", today, 30, MONDAY, counts).digest
    assert question.digest != Question("UTC", today, 30, MONDAY, (*counts[:-1], 0)).digest


@needs_data
def test_rented_bicycles_are_forecast_at_least_as_well_as_by_the_baseline() -> None:
    with (DATA / "bikeshare_dc" / "day.csv").open() as file:
        counts = [float(row["cnt"]) for row in csv.DictReader(file)]
    found = forecast(prepared(date(2011, 1, 1), counts), 28, holidays_of("US", 2011, 2012))
    assert found.backtest.mase is not None
    assert found.backtest.mase_weekday_mean is not None
    assert found.backtest.mase <= found.backtest.mase_weekday_mean
    assert found.backtest.coverage80 == pytest.approx(0.8, abs=0.1)
