"""The command line."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from rebu_ray import settings as config
from rebu_ray.keys import load_keys

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Rebu: what happened to whom, in one history.")


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence, not in a traceback."""
    app()


@app.command()
def up(
    data_dir: Annotated[str | None, typer.Option(help="Folder of keys, journal, lake and the embedded Redis.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    shards: Annotated[int | None, typer.Option(help="Shard actors that share the partitions.")] = None,
    appdb: Annotated[str | None, typer.Option(help="postgresql:// or sqlite:/// of the application database.")] = None,
) -> None:
    """Start the platform in the foreground.

    Example: rebu up --data-dir ./data --port 8000
    """
    from rebu_ray.platform.up import platform

    stop = threading.Event()
    settings = config.load(data_dir=data_dir, host=host, port=port, shards=shards, appdb_url=appdb)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    with platform(settings, typer.echo) as running:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stop.set())
        typer.echo(f"Rebu is ready at {running.url}")
        while not stop.wait(0.5):
            running.supervise()
        typer.echo("stopping")


@app.command()
def keys(
    data_dir: Annotated[str | None, typer.Option(help="The data dir whose keys are wanted.")] = None,
) -> None:
    """Print the API keys of a data dir as JSON.

    Example: rebu keys --data-dir ./data
    """
    import msgspec

    settings = config.load(data_dir=data_dir)
    found = load_keys(settings.data_dir, settings.write_key, settings.read_key, settings.admin_key)
    typer.echo(msgspec.json.encode(found).decode())
