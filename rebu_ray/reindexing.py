"""Rebuilding the index from the command line: it takes as long as the lake is large, and shows how far it is."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rebu_ray.client import Rebu
from rebu_ray.ingest.progress import progress

LOOK_SECONDS: Final = 0.5


def reindexed(rebu: Rebu, console: Console) -> str:
    """Have a platform rebuild its index, with a bar meanwhile; what came of it. Raises as `Rebu.send`."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(rebu.send("POST", "/v1/admin/reindex").json())
        except Exception as error:
            outcome.append(error)

    begun = time.monotonic()
    # A daemon: Ctrl-C leaves at once, and the platform goes on with it.
    worker = threading.Thread(target=work, daemon=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("rebuilding the index", total=None, rows="")
        worker.start()
        while worker.is_alive():
            worker.join(LOOK_SECONDS)
            done, total = progress(rebu.status()["shards"])
            if total:
                bar.update(task, completed=done, total=total, rows=f"{done:,} of {total:,} records")
    [found] = outcome
    if isinstance(found, Exception):
        raise found
    seconds = time.monotonic() - begun
    return f"the index is rebuilt: {found['partitions']} partitions with {found['rows']:,} records in {seconds:.1f} s"
