"""From scores to confidences, and from confidences to a decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from rebu_ray.process.matching.weights import DECISIONS

Status = Literal["linked", "ambiguous", "none"]


def confidences(scores: Sequence[float]) -> list[float]:
    """The probability of each alternative (one of them being `none`): a softmax that was calibrated.

    Scores are sums of log-likelihood ratios. They are divided by a temperature, because signals repeat each other,
    and a share `lapse` is kept back, because a message may be about what no signal knows.
    """
    temperature, lapse = DECISIONS["temperature"].value, DECISIONS["lapse"].value
    top = max(scores)
    powers = [math.exp((score - top) / temperature) for score in scores]
    total = math.fsum(powers)
    return [(1 - lapse) * power / total for power in powers]


def decide(best_ride: float, none: float) -> Status:
    """What to say where the best ride and `none` have these confidences."""
    if best_ride >= DECISIONS["link at"].value:
        return "linked"
    return "none" if none >= DECISIONS["none at"].value else "ambiguous"
