"""The demo: a platform, a simulated morning that lives through it, and what came out."""

from rebu_ray.demo.show import run

__all__ = ["run"]
