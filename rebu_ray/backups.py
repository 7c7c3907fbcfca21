"""`rebu backup` and `rebu restore`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rebu_ray import settings as config
from rebu_ray.connect import DataDir
from rebu_ray.ingest.secret import with_secret
from rebu_ray.platform.running import sole_owner
from rebu_ray.platform.stores import check_versions
from rebu_ray.settings import Settings
from rebu_ray.store import backup as copies

Place = Annotated[str, typer.Argument(help="A folder, or a URI as s3://bucket/prefix?region=eu-central-1.")]


def backup(to: Place, data_dir: DataDir = None) -> None:
    """Copy a platform's data to a new place, while it runs or not: everything that was acknowledged before.

    Settings of journal and lake are those of `rebu up`. Index and warehouse are not copied: they are made anew.

    Example: rebu backup /backups/2026-11-23 --data-dir ./data
    """
    from rebu_ray.build import BUILD  # reads the whole package, for which no other command is to wait

    settings = config.load(data_dir=data_dir)
    check_versions(settings)
    with _Counting("copied") as counting:
        done = copies.backup(_stores(settings), to, BUILD, counting.take)
    typer.echo(
        f"{to}: {len(done.files):,} files, {done.size:,} bytes, with everything that was acknowledged before "
        f"{_as_of(done)}"
    )


def restore(
    place: Place,
    erasures: Annotated[
        str | None,
        typer.Option(help="A data dir or a later backup: who was erased there stays erased here."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only read the backup, and compare its checksums.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Copy a backup to a new data dir, or where the settings of journal and lake say; nothing may be there yet.

    Example: rebu restore /backups/2026-11-23 --data-dir ./restored --erasures ./data
    """
    if check:
        with _Counting("compared") as counting:
            done = copies.check(place, counting.take)
        typer.echo(f"{place}: {len(done.files):,} files are what they were, {done.size:,} bytes")
        return
    settings = config.load(data_dir=data_dir)
    with sole_owner(settings.data_dir):
        with _Counting("copied") as counting:
            done = copies.restore(place, _stores(settings), counting.take)
        typer.echo(f"{settings.data_dir}: {len(done.files):,} files, {done.size:,} bytes, as of {_as_of(done)}")
        if erasures is not None:
            source = config.load({}, data_dir=erasures)
            secret = with_secret(settings).erasure_secret
            brought = copies.bring_erasures(_stores(source), _stores(settings), secret.encode())
            typer.echo(f"{brought:,} people were erased since: they are erased here with the first start")
    typer.echo(f"start it with: rebu up --data-dir {settings.data_dir}")


def _as_of(done: copies.Backup) -> str:
    return datetime.fromtimestamp(done.began_at / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _stores(settings: Settings) -> copies.Stores:
    return copies.Stores(settings.data_dir, settings.journal, settings.cursors, settings.lake)


class _Counting:
    """Says in a terminal how much was read."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._status = Console(stderr=True).status(what)
        self._files = self._bytes = 0

    def __enter__(self) -> _Counting:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def take(self, name: str, size: int) -> None:
        """A file more."""
        self._files += 1
        self._bytes += size
        self._status.update(f"{self._what}: {self._files:,} files, {self._bytes:,} bytes ({Path(name).name})")
