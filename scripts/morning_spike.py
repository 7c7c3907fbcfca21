"""A morning, compressed: the night's traffic becomes ten times as much within minutes, and less again.

Runs the platform on nodes that Ray's own autoscaler starts and ends (processes of this machine), once with the policy
that reacts and, a week later by its clock, once with the one that has learned from that first morning. A minute of the
clock is a second. All requests go through real HTTP at their time, whatever becomes of those before them; who is told
429 comes again when Retry-After says.

All gateways share the cores of one machine, so what limits a gateway here is not these: Redis is kept at a distance,
and a gateway works on so many requests at once, beyond which it refuses. Twice the gateways then take twice as much,
as they would on nodes with cores of their own.

Writes a JSON file (the numbers of the predictive morning; those of the other one below `reactive`) and a plot beside
it. Exits with 0 only if nothing was lost or stored twice, no answer was a 5xx, every refused request was taken in the
end, gateways were paid for no more than one and a half times as long as with an oracle's knowledge of the load, and
the policy that expects the rush absorbed it sooner than the one that reacts.

    .venv/bin/python scripts/morning_spike.py --json spike.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

from platforms import StartError

from scripts.spike.morning import BATCH, USERS, Run, Shape, Watch, numbers, samples_of, send, user
from scripts.spike.nodes import Far, OnNodes, far_redis
from scripts.spike.plot import plot

FAR_S: Final = 0.1
"""How long an answer of Redis waits on its way."""
TARGET: Final = 6
MOST_AT_ONCE: Final = 12
"""Of a gateway: twice what is aimed at, since HAProxy sends it up to one and a half times its share."""
LOW, HIGH = 1, 7
PART: Final = 1.5
"""How many times the oracle's gateway seconds may be paid for."""
MORNINGS: Final = {"reactive": "2026-03-02T06:00:00Z", "predictive": "2026-03-09T06:00:00Z"}
STARTS_S: Final = (60.0, 240.0)
"""How long a start may take, and what it may take at the second attempt: both mornings begin at the same time of their
clocks.
"""
SETTINGS: Final = {
    "REBU_SHARDS": "1",
    "REBU_MAX_SHARDS": "2",
    "REBU_SHARD_BYTES_S": "160000",
    "REBU_MIN_REPLICAS": str(LOW),
    "REBU_MAX_REPLICAS": str(HIGH),
    "REBU_TARGET_REQUESTS": str(TARGET),
    "REBU_REPLICA_REQUESTS": str(MOST_AT_ONCE),
    "REBU_UPSCALE_SECONDS": "1",
    "REBU_DOWNSCALE_SECONDS": "15",
    "REBU_NODE_START_SECONDS": "10",
    "REBU_WAREHOUSE_SECONDS": "0",
    # What moves to the lake is trimmed from Redis, partition by partition; at this distance that holds up writes.
    "REBU_FLUSH_SECONDS": "600",
    "REBU_PARTITIONS": "4",
    "REBU_BREAKER_SHARE": "1",
}


@contextmanager
def stage() -> Iterator[tuple[Path, Far]]:
    """A folder, and a Redis with a way to it."""
    folder = Path(tempfile.mkdtemp(prefix="rebu-spike-"))
    try:
        with far_redis(folder) as far:
            yield folder, far
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def morning(policy: str, shape: Shape, seed: int, folder: Path, far: Far) -> Run:
    """One of them, from the start of the cluster to its end; anew where a busy machine took too long to start it."""
    for start_s in STARTS_S:
        run = one_morning(policy, shape, seed, folder, far, start_s)
        if run is not None:
            return run
    raise StartError(f"the platform took longer than {STARTS_S[-1]:.0f} s to start")


def one_morning(policy: str, shape: Shape, seed: int, folder: Path, far: Far, start_s: float) -> Run | None:
    """A morning that begins so long from now; None where the platform is not up by then."""
    run = Run(policy, shape)
    begins = datetime.now(UTC) + timedelta(seconds=start_s)
    clock = f"{MORNINGS[policy]}*60@{begins.isoformat()}"
    with OnNodes(folder, far, {**SETTINGS, "REBU_AUTOSCALING": policy, "REBU_TRAFFIC_CLOCK": clock}) as platform:
        left = (begins - datetime.now(UTC)).total_seconds()
        print(f"{policy}: up, the morning begins in {left:.0f} s", flush=True)
        if left < 0:
            return None
        time.sleep(left)
        # Ray tells whoever is connected of every node that ends.
        with (
            (folder / "told.log").open("a") as told,
            redirect_stdout(told),
            redirect_stderr(told),
            Watch(platform.gcs) as watch,
        ):
            far.seconds = FAR_S
            asyncio.run(send(run, platform.address, platform.write_key, policy, seed, watch.look))
            far.seconds = 0.0
        check(run, platform)
    return run


def check(run: Run, platform: OnNodes) -> None:
    """Read everything back, and have the books balanced."""
    wanted: dict[str, set[str]] = {user(place): set() for place in range(USERS)}
    for answer in run.answers:
        for place in range(BATCH):
            wanted[user(answer.number * BATCH + place)].add(f"{run.policy}-{answer.number}-{place}")
    found, _ = platform.histories(list(wanted))
    for name, ids in wanted.items():
        theirs = [event for event in found[name] if event.startswith(f"{run.policy}-")]
        run.missing += len(ids - set(theirs))
        run.twice += len(theirs) - len(set(theirs))
    url = f"http://{platform.address[0]}:{platform.address[1]}/v1/audit"
    audit = httpx.get(url, headers={"Authorization": f"Bearer {platform.admin_key}"}, timeout=300)
    run.balanced = audit.raise_for_status().json()["balanced"]


def checks(found: dict[str, Any], before: dict[str, Any]) -> dict[str, bool]:
    """What has to hold."""
    both = (found, before)
    return {
        "no_5xx": not any(one["errors_5xx"] for one in both),
        "nothing_lost": not any(one["lost"] or one["twice"] or one["never_taken"] for one in both),
        "audits_balance": all(one["audit_balanced"] for one in both),
        "grew_and_shrank": all(
            one[f"{name}_max"] > one[f"{name}_start"] and one[f"{name}_end"] < one[f"{name}_max"]
            for one in both
            for name in ("replicas", "nodes")
        ),
        "paid_little_more_than_an_oracle": all(
            one["replica_seconds"] <= PART * one["oracle_replica_seconds"] for one in both
        ),
        "sooner_than_reactive": found["seconds_to_absorb"] < before["seconds_to_absorb"],
    }


def main() -> int:
    """Run it; the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("morning_spike.json"), metavar="FILE")
    parser.add_argument("--seed", type=int, default=1, help="of the times at which requests fall due")
    parser.add_argument("--short", action="store_true", help="a morning a third as long, to try it")
    parser.add_argument("--keep-logs", type=Path, metavar="FOLDER", help="where Ray's logs are copied to")
    arguments = parser.parse_args()
    if arguments.keep_logs:
        arguments.keep_logs.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    shape = Shape(night_s=15, ramp_s=15, rush_s=30, after_s=30) if arguments.short else Shape()
    with stage() as (folder, far):
        try:
            for number, policy in enumerate(MORNINGS):
                runs.append(morning(policy, shape, arguments.seed + 100 * number, folder, far))
                print({k: v for k, v in numbers(runs[-1], TARGET, LOW).items() if k != "policy"}, flush=True)
                if arguments.keep_logs:
                    (arguments.keep_logs / f"{policy}.json").write_text(json.dumps(samples_of(runs[-1])))
                    shutil.copytree(folder / "ray-logs", arguments.keep_logs / policy, dirs_exist_ok=True)
        finally:
            if arguments.keep_logs:
                for log in folder.glob("*.log"):
                    shutil.copy(log, arguments.keep_logs)
    before, found = (numbers(run, TARGET, LOW) for run in runs)
    held = checks(found, before)
    written = {
        **found,
        "reactive": before,
        "checks": held,
        "settings": SETTINGS,
        "redis_away_s": FAR_S,
        "samples": {run.policy: samples_of(run) for run in runs},
    }
    arguments.json.write_text(json.dumps(written, indent=1) + "\n")
    arguments.json.with_suffix(".svg").write_text(plot(runs))
    print(f"checks: {held}")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
