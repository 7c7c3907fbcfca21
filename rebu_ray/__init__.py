"""Rebu: the data platform of a ride-hailing company, on Ray."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rebu_ray.client import Rebu, RebuError

__version__ = "0.1.0"
__all__ = ["Rebu", "RebuError", "__version__"]


def __getattr__(name: str) -> Any:
    """The client, once it is asked for: a dozen processes of a platform never do."""
    if name not in ("Rebu", "RebuError"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rebu_ray import client

    return getattr(client, name)
