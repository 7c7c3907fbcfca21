"""How good are the forecasts of rides a day, on public series of rides, against the mean of the last four weekdays?

    forecast.py [--data FOLDER] [--days 28] [--json FILE]

Each series is forecast again and again from days of its last two fifths, by what was known up to then; what comes in
these days has been used for nothing else. MASE is the mean absolute error by that of the value of a week before within
what was known; below 1 of the peer is better. A good 80 % band holds 80 % of what comes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import report

from rebu_ray.process.forecast.backtest import NAMES, said_by_all
from rebu_ray.process.forecast.candidates import BASELINE
from rebu_ray.process.forecast.choice import forecast
from rebu_ray.process.forecast.free_days import holidays_of
from rebu_ray.process.forecast.series import prepared, scale

DATA: Final = Path(__file__).resolve().parents[2].parent / "shared" / "data"
TESTED: Final = 0.4
"""The part of each series, its end, whose days are forecast."""
BASES: Final = 8
"""So many of the companies with the most trips, and all together."""
BOROUGHS: Final = ("Manhattan", "Brooklyn", "Queens", "Bronx")

Counts = dict[date, float]


class Scored(NamedTuple):
    """Of one series: MASE of ours and of each candidate, coverage of both bands, and how often which was chosen."""

    origins: int
    ours: float
    candidates: dict[str, float]
    coverage80: float
    coverage95: float
    chosen: dict[str, int]


def series(data: Path) -> Iterator[tuple[str, Counts]]:
    """Rides a day, by the name of the series."""
    yield "taxi", _summed(data / "nyc_taxi_halfhourly" / "nyc_taxi.csv", "timestamp", "value")[""]
    bikes = data / "bikeshare_dc" / "day.csv"
    yield "bike share", _summed(bikes, "dteday", "cnt")[""]
    boroughs = _summed(data / "uber_nyc_hourly_2015" / "uber_nyc_enriched.csv.gz", "pickup_dt", "pickups", "borough")
    yield "Uber", _together(boroughs)
    for borough in BOROUGHS:
        yield f"Uber {borough}", boroughs[borough]
    bases = _summed(data / "uber_tlc_daily_2015" / "Uber-Jan-Feb-FOIL.csv", "date", "trips", "dispatching_base_number")
    yield "Uber January", _together(bases)
    companies = _companies(data / "fhv_bases_daily_2015" / "other-FHV-data-jan-aug-2015.csv.gz")
    yield "for hire", _together(companies)
    for name in sorted(companies, key=lambda name: -sum(companies[name].values()))[:BASES]:
        yield f"for hire {name}", companies[name]


def scored(counts: Counts, days: int, free: Collection[date]) -> Scored:
    """Forecast from origins a week apart (two in a long series), at the horizon of the platform's own forecasts."""
    first, last = min(counts), max(counts)
    whole = prepared(first, [counts.get(first + timedelta(n), 0.0) for n in range((last - first).days + 1)])
    count = len(whole.values)
    days = min(days, count // 4)
    errors: dict[str, list[float]] = defaultdict(list)
    inside: dict[str, list[float]] = defaultdict(list)
    chosen: dict[str, int] = defaultdict(int)
    ours = []
    origins = range(round(count * (1 - TESTED)), count - days, 7 if count < 200 else 14)
    for origin in origins:
        known, came = whole.until(origin), whole.values[origin + 1 : origin + 1 + days]
        unit, made = scale(known), forecast(known, days, free)
        there = ~np.isnan(came)
        for name, means in said_by_all(known, days + 1, free).items():
            errors[name].append(float(np.abs(came - means[1:])[there].mean()) / unit)
        ours.append(float(np.abs(came - [day.mean for day in made.items])[there].mean()) / unit)
        for band, low, high in (
            ("80", [day.lo80 for day in made.items], [day.hi80 for day in made.items]),
            ("95", [day.lo95 for day in made.items], [day.hi95 for day in made.items]),
        ):
            inside[band].append(float(((came >= low) & (came <= high))[there].mean()))
        chosen[made.model] += 1
    scores = {name: float(np.mean(found)) for name, found in errors.items()}
    bands = (float(np.mean(inside["80"])), float(np.mean(inside["95"])))
    return Scored(len(origins), float(np.mean(ours)), scores, *bands, dict(chosen))


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, default=DATA, help="folder of the public data sets")
        parser.add_argument("--days", type=int, default=28, help="days ahead (28)")

    arguments = report.arguments(__doc__, more, rounds=0)
    if not arguments.data.is_dir():
        raise SystemExit(f"there is no data at {arguments.data}: --data names the folder")
    free = holidays_of("US", 2010, 2016)
    told = report.Report("error of forecasts of rides a day", "ours", "weekday mean")
    found: dict[str, Scored] = {}
    for name, counts in series(arguments.data):
        report.progress(name)
        one = found[name] = scored(counts, arguments.days, free)
        details = {"origins": one.origins, "coverage80": one.coverage80, "coverage95": one.coverage95}
        peer = one.candidates[BASELINE]
        told.add(name, "MASE", [one.ours], [peer], **details, candidates=one.candidates, chosen=one.chosen)
    ratios = {name: [one.candidates[name] / one.candidates[BASELINE] for one in found.values()] for name in NAMES}
    ours = [one.ours / one.candidates[BASELINE] for one in found.values()]
    told.add("all series, mean ratio", "MASE", [float(np.mean(ours))], [1.0])
    for name in NAMES:
        told.add(f"candidate {name}, mean ratio", "MASE", [float(np.mean(ratios[name]))], [1.0])
    inner, outer = ([getattr(one, f"coverage{share}") for one in found.values()] for share in (80, 95))
    told.add("80 % band held, of 80", "%", [100 * float(np.mean(inner))], [80.0])
    told.add("95 % band held, of 95", "%", [100 * float(np.mean(outer))], [95.0])
    told.finish(arguments.json)
    for name, one in found.items():
        print(f"{name}: 80 % band {one.coverage80:.0%}, 95 % band {one.coverage95:.0%}, chosen {one.chosen}")


def _summed(path: Path, day: str, count: str, group: str | None = None) -> dict[str, Counts]:
    found: dict[str, Counts] = defaultdict(lambda: defaultdict(float))
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for row in csv.DictReader(file):
            found[row[group] if group else ""][_day(row[day])] += float(row[count])
    return found


def _companies(path: Path) -> dict[str, Counts]:
    """Lines end with CR alone, and begin with a preamble; companies that were there nearly every day."""
    with gzip.open(path, "rt", encoding="latin-1", newline="") as file:
        text = file.read().replace("\r\n", "\n").replace("\r", "\n")
    found: dict[str, Counts] = defaultdict(lambda: defaultdict(float))
    for row in csv.reader(io.StringIO(text)):
        if len(row) > 5 and row[1].strip().startswith("B0"):
            trips = row[5].replace(",", "").strip()
            found[row[1].strip()][_day(row[4].strip())] += float(trips) if trips.isdigit() else 0.0
    most = max(len(counts) for counts in found.values())
    return {name: counts for name, counts in found.items() if len(counts) >= 0.95 * most}


def _together(parts: dict[str, Counts]) -> Counts:
    total: Counts = defaultdict(float)
    for counts in parts.values():
        for day, count in counts.items():
            total[day] += count
    return total


def _day(text: str) -> date:
    return datetime.strptime(text, "%m/%d/%Y").date() if "/" in text else date.fromisoformat(text[:10])


if __name__ == "__main__":
    main()
