"""The files of the dashboard, as a browser gets them: from memory, under a policy that has them talk to nobody else."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from rebu_ray.access.dashboard import session
from rebu_ray.keys import Keys
from rebu_ray.store.index import UNAVAILABLE
from rebu_ray.store.redis_cluster import Client

MEDIA: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
"""What is served, by how its name ends; whatever else lies there is for those who read the source."""
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class File(NamedTuple):
    """One file."""

    media: str
    data: bytes
    packed: bytes
    tag: str


def files() -> dict[str, File]:
    """Every file that is served, by its path below /dashboard/."""
    found = {}
    for folder in ("static", "vendor"):
        for entry in (resources.files(__package__) / folder).iterdir():
            media = MEDIA.get(entry.name.rpartition(".")[2])
            if media is not None:
                data = entry.read_bytes()
                name = entry.name if folder == "static" else f"{folder}/{entry.name}"
                tag = f'"{hashlib.sha256(data).hexdigest()[:20]}"'
                found[name] = File(media, data, gzip.compress(data, 9, mtime=0), tag)
    return found


def routes(keys: Keys, redis: Callable[[], Client], port: int) -> list[Route]:
    """The first page, which also takes the token of a link, and the files that it is made of."""
    served = files()
    shell = served.pop("index.html")

    async def first(request: Request) -> Response:
        token = request.query_params.get("token")
        if token is None:
            return answer(request, shell)
        try:
            found = await session.redeem(keys, redis(), token)
        except UNAVAILABLE:  # the page says so, and the link stays good
            return answer(request, shell, 503)
        if found is None:
            return answer(request, shell, 401)
        away = RedirectResponse("/", 303, HEADERS)
        return session.signed_in(away, found.key, session.cookie_name(port), request)

    async def part(request: Request) -> Response:
        found = served.get(request.path_params["name"])
        if found is None:
            return Response(b"there is no such file here\n", 404, HEADERS, media_type="text/plain")
        return answer(request, found)

    return [Route("/", first, methods=["GET"]), Route("/dashboard/{name:path}", part, methods=["GET"])]


def answer(request: Request, file: File, status: int = 200) -> Response:
    """A file, or word that the browser has it as it is."""
    headers = HEADERS | {"ETag": file.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if status != 200:
        headers["Cache-Control"] = "no-store"
    elif request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, status, headers | {"Content-Encoding": "gzip"}, media_type=file.media)
    return Response(file.data, status, headers, media_type=file.media)
