"""Bad records on purpose. Every kind made here is one that the contract refuses, so that refusals can be counted."""

from __future__ import annotations

import re
from random import Random
from typing import Any, Final, Literal

import msgspec

BadKind = Literal["truncated", "broken_json", "binary", "impossible_time", "no_identity", "too_large", "not_an_object"]

# No byte that some reader takes for the end of a line (LF, CR, VT, FF, FS..RS, NEL and the lead bytes of U+0085 and
# U+2028) and none that looks like the start of JSON.
_JUNK: Final = bytes(byte for byte in range(256) if byte < 8 or (byte >= 0x80 and byte not in (0x85, 0xC2, 0xE2)))
_TOO_LARGE: Final = 40_000
_IMPOSSIBLE: Final = ("2026-02-31T25:61:00.000Z", "0000-00-00T00:00:00Z", "soon", "2026-13-02")


def binary(rng: Random) -> bytes:
    """What a disk or a wire makes of a line now and then."""
    return bytes(rng.choices(_JUNK, k=rng.randrange(24, 90)))


def damaged_json(rng: Random, raw: bytes) -> tuple[BadKind, bytes]:
    """A line of JSON that is none any more: cut short, or not text at all."""
    if rng.random() < 0.7:
        return "broken_json", raw[: rng.randrange(2, len(raw) - 1)]
    return "binary", binary(rng)


def damaged_line(rng: Random, raw: bytes) -> tuple[BadKind, bytes]:
    """A line of an access or error log that cannot be read any more."""
    kind = rng.random()
    if kind < 0.2:
        return "binary", binary(rng)
    if raw.startswith(b"{"):
        if kind < 0.7:
            return "broken_json", raw[: rng.randrange(2, len(raw) - 1)]
        return "impossible_time", re.sub(rb'"timestamp":"[^"]*"', b'"timestamp":"2026-13-40T25:00:00Z"', raw, count=1)
    if raw[4:5] == b"/":  # nginx: the line begins with the date
        if kind < 0.7:
            return "truncated", raw[: rng.randrange(3, 18)]
        return "impossible_time", b"2026/02/30 24:61:07" + raw[19:]
    if kind < 0.7:
        opened = raw.index(b'"')
        return "truncated", raw[: rng.randrange(raw.index(b"[") + 4, raw.index(b'"', opened + 1))]
    return "impossible_time", re.sub(rb"\[[^]]*\]", b"[31/Feb/2026:25:61:07 +0000]", raw, count=1)


def spoilt(rng: Random, message: dict[str, Any]) -> tuple[BadKind, bytes]:
    """A message of an app, well-formed JSON, that must be refused. `message` is left as it is."""
    kind = rng.random()
    if kind < 0.45:
        lost = {key: value for key, value in message.items() if key not in ("userId", "anonymousId")}
        return "no_identity", msgspec.json.encode(lost)
    if kind < 0.85:
        return "impossible_time", msgspec.json.encode(message | {"timestamp": rng.choice(_IMPOSSIBLE)})
    if kind < 0.93:
        return "too_large", msgspec.json.encode(message | {"breadcrumbs": "map tile reloaded; " * (_TOO_LARGE // 19)})
    return "not_an_object", msgspec.json.encode(rng.choice((None, "Application Opened", 17, [])))
