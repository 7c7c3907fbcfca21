"""The API keys: what each may do, how one is presented, how they are compared."""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from enum import StrEnum
from pathlib import Path

import msgspec

from rebu_ray.records import BadRequest


class Scope(StrEnum):
    """What a request wants to do."""

    WRITE = "write"
    READ = "read"
    ADMIN = "admin"


class Keys(msgspec.Struct, frozen=True):
    """The keys of one platform. The admin key does everything; the others only what they are named for."""

    write: str
    read: str
    admin: str

    def check(self, presented: str | None, scope: Scope) -> None:
        """Raises BadRequest 401 for a missing or unknown key, 403 for one that may not do this."""
        if not presented:
            raise BadRequest(
                401, "unauthorized", "send a key: Authorization: Bearer KEY, or Basic with the key as user name"
            )
        given = presented.encode("utf-8", "surrogateescape")
        same = {s: hmac.compare_digest(given, getattr(self, s).encode()) for s in Scope}
        if same[Scope.ADMIN] or same[scope]:
            return
        if any(same.values()):
            raise BadRequest(
                403,
                "forbidden",
                f"this key is not for this: use the {scope} key"
                + ("" if scope is Scope.ADMIN else " or the admin key"),
            )
        raise BadRequest(401, "unauthorized", "this key is not known here: `rebu keys` prints the keys of a data dir")


def presented_key(authorization: str | None) -> str | None:
    """The key in an Authorization header, Bearer or Basic (as user name, or as password where that is empty)."""
    if not authorization:
        return None
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        except ValueError:  # no base64, or no text
            return None
        return user or password
    return None


def load_keys(data_dir: str, write: str = "", read: str = "", admin: str = "") -> Keys:
    """The keys of a data dir, made at first use (keys.json, mode 600); those given win."""
    path = Path(data_dir) / "keys.json"
    if path.exists():
        kept = msgspec.json.decode(path.read_bytes(), type=Keys)
    else:
        kept = Keys(*(f"rebu_{s}_{secrets.token_urlsafe(24)}" for s in Scope))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(kept))
    return Keys(write or kept.write, read or kept.read, admin or kept.admin)
