"""What a read asks for: times, limits, filters and cursors, checked; every refusal says what is allowed."""

from __future__ import annotations

import base64
import binascii
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import xxhash
from starlette.datastructures import ImmutableMultiDict

from rebu_ray.access.tape import END, START, Filter, after
from rebu_ray.ingest.dialects import times
from rebu_ray.records import BadRequest, Source
from rebu_ray.store.member import KIND_CODES, SOURCE_CODES, time_place
from rebu_ray.store.rows import json_text

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000


def known(params: Mapping[str, str], allowed: Iterable[str]) -> None:
    """Raises BadRequest 400 for a parameter that this route does not have, or that is given more than once."""
    names = sorted(allowed)
    for name in params:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            use = f"use {', '.join(names)}" if names else "it takes none"
            raise BadRequest(400, "unknown_parameter", f"there is no parameter {name!r} here: {meant}{use}")
    if isinstance(params, ImmutableMultiDict):
        times_given = Counter(name for name, _ in params.multi_items())
        for name, count in times_given.items():
            if count > 1:
                message = (
                    f"{name} is given {count} times: give it once, with commas between values where it takes several"
                )
                raise BadRequest(400, "repeated_parameter", message)


def limit(params: Mapping[str, str]) -> int:
    """How many items a page has: 1 to 1000, 100 unless told."""
    text = params.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and 1 <= int(text) <= MAX_LIMIT):
        raise BadRequest(400, "invalid_limit", f"limit is {text!r}: it must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def descending(params: Mapping[str, str]) -> bool:
    """Whether the newest comes first, as it does unless told otherwise."""
    order = params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest(400, "invalid_order", f"order is {order!r}: it must be asc or desc")
    return order == "desc"


def truth(params: Mapping[str, str], name: str) -> bool | None:
    """A parameter that is true or false."""
    text = params.get(name)
    if text not in (None, "true", "false"):
        raise BadRequest(400, f"invalid_{name}", f"{name} is {text!r}: it must be true or false")
    return None if text is None else text == "true"


def time(params: Mapping[str, str], name: str) -> int | None:
    """A time parameter in ms, RFC 3339 or epoch milliseconds."""
    text = params.get(name)
    if text is None:
        return None
    try:
        # A plus sign that was not percent-encoded arrives as a blank.
        return times.milliseconds(text.replace(" ", "+") if "T" in text.upper() else text)
    except ValueError as error:
        raise BadRequest(
            400, "invalid_time", f"{name} is {text!r}: write it as 2026-03-01T08:00:00Z or as epoch milliseconds"
        ) from error


def bounds(params: Mapping[str, str]) -> tuple[bytes, bytes]:
    """`since` (inclusive) and `until` (exclusive) as places."""
    since, until = time(params, "since"), time(params, "until")
    return START if since is None else time_place(since), END if until is None else time_place(until)


def filters(params: Mapping[str, str]) -> Filter:
    """`kind`, `source` (comma-separated lists) and `name`."""
    name = params.get("name")
    return Filter(
        _codes(params, "kind", KIND_CODES, ("app_event", "app_error", "server_access", "server_error")),
        _codes(params, "source", SOURCE_CODES, tuple(SOURCE_CODES)),
        None if name is None else b'"name":' + json_text(name).encode() + b",",
    )


def _codes(
    params: Mapping[str, str], name: str, codes: Mapping[str, int], allowed: tuple[str, ...]
) -> frozenset[int] | None:
    text = params.get(name)
    if text is None:
        return None
    wanted = text.split(",")
    for value in wanted:
        if value not in allowed:
            raise BadRequest(400, f"unknown_{name}", f"{name} is {value!r}: it must be one of {', '.join(allowed)}")
    return frozenset(codes[value] for value in wanted)


def sources(params: Mapping[str, str]) -> list[Source]:
    """`source`, a comma-separated list; all of them unless told."""
    text = params.get("source")
    if text is None:
        return list(Source)
    wanted = text.split(",")
    for name in wanted:
        if name not in SOURCE_CODES:
            raise BadRequest(400, "unknown_source", f"source is {name!r}: it must be one of {', '.join(Source)}")
    return [Source(name) for name in wanted]


class Cursors:
    """Cursors of one query: a place, sealed with what was asked, so that no other query takes it."""

    def __init__(self, *query: object) -> None:
        self._seal = xxhash.xxh32_digest(repr(query).encode("utf-8", "surrogatepass"))

    def write(self, place: bytes) -> str:
        return base64.urlsafe_b64encode(self._seal + place).rstrip(b"=").decode()

    def narrow(self, text: str | None, low: bytes, high: bytes, desc: bool) -> tuple[bytes, bytes]:
        """The bounds that are left after a cursor. Raises BadRequest 400 for a cursor of another query."""
        if text is None:
            return low, high
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest(
                400, "invalid_cursor", "cursor is not one of ours: pass on `next` as it was answered"
            ) from error
        if len(raw) < 12 or raw[:4] != self._seal:
            raise BadRequest(
                400,
                "invalid_cursor",
                "cursor belongs to another query: keep the filters and the order while you follow `next`",
            )
        place = raw[4:]
        return (low, min(high, place)) if desc else (max(low, after(place)), high)
