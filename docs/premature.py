"""Which rides will end too early? A small model from what was known then, tried on what came afterwards.

    python docs/premature.py http://127.0.0.1:8000 KEY --since 2026-03-01 --cut 2026-04-01

It learns from rides that were requested from `--since` to `--cut`, as they were known at `--cut` (`as_of`): a complaint
or an error that was received later is in no column, whatever is in the database by now. It predicts rides requested
after the cut, from what is known when a ride is requested: the hour, the city, and how earlier rides of the same driver
and the same rider ended. What happens during a ride (its errors, distance, duration) says how it ends, and is no
feature.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from rebu_ray import Rebu

Numbers = npt.NDArray[np.float64]
Time = str | datetime
PRIOR, WEIGHT = 0.05, 5.0
"""Of somebody with few earlier rides: so many of them ended early, as if from so many rides."""


class Tried(NamedTuple):
    """How good a model is on rides that it has not seen."""

    learned_from: int
    predicted: int
    share: float
    """How many of the predicted rides ended early."""
    auc: float
    """How often a ride that ended early was given more than one that did not; 0.5 is guessing."""
    weights: dict[str, float]


def features(rides: pd.DataFrame) -> pd.DataFrame:
    """What is known of each ride when it is requested; rides in the order of their requests."""

    def before(who: str, what: pd.Series[float]) -> pd.Series[float]:
        """The average of what somebody's earlier rides had."""
        groups = what.groupby(rides[who].fillna("?"))
        return (groups.cumsum() - what + PRIOR * WEIGHT) / (groups.cumcount() + WEIGHT)

    angle = 2 * np.pi * (rides["requested_at"].dt.hour + rides["requested_at"].dt.minute / 60) / 24
    ended_early = rides["premature"].astype(float)
    found = pd.DataFrame({"one": 1.0, "hour_sin": np.sin(angle), "hour_cos": np.cos(angle)}, index=rides.index)
    found["driver_ended_early"] = before("driver_id", ended_early)
    found["rider_ended_early"] = before("user_id", ended_early)
    found["rider_errors"] = before("user_id", (rides["errors_app"] + rides["errors_server"]).astype(float))
    cities = pd.get_dummies(rides["city"].fillna("?"), prefix="city", dtype=float)
    return found.join(cities)


def fit(x: Numbers, y: Numbers, ridge: float = 1.0, rounds: int = 30) -> Numbers:
    """The weights of a logistic regression (Newton's method)."""
    weights = np.zeros(x.shape[1])
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        curve = (x.T * (p * (1 - p))) @ x + ridge * np.eye(x.shape[1])
        weights -= np.linalg.solve(curve, x.T @ (p - y) + ridge * weights)
    return weights


def auc(scores: Numbers, y: Numbers) -> float:
    """Area under the ROC curve: by ranks, ties shared."""
    ranks = pd.Series(scores).rank().to_numpy()
    early = y > 0
    pairs = early.sum() * (~early).sum()
    return float((ranks[early].sum() - early.sum() * (early.sum() + 1) / 2) / pairs) if pairs else float("nan")


def learn_and_try(rebu: Rebu, since: Time, cut: Time, known_at: Time | None = None, **filters: Any) -> Tried:
    """Learn from the rides before the cut as they were known then (or at `known_at`), and predict those after it."""
    known = rebu.rides(since=since, until=cut, as_of=known_at or cut, **filters).to_pandas()
    later = rebu.rides(since=cut, **filters).to_pandas()
    if not len(known) or not len(later):
        raise SystemExit(
            f"{len(known)} rides were known at {known_at or cut}, {len(later)} came afterwards: both are needed. "
            "History that was loaded later was not known then: say with --known-at when it was"
        )
    # What has not ended by then says nothing of how it will.
    known, later = (rides[rides["ended_at"].notna()] for rides in (known, later))
    rides = pd.concat([known, later]).sort_values(["requested_at", "ride_id"]).reset_index(drop=True)
    x = features(rides)
    y = rides["premature"].to_numpy(float)
    seen = rides["ride_id"].isin(known["ride_id"]).to_numpy()
    matrix = x.to_numpy(float)
    mean, spread = matrix[seen].mean(0), matrix[seen].std(0)
    matrix = np.where(spread > 0, (matrix - mean) / np.where(spread > 0, spread, 1), 0.0)
    matrix[:, 0] = 1.0
    weights = fit(matrix[seen], y[seen])
    return Tried(
        learned_from=int(seen.sum()),
        predicted=int((~seen).sum()),
        share=float(y[~seen].mean()),
        auc=auc(matrix[~seen] @ weights, y[~seen]),
        weights=dict(zip(x.columns, weights.round(3).tolist(), strict=True)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("key", help="the read key")
    parser.add_argument("--since", required=True, help="learn from rides requested from here on")
    parser.add_argument("--cut", required=True, help="up to here, as they were known then; predict the rest")
    parser.add_argument("--known-at", help="as they were known at this time instead")
    parser.add_argument("--city", help="only in this city")
    given = parser.parse_args(arguments)
    with Rebu(given.url, given.key, progress=sys.stderr.isatty()) as rebu:
        tried = learn_and_try(rebu, given.since, given.cut, given.known_at, city=given.city)
    print(
        f"learned from {tried.learned_from:,} rides, predicted {tried.predicted:,}, "
        f"of which {tried.share:.1%} ended early"
    )
    print(f"AUC {tried.auc:.3f} (0.5 is guessing)")
    for name, weight in sorted(tried.weights.items(), key=lambda item: -abs(item[1])):
        print(f"  {weight:+.3f}  {name}")


if __name__ == "__main__":
    main()
