"""Why a task or an actor's method failed."""

from __future__ import annotations

import ray


def cause(error: BaseException) -> BaseException:
    """What was raised where the work was done, without Ray's report of the way that it came."""
    while isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error
