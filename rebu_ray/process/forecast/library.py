"""The candidates that statsforecast fits: each makes of log(1 + y) of a series the values of the days to come.

The settings are for a month ahead, where what a trend of some weeks promises rarely comes: trends are left out wherever
the library allows it, and smoothing is fitted to be right two weeks ahead instead of one day.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import numpy as np

from rebu_ray.process.forecast.series import WEEK, Numbers, Series, counts_of, filled

_RECENT: Final = 400
"""Days that are looked back at: what is older has no weight."""
_ARIMA_RECENT: Final = 200
"""The same for what takes longest."""
_AHEAD: Final = 14
"""Days ahead over which smoothing has to be right."""


def ets(series: Series, horizon: int) -> Numbers:
    """Exponential smoothing of level and week, by the mean square of its errors up to two weeks ahead."""

    def said(logs: Numbers) -> Any:
        library = import_module("statsforecast.ets")
        model = library.ets_f(logs, m=WEEK, model="ANA", opt_crit="amse", nmse=_AHEAD)
        return library.forecast_ets(model, h=horizon)

    return _made(series, horizon, _RECENT, said)


def theta(series: Series, horizon: int) -> Numbers:
    """AutoTheta: the best of four theta models (Fiorucci and others, 2016)."""

    def said(logs: Numbers) -> Any:
        return _models().AutoTheta(season_length=WEEK, decomposition_type="additive").forecast(logs, horizon)

    return _made(series, horizon, _RECENT, said)


def arima(series: Series, horizon: int) -> Numbers:
    """AutoARIMA of few terms without drift (Hyndman and Khandakar, 2008)."""

    def said(logs: Numbers) -> Any:
        few = {"max_p": 3, "max_q": 3, "max_P": 1, "max_Q": 1, "max_order": 4}
        model = _models().AutoARIMA(season_length=WEEK, allowdrift=False, approximation=True, **few)
        return model.forecast(logs, horizon)

    return _made(series, horizon, _ARIMA_RECENT, said)


def mstl(series: Series, horizon: int) -> Numbers:
    """MSTL, robust: what is left without the week by smoothing of its level, and the last week again and again
    (Bandara, Hyndman and Bergmeir, 2021).
    """

    def said(logs: Numbers) -> Any:
        level = _models().AutoETS(model="ANN")
        model = _models().MSTL(season_length=[WEEK], trend_forecaster=level, stl_kwargs={"robust": True})
        return model.forecast(logs, horizon)

    return _made(series, horizon, _RECENT, said)


def _models() -> Any:
    """The library, which takes two seconds and 150 MB: only who fits waits for it."""
    return import_module("statsforecast.models")


def _made(series: Series, horizon: int, recent: int, said: Callable[[Numbers], Any]) -> Numbers:
    logs = np.log1p(filled(series))[-recent:]
    if np.ptp(logs) == 0:
        # Nothing to fit.
        return counts_of(np.full(horizon, logs[-1]), series)
    with warnings.catch_warnings():
        # Of optimisers that stop early: the backtest tells what their model is worth.
        warnings.simplefilter("ignore")
        return counts_of(np.asarray(said(logs)["mean"], np.float64), series)
