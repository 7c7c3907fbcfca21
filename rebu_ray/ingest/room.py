"""How much room is left where journal and lake are."""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import Any, Final

from rebu_ray.settings import Settings

log = logging.getLogger("rebu.coordinator")

PATIENCE_SECONDS: Final = 2.0
"""How long a folder may take to say so: one on a network may be away."""


class Room:
    """The folders of journal and lake, each asked by one thread at a time: one that hangs is asked nothing more."""

    def __init__(self, settings: Settings) -> None:
        places = {"journal": settings.journal, "lake": settings.lake}
        folders = {name: place.removeprefix("file://") for name, place in places.items()}
        self._folders = {name: folder for name, folder in folders.items() if "://" not in folder}
        self._asked: dict[str, asyncio.Task[Any]] = {}

    async def free_bytes(self) -> dict[str, int]:
        """By `journal` and `lake`, the bytes that are free; without those that are no folders, or do not answer."""
        found: dict[str, int] = {}
        for name, folder in self._folders.items():
            try:
                found[name] = await self._free(name, folder)
            except (OSError, TimeoutError) as error:
                log.warning("how much room the %s has is not known: %s", name, str(error) or "no answer")
        return found

    async def _free(self, name: str, folder: str) -> int:
        asked = self._asked.get(name)
        # An answer that nobody waited for is of an earlier time.
        if asked is None or asked.done():
            asked = asyncio.create_task(asyncio.to_thread(shutil.disk_usage, folder))
            asked.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._asked[name] = asked
        await asyncio.wait([asked], timeout=PATIENCE_SECONDS)
        if not asked.done():
            raise TimeoutError
        free: int = asked.result().free
        return free
