"""How many requests a second come through Ray Serve's HAProxy, against its default proxy and uvicorn alone?

The same Starlette route that does nothing, one replica, each way in processes and with an environment of its own. All
three run at once and are asked in turn; those not asked are idle.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from load import drive, request
from report import Report, arguments, progress
from serve_noop import WAYS, Noop


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=4, help="length of a round (4)")
    parser.add_argument("--connections", type=int, default=16, help="requests at a time (16)")


def measure(noop: Noop, connections: int, seconds: float) -> float:
    wire = [request("GET", "/")]
    outcome = drive(noop.address, wire, connections=connections, seconds=seconds, repeatedly=True)
    if outcome.failures:
        raise SystemExit(f"{noop.name} failed: {outcome.failures}")
    progress(f"{noop.name}: {outcome}")
    return outcome.requests_per_s


def main() -> int:
    given = arguments(__doc__, options)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with ExitStack() as running:
        noops = [running.enter_context(Noop(way)) for way in WAYS]
        for noop in noops:
            measure(noop, given.connections, 1)
        for turn in range(given.rounds):
            for noop in noops if turn % 2 == 0 else reversed(noops):
                rates[noop.way].append(measure(noop, given.connections, given.seconds))
    report = Report("Requests per second of a route that does nothing", WAYS["haproxy"], "other ways")
    for way in ("proxy", "uvicorn"):
        report.add(f"against {WAYS[way]}", "requests/s", rates["haproxy"], rates[way])
    report.finish(given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
