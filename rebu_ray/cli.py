"""The command line."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from rebu_ray import settings as config
from rebu_ray.analytics import sql, warehouse
from rebu_ray.backups import backup, restore
from rebu_ray.browsing import dashboard
from rebu_ray.client import Rebu, RebuError
from rebu_ray.connect import DataDir, Key, Url, client
from rebu_ray.keyring import keys
from rebu_ray.keys import KeysError
from rebu_ray.letters import audited, deadletters
from rebu_ray.nodes import node
from rebu_ray.output import Form, Out, table_format, whole
from rebu_ray.platform.local_ray import NotDrained, PortTaken
from rebu_ray.platform.redis_server import RedisServerError
from rebu_ray.platform.running import AlreadyRunning, NotRunning, find
from rebu_ray.platform.session import run_in_session
from rebu_ray.platform.stores import StoreError
from rebu_ray.records import Source
from rebu_ray.reindexing import reindexed
from rebu_ray.scaling import scale
from rebu_ray.shipping import FILE_SOURCES, NotAFile, send_file
from rebu_ray.store.backup import BackupError
from rebu_ray.store.journal import JournalError, SegmentName, open_journal
from rebu_ray.store.lake import LakeError
from rebu_ray.store.layout import LayoutError
from rebu_ray.store.quarantine import quarantine
from rebu_ray.store.warehouse.schema import WarehouseError

MISTAKES = (
    config.SettingsError,
    KeysError,
    AlreadyRunning,
    NotRunning,
    PortTaken,
    NotDrained,
    RedisServerError,
    StoreError,
    LayoutError,
    LakeError,
    JournalError,
    NotAFile,
    WarehouseError,
    BackupError,
    RebuError,
    TimeoutError,
)
"""What ends in one sentence: the user can act on it."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
app.add_typer(deadletters, name="deadletters")
app.command()(scale)
app.command()(backup)
app.command()(restore)
app.command()(sql)
app.add_typer(warehouse, name="warehouse")
app.command()(dashboard)
app.add_typer(keys, name="keys")
app.add_typer(node, name="node")
journal = typer.Typer(no_args_is_help=True, help="What was acknowledged and is not in the lake yet.")
app.add_typer(journal, name="journal")


def _tell_version(asked: bool) -> None:
    if asked:
        from rebu_ray.build import BUILD  # it reads the whole package

        typer.echo(f"rebu {BUILD}")
        raise typer.Exit


@app.callback()
def of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_tell_version,
            help="Say which Rebu this is: what `build` is in GET /healthz.",
        ),
    ] = False,
) -> None:
    """Rebu: what happened to whom, in one history."""


def main() -> None:
    """Run the command line."""
    sys.exit(guarded(app))


def guarded(work: Callable[[], None]) -> int:
    """Run `work`; its exit status. A mistake that a user can mend ends in one sentence, not in a traceback."""
    try:
        work()
    except MISTAKES as error:
        print(f"rebu: {error}", file=sys.stderr)
        return 1
    except httpx.TransportError as error:
        print(f"rebu: nothing answers there ({error}): is the platform up? `rebu up` starts one", file=sys.stderr)
        return 1
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        if error.filename is None:
            raise
        print(f"rebu: cannot use {error.filename} ({error.strerror}): name another place", file=sys.stderr)
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def say(text: str) -> None:
    """Print a line at once: it may go to a file that somebody waits on."""
    print(text, flush=True)


@app.command()
def up(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (REBU_HOST, else 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (REBU_PORT, else 8000).")] = None,
    shards: Annotated[int | None, typer.Option(help="Shard actors that share the partitions.")] = None,
    appdb: Annotated[str | None, typer.Option(help="postgresql:// or sqlite:/// of the application database.")] = None,
) -> None:
    """Start the platform in the foreground; Ctrl-C stops it in good order.

    Example: rebu up --data-dir ./data --port 8000
    """
    settings = config.load(data_dir=data_dir, host=host, port=port, shards=shards, appdb_url=appdb)
    run_in_session(lambda: guarded(lambda: serve(settings)), again=True)


def serve(settings: config.Settings) -> None:
    """Run the platform until it is asked to stop."""
    from rebu_ray.platform.up import Stopped, platform

    stop = stop_signal()
    try:
        with platform(settings, say, stop) as running:
            say(f"Rebu is ready at {running.url}")
            say(f"  dashboard: {running.dashboard()}      (once, within an hour; `rebu dashboard` prints another)")
            say(f"  keys: rebu keys --data-dir {settings.data_dir}      interface: {running.url}/docs")
            while not stop.wait(0.5):
                running.supervise()
            say("stopping")
    except Stopped:
        say("stopped before it was up")


@app.command()
def upgrade(data_dir: DataDir = None) -> None:
    """Have a running platform run the version that this command is of, part after part, while data flows.

    With the same version again everything is made anew. It may be called again where it broke off. The process of
    `rebu up` itself goes on as it is, with Redis and Ray: stop and start it with the new version when that suits.

    Example: rebu upgrade --data-dir ./data
    """
    from rebu_ray.platform.upgrade import upgrade as replace

    running = find(config.load(data_dir=data_dir).data_dir)
    run_in_session(lambda: guarded(lambda: replace(running, say)))


@app.command()
def demo(
    leave: Annotated[bool, typer.Option("--exit", help="Stop after the summary; exit 1 if a check fails.")] = False,
    riders: Annotated[int, typer.Option(help="Riders of the simulated city.", min=1)] = 1000,
    hours: Annotated[float, typer.Option(help="Hours of the simulated morning.", min=0.05)] = 3.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same morning.")] = 7,
    data_dir: DataDir = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Start the platform, stream a simulated morning at Rebu through it, and sum up what came out.

    Example: rebu demo --riders 1000 --hours 3 --exit
    """
    settings = config.load(data_dir=data_dir, port=port)

    def work() -> None:
        from rebu_ray.demo import run

        stay = not leave and sys.stdout.isatty()
        if not run(settings, riders=riders, hours=hours, seed=seed, stop=stop_signal(), stay=stay):
            sys.exit(1)

    run_in_session(lambda: guarded(work))


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    riders: Annotated[int, typer.Option(help="Riders of the city.", min=1)] = 1000,
    days: Annotated[float, typer.Option(help="Days to simulate.", min=0.01)] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files, byte for byte.")] = 7,
) -> None:
    """Write the data sources of a simulated city: application database, events, logs, and the truth about messages.

    Example: rebu simulate --out ./sources --riders 1000 --days 2
    """
    from rebu_ray.simulate import write_sources

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=_console()) as bar:
        task = bar.add_task("simulating", total=1.0)
        try:
            summary = write_sources(
                out, riders, days, seed, progress=lambda what, part: bar.update(task, description=what, completed=part)
            )
        except FileExistsError as error:
            raise config.SettingsError(
                f"{out} holds simulated files already: name another folder with --out"
            ) from error
    for name, found in summary.sources.items():
        typer.echo(f"{name}: {found.records:,} records, {found.bad:,} of them bad, {found.duplicates:,} sent again")
    typer.echo(f"written to {out}; send it with: rebu ingest {out}/app-events.ndjson.gz --source app-events")


@app.command()
def ingest(
    files: Annotated[list[Path], typer.Argument(help="Files, plain, .gz or .zst.")],
    source: Annotated[str, typer.Option(help=f"What they hold: {', '.join(FILE_SOURCES)}.")],
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Send files to a running platform. Safe to interrupt and to run again.

    Example: rebu ingest access.log.gz --source access
    """
    if source not in FILE_SOURCES:
        raise config.SettingsError(f"--source is {source!r}: it must be one of {', '.join(FILE_SOURCES)}")
    with client(url, key, data_dir) as rebu:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=_console()) as bar:
            for path in files:
                if not path.is_file():
                    raise NotAFile(f"{path} is no file")
                task = bar.add_task(path.name, total=path.stat().st_size)
                counts = send_file(rebu, path, Source(source), lambda n, t=task: bar.advance(t, n))  # type: ignore[misc]
                bar.update(task, completed=path.stat().st_size)
                verdicts = ", ".join(f"{counts[name]} {name}" for name in ("accepted", "duplicate", "rejected"))
                typer.echo(f"{path}: {verdicts}")


@app.command()
def status(url: Url = None, key: Key = None, data_dir: DataDir = None) -> None:
    """The state of a running platform, as JSON.

    Example: rebu status --data-dir ./data
    """
    with client(url, key, data_dir) as rebu:
        typer.echo(json.dumps(rebu.status(), indent=2))


@app.command()
def reindex(url: Url = None, key: Key = None, data_dir: DataDir = None) -> None:
    """Rebuild the Redis index of a running platform from its lake and journal.

    Reads answer 503 until their part is there; writes go on. Ctrl-C stops the command, not the rebuild.

    Example: rebu reindex --data-dir ./data
    """
    with client(url, key, data_dir, timeout=3600) as rebu:
        typer.echo(reindexed(rebu, _console()))


@journal.command("quarantine")
def journal_quarantine(
    segment: Annotated[str, typer.Argument(help="The segment that `rebu up` or `rebu status` names.")],
    data_dir: DataDir = None,
) -> None:
    """Set a damaged segment of the journal aside, and go on with what of it can be read.

    Its shard starts by itself where the platform runs. Settings of the journal are those of `rebu up`.

    Example: rebu journal quarantine 000-000003-00000001.seg --data-dir ./data
    """
    name = SegmentName.parse(segment)
    if name is None:
        raise config.SettingsError(f"{segment!r} is no name of a segment: they look like 000-000003-00000001.seg")
    done = quarantine(open_journal(config.load(data_dir=data_dir).journal), name)
    typer.echo(f"{segment} is set aside, whole, at {done.aside}")
    typer.echo(
        f"{done.kept:,} of its records can be read and stay; {done.damaged_bytes:,} bytes cannot, with at least "
        f"{done.lost:,} records"
    )


@app.command()
def backfill(url: Url = None, key: Key = None, data_dir: DataDir = None) -> None:
    """Recompute every ride and message of a running platform, and store what came out otherwise.

    Needed after the rules of a computation have changed; safe at any time.

    Example: rebu backfill --data-dir ./data
    """
    with client(url, key, data_dir, timeout=3600) as rebu:
        with _console().status("recomputing every ride"):
            done = rebu.send("POST", "/v1/admin/backfill").json()
        computed = f"{done['rides']:,} rides and {done['messages']:,} messages recomputed"
        typer.echo(f"{computed}, {done['changed']:,} documents changed")


@app.command()
def verify(url: Url = None, key: Key = None, data_dir: DataDir = None) -> None:
    """Prove that what is served equals a full recompute, partition by partition. Exits with 1 on any difference.

    Example: rebu verify --data-dir ./data
    """
    with client(url, key, data_dir, timeout=3600) as rebu, _console().status("recomputing every ride"):
        found = rebu.get("/v1/admin/verify")
    partitions = found["partitions"]
    width = max(11, *(len(str(part[name])) for part in partitions for name in ("digest", "full_digest")))
    head = f"{'partition':>9}  {'rides':>9}  {'messages':>9}  {'incremental':<{width}}  {'recomputed':<{width}}  equal"
    typer.echo(head)
    for part in partitions:
        counts = f"{part['partition']:>9}  {part['rides']:>9,}  {part['messages']:>9,}"
        digests = f"{part['digest']:<{width}}  {part['full_digest']:<{width}}"
        typer.echo(f"{counts}  {digests}  {'yes' if part['equal'] else 'NO'}")
    if not found["equal"]:
        wrong = sum(not part["equal"] for part in partitions)
        print(
            f"rebu: {wrong} of {len(partitions)} partitions differ: `rebu backfill` stores what the recompute says",
            file=sys.stderr,
        )
        sys.exit(1)
    rides, messages = (sum(part[name] for part in partitions) for name in ("rides", "messages"))
    typer.echo(f"{rides:,} rides and {messages:,} messages are served as a full recompute has them")


@app.command()
def audit(
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    since: Annotated[str | None, typer.Option(help="Only what happened at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Only what happened before this time.")] = None,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Whether everything that came in is accounted for, by source and ten minutes. Exits with 1 where it is not.

    Example: rebu audit --since 2026-03-01T00:00:00Z
    """
    with client(url, key, data_dir, timeout=600) as rebu, _console().status("counting what is there"):
        found = rebu.audit(source=source, since=since, until=until)
    if not audited(found):
        sys.exit(1)


@app.command()
def rides(
    since: Annotated[str | None, typer.Option(help="Requested at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Requested before this time.")] = None,
    city: Annotated[str | None, typer.Option(help="Only in this city.")] = None,
    status: Annotated[str | None, typer.Option(help="Only with this status.")] = None,
    premature: Annotated[
        bool | None, typer.Option("--premature/--no-premature", help="Only those that ended too early, or none.")
    ] = None,
    cause: Annotated[str | None, typer.Option(help="Ended too early by: driver, rider, app or unknown.")] = None,
    min_errors: Annotated[int | None, typer.Option(help="With at least so many errors.", min=0)] = None,
    has_messages: Annotated[
        bool | None, typer.Option("--has-messages/--no-has-messages", help="Only with linked messages, or without.")
    ] = None,
    user_id: Annotated[str | None, typer.Option(help="Only of this user.")] = None,
    driver_id: Annotated[str | None, typer.Option(help="Only with this driver.")] = None,
    as_of: Annotated[str | None, typer.Option(help="As it was known at this time.")] = None,
    limit: Annotated[int | None, typer.Option(help="No more than so many.", min=1)] = None,
    form: Form = None,
    out: Out = None,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """The ride documents that the filters leave: one JSON object a line, or a table in a file.

    Example: rebu rides --premature --since 2026-03-01T00:00:00Z -o rides.parquet
    """
    kind = table_format(form, out, "rides")
    filters = {
        "since": since, "until": until, "city": city, "status": status, "premature": premature, "cause": cause,
        "min_errors": min_errors, "has_messages": has_messages, "user_id": user_id, "driver_id": driver_id,
        "as_of": as_of, "limit": limit,
    }  # fmt: skip
    with client(url, key, data_dir, timeout=600) as rebu:
        rebu.progress = out is not None and sys.stderr.isatty()
        if out is None:
            save_rides(rebu, kind, filters, sys.stdout.buffer)
            return
        # A table says itself how far it is.
        waiting = _console().status(f"writing {out}") if kind == "json" else nullcontext()
        with waiting, whole(out) as file:
            size = save_rides(rebu, kind, filters, file)
        typer.echo(f"{out}: {size:,} bytes of {kind}")


@app.command()
def export(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    out: Out = None,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Everything about a person, one JSON object a line; the last one counts the others.

    Example: rebu export rider-17 -o rider-17.ndjson
    """
    with client(url, key, data_dir, timeout=600) as rebu:
        if out is None:
            rebu.export(user, sys.stdout.buffer)
            return
        with _console().status(f"writing {out}"), whole(out) as file:
            size = rebu.export(user, file)
        typer.echo(f"{out}: {size:,} bytes")


@app.command()
def erase(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    wait: Annotated[bool, typer.Option(help="Wait until journal and lake are rewritten as well.")] = True,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Erase a person everywhere, for good: nothing about this id is kept from now on. There is no way back.

    Example: rebu erase rider-17
    """
    with client(url, key, data_dir, timeout=600) as rebu, _console().status("erasing"):
        state = rebu.erase(user)
        while wait and state["status"] != "erased":
            time.sleep(0.5)
            state = rebu.erasure(user)
    typer.echo(json.dumps(state))


def save_rides(rebu: Rebu, kind: str, filters: Mapping[str, Any], file: BinaryIO) -> int:
    """Write rides to a file, JSON as one object a line; how many bytes."""
    if kind != "json":
        return rebu.save("/v1/rides", {**filters, "format": kind}, file)
    return sum(file.write(json.dumps(ride, ensure_ascii=False).encode() + b"\n") for ride in rebu.rides(**filters))


def stop_signal() -> threading.Event:
    """Set by SIGINT and SIGTERM. Asked again, the platform goes on stopping in good order: kill -9 does not wait."""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    return stop


def _console() -> Console:
    return Console(stderr=True)
