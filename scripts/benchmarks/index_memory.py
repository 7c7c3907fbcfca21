"""How many bytes of Redis memory does an event take, against its own JSON and against the peer?

Growth of used_memory while the same events are written to both. Rebu's Redis holds what its answers need (the truth
is in its journal), the peer's holds everything.
"""

from __future__ import annotations

import argparse
import sys

from load import drive
from platforms import Peer, Platform, RebuUnderTest
from report import Report, arguments, progress
from workload import Batch, Workload


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=int, default=50_000, help="events a round (50000)")
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--batch", type=int, default=500, help="events a request (500)")


def growth(platform: Platform, batches: list[Batch]) -> float:
    """Bytes of Redis memory an event."""
    before = platform.used_memory()
    outcome = drive(platform.address, [platform.write(batch.body) for batch in batches], connections=4)
    if len(outcome.answered) != len(batches):
        raise SystemExit(f"{platform.name} did not take the events: {outcome.failures}")
    grown = (platform.used_memory() - before) / sum(batch.events for batch in batches)
    progress(f"{platform.name}: {grown:.0f} bytes an event")
    return grown


def main() -> int:
    given = arguments(__doc__, options, rounds=4)
    load = Workload(users=given.users)
    ours: list[float] = []
    theirs: list[float] = []
    json_bytes: list[float] = []
    with RebuUnderTest() as rebu, Peer() as peer:
        report = Report("Redis memory of an event", rebu.name, peer.name)
        for _ in range(given.rounds):
            batches = load.batches(given.events, given.batch)
            json_bytes.append(sum(batch.event_bytes for batch in batches) / given.events)
            ours.append(growth(rebu, batches))
            theirs.append(growth(peer, batches))
    report.add("growth of used_memory", "bytes/event", ours, theirs)
    per_json = ([a / b for a, b in zip(side, json_bytes, strict=True)] for side in (ours, theirs))
    report.add(f"of its JSON ({json_bytes[0]:.0f} bytes)", "times", *per_json)
    report.finish(given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
