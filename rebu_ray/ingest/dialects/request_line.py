"""The HTTP request that a server's line is about: its parts, its name, and the user that its path names."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from rebu_ray.ingest.dialects.fields import Fields, RefusedError, first, identifier

INVALID: Final = "invalid request"
"""The name of an access entry whose request is none: what scanners and dropped connections leave."""

_METHOD = re.compile(r"[A-Za-z][A-Za-z-]{0,30}", re.ASCII)
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_USER = re.compile(r"/users/([^/]+)(?:/|$)")


class Request(NamedTuple):
    """A request line taken apart. `path` is without query, `query` without its question mark."""

    method: str
    path: str
    query: str | None
    protocol: str | None

    @property
    def name(self) -> str:
        """``METHOD /path``."""
        return f"{self.method} {self.path}"


def parse(line: str) -> Request | None:
    """The request of ``GET /path?query HTTP/1.1``, or None where that is none."""
    method, _, rest = line.partition(" ")
    target, mark, version = rest.rpartition(" HTTP/")
    if not _METHOD.fullmatch(method):
        return None
    return of(method, target, f"HTTP/{version}") if mark else of(method, rest)


def of(method: str, target: str, protocol: str | None = None) -> Request | None:
    """The request with this target (a path, an absolute URL, or ``*``), or None where the target is none."""
    if method == "CONNECT":
        return Request(method, target, None, protocol)
    path, mark, query = target.partition("#")[0].partition("?")
    authority = _AUTHORITY.match(path)
    if authority is not None:
        path = path[authority.end() :] or "/"
    if not path.startswith("/") and path != "*":
        return None
    return Request(method, path, query if mark else None, protocol)


def in_fields(fields: Fields) -> Request | None:
    """The request that a server's JSON line names: a whole request line, or method and path apart."""
    inner = fields.get("request")
    if isinstance(inner, dict):
        fields = {**inner, **fields}
    elif isinstance(inner, str) and (request := parse(inner)) is not None:
        return request
    method = _text(fields, "method", "request_method", "http_method")
    target = _text(fields, "path", "uri", "request_uri", "url", "request_path")
    if method is None or target is None:
        return None
    return of(method, target, _text(fields, "protocol", "server_protocol", "proto"))


def user_in_path(request: Request | None) -> str | None:
    """The user that ``/users/{id}/`` in the path names, percent-decoded; None for what could be nobody's id."""
    match = _USER.search(request.path) if request is not None else None
    if match is None:
        return None
    try:
        return identifier(unquote(match[1], errors="strict"), "path")
    except (UnicodeDecodeError, RefusedError):
        return None


def _text(fields: Fields, *names: str) -> str | None:
    value: Any = first(fields, *names)[1]
    return value if isinstance(value, str) and value else None
