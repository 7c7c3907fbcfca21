"""A morning, a minute a second: how much falls due when, the senders, and what is looked at meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from load import Connection, basic, request

from rebu_ray.ingest.routing import COORDINATOR, NAMESPACE

USERS: Final = 300
BATCH: Final = 10
"""Events of a request."""
LATE_S: Final = 2.0
"""Whatever is answered later after it fell due than that was held up."""
LOOK_S: Final = 1.5
MOST_WAIT_S: Final = 8
"""The longest that a sender waits of its own accord until it comes again."""


@dataclass(frozen=True)
class Shape:
    """How many requests fall due a second, over time (s)."""

    night_s: float = 45.0
    ramp_s: float = 20.0
    rush_s: float = 75.0
    after_s: float = 70.0
    night: float = 4.0
    rush: float = 40.0

    @property
    def seconds(self) -> float:
        return self.night_s + 2 * self.ramp_s + self.rush_s + self.after_s

    @property
    def rush_ends(self) -> float:
        """When it becomes less."""
        return self.night_s + self.ramp_s + self.rush_s

    def rate(self, at: float) -> float:
        """Requests a second at a time."""
        begin, end = self.night_s, self.rush_ends
        up, down = (at - begin) / self.ramp_s, 1 - (at - end) / self.ramp_s
        return self.night + (self.rush - self.night) * max(0.0, min(1.0, up, down))

    def due(self, seed: int) -> Iterator[float]:
        """When requests fall due: at random, so many a second on average."""
        chance, at, most = random.Random(seed), 0.0, max(self.rush, self.night)
        while (at := at + chance.expovariate(most)) < self.seconds:
            if chance.random() * most < self.rate(at):
                yield at


@dataclass
class Answered:
    """What became of one request."""

    number: int
    due: float
    """Seconds from the beginning of the run."""
    at: float = 0.0
    """When it was answered with 200."""
    took_s: float = 0.0
    """Of that answer alone: from when it was sent for the last time."""
    refusals: int = 0


@dataclass
class Sample:
    """How many there are, at a time."""

    at: float
    gateways: int
    """That run."""
    paid_gateways: int
    """That run or are being started or stopped: what they cost."""
    shards: int
    nodes: int
    told: dict[str, Any] = field(default_factory=dict)
    """What the coordinator says of its autoscaling."""


@dataclass
class Run:
    """One morning."""

    policy: str
    shape: Shape
    answers: list[Answered] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    """Connections that ended before their answer."""
    faults: list[str] = field(default_factory=list)
    """Answers of 500 and more: when, and what they said."""
    unsent: int = 0
    """Requests that were never answered with 200."""
    missing: int = 0
    twice: int = 0
    balanced: bool = False
    samples: list[Sample] = field(default_factory=list)

    def rates(self) -> list[tuple[float, float]]:
        """Requests that fell due and that were answered, in each second."""
        due, done = (
            Counter(int(at) for at in found) for found in ((a.due for a in self.answers), (a.at for a in self.answers))
        )
        return [(float(due[s]), float(done[s])) for s in range(int(max([*due, *done], default=0)) + 1)]


def body(run: str, number: int) -> bytes:
    """A request's batch of events."""
    found = [
        {
            "type": "track",
            "event": "Ride Requested",
            "messageId": f"{run}-{number}-{place}",
            "userId": user(number * BATCH + place),
            "properties": {"screen": "map", "wait_s": 120 + place, "note": "to the station, please " * 6},
        }
        for place in range(BATCH)
    ]
    return json.dumps({"batch": found}).encode()


def user(place: int) -> str:
    """Whose event it is."""
    return f"spike-{place % USERS}"


class Sender(Connection):
    """A connection that remembers when to come again."""

    wait = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.wait = value.decode()


async def send(run: Run, address: tuple[str, int], key: str, name: str, seed: int, look: Callable[[], Sample]) -> None:
    """Let a morning pass: all that falls due is sent until it is taken."""
    idle: list[Sender] = []
    began = time.monotonic()
    chance = random.Random(seed + 1)

    async def one(number: int, due: float) -> None:
        wire = request("POST", "/v1/batch", authorization=basic(key), body=body(name, number))
        found = Answered(number, due)
        give_up = run.shape.seconds + 120
        while time.monotonic() - began < give_up:
            sender = idle.pop() if idle else Sender(*address)
            sender.wait = ""
            sent = time.monotonic()
            try:
                status, said = await sender.exchange(wire)
            except OSError:
                run.broken += 1
                await asyncio.sleep(1.0)
                continue
            idle.append(sender)
            run.statuses[status] += 1
            if status == 200:
                found.at, found.took_s = time.monotonic() - began, time.monotonic() - sent
                run.answers.append(found)
                return
            found.refusals += 1
            if status >= 500:
                run.faults.append(f"{time.monotonic() - began:.1f} s: {status} {said[:200].decode(errors='replace')}")
            # Never before it was told to, later each time as SDKs do, and not all of them at the same time again.
            wait = max(int(sender.wait or 1), min(2 ** (found.refusals - 1), MOST_WAIT_S))
            await asyncio.sleep(wait * (1 + 0.5 * chance.random()))
        run.unsent += 1

    async def samples() -> None:
        while True:
            found = await asyncio.to_thread(look)
            found.at = time.monotonic() - began
            run.samples.append(found)
            await asyncio.sleep(max(0.0, LOOK_S - (time.monotonic() - began - found.at)))

    looking = asyncio.create_task(samples())
    under_way = set()
    for number, due in enumerate(run.shape.due(seed)):
        await asyncio.sleep(max(0.0, due - (time.monotonic() - began)))
        task = asyncio.create_task(one(number, due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    await asyncio.sleep(max(0.0, run.shape.seconds - (time.monotonic() - began)))
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    for sender in idle:
        sender.close()


class Watch:
    """Asks Ray, past the gateways."""

    _ray: Any
    _serve: Any

    def __init__(self, gcs: str) -> None:
        self._gcs = gcs

    def __enter__(self) -> Watch:
        # Ray reads its environment when it is imported: only now is it that of this cluster.
        import ray
        from ray import serve

        self._ray, self._serve = ray, serve
        ray.init(address=self._gcs, log_to_driver=False, configure_logging=False)
        self._coordinator: Any = ray.get_actor(COORDINATOR, NAMESPACE)
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()
        # Serve knows its controller by the number of our job, which is the same in the next cluster.
        self._serve.context._set_global_client(None)

    def look(self) -> Sample:
        """How many there are now."""
        (application,) = self._serve.status().applications.values()
        states = {str(getattr(s, "value", s)): n for s, n in application.deployments["Gateway"].replica_states.items()}
        told = self._ray.get(self._coordinator.status.remote())
        nodes = sum(node["Alive"] for node in self._ray.nodes())
        gateways, paid = states.get("RUNNING", 0), sum(states.values())
        return Sample(0.0, gateways, paid, len(told["shards"]), nodes, told.get("autoscaling", {}))


def numbers(run: Run, target: int, low: int) -> dict[str, Any]:
    """What the contract asks of one morning. `target` is how many requests at once a gateway is meant to have."""
    shape = run.shape
    calm = [a for a in run.answers if 10 <= a.due < shape.night_s]
    rush = [a for a in run.answers if shape.night_s <= a.due < shape.rush_ends]
    steady = statistics_mean([a.took_s for a in run.answers])
    oracle = sum(max(low, -(-shape.rate(s + 0.5) * steady // target)) for s in range(int(shape.seconds)))
    samples = [s for s in run.samples if s.at < shape.seconds]
    return {
        "policy": run.policy,
        "requests": len(run.answers) + run.unsent,
        "errors_5xx": sum(count for status, count in run.statuses.items() if status >= 500),
        "faults": run.faults[:20],
        "refused_429": run.statuses[429],
        "broken_connections": run.broken,
        "never_taken": run.unsent,
        "lost": run.missing,
        "twice": run.twice,
        "audit_balanced": run.balanced,
        **ends("replicas", [s.gateways for s in samples]),
        **ends("nodes", [s.nodes for s in samples]),
        **ends("shards", [s.shards for s in samples]),
        "p99_ms_before": round(1000 * p99([a.at - a.due for a in calm])),
        "p99_ms_during": round(1000 * p99([a.at - a.due for a in rush])),
        "held_up": sum(a.at - a.due > LATE_S for a in rush),
        "seconds_to_absorb": round(absorbed(run), 1),
        "replica_seconds": round(held(samples, shape.seconds)),
        "oracle_replica_seconds": round(oracle),
        "request_s": round(steady, 3),
        "statuses": {str(status): count for status, count in sorted(run.statuses.items())},
    }


def absorbed(run: Run) -> float:
    """From when the rush begins until the last moment of it at which more requests wait for their answer than fall due
    within two seconds, so that one waits for longer than these on average (J. Little, 1961); 0 where more never do.
    """
    shape = run.shape
    changes = sorted([(a.due, 1) for a in run.answers] + [(a.at, -1) for a in run.answers])
    waiting, ends_at = 0, shape.night_s
    for at, change in changes:
        waiting += change
        if shape.night_s <= at < shape.rush_ends and waiting > LATE_S * shape.rate(at):
            ends_at = at
    return ends_at - shape.night_s


def held(samples: list[Sample], seconds: float) -> float:
    """Gateways times seconds, those that are being started and stopped included."""
    following = [*[s.at for s in samples[1:]], seconds]
    return sum(s.paid_gateways * (then - s.at) for s, then in zip(samples, following, strict=True))


def ends(name: str, values: list[int]) -> dict[str, int]:
    """At the start, at most, at the end."""
    return {f"{name}_start": values[0], f"{name}_max": max(values), f"{name}_end": values[-1]}


def p99(values: list[float]) -> float:
    """The value that a hundredth exceeds; nan where there is none."""
    found = sorted(values)
    return found[int(0.99 * (len(found) - 1))] if found else float("nan")


def statistics_mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def samples_of(run: Run) -> list[dict[str, Any]]:
    """For the file."""
    return [asdict(sample) for sample in run.samples]
