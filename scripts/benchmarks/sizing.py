"""What does an event take, of processors, memory and disk, and what would a given load take?

The steps of an event's way, one after the other in this process, with a journal and a lake in a temporary folder and a
Valkey of its own: bytes as they are on disk and in Valkey, seconds of processor time (not of the clock, so that others
on the machine disturb less). What HTTP itself costs is not in it: `ingest.py` measures all of it together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
import redis
from rich.console import Console
from rich.table import Table
from workload import Workload

from rebu_ray.ingest.dialects.ordinary import Ordinary
from rebu_ray.ingest.dialects.segment import parse_batch
from rebu_ray.platform.local_ray import free_port
from rebu_ray.platform.redis_server import RedisServer
from rebu_ray.store import facts
from rebu_ray.store.flush import flush
from rebu_ray.store.index import Index, commands
from rebu_ray.store.journal import open_journal
from rebu_ray.store.lake import Lake
from rebu_ray.store.log import Commit, ShardLog
from rebu_ray.store.member import Codec
from rebu_ray.store.rows import WIRE, decode, encode

PARTITIONS: Final = 16
DAY_S: Final = 86_400
HOT: Final = (50, 200, 1_000, 5_000)
REMEMBERED_DAYS: Final = 8
ROLES: Final = {
    "gateway": ("parse", "to a batch"),
    "shard": ("journal", "to Redis commands and back"),
    "task": ("to the lake",),
    "Valkey": ("Valkey",),
}

Answer = TypeVar("Answer")


def cpu(call: Callable[[], Answer], into: list[float], events: int) -> Answer:
    """Call it; microseconds of processor time an event, of all threads, go into the list."""
    before = time.process_time()
    found = call()
    into.append(1e6 * (time.process_time() - before) / events)
    return found


def size(folder: Path, ending: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(f"*{ending}"))


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Bytes and microseconds an event."""
    took: dict[str, list[float]] = {step: [] for steps in ROLES.values() for step in steps}
    load = Workload(users=given.users)
    journal_uri, lake_uri = str(folder / "journal"), str(folder / "lake")
    log = ShardLog(open_journal(journal_uri), Lake(lake_uri), 0, range(PARTITIONS))
    log.recover(0, 0)
    server = RedisServer(str(folder / "redis"), free_port())
    server.start()
    index, codec = Index(server.url), Codec()
    asking = redis.Redis.from_url(server.url)
    assert server.pid is not None
    valkey = psutil.Process(server.pid)
    flushed: list[float] = []
    in_redis, in_journal, in_json, total = 0, 0, 0, 0
    try:
        for _ in range(given.rounds):
            batches = load.batches(given.events, given.batch)
            before = int(asking.info("memory")["used_memory"])
            for start in range(0, len(batches), given.group):
                group = batches[start : start + given.group]
                events = sum(batch.events for batch in group)
                now = time.time_ns() // 1_000_000

                def parsed(group: Any = group, now: int = now) -> list[Ordinary]:
                    found = [parse_batch(batch.body, now) for batch in group]
                    assert all(isinstance(one, Ordinary) for one in found)
                    return found  # type: ignore[return-value]

                read = cpu(parsed, took["parse"], events)

                def packed(read: list[Ordinary] = read) -> list[bytes]:
                    return [encode(one.columns(PARTITIONS).batch()) for one in read]

                sent = cpu(packed, took["to a batch"], events)

                def journalled(sent: list[bytes] = sent, now: int = now) -> list[Commit]:
                    return [log.commit(decode(data, WIRE), now) for data in sent]

                done = cpu(journalled, took["journal"], events)

                def indexed(done: Any = done) -> None:
                    for commit in done:
                        index.send(commands(commit.rows, PARTITIONS, codec))
                        index.send(facts.commands(commit.rows, PARTITIONS, codec))

                busy = sum(valkey.cpu_times()[:2])
                cpu(indexed, took["to Redis commands and back"], events)
                took["Valkey"].append(1e6 * (sum(valkey.cpu_times()[:2]) - busy) / events)
            in_redis += int(asking.info("memory")["used_memory"]) - before
            in_json += sum(batch.event_bytes for batch in batches)
            total += given.events
            segments = log.seal()
            in_journal += size(folder / "journal", ".seg")

            def moved(segments: Any = segments) -> None:
                lake = Lake(lake_uri)
                found = flush(open_journal(journal_uri), lake, segments, log.manifests)
                manifests = {
                    r.partition: lake.commit(
                        r.partition, log.manifests[r.partition], r.files, r.covered_seq, r.rides, r.tallies
                    )
                    for r in found
                }
                log.flushed(manifests, segments)

            cpu(moved, flushed, given.events)
        took["to the lake"] = flushed
        in_lake = size(folder / "lake", ".parquet")
        remembered = log.seen.nbytes
    finally:
        index.close()
        asking.close()
        server.stop()
    return {
        "events": total,
        "json_bytes": in_json / total,
        "journal_bytes": in_journal / total,
        "lake_bytes": in_lake / total,
        "redis_bytes": in_redis / total,
        "remembered_bytes": remembered / total,
        "microseconds": {step: statistics.median(found) for step, found in took.items()},
    }


def plan(found: dict[str, Any], rate: float, users: float, flush_seconds: float) -> dict[str, Any]:
    """What a load takes: `rate` events a second, of so many users."""
    a_day = rate * DAY_S
    cores = {role: rate * sum(found["microseconds"][step] for step in steps) / 1e6 for role, steps in ROLES.items()}
    return {
        "cores": cores,
        "journal_bytes_per_second": rate * found["journal_bytes"],
        "journal_bytes": 2 * flush_seconds * rate * found["journal_bytes"],
        "lake_bytes_a_day": a_day * found["lake_bytes"],
        "events_a_user_and_day": a_day / users,
        "redis_bytes": {str(hot): users * min(hot, 30 * a_day / users) * found["redis_bytes"] for hot in HOT},
        "remembered_bytes": REMEMBERED_DAYS * a_day * 8,
    }


def report(found: dict[str, Any], planned: dict[str, Any], given: argparse.Namespace, console: Console) -> None:
    each = Table("an event takes", "", title=f"{found['events']:,} events, batches of {given.batch}")
    for name, key in (
        ("JSON, as sent", "json_bytes"),
        ("journal", "journal_bytes"),
        ("lake", "lake_bytes"),
        ("Redis, while it is hot", "redis_bytes"),
    ):
        each.add_row(name, f"{found[key]:,.0f} bytes")
    for step, micro in found["microseconds"].items():
        each.add_row(f"processor: {step}", f"{micro:,.2f} µs")
    console.print(each)
    per_core = Table("role", "events/s a core")
    for role, steps in ROLES.items():
        per_core.add_row(role, f"{1e6 / sum(found['microseconds'][step] for step in steps):,.0f}")
    console.print(per_core)
    example = Table("to carry", f"{given.rate:,.0f} events/s of {given.people:,.0f} users")
    for role, cores in planned["cores"].items():
        example.add_row(f"cores: {role}", f"{cores:,.1f}")
    example.add_row("journal, written a second", f"{planned['journal_bytes_per_second'] / 1e6:,.0f} MB")
    example.add_row("journal, at most there", f"{planned['journal_bytes'] / 1e9:,.1f} GB")
    example.add_row("lake, a day", f"{planned['lake_bytes_a_day'] / 1e12:,.2f} TB")
    example.add_row("events a user and day", f"{planned['events_a_user_and_day']:,.0f}")
    for hot, taken in planned["redis_bytes"].items():
        example.add_row(f"Redis with REBU_HOT_EVENTS={hot}", f"{taken / 1e12:,.2f} TB")
    example.add_row(f"ids remembered for {REMEMBERED_DAYS} days", f"{planned['remembered_bytes'] / 1e12:,.2f} TB")
    console.print(example)


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=50_000, help="events a round (50000)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--users", type=int, default=5_000, help="users who send them (5000)")
    parser.add_argument("--batch", type=int, default=100, help="events a request (100)")
    parser.add_argument("--group", type=int, default=10, help="requests measured together (10)")
    parser.add_argument("--rate", type=float, default=1e6, help="events a second of the example (1000000)")
    parser.add_argument("--people", type=float, default=1e8, help="users of the example (100000000)")
    parser.add_argument("--flush-seconds", type=float, default=60.0, help="as REBU_FLUSH_SECONDS (60)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rebu-sizing-", ignore_cleanup_errors=True) as folder:
        found = measure(given, Path(folder))
    planned = plan(found, given.rate, given.people, given.flush_seconds)
    report(found, planned, given, Console(width=100))
    if given.json is not None:
        given.json.write_text(json.dumps({"an event": found, "example": planned}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
