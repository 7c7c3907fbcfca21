"""The demo from its beginning to its end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rebu_ray.client import Rebu
from rebu_ray.demo import checks, served, summary, truth
from rebu_ray.demo.life import Life
from rebu_ray.demo.served import Get, Served
from rebu_ray.demo.stream import SENDERS, Clock, Tally, send_all
from rebu_ray.platform.up import Platform, Stopped, platform
from rebu_ray.settings import Settings
from rebu_ray.simulate import Upload, World
from rebu_ray.simulate.live import LiveDatabase, create
from rebu_ray.simulate.traffic import stream
from rebu_ray.simulate.world import Hour

HOUR_MS: Final = 3_600_000
CATCH_UP_S: Final = 60.0
"""How long to wait, after the last record, until all of the database is served."""


@dataclass(frozen=True, slots=True)
class Morning:
    """What is going to happen: a world, its hours, and the requests of its phones and servers."""

    world: World
    hours: list[Hour]
    uploads: list[Upload]

    @property
    def records(self) -> int:
        return sum(upload.records for upload in self.uploads)

    @property
    def truth(self) -> dict[str, str | None]:
        """Message -> the ride that it is about, if any."""
        return {message.message_id: message.truth for hour in self.hours for message in hour.messages}


@dataclass(frozen=True, slots=True)
class Past:
    """What has happened. `served` None: the database is the user's own, which the demo leaves alone."""

    tally: Tally
    served: Served | None
    fresh_ms: list[float]
    never: list[str]


def run(settings: Settings, *, riders: int, hours: float, seed: int, stop: threading.Event, stay: bool) -> bool:
    """Run the demo; whether every check holds. Keeps serving until `stop` where `stay`.

    Without a data dir of the user's choice it uses a temporary one and removes it at the end. The simulated
    application database is a file in there, unless the settings name one: that is read from and never written to.
    """
    console = Console()
    with contextlib.ExitStack() as stack:
        if settings.data_dir == Settings().data_dir or settings.data_dir.endswith("/.rebu"):
            folder = stack.enter_context(_temporary())
            settings = msgspec.structs.replace(settings, data_dir=folder)
        database = "" if settings.appdb_url else f"sqlite:///{Path(settings.data_dir) / 'app.sqlite'}"
        if database:
            Path(settings.data_dir).mkdir(parents=True, exist_ok=True)
            create(database)
            settings = msgspec.structs.replace(settings, appdb_url=database)
        try:
            started = time.monotonic()
            up = stack.enter_context(platform(settings, lambda step: console.print(f"{step} ..."), stop))
        except Stopped:
            return False
        console.print(f"Rebu is ready at {up.url} after {time.monotonic() - started:.0f} s")
        with Rebu(up.url, up.keys.admin) as client:
            # A data dir that has seen this morning gets another one: the same would be all duplicates.
            earlier = sum(shard["rows"] for shard in client.status()["shards"])
            with console.status("imagining the morning"):
                morning = imagine(riders, hours, seed + earlier)
            past = asyncio.run(live_through(up, morning, database, stop, console))
            if past is None:
                return False
            found = checked(client, morning, past, earlier)
            sum_up(console, up, client, morning, past, found)
        if stay:
            console.print("Serving on; Ctrl-C stops.")
            while not stop.wait(0.5):
                up.supervise()
        return all(check.holds for check in found)


@contextlib.contextmanager
def _temporary() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="rebu-demo-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def imagine(riders: int, hours: float, seed: int) -> Morning:
    """A morning that ends now."""
    world = World(riders, hours, seed, start_ms=time.time_ns() // 1_000_000 - round(hours * HOUR_MS))
    lived = list(world.hours())
    return Morning(world, lived, list(stream(lived, seed)))


async def live_through(
    up: Platform, morning: Morning, database: str, stop: threading.Event, console: Console
) -> Past | None:
    """Send the morning while the database lives, and wait until all of that is served; None where stopped."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
    )
    clock = Clock(morning.world.start)
    limits = httpx.Limits(max_connections=2 * SENDERS)
    async with httpx.AsyncClient(base_url=up.url, timeout=60, limits=limits) as http:
        with contextlib.ExitStack() as stack:
            get = _reader(http, up.keys.read)
            bar = stack.enter_context(Progress(*columns, console=console))
            task = bar.add_task("streaming the morning", total=morning.records, unit="records")

            def sent(records: int, rate: float) -> None:
                bar.update(task, advance=records, unit=f"records, {rate:,.0f}/s")

            sending = send_all(http, up.keys, morning.uploads, clock, stop, sent)
            if not database:
                tally = await sending
                return None if stop.is_set() else Past(tally, None, [], [])
            rides = sum(len(hour.rides) for hour in morning.hours)
            living = bar.add_task("while the database lives", total=rides, unit="rides")
            live = stack.enter_context(LiveDatabase(database, morning.world, morning.hours))
            life = Life(live, morning.world.end, get)
            tally, _ = await asyncio.gather(sending, life.live(clock, stop, lambda new: bar.advance(living, new)))
            if stop.is_set():
                return None
            bar.stop()
            with console.status("waiting until all of the database is served"):
                reading = await served.read_all(get, live.rows("rides"), live.rows("messages"), CATCH_UP_S)
            return Past(tally, reading, life.fresh_ms, life.never)


def _reader(http: httpx.AsyncClient, key: str) -> Get:
    headers = {"Authorization": f"Bearer {key}"}

    async def get(path: str) -> tuple[int, Any]:
        answer = await http.get(path, headers=headers)
        return answer.status_code, answer.json()

    return get


def counted(morning: Morning, reading: Served) -> tuple[truth.Rides, truth.Links]:
    """What is served of the morning against what the simulator knows about it."""
    rides = [ride for hour in morning.hours for ride in hour.rides]
    return (
        truth.count_rides(rides, morning.world.end, reading.ride_documents()),
        truth.count_links(morning.truth, reading.message_documents()),
    )


def checked(client: Rebu, morning: Morning, past: Past, earlier: int) -> list[checks.Check]:
    """Every check; `earlier` rows were there before the morning."""
    found = checks.of_uploads(client, past.tally, earlier)
    if past.served is not None:
        listed = {ride["ride_id"] for ride in client.rides()}
        found += checks.of_database(past.served, listed)
        found.append(checks.of_freshness(past.fresh_ms, past.never))
        found += checks.of_truth(*counted(morning, past.served))
    return found


def sum_up(
    console: Console, up: Platform, client: Rebu, morning: Morning, past: Past, found: list[checks.Check]
) -> None:
    """Print what went in, what came out, the checks and where to look next."""
    summary.show_uploads(console, past.tally)
    user = past.tally.users.most_common(1)[0][0]
    summary.show_history(console, client, user)
    worst = summary.show_worst(console, client)
    if past.served is not None:
        summary.show_served(console, past.served, past.fresh_ms, past.never)
        summary.show_truth(console, *counted(morning, past.served))
    summary.show_checks(console, found)
    summary.show_addresses(console, up, user, worst)
