"""Twice what the platform can take, for a while: does memory stay flat, is every refusal a clear one, is all kept?

Finds the capacity with a closed loop first, then sends twice as much, whatever is answered: a client that is refused
does not slow down. Samples the resident memory of gateways, shards and Redis once a second. Writes a JSON file and,
beside it, a plot (SVG). Exits with 0 only if memory stayed flat after the first tenth, no answer was a 5xx, and
everything that was acknowledged can be read back, once.

    .venv/bin/python scripts/overload.py --seconds 600 --json overload.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

from load import Connection, basic, drive, request
from platforms import RebuUnderTest

USERS = 400
BATCH = 200
CONNECTIONS = 192
"""Enough that what waits in them is far more than the platform takes on at once."""
CALIBRATION_S = 8.0
KINDS = {
    "ServeReplica:rebu:Gateway": "gateway",
    "IngestShard": "shard",
    "valkey-server": "redis",
    "redis-server": "redis",
}
ID_BYTES = 16
"""What an id that is remembered costs a shard at most while runs are merged (8 bytes each, twice for a moment)."""
HEADROOM = 1.15
"""How much more than in the first tenth memory may come to; what is remembered of new ids is counted beside it."""
SETTINGS = {"REBU_HOT_EVENTS": "100", "REBU_FLUSH_SECONDS": "5", "REBU_INFLIGHT_BYTES": str(4 * 1024 * 1024)}


@dataclass
class Sample:
    """One second."""

    at_s: float
    rss: dict[str, int]
    """Bytes, by kind of process."""
    answers: dict[str, int]
    """Since the sample before, by status."""
    remembered: int


@dataclass
class Run:
    seconds: float
    capacity_per_s: float
    """Batches a second in the closed loop."""
    offered_per_s: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    acknowledged: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def template(first: int) -> bytes:
    """A batch of events of as many users, from number `first` on, without its own number."""
    events = [
        {
            "type": "track",
            "event": "Overload",
            "messageId": f"o-@-{place}",
            "userId": f"overload-{(first + place) % USERS}",
            "properties": {"screen": "home", "text": "x" * 200},
        }
        for place in range(BATCH)
    ]
    return json.dumps({"batch": events}).encode()


TEMPLATES = [template(first) for first in range(0, USERS, BATCH)]


def body(number: int) -> bytes:
    """Batch `number`; no two have an id in common."""
    return TEMPLATES[number % len(TEMPLATES)].replace(b"@", str(number).encode())


class Watch:
    """The processes of the platform, and what is asked of them."""

    def __init__(self, platform: RebuUnderTest) -> None:
        self._platform = platform
        self._http = httpx.Client(base_url=f"http://{platform.address[0]}:{platform.address[1]}", timeout=30)

    def rss(self) -> dict[str, int]:
        assert self._platform.program is not None
        found = dict.fromkeys(("gateway", "shard", "redis"), 0)
        for process in self._platform.program.tree.look():
            try:
                name = " ".join((process.name(), *process.cmdline()[:2]))
                kind = next((kind for mark, kind in KINDS.items() if mark in name), None)
                if kind is not None:
                    found[kind] += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return found

    def remembered(self) -> int:
        """Ids that the shards remember; the last known number where this read is refused, too."""
        answer = self._http.get("/v1/status", headers={"Authorization": f"Bearer {self._platform.read_key}"})
        if answer.status_code != 200:
            return -1
        return sum(shard.get("remembered_ids", 0) for shard in answer.json()["shards"])


async def overload(platform: RebuUnderTest, run: Run, watch: Watch) -> None:
    """Send at twice the capacity until the time is up."""
    run.offered_per_s = 2 * run.capacity_per_s
    started = time.monotonic()
    until = started + run.seconds
    due = asyncio.Queue[int](10 * CONNECTIONS)
    recent: Counter[str] = Counter()

    async def clock() -> None:
        """A batch is due every so often, whether or not the ones before were answered."""
        number = 1_000_000
        while time.monotonic() < until:
            wanted = 1_000_000 + int((time.monotonic() - started) * run.offered_per_s)
            while number < wanted:
                if not due.full():  # else every connection waits for an answer: then this one is never sent
                    due.put_nowait(number)
                number += 1
            await asyncio.sleep(0.01)

    async def work() -> None:
        connection = Connection(*platform.address)
        while time.monotonic() < until:
            try:
                number = await asyncio.wait_for(due.get(), 0.5)
            except TimeoutError:
                continue
            try:
                status, _ = await connection.exchange(
                    request("POST", "/v1/batch", authorization=basic(platform.write_key), body=body(number))
                )
            except OSError:
                run.broken += 1
                continue
            run.statuses[status] += 1
            recent[str(status)] += 1
            if status == 200:
                run.acknowledged.append(number)
        connection.close()

    async def sample() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(1.0)
            rss, remembered = await asyncio.to_thread(watch.rss), await asyncio.to_thread(watch.remembered)
            if remembered < 0 and run.samples:
                remembered = run.samples[-1].remembered
            run.samples.append(Sample(time.monotonic() - started, rss, dict(recent), max(0, remembered)))
            recent.clear()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())
        group.create_task(clock())
        group.create_task(sample())


def missing(platform: RebuUnderTest, run: Run) -> tuple[int, int]:
    """Acknowledged events that cannot be read back, and events that are there twice."""
    expected: dict[str, set[str]] = {f"overload-{user}": set() for user in range(USERS)}
    for number in run.acknowledged:
        for place in range(BATCH):
            expected[f"overload-{(number * BATCH + place) % USERS}"].add(f"o-{number}-{place}")
    found, _ = platform.histories(list(expected))
    lacking = sum(len(ids - set(found[user])) for user, ids in expected.items())
    return lacking, sum(len(ids) - len(set(ids)) for ids in found.values())


def growth(run: Run) -> dict[str, float]:
    """By kind, the most memory after the first tenth as a part of what the first tenth came to.

    Ids that are remembered are meant to add up, eight bytes each; they are taken off.
    """
    first = [s for s in run.samples if s.at_s <= run.seconds / 10] or run.samples[:1]
    later = [s for s in run.samples if s.at_s > run.seconds / 10]
    found = {}
    for kind in ("gateway", "shard", "redis"):
        base = max(s.rss[kind] - (ID_BYTES * s.remembered if kind == "shard" else 0) for s in first)
        most = max((s.rss[kind] - (ID_BYTES * s.remembered if kind == "shard" else 0) for s in later), default=base)
        found[kind] = most / max(base, 1)
    return found


def plot(run: Run) -> str:
    """Memory and answers over time, as an SVG."""
    width, height, left, top = 900, 300, 60, 30
    colours = {"gateway": "#1668b8", "shard": "#b84f16", "redis": "#2c8a3d", "200": "#2c8a3d", "429": "#b84f16"}

    def panel(title: str, series: Mapping[str, Sequence[float]], unit: str, offset: int) -> str:
        most = max((value for values in series.values() for value in values), default=1.0) or 1.0
        span = max((s.at_s for s in run.samples), default=1.0)
        out = [f'<text x="{left}" y="{offset + 18}" font-weight="bold">{title}</text>']
        for part in (0.0, 0.5, 1.0):
            y = offset + top + height * (1 - part)
            out.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.0f}" y2="{y:.0f}" stroke="#8886"/>')
            out.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{most * part:,.0f}</text>')
        for place, (name, values) in enumerate(series.items()):
            points = " ".join(
                f"{left + width * s.at_s / span:.1f},{offset + top + height * (1 - value / most):.1f}"
                for s, value in zip(run.samples, values, strict=True)
            )
            colour = colours.get(name, "#777")
            out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
            out.append(f'<text x="{left + 300 + 120 * place}" y="{offset + 18}" fill="{colour}">{name} ({unit})</text>')
        out.append(f'<text x="{left + width}" y="{offset + top + height + 18}" text-anchor="end">{span:.0f} s</text>')
        return "\n".join(out)

    memory = {kind: [s.rss[kind] / 1e6 for s in run.samples] for kind in ("gateway", "shard", "redis")}
    statuses = sorted({status for s in run.samples for status in s.answers})
    answers = {status: [float(s.answers.get(status, 0)) for s in run.samples] for status in statuses}
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 20}" height="{2 * (height + 80)}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>\n'
        + panel("Resident memory", memory, "MB", 10)
        + panel("Answers a second", answers, "/s", height + 80)
        + "\n</svg>\n"
    )


def main() -> int:
    """Run it; the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--json", type=Path, default=Path("overload.json"), metavar="FILE")
    arguments = parser.parse_args()
    with RebuUnderTest(SETTINGS) as platform:
        watch = Watch(platform)
        requests = [
            request("POST", "/v1/batch", authorization=basic(platform.write_key), body=body(number))
            for number in range(4000)
        ]
        warm = drive(platform.address, requests, connections=16, seconds=CALIBRATION_S)
        run = Run(arguments.seconds, warm.requests_per_s, acknowledged=list(warm.answered))
        print(f"capacity: {warm}; sending twice as much for {run.seconds:.0f} s", flush=True)
        asyncio.run(overload(platform, run, watch))
        lacking, doubled = missing(platform, run)
    grown = growth(run)
    server_errors = sum(count for status, count in run.statuses.items() if status >= 500)
    checks = {
        "memory_flat": all(part <= HEADROOM for part in grown.values()),
        "no_5xx": server_errors == 0,
        "nothing_missing": lacking == 0,
        "nothing_twice": doubled == 0,
        "overloaded": run.statuses[429] > 0,
    }
    numbers = {
        "seconds": run.seconds,
        "capacity_batches_per_s": run.capacity_per_s,
        "offered_batches_per_s": run.offered_per_s,
        "events_a_batch": BATCH,
        "answers": {str(status): count for status, count in sorted(run.statuses.items())},
        "broken_connections": run.broken,
        "missing": lacking,
        "twice": doubled,
        "memory_after_first_tenth": grown,
        "checks": checks,
        "samples": [asdict(sample) for sample in run.samples],
    }
    arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")
    arguments.json.with_suffix(".svg").write_text(plot(run))
    for name, value in numbers.items():
        if name != "samples":
            print(f"{name}: {value}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
