"""Which nodes of a cluster an actor goes to.

A node of a role has a custom resource `rebu_ROLE`, as many as it is to hold actors of that role (see cluster.yaml).
Where a cluster has no such nodes, as on one machine, actors go anywhere.
"""

from __future__ import annotations

from typing import Final

import ray

from rebu_ray.settings import Role, Settings

SCARCELY: Final = 0.001
"""Of a place: for what is to be on such a node, and takes no room."""
WHOLE: Final = 0.99
"""Of a place: for what takes one, and leaves room for what takes none where all of a node's are taken."""


def place(settings: Settings, role: Role, share: float = WHOLE) -> dict[str, float]:
    """The resources by which an actor goes to nodes of a role; none where there are no such nodes.

    Nodes that are still to come are not known to Ray: `Settings.node_roles` tells of them.
    """
    resource = f"rebu_{role}"
    told = [name.strip() for name in settings.node_roles.split(",")]
    known = role in told or ray.cluster_resources().get(resource, 0.0) > 0
    return {resource: share} if known else {}
