"""How much CPU and memory does the platform take while nothing happens, against an idle Ray Serve?

All processes of `rebu up` (Ray, Serve, HAProxy, Valkey, shards) while no request comes; then, alone, all processes of
a Ray with one Serve deployment that does nothing, behind HAProxy as well: what Ray itself takes.
"""

from __future__ import annotations

import argparse
import sys
import time

from platforms import RebuUnderTest
from processes import ProcessTree, Usage
from report import Report, arguments, progress
from serve_noop import Noop


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60, help="how long each is watched (60)")
    parser.add_argument("--settle", type=float, default=15, help="seconds from ready to the first look (15)")


def idle(tree: ProcessTree, settle: float, seconds: float) -> Usage:
    time.sleep(settle)
    return tree.watch(seconds)


def main() -> int:
    given = arguments(__doc__, options, rounds=0)
    with RebuUnderTest() as rebu:
        if rebu.program is None:
            raise SystemExit("rebu up has no process")
        ours = idle(rebu.program.tree, given.settle, given.seconds)
    with Noop("haproxy") as noop:
        peer = idle(noop.program.tree, given.settle, given.seconds)
    for name, usage in ((rebu.name, ours), ("Ray", peer)):
        largest = sorted(usage.by_name.items(), key=lambda entry: -entry[1])[:8]
        shares = ", ".join(f"{kind} {cpu_s / usage.seconds:.1%}" for kind, cpu_s in largest)
        progress(f"{name}, of one core: {shares}")
    report = Report("What it takes to be idle", rebu.name, "Ray (Serve with a route that does nothing)")
    share = [100 * ours.cpu_s / ours.seconds], [100 * peer.cpu_s / peer.seconds]
    report.add("CPU", "% of one core", *share, by_process=ours.by_name, peer_by_process=peer.by_name)
    report.add("memory, shared pages once", "MB", [ours.memory_bytes / 1e6], [peer.memory_bytes / 1e6])
    report.add("processes", "count", [ours.processes], [peer.processes])
    report.finish(given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
