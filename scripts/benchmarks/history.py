"""How many user histories a second are read (GET /v1/users/{id}/events?limit=100), against the peer?

Both hold the same events, some 250 a user, and are asked in turn for the same users in the same order. An item of
Rebu's answer says more than the peer's (kind, source, receipt time, why it matched), in more bytes.
"""

from __future__ import annotations

import argparse
import sys

from load import drive
from platforms import Peer, Platform, RebuUnderTest
from report import Report, arguments, progress
from workload import Workload


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peer", choices=("plain", "tuned"), default="plain", help="which peer (plain)")
    parser.add_argument("--seconds", type=float, default=5, help="length of a round (5)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 16], help="requests at a time (1 8 16)")
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--events", type=int, default=100_000)


def read(platform: Platform, users: list[str], connections: int, seconds: float, seed: int) -> tuple[float, float, int]:
    """Requests a second, their median latency in ms, and bytes of one answer."""
    sizes: list[int] = []

    def check(index: int, body: bytes) -> None:
        sizes.append(len(body))
        if body.count(b'"messageId"') != 100:
            raise SystemExit(f"{platform.name} answered for {users[index]} with other than 100 events")

    outcome = drive(
        platform.address,
        [platform.read(user) for user in users],
        connections=connections,
        seconds=seconds,
        repeatedly=True,
        seed=seed,
        on_answer=check,
    )
    if outcome.failures:
        raise SystemExit(f"{platform.name} failed: {outcome.failures}")
    progress(f"{platform.name}: {outcome}")
    return outcome.requests_per_s, outcome.latency_ms(50), sum(sizes) // len(sizes)


def main() -> int:
    given = arguments(__doc__, options)
    load = Workload(users=given.users)
    batches = load.batches(given.events, 500)
    users = [user for user, ids in load.sent.items() if len(ids) >= 100]
    if not users:
        raise SystemExit("no user has 100 events: ask for more --events or fewer --users")
    with RebuUnderTest() as rebu, Peer(plain=given.peer == "plain") as peer:
        report = Report("User histories read per second, 100 events each", rebu.name, peer.name)
        for platform in (rebu, peer):
            loaded = drive(platform.address, [platform.write(batch.body) for batch in batches])
            if len(loaded.answered) != len(batches):
                raise SystemExit(f"{platform.name} did not take the events: {loaded.failures}")
            found, _ = platform.histories(users)
            if any(set(found[user]) != load.sent[user] for user in users):
                raise SystemExit(f"{platform.name} does not give back what it was given")
        for connections in given.connections:
            seen: dict[str, list[tuple[float, float, int]]] = {rebu.name: [], peer.name: []}
            for turn in range(given.rounds):
                for platform in (rebu, peer) if turn % 2 == 0 else (peer, rebu):
                    seen[platform.name].append(read(platform, users, connections, given.seconds, turn))
            ours, theirs = seen[rebu.name], seen[peer.name]
            report.add(
                f"{connections} at a time",
                "requests/s",
                [rate for rate, _, _ in ours],
                [rate for rate, _, _ in theirs],
                answer_bytes=ours[0][2],
                peer_answer_bytes=theirs[0][2],
            )
            medians = [p50 for _, p50, _ in ours], [p50 for _, p50, _ in theirs]
            report.add(f"{connections} at a time, median", "ms", *medians)
    report.finish(given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
