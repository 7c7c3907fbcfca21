"""Rebu: the data platform of a ride-hailing company, on Ray."""

from rebu_ray.client import Rebu, RebuError

__version__ = "0.1.0"
__all__ = ["Rebu", "RebuError", "__version__"]
