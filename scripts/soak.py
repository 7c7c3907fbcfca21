"""Load, and everything that can die dying, for a while: is all that was acknowledged there afterwards, once?

Starts a platform of its own in a temporary folder, with an application database. Sends events in several formats,
rides and messages through the HTTP interface, as clients do that send again until they are told 200. Meanwhile, one
after the other and at random, everything that can be killed is killed: shards, gateways, readers of the lake, the
puller, the coordinator, HAProxy, workers, Redis, Ray's own processes, the whole platform; Redis is restarted, paused
and emptied, partitions are moved. Goes on until the time is up and each kind of fault was there at least once.

Then everything that was acknowledged is looked for, the audit has to balance, and every document has to equal what
the lake alone makes of it. Exits with 0 only if all of that holds, no answer was one that a client takes for final,
and service was back soon after every fault.

    .venv/bin/python scripts/soak.py --minutes 10 --seed 7 --json soak.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.soaking.database import Application
from scripts.soaking.faults import Faults, NotThere
from scripts.soaking.watch import Prober, Reader, memory
from tests.system.load import Load
from tests.system.ride_load import RideLoad
from tests.system.running import Running, await_true

WITHIN_S: Final = 30.0
BETWEEN_S: Final = (0.2, 2.0)
PATIENCE_S: Final = 180.0
SETTINGS: Final = {"REBU_FLUSH_SECONDS": "5", "REBU_HOT_EVENTS": "200"}


@dataclass
class Strike:
    """One fault."""

    kind: str
    at_s: float
    """Since the load began."""
    service_s: float = 0.0
    """Until writes and reads were answered again; 0 where they never failed."""
    mended_s: float = 0.0
    """Until what was hit was there again."""
    remark: str = ""


@dataclass
class Soak:
    """What came of it."""

    seed: int
    strikes: list[Strike] = field(default_factory=list)
    checks: dict[str, str] = field(default_factory=dict)
    """By name, what is wrong; nothing where it holds."""
    counts: dict[str, Any] = field(default_factory=dict)
    memory_start: dict[str, int] = field(default_factory=dict)
    memory_end: dict[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not any(self.checks.values())


def order(kinds: list[str], dice: random.Random) -> Iterator[str]:
    """Every kind once, in any order, then again, for ever."""
    while True:
        turn = kinds.copy()
        dice.shuffle(turn)
        yield from turn


def strike(platform: Running, faults: Faults, kind: str, prober: Prober, started: float) -> Strike:
    """Bring a fault about and wait until it is mended and service is back."""
    begun = time.monotonic()
    found = Strike(kind, begun - started)
    try:
        mended = faults.kinds[kind]()
    except NotThere as error:
        found.remark = str(error)
        return found
    deadline = begun + PATIENCE_S
    while not mended():
        if time.monotonic() > deadline:
            found.remark = f"not mended within {PATIENCE_S:.0f} s"
            break
        time.sleep(0.05)
    found.mended_s = time.monotonic() - begun
    time.sleep(1.0)  # that it is missed may take a moment
    while not (prober.calm() and ready(platform)):
        if time.monotonic() > deadline:
            found.remark = f"no service within {PATIENCE_S:.0f} s"
            break
        time.sleep(0.1)
    found.service_s = prober.returned_after(begun, time.monotonic())
    return found


def ready(platform: Running) -> bool:
    try:
        return httpx.get(f"{platform.url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def wrong(check: Callable[[], object]) -> str:
    """What a check says that does not hold; nothing where it does."""
    try:
        check()
    except AssertionError as error:
        return str(error) or "does not hold"
    return ""


def balances(platform: Running) -> None:
    """The audit, asked again while a shard is busy."""

    def ask() -> dict[str, Any] | None:
        answer = platform.http.get("/v1/audit", headers={"Authorization": f"Bearer {platform.admin_key}"})
        assert answer.status_code in (200, 503), f"{answer.status_code}: {answer.text}"
        found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
        return found

    found = await_true(ask, "the audit to be answered")
    assert found is not None
    places = [item for item in found["items"] if not item["balanced"]]
    assert found["balanced"], f"{found['problems'][:3]} {places[:3]}"


def equals(platform: Running) -> None:
    """Every document against a full recompute, as soon as none is waited for."""

    def ask() -> dict[str, Any] | None:
        answer = platform.http.get(
            "/v1/admin/verify", headers={"Authorization": f"Bearer {platform.admin_key}"}, timeout=600
        )
        assert answer.status_code in (200, 503), f"{answer.status_code}: {answer.text}"
        found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
        return found

    found = await_true(ask, "the documents to be compared", 300)
    assert found is not None
    assert found["equal"], f"{[part for part in found['partitions'] if not part['equal']][:2]}"
    done = platform.admin("POST", "/v1/admin/backfill")
    assert done["changed"] == 0, f"a backfill changed {done['changed']} documents"


def run(arguments: argparse.Namespace, folder: Path, console: Console) -> Soak:
    dice = random.Random(arguments.seed)
    soak = Soak(arguments.seed)
    places = {"REBU_JOURNAL_URI": arguments.journal, "REBU_LAKE_URI": arguments.lake}
    platform = Running(folder / "data", **SETTINGS, **{name: uri for name, uri in places.items() if uri})
    application = Application(folder / "app.sqlite")
    options = ("--shards", "2", "--appdb", application.url)
    try:
        with console.status("starting a platform"):
            platform.start(*options)
        load = Load(platform, "soak", writers=4, users=20, pause=0.05, mistakes=True)
        rides = RideLoad(platform, "soak-rides", pause=0.2)
        faults = Faults(platform, options, random.Random(dice.random()))
        with ExitStack() as stack:
            stack.enter_context(application)
            stack.enter_context(load)
            stack.enter_context(rides)
            prober = stack.enter_context(Prober(platform))
            reader = stack.enter_context(Reader(platform, load, random.Random(dice.random())))
            columns = (TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.fields[seen]}"))
            with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
                trouble(arguments, soak, platform, faults, prober, load, bar, dice)
            soak.memory_end = memory(platform)
        with console.status("looking for everything that was acknowledged"):
            check(soak, arguments.within, platform, load, rides, application, reader)
        soak.counts["stale reads at"] = [round(at - prober.probes[0].begun, 1) for at in reader.incomplete_at[:20]]
        soak.checks["nothing runs twice"] = wrong(faults.check)
        soak.checks["it stops in good order"] = wrong(lambda: stops(platform))
    finally:
        if arguments.keep:
            shutil.copytree(folder, arguments.keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "lock"))
        platform.clean_up()
    return soak


def stops(platform: Running) -> None:
    code = platform.stop()
    assert code == 0, f"`rebu up` ended with {code}"


def trouble(
    arguments: argparse.Namespace,
    soak: Soak,
    platform: Running,
    faults: Faults,
    prober: Prober,
    load: Load,
    bar: Progress,
    dice: random.Random,
) -> None:
    """Fault after fault until the time is up and each kind was there."""
    seconds, started = 60 * arguments.minutes, time.monotonic()
    kinds = [kind for kind in faults.kinds if kind not in arguments.without]
    task = bar.add_task("load alone", total=seconds, seen="")
    time.sleep(min(5.0, seconds / 10))
    soak.memory_start = memory(platform)
    for number, kind in enumerate(order(kinds, dice)):
        elapsed = time.monotonic() - started
        if elapsed >= seconds and number >= len(kinds):
            break
        seen = f"{number} faults, {load.total:,} records acknowledged"
        bar.update(task, completed=min(elapsed, seconds), description=kind, seen=seen)
        soak.strikes.append(strike(platform, faults, kind, prober, started))
        time.sleep(dice.uniform(*BETWEEN_S))
    bar.update(task, completed=seconds, description="done")
    soak.counts["seconds of load"] = round(time.monotonic() - started)


def check(
    soak: Soak,
    within: float,
    platform: Running,
    load: Load,
    rides: RideLoad,
    application: Application,
    reader: Reader,
) -> None:
    soak.counts |= {
        "load average of the machine at the end": [round(part, 1) for part in os.getloadavg()],
        "cores": os.cpu_count(),
        "records acknowledged": load.total,
        "of them sent again": load.resent,
        "refused records": len(load.refused),
        "rides acknowledged": len(rides.done),
        "rides in the database": len(application.rides),
        "answers": {str(status): count for status, count in sorted(load.answers.items())},
        "reads that were whole": reader.seen.whole,
        "reads that were refused": reader.seen.refused,
        "reads without what was just written": reader.seen.incomplete,
        "example of these": reader.seen.example,
    }
    checks: dict[str, Callable[[], object]] = {
        "every acknowledged record is there, once, in order": lambda: load.check(platform),
        "every acknowledged ride is served whole, once": lambda: rides.check(platform),
        "every ride of the database is served, once": lambda: application.check(platform),
        "the audit balances": lambda: balances(platform),
        "every document equals a full recompute, which changes none": lambda: equals(platform),
    }
    soak.checks |= {name: wrong(held) for name, held in checks.items()}
    soak.checks["no answer that a client takes for final"] = "; ".join(load.other[:5])
    slow = [f"{s.kind} {s.service_s:.1f} s" for s in soak.strikes if s.service_s > within]
    lasting = [f"{s.kind}: {s.remark}" for s in soak.strikes if s.remark]
    soak.checks[f"service is back within {within:.0f} s" if math.isfinite(within) else "service comes back"] = (
        "; ".join([*slow, *lasting])
    )


def report(soak: Soak, console: Console) -> None:
    table = Table(title=f"Faults (seed {soak.seed})", title_justify="left")
    for column in ("fault", "times", "service back: median", "most", "mended: most", "remarks"):
        table.add_column(column, justify="left" if column in ("fault", "remarks") else "right")
    for kind in sorted({found.kind for found in soak.strikes}):
        of_kind = [found for found in soak.strikes if found.kind == kind]
        service = [found.service_s for found in of_kind]
        table.add_row(
            kind,
            str(len(of_kind)),
            f"{statistics.median(service):.1f} s",
            f"{max(service):.1f} s",
            f"{max(found.mended_s for found in of_kind):.1f} s",
            "; ".join(sorted({found.remark for found in of_kind if found.remark})),
        )
    console.print(table)
    numbers = Table("kind of process", "at the start", "at the end", title="Resident memory", title_justify="left")
    for kind in sorted(soak.memory_start | soak.memory_end):
        numbers.add_row(
            kind, *(f"{found.get(kind, 0) / 1e6:,.0f} MB" for found in (soak.memory_start, soak.memory_end))
        )
    console.print(numbers)
    for name, value in soak.counts.items():
        console.print(f"{name}: {value}", highlight=False)
    service = [found.service_s for found in soak.strikes]
    console.print(
        f"service back: median {statistics.median(service):.1f} s, most {max(service):.1f} s", highlight=False
    )
    for name, problem in soak.checks.items():
        console.print(f"{'NO ' if problem else 'yes'} {name}{': ' + problem if problem else ''}", highlight=False)


def main() -> int:
    """Run it; the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--within", type=float, default=WITHIN_S, help="seconds after which service has to be back")
    parser.add_argument("--without", nargs="*", default=[], metavar="KIND", help="faults to leave out")
    parser.add_argument("--journal", default="", metavar="URI", help="where the journal is, instead of the folder")
    parser.add_argument("--lake", default="", metavar="URI", help="where the lake is, instead of the folder")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy data and logs there at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rebu-soak-", ignore_cleanup_errors=True) as folder:
        soak = run(arguments, Path(folder), Console(stderr=True))
    report(soak, Console(width=140))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(soak) | {"holds": soak.holds}, indent=1) + "\n")
    return 0 if soak.holds else 1


if __name__ == "__main__":
    sys.exit(main())
