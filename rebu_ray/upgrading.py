"""`rebu upgrade`: this version of Rebu in the place of the one that runs."""

from __future__ import annotations

import typer

from rebu_ray import settings as config
from rebu_ray.build import BUILD
from rebu_ray.connect import DataDir
from rebu_ray.platform.running import find


def upgrade(data_dir: DataDir = None) -> None:
    """Have a running platform run the version that this command is of, part after part, while data flows.

    With the same version again, everything is made anew. May be called again where it broke off. The process of
    `rebu up` itself goes on as it is, with Redis and Ray: stop and start it with the new version when that suits.

    Example: /opt/rebu-2/bin/rebu upgrade --data-dir ./data
    """
    running = find(config.load(data_dir=data_dir).data_dir)
    from rebu_ray.platform.upgrade import upgrade

    typer.echo(f"upgrading the platform at {running.url} to {BUILD}")
    upgrade(running, typer.echo)
    typer.echo("everything runs that version")
