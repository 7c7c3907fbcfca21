"""Twice what the platform can take, for a while: does memory stay flat, is every refusal a clear one, is all kept?

Finds the capacity with a closed loop first, then has twice as many batches fall due, whatever is answered. Most senders
are rude: what is refused they forget, and go on with the next. Some are polite: they wait for as long as Retry-After
says and send the same batch again. One sends broken JSON, which a gateway that is full refuses without looking at it.

Samples the resident memory of every process of the platform. Writes a JSON file and, beside it, a plot (SVG). Exits
with 0 only if memory stayed flat over the last four fifths, no answer was a 5xx, each refusal said when to come again,
every polite batch was taken in the end, and what was acknowledged can be read back, once.

    .venv/bin/python scripts/overload.py --minutes 10 --json overload.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
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
READ_BACK = 12
"""Of how many users everything that was acknowledged is read back."""
BATCH = 200
CONNECTIONS = 192
"""Of rude senders: what waits in them is far more than the platform takes on at once."""
POLITE = 8
CALIBRATION_S = 8.0
KINDS = {
    "ServeReplica:rebu:Gateway": "gateways",
    "IngestShard": "shards",
    "valkey-server": "redis",
    "redis-server": "redis",
}
OTHERS = "others"
ID_BYTES = 16
"""What an id that is remembered costs a shard at most while runs are merged (8 bytes each, twice for a moment)."""
HEADROOM = 0.10
"""How much memory may grow over the last four fifths, by a line through them, as a part of what there is."""
SETTINGS = {
    "REBU_HOT_EVENTS": "100",
    "REBU_FLUSH_SECONDS": "5",
    "REBU_INFLIGHT_BYTES": str(4 * 1024 * 1024),
    "REBU_BREAKER_SHARE": "1",
}


@dataclass
class Sample:
    """A second or two."""

    at_s: float
    rss: dict[str, int]
    """Bytes, by kind of process."""
    answers: dict[str, float]
    """A second, since the sample before, by status."""
    remembered: int


@dataclass
class Answers:
    """What one kind of sender was told."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    """How long an answer took, by status."""
    waits: Counter[str] = field(default_factory=Counter)
    """What Retry-After said, of refusals."""
    broken: int = 0

    def note(self, status: int, took_s: float, wait: str) -> None:
        self.statuses[status] += 1
        self.seconds.setdefault(status, []).append(took_s)
        if status in (429, 503):
            self.waits[wait] += 1

    def numbers(self) -> dict[str, object]:
        return {
            "answers": {str(status): count for status, count in sorted(self.statuses.items())},
            "broken_connections": self.broken,
            "retry_after": dict(sorted(self.waits.items())),
            "ms": {
                str(status): {f"p{p}": round(1000 * quantile(values, p), 1) for p in (50, 99)}
                for status, values in sorted(self.seconds.items())
            },
        }


@dataclass
class Run:
    seconds: float
    capacity_per_s: float
    """Batches a second in the closed loop."""
    offered: int = 0
    rude: Answers = field(default_factory=Answers)
    polite: Answers = field(default_factory=Answers)
    spoilt: Answers = field(default_factory=Answers)
    attempts: list[int] = field(default_factory=list)
    """How often each polite batch was sent until it was taken."""
    acknowledged: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


class Sender(Connection):
    """A connection that remembers what it was told about coming again."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.retry_after = ""

    async def send(self, wire: bytes, answers: Answers) -> int:
        """The status of the answer, 0 where the connection broke."""
        self.retry_after = ""
        started = time.monotonic()
        try:
            status, _ = await self.exchange(wire)
        except OSError:
            answers.broken += 1
            return 0
        answers.note(status, time.monotonic() - started, self.retry_after)
        return status

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value.decode()


def quantile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


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
        found = dict.fromkeys((*dict.fromkeys(KINDS.values()), OTHERS), 0)
        for process in self._platform.program.tree.look():
            try:
                name = " ".join((process.name(), *process.cmdline()[:2]))
                found[next((kind for mark, kind in KINDS.items() if mark in name), OTHERS)] += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return found

    def remembered(self) -> int | None:
        """Ids that the shards remember; None where this read is refused, too."""
        answer = self._http.get("/v1/status", headers={"Authorization": f"Bearer {self._platform.read_key}"})
        if answer.status_code != 200:
            return None
        return sum(int(shard.get("remembered_ids", 0)) for shard in answer.json()["shards"])


async def overload(platform: RebuUnderTest, run: Run, watch: Watch) -> None:
    """Send at twice the capacity until the time is up."""
    started = time.monotonic()
    until = started + run.seconds
    due = asyncio.Queue[int](10 * CONNECTIONS)
    key = basic(platform.write_key)

    def wire(content: bytes) -> bytes:
        return request("POST", "/v1/batch", authorization=key, body=content)

    async def clock() -> None:
        """A batch is due every so often, whether or not the ones before were answered."""
        number = first = 1_000_000
        while time.monotonic() < until:
            wanted = first + int((time.monotonic() - started) * 2 * run.capacity_per_s)
            while number < wanted:
                if not due.full():  # else every connection waits for an answer: then this one is never sent
                    due.put_nowait(number)
                number += 1
            await asyncio.sleep(0.01)

    async def rude() -> None:
        sender = Sender(*platform.address)
        while time.monotonic() < until:
            try:
                number = await asyncio.wait_for(due.get(), 0.5)
            except TimeoutError:
                continue
            run.offered += 1
            if await sender.send(wire(body(number)), run.rude) == 200:
                run.acknowledged.append(number)
        sender.close()

    async def polite(numbers: range) -> None:
        sender = Sender(*platform.address)
        for number in numbers:
            attempts = 0
            while True:
                attempts += 1
                status = await sender.send(wire(body(number)), run.polite)
                if status == 200:
                    break
                # At the end what is refused is sent until it is taken: by then nobody else sends anything.
                await asyncio.sleep(int(sender.retry_after or 1))
            run.attempts.append(attempts)
            run.acknowledged.append(number)
            await asyncio.sleep(1.0)
            if time.monotonic() >= until:
                break
        sender.close()

    async def spoilt() -> None:
        sender = Sender(*platform.address)
        while time.monotonic() < until:
            await sender.send(wire(body(0)[:-1]), run.spoilt)  # as large as the others, and no JSON
            await asyncio.sleep(0.2)
        sender.close()

    async def sample() -> None:
        before, at = Counter[int](), time.monotonic()
        remembered: int = 0
        while time.monotonic() < until:
            await asyncio.sleep(1.0)
            rss = await asyncio.to_thread(watch.rss)
            known = await asyncio.to_thread(watch.remembered)
            remembered = remembered if known is None else known
            now, all_of_them = time.monotonic(), run.rude.statuses + run.polite.statuses
            recent = {str(status): (count - before[status]) / (now - at) for status, count in all_of_them.items()}
            run.samples.append(Sample(now - started, rss, recent, remembered))
            before, at = all_of_them, now

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(rude())
        for place in range(POLITE):
            group.create_task(polite(range(1_000_000_000 + place, 2_000_000_000, POLITE)))
        for task in (clock(), spoilt(), sample()):
            group.create_task(task)


def missing(platform: RebuUnderTest, run: Run) -> tuple[int, int, int]:
    """Of some users: events that were acknowledged, those of them that cannot be read back, and those there twice."""
    expected: dict[str, set[str]] = {f"overload-{user}": set() for user in range(0, USERS, USERS // READ_BACK)}
    for number in run.acknowledged:
        for place in range(BATCH):
            theirs = expected.get(f"overload-{(number * BATCH + place) % USERS}")
            if theirs is not None:
                theirs.add(f"o-{number}-{place}")
    found, _ = platform.histories(list(expected))
    lacking = sum(len(ids - set(found[user])) for user, ids in expected.items())
    doubled = sum(len(ids) - len(set(ids)) for ids in found.values())
    return sum(map(len, expected.values())), lacking, doubled


def growth(run: Run) -> dict[str, float]:
    """By kind, and of all: how much a line through the last four fifths grows, as a part of where it begins.

    Ids that are remembered are meant to add up, eight bytes each; they are taken off.
    """
    later = [s for s in run.samples if s.at_s > run.seconds / 5]
    series = {kind: [float(s.rss[kind]) for s in later] for kind in later[0].rss}
    series["shards"] = [value - ID_BYTES * s.remembered for value, s in zip(series["shards"], later, strict=True)]
    series["all"] = [sum(values) for values in zip(*series.values(), strict=True)]
    found = {}
    for kind, values in series.items():
        line = statistics.linear_regression([s.at_s for s in later], values)
        first, last = (line.intercept + line.slope * s.at_s for s in (later[0], later[-1]))
        found[kind] = (last - first) / first
    return found


def plot(run: Run) -> str:
    """Memory and answers over time, as an SVG."""
    width, height, left, top = 900, 300, 60, 30
    colours = {"gateways": "#1668b8", "shards": "#b84f16", "redis": "#2c8a3d", "200": "#2c8a3d", "429": "#b84f16"}

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

    memory = {kind: [s.rss[kind] / 1e6 for s in run.samples] for kind in run.samples[0].rss}
    statuses = sorted({status for s in run.samples for status in s.answers})
    answers = {status: [s.answers.get(status, 0.0) for s in run.samples] for status in statuses}
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
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json", type=Path, default=Path("overload.json"), metavar="FILE")
    arguments = parser.parse_args()
    with RebuUnderTest(SETTINGS) as platform:
        watch = Watch(platform)
        requests = [
            request("POST", "/v1/batch", authorization=basic(platform.write_key), body=body(number))
            for number in range(4000)
        ]
        warm = drive(platform.address, requests, connections=16, seconds=CALIBRATION_S)
        run = Run(60 * arguments.minutes, warm.requests_per_s, acknowledged=list(warm.answered))
        print(f"capacity: {warm}; sending twice as much for {run.seconds:.0f} s", flush=True)
        asyncio.run(overload(platform, run, watch))
        kept, lacking, doubled = missing(platform, run)
    grown = growth(run)
    senders = (run.rude, run.polite, run.spoilt)
    statuses = sum((sender.statuses for sender in senders), Counter[int]())
    checks = {
        "memory_flat": grown["all"] <= HEADROOM,
        "no_5xx": not any(status >= 500 for status in statuses),
        "nothing_missing": lacking == 0,
        "nothing_twice": doubled == 0,
        "overloaded": run.rude.statuses[429] > 0,
        "refusals_say_when": all(wait.isdigit() and int(wait) > 0 for sender in senders for wait in sender.waits),
        "refused_unread": run.spoilt.statuses[429] > 0 and set(run.spoilt.statuses) <= {400, 429},
        "polite_senders_get_through": len(run.attempts) >= POLITE,
    }
    numbers = {
        "seconds": run.seconds,
        "capacity_batches_per_s": run.capacity_per_s,
        "offered_batches_per_s": run.offered / run.seconds,
        "events_a_batch": BATCH,
        "rude": run.rude.numbers(),
        "polite": run.polite.numbers(),
        "polite_attempts": {"batches": len(run.attempts), "most": max(run.attempts, default=0)},
        "broken_json": run.spoilt.numbers(),
        "read_back": kept,
        "missing": lacking,
        "twice": doubled,
        "memory_growth": {kind: round(part, 4) for kind, part in grown.items()},
        "memory_mb": {kind: round(bytes_ / 1e6) for kind, bytes_ in run.samples[-1].rss.items()},
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
