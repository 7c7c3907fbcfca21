"""Estimates the parameters of the matching and writes them into `rebu_ray/process/matching/weights.py`.

    python scripts/estimate_matching.py [--dialogues N] [--write]

From dialogues of the benchmark's generator (other seeds, and never a template that is held out):

1. The weights: a conditional logit (McFadden 1974) over each first message's rides and `none`, by Newton's method, with
   a Gaussian prior around each weight's `prior`, so that what is seldom seen stays near what was believed.
2. The weights of a thread, the others fixed, from the messages that have others of their thread.
3. Temperature and lapse, by cross-fitting: weights from one half of the templates judge texts of the other half.
4. The confidence from which a ride is linked: the lowest with the wanted precision on those texts.

Deterministic: the same arguments print the same table.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "benchmarks")]

from matching_truth import Templates, World, world  # noqa: E402

from rebu_ray.process.matching.link import cases  # noqa: E402
from rebu_ray.process.matching.weights import DECISIONS, WEIGHTS, Parameter  # noqa: E402

TABLE: Final = ROOT / "rebu_ray" / "process" / "matching" / "weights.py"
SHARES: Final = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of messages about the newest ride, mixed in equal parts: nobody knows the real one."""
PRECISION: Final = 0.975
"""Wanted of `linked` on texts of other templates: well above what is asked for, since real people differ more."""
LEAST: Final = 0.70
"""No ride is linked below this confidence: a wrong link costs more than twice what an ambiguous message costs."""
_DEVIATION: Final = 0.8
_DEVIATION_OF_IDS: Final = 0.25
"""Of the Gaussian prior, in nats. What ids say is known beforehand: no two rides share one."""
Floats = NDArray[np.float64]


class Problem(NamedTuple):
    """Messages as choices: `x` has a row for each alternative, `starts` a message's first, `chosen` its true one."""

    x: Floats
    offset: Floats
    starts: NDArray[np.int64]
    chosen: NDArray[np.int64]
    is_none: NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=1000, help="for each share and part of the templates (1000)")
    parser.add_argument("--write", action="store_true", help="write the values into weights.py")
    arguments = parser.parse_args()
    parts: dict[Templates, list[World]] = {
        name: [world(9000 + number, arguments.dialogues, share, name) for number, share in enumerate(SHARES)]
        for name in ("first", "second")
    }
    keys = [key for key in WEIGHTS if not key.startswith("thread.")]
    threads = [key for key in WEIGHTS if key.startswith("thread.")]
    first, second = (problem(parts[name], keys, begins=True) for name in ("first", "second"))
    crossed = []
    for train, test in ((first, second), (second, first)):
        weights = fit(train, priors(keys), pulls(keys))
        crossed.append((test, test.offset + test.x @ weights))
        report("weights judged on the other templates", test, crossed[-1][1])
    temperature, lapse = calibrated(crossed)
    print(f"temperature {temperature:.3f}, lapse {lapse:.4f}", file=sys.stderr)
    everything = joined((first, second))
    weights = fit(everything, priors(keys), pulls(keys))
    report("all known templates", everything, everything.x @ weights)
    put(WEIGHTS, dict(zip(keys, weights.tolist(), strict=True)))
    follow = joined([problem(parts[name], threads, begins=False) for name in ("first", "second")])
    put(WEIGHTS, dict(zip(threads, fit(follow, priors(threads), pulls(threads)).tolist(), strict=True)))
    at = [threshold(test, scores, temperature, lapse) for test, scores in crossed]
    print(f"link at {at}", file=sys.stderr)
    put(DECISIONS, {"temperature": temperature, "lapse": lapse, "link at": max(*at, LEAST)})
    for key, parameter in (WEIGHTS | DECISIONS).items():
        print(f"{key:28} {parameter.value:8.3f} {parameter.prior:8.2f}  {parameter.meaning}")
    if arguments.write:
        write()


def problem(worlds: Iterable[World], keys: list[str], *, begins: bool) -> Problem:
    """The choices of worlds; signals that are not in `keys` go into the offset at their present weights."""
    place = {key: number for number, key in enumerate(keys)}
    rows: list[Floats] = []
    offsets: list[float] = []
    starts: list[int] = []
    chosen: list[int] = []
    nones: list[bool] = []
    for made in worlds:
        for mine in cases(made.messages, made.stats, made.drivers, made.users):
            for case in mine:
                truth = made.truth[case.row["message_id"]]
                wanted = truth.begins if begins else bool(case.thread)
                if not wanted or truth.ride_id not in case.own:
                    continue
                starts.append(len(rows))
                for key in case.own:
                    if key == truth.ride_id:
                        chosen.append(len(rows))
                    row = np.zeros(len(keys))
                    offset = 0.0
                    found = [*case.own[key], *case.setting[key]] if begins else case.signals_of(key)
                    for signal in found:
                        if signal.key in place:
                            row[place[signal.key]] += signal.times
                        else:
                            offset += WEIGHTS[signal.key].value * signal.times
                    rows.append(row)
                    offsets.append(offset)
                    nones.append(key is None)
    return Problem(np.array(rows), np.array(offsets), np.array(starts), np.array(chosen), np.array(nones))


def joined(problems: Iterable[Problem]) -> Problem:
    """Several problems as one."""
    every = list(problems)
    bases = np.cumsum([0, *(len(one.offset) for one in every[:-1])])
    return Problem(
        np.concatenate([one.x for one in every]),
        np.concatenate([one.offset for one in every]),
        np.concatenate([one.starts + base for one, base in zip(every, bases, strict=True)]),
        np.concatenate([one.chosen + base for one, base in zip(every, bases, strict=True)]),
        np.concatenate([one.is_none for one in every]),
    )


def softmax(scores: Floats, starts: NDArray[np.int64]) -> Floats:
    """Within each message."""
    counts = np.diff([*starts, len(scores)])
    powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), counts))
    answer: Floats = powers / np.repeat(np.add.reduceat(powers, starts), counts)
    return answer


def fit(given: Problem, prior: Floats, pull: Floats) -> Floats:
    """The weights of greatest posterior density, by Newton's steps, halved where one is too long (it is concave)."""
    weights, before = prior.copy(), -math.inf
    for _ in range(60):
        p = softmax(given.offset + given.x @ weights, given.starts)
        mean = np.add.reduceat(given.x * p[:, None], given.starts, axis=0)
        gradient = given.x[given.chosen].sum(axis=0) - mean.sum(axis=0) - pull * (weights - prior)
        curve = (given.x * p[:, None]).T @ given.x - mean.T @ mean + np.diag(pull)
        step = np.linalg.solve(curve, gradient)
        size = 1.0
        while size > 1e-4 and objective(given, weights + size * step, prior, pull) < before:
            size /= 2
        weights = weights + size * step
        before = objective(given, weights, prior, pull)
        if np.abs(size * step).max() < 1e-5:
            break
    return weights


def objective(given: Problem, weights: Floats, prior: Floats, pull: Floats) -> float:
    """Log posterior density, up to a constant."""
    p = softmax(given.offset + given.x @ weights, given.starts)
    return float(np.log(p[given.chosen]).sum() - (pull * (weights - prior) ** 2).sum() / 2)


def calibrated(judged: list[tuple[Problem, Floats]]) -> tuple[float, float]:
    """Temperature and lapse under which the truth of other texts is likeliest; never surer than the weights were."""
    best = (-math.inf, 1.0, 0.0)
    for temperature in np.arange(1.0, 2.01, 0.05):
        p = np.concatenate([softmax(scores / temperature, given.starts)[given.chosen] for given, scores in judged])
        counts = np.concatenate([np.diff([*given.starts, len(given.offset)]) for given, _ in judged])
        for lapse in (0.003, 0.005, 0.01, 0.02, 0.03):
            likelihood = float(np.log((1 - lapse) * p + lapse / counts).sum())
            best = max(best, (likelihood, float(temperature), lapse))
    return round(best[1], 3), best[2]


def threshold(given: Problem, scores: Floats, temperature: float, lapse: float) -> float:
    """The lowest confidence from which links are as precise as wanted."""
    p = (1 - lapse) * softmax(scores / temperature, given.starts)
    rides = np.where(given.is_none, -1.0, p)
    bounds = [*given.starts, len(p)]
    best = np.array([low + int(np.argmax(rides[low:high])) for low, high in pairwise(bounds)])
    right = best == given.chosen
    for limit in np.arange(0.5, 0.99, 0.01):
        linked = p[best] >= limit
        if linked.any() and right[linked].mean() >= PRECISION:
            return round(float(limit), 2)
    return 0.99


def report(what: str, given: Problem, scores: Floats) -> None:
    p = softmax(scores, given.starts)
    bounds = [*given.starts, len(p)]
    top = np.array([low + int(np.argmax(p[low:high])) for low, high in pairwise(bounds)])
    right = float((top == given.chosen).mean())
    print(f"{what}: {len(given.starts)} messages, right {right:.3f}, "
          f"log loss {-float(np.log(p[given.chosen]).mean()):.3f}", file=sys.stderr)  # fmt: skip


def priors(keys: list[str]) -> Floats:
    return np.array([WEIGHTS[key].prior for key in keys])


def pulls(keys: list[str]) -> Floats:
    """How strongly each weight is drawn to its prior: one by the variance."""
    ids = ("ticket", "id.")
    return np.array([(_DEVIATION_OF_IDS if key.startswith(ids) else _DEVIATION) ** -2 for key in keys])


def put(table: dict[str, Parameter], values: dict[str, float]) -> None:
    """New values into a table of parameters."""
    for key, value in values.items():
        table[key] = table[key]._replace(value=round(value, 3))


def write() -> None:
    """The present values into the source of the table."""
    text = TABLE.read_text()
    for key, parameter in (WEIGHTS | DECISIONS).items():
        pattern = re.compile(rf'("{re.escape(key)}": Parameter\(\s*)-?[\d.]+(?=,)')
        text, count = pattern.subn(rf"\g<1>{parameter.value:g}", text)
        if count != 1:
            raise SystemExit(f"{TABLE} has {count} lines for {key}")
    TABLE.write_text(text)


if __name__ == "__main__":
    main()
