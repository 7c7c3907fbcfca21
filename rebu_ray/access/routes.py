"""Which route a request is for, found without a look at all of them: there are more than forty."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from starlette.routing import Match, Route, Router
from starlette.types import Lifespan, Receive, Scope, Send


class Routes(Router):
    """Starlette's router looks at one route after the other; this one at those alone whose path begins with the same
    two parts and ends with the same one. What fits none of them so (another method, no such path) is left to Starlette.
    """

    def __init__(self, routes: Sequence[Route], lifespan: Lifespan[Any]) -> None:
        super().__init__(routes, lifespan=lifespan)
        ends = [tuple(None if "{" in part else part for part in _ends(route.path)) for route in routes]
        firsts, lasts = ({end[i] for end in ends} for i in range(2))
        self._near: dict[tuple[str | None, str | None], list[Route]] = {
            key: [route for route, end in zip(routes, ends, strict=True) if _may_fit(end, key)]
            for key in product(firsts, {*lasts, None})
        }

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered by its route."""
        if scope["type"] == "http":
            first, last = _ends(scope["path"])
            for route in self._near.get((first, last)) or self._near.get((first, None)) or ():
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found, route=route, router=self)
                    await route.handle(scope, receive, send)
                    return
        await super().app(scope, receive, send)


def _ends(path: str) -> tuple[str, str]:
    """The first two parts of a path, and its last one."""
    start = path.find("/", 1)
    end = path.find("/", start + 1) if start > 0 else -1
    return path[:end] if end > 0 else path, path[path.rfind("/") + 1 :]


def _may_fit(end: tuple[str | None, ...], key: tuple[str | None, ...]) -> bool:
    """Whether a path with such ends may be of a route with these; None is a part that may be anything."""
    return all(own is None or own == wanted for own, wanted in zip(end, key, strict=True))
