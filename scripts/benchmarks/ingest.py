"""How many events a second are accepted, against the peer?

Both take the same Segment batches, in turn, with fresh message ids every round; afterwards every event that was
accepted is read back. Rebu answers when an event is durable in its journal and readable. The peer answers when
its Redis has it in memory; with --peer-durable, when Redis has fsynced it as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from load import drive
from platforms import Peer, Platform, RebuUnderTest
from report import Report, arguments, progress
from workload import Batch, Workload


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peer", choices=("plain", "tuned"), default="plain", help="which peer (plain)")
    parser.add_argument("--batch", type=int, nargs="+", default=[500, 100], help="events a request (500 100)")
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 32, 64], help="requests at a time (8 32 64)")
    parser.add_argument("--events", type=int, default=200_000, help="events a round (200000)")
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--peer-durable", action="store_true", help="the peer's Redis fsyncs before it answers")


def accept(platform: Platform, batches: list[Batch], connections: int) -> float:
    """Events accepted a second, and what was refused on the way."""
    outcome = drive(platform.address, [platform.write(batch.body) for batch in batches], connections=connections)
    lost = len(batches) - len(outcome.answered)
    if lost:
        raise SystemExit(f"{platform.name} did not accept {lost} of {len(batches)} batches: {outcome.failures}")
    rate = sum(batch.events for batch in batches) / outcome.seconds
    progress(f"{platform.name}: {rate:,.0f} events/s; {outcome}")
    return rate


def missing(platform: Platform, sent: dict[str, set[str]]) -> int:
    """How many of the accepted events are not read back, or are read more than once."""
    found, outcome = platform.histories(list(sent))
    if outcome.failures:
        progress(f"{platform.name}, reading back: {outcome.failures}")
    return sum(len(ids.symmetric_difference(found[user])) + _repeated(found[user]) for user, ids in sent.items())


def _repeated(ids: Iterable[str]) -> int:
    ids = list(ids)
    return len(ids) - len(set(ids))


def main() -> int:
    given = arguments(__doc__, options)
    load = Workload(users=given.users)
    with RebuUnderTest() as rebu, Peer(plain=given.peer == "plain", durable=given.peer_durable) as peer:
        report = Report("Events accepted per second", rebu.name, peer.name)
        warm = load.batches(5_000, 500)
        for platform in (rebu, peer):
            accept(platform, warm, 4)
        for size in given.batch:
            for connections in given.connections:
                rates: dict[str, list[float]] = {rebu.name: [], peer.name: []}
                for turn in range(given.rounds):
                    batches = load.batches(given.events, size)
                    for platform in (rebu, peer) if turn % 2 == 0 else (peer, rebu):
                        rates[platform.name].append(accept(platform, batches, connections))
                what = f"batches of {size}, {connections} at a time"
                bytes_each = round(sum(b.event_bytes for b in batches) / given.events)
                report.add(what, "events/s", rates[rebu.name], rates[peer.name], event_bytes=bytes_each)
        lost = {platform.name: missing(platform, load.sent) for platform in (rebu, peer)}
    report.finish(given.json)
    total = sum(map(len, load.sent.values()))
    for name, count in lost.items():
        print(f"{name}: {total - count:,} of {total:,} accepted events read back exactly once")
    return 1 if any(lost.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
