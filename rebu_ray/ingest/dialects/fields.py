"""What every format shares: where a request came from, how a record is refused, how an id and a time are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from rebu_ray.ingest.dialects import times
from rebu_ray.records import MAX_ID_BYTES, MAX_RECORD_BYTES, Source, derived_id

Fields = Mapping[str, Any]
"""A decoded JSON object."""

_SHORT: Final = MAX_ID_BYTES // 4
"""Characters that fit into MAX_ID_BYTES whatever they are."""

_LARGEST_EXACT: Final = 2**53


class RefusedError(Exception):
    """One record is not accepted; `reason` is its Refusal's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """What is known of all records of one request."""

    source: Source
    received_at: int
    producer: str | None = None
    sequence: int | None = None

    def derived_id(self, raw: bytes, ordinal: int) -> str:
        """The id of the request's record number `ordinal` (from 0), which brings none itself."""
        sequence = None if self.sequence is None else self.sequence + ordinal
        return derived_id(self.source.value, raw, ordinal, self.producer, sequence)


def identifier(value: object, field: str) -> str | None:
    """An id as text: numbers become text, empty text is none. Raises RefusedError naming `field`."""
    if isinstance(value, str):
        if "\0" in value or (len(value) > _SHORT and len(value.encode()) > MAX_ID_BYTES):
            raise RefusedError(f"invalid_id: {field} must be at most {MAX_ID_BYTES} bytes of UTF-8 without NUL")
        return value or None
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(value)
    raise RefusedError(f"invalid_id: {field} must be a string, or a number of up to 64 bits, not {_shown(value)}")


def time(value: object, field: str) -> int:
    """A time as milliseconds. Raises RefusedError naming `field`."""
    try:
        return times.milliseconds(value)
    except times.NotATimeError as error:
        raise RefusedError(
            f"invalid_time: {field} must be RFC 3339 or epoch milliseconds, but {_shown(value)} is {error}"
        ) from error


def first(fields: Fields, *names: str) -> tuple[str, Any]:
    """The first of `names` that has a value other than null, and that value; the first name and None where none has."""
    for name in names:
        value = fields.get(name)
        if value is not None:
            return name, value
    return names[0], None


def first_id(fields: Fields, *names: str) -> str | None:
    """The first of `names` that holds an id; servers write a dash where they have none. Raises RefusedError."""
    for name in names:
        found = identifier(fields.get(name), name)
        if found is not None and found != "-":
            return found
    return None


def first_time(fields: Fields, names: tuple[str, ...], received_at: int) -> int:
    """The time under the first of `names` that is there, else `received_at`. Raises RefusedError."""
    name, value = first(fields, *names)
    return received_at if value is None else time(value, name)


def check_size(raw: bytes) -> None:
    """Raises RefusedError for a record over MAX_RECORD_BYTES."""
    if len(raw) > MAX_RECORD_BYTES:
        raise RefusedError(f"too_large: the record has {len(raw)} bytes; send at most {MAX_RECORD_BYTES} in one record")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
