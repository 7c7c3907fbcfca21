"""How much room is left where journal and lake are."""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import Final

from rebu_ray.settings import Settings

log = logging.getLogger("rebu.coordinator")

PATIENCE_SECONDS: Final = 2.0
"""How long a folder may take to say so: one on a network may be away."""


async def free_bytes(settings: Settings) -> dict[str, int]:
    """By `journal` and `lake`, the bytes that are free; without those that are no folders, or do not answer."""
    found: dict[str, int] = {}
    for name, place in (("journal", settings.journal), ("lake", settings.lake)):
        folder = place.removeprefix("file://")
        if "://" in folder:
            continue
        try:
            asked = asyncio.to_thread(shutil.disk_usage, folder)
            found[name] = (await asyncio.wait_for(asked, PATIENCE_SECONDS)).free
        except (OSError, TimeoutError) as error:
            log.warning("how much room the %s has is not known: %s", name, str(error) or "no answer")
    return found
