"""Which ride a customer's message is about: what it says is read, compared with the user's rides, and weighed."""

from __future__ import annotations

from rebu_ray.process.matching.link import link

__all__ = ["link"]
