"""`rebu dashboard`: a link that signs a browser in."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from rebu_ray.client import Rebu
from rebu_ray.connect import DataDir, Key, Url, place
from rebu_ray.keys import Scope
from rebu_ray.passes import link


def dashboard(
    admin: Annotated[
        bool, typer.Option("--admin", help="Also what only the admin key may read: the refused records.")
    ] = False,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Print a link to the dashboard. It works once, within an hour, and signs that browser in for a week, to read.

    Example: rebu dashboard --data-dir ./data
    """
    there, known = place(url, key, data_dir, Scope.ADMIN if admin else Scope.READ)
    with Rebu(there, known) as rebu:
        rebu.get("/v1/session")  # of a key that may not read, the link would say so only in the browser
    typer.echo(link(there, known, time.time_ns() // 1_000_000))
