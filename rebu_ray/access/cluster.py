"""What the platform runs on now: the nodes of Ray and the replicas of Serve."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import ray
from ray import serve

FRESH_SECONDS: Final = 2.0
"""For how long an answer is good for the next who asks: several people may look at one dashboard."""


class Cluster:
    """Asks Ray, not more often than it must."""

    def __init__(self) -> None:
        self._asked_at = float("-inf")
        self._found: dict[str, Any] = {}
        self._asking = asyncio.Lock()

    async def status(self) -> dict[str, Any]:
        """`nodes` and `replicas`; nothing where there is no Ray, `detail` in `cluster` where it does not answer."""
        if not ray.is_initialized():
            return {}
        async with self._asking:
            if time.monotonic() - self._asked_at >= FRESH_SECONDS:
                try:
                    self._found = await asyncio.wait_for(asyncio.to_thread(_look), 5)
                except (ray.exceptions.RayError, TimeoutError) as error:
                    self._found = {"cluster": {"detail": f"Ray does not answer ({type(error).__name__})"}}
                self._asked_at = time.monotonic()
        return self._found


def _look() -> dict[str, Any]:
    nodes = [
        {
            "node_id": node["NodeID"],
            "alive": node["Alive"],
            "address": node["NodeManagerAddress"],
            "cpus": node["Resources"].get("CPU", 0.0),
            "memory_bytes": round(node["Resources"].get("memory", 0.0)),
            "head": "node:__internal_head__" in node["Resources"],
        }
        for node in ray.nodes()
    ]
    replicas = [
        {
            "deployment": name,
            "status": str(deployment.status.value),
            "detail": deployment.message,
            # Names, by the type that it declares, and in truth plain texts.
            "replicas": {
                str(getattr(state, "value", state)): count for state, count in deployment.replica_states.items()
            },
        }
        for application in serve.status().applications.values()
        for name, deployment in application.deployments.items()
    ]
    return {"nodes": nodes, "replicas": replicas}
