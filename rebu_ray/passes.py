"""Passes: what stands for a key where the key itself is not to be, in a link that works once and in a browser's cookie.

A pass is sealed with the key that it stands for, so whoever knows the keys can tell whether it is good, nobody has to
remember it, and it is worthless as soon as its key is.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from enum import IntEnum
from typing import Final, NamedTuple

from rebu_ray.keys import Keys

LINK_SECONDS: Final = 3600
"""How long a link is good that nobody has opened."""
SESSION_SECONDS: Final = 7 * 86_400
"""How long a browser is signed in."""
_HEAD: Final = struct.Struct(">BQ12s")
_SEAL: Final = 24


class Use(IntEnum):
    """What a pass is for; one is never good for the other."""

    LINK = 1
    SESSION = 2


class Pass(NamedTuple):
    """A pass that is good."""

    key: str
    """What it stands for."""
    until: int
    """Good no more from then on (ms)."""
    digest: str
    """Another one for every pass, and nothing to make one from."""


def issue(key: str, use: Use, until: int) -> str:
    """A new pass that stands for a key until a time (ms)."""
    head = _HEAD.pack(use, until, secrets.token_bytes(12))
    return base64.urlsafe_b64encode(head + _seal(key, head)).decode().rstrip("=")


def link(url: str, key: str, now: int) -> str:
    """A link to the dashboard of the platform at `url` that stands for a key, once. `now` is in ms."""
    return f"{url.rstrip('/')}/?token={issue(key, Use.LINK, now + 1000 * LINK_SECONDS)}"


def opened(keys: Keys, text: str, use: Use, now: int) -> Pass | None:
    """The pass of that text; None where it is none, is for something else, too old, or of a key that is no more.

    `now` is in ms.
    """
    if not text.isascii():
        return None
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    head, seal = data[: _HEAD.size], data[_HEAD.size :]
    if len(head) != _HEAD.size or len(seal) != _SEAL:
        return None
    found, until, _ = _HEAD.unpack(head)
    if found != use or now >= until:
        return None
    good: Pass | None = None
    for one in keys.standing(now):  # every key is looked at, so that the time tells nothing of which it was
        if hmac.compare_digest(seal, _seal(one.key, head)):
            good = Pass(one.key, until, hmac.digest(seal, b"rebu pass seen", "sha256").hex()[:32])
    return good


def _seal(key: str, head: bytes) -> bytes:
    return hmac.digest(key.encode(), b"rebu pass" + head, "sha256")[:_SEAL]
