"""The actors of a platform, by the names under which they are found."""

from __future__ import annotations

import ray

from rebu_ray.ingest.routing import NAMESPACE


def exists(name: str) -> bool:
    """Whether there is an actor of that name."""
    try:
        ray.get_actor(name, NAMESPACE)
    except ValueError:
        return False
    return True
