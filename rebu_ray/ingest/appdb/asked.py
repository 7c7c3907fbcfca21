"""The puller of the application database as others see it: found by its name, asked, and perhaps away."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import ray

from rebu_ray.ingest.routing import NAMESPACE

APPDB: Final = "rebu-appdb"
"""The name under which the actor is found."""
REST_SECONDS: Final = 30.0
"""How long to wait for what the database has by now."""


async def status() -> dict[str, Any] | None:
    """The state of the platform's puller; None where there is none."""
    if not ray.is_initialized():
        return None
    try:
        found: Any = await asyncio.to_thread(ray.get_actor, APPDB, NAMESPACE)
        state: dict[str, Any] = await asyncio.wait_for(asyncio.wrap_future(found.status.remote().future()), 5)
    except ValueError:
        return None
    except (ray.exceptions.RayActorError, TimeoutError) as error:
        return {"connected": False, "detail": f"the puller is being restarted ({type(error).__name__})", "tables": {}}
    return state


async def awaited() -> list[str]:
    """Wait until what is in the application database by now has been pulled; what is amiss, where it has not been."""
    try:
        found: Any = await asyncio.to_thread(ray.get_actor, APPDB, NAMESPACE)
    except ValueError:  # there is no puller
        return []
    try:
        rested: bool = await found.rest.remote(REST_SECONDS)
    except ray.exceptions.RayActorError as error:
        return [f"the application database is not being read at the moment ({type(error).__name__})"]
    return [] if rested else ["the application database is away, or has more that is not read yet: see `rebu status`"]
