"""Formats: what is on disk says by which rules it was written, and nobody reads it by others.

Everything that is kept carries a number: `v` (or `format`) of a map in MessagePack or JSON. What has none is from
before there were numbers, and counts as 1. A version of Rebu reads each format up to its own and writes its own; one
that is newer is refused before anything is changed, since what can be read of it by chance need not mean the same.

To give something a new format: count its number up where it is defined, go on reading the ones before, and add to
`tests/store/test_formats.py` what writes the last one. What can be made anew (index, warehouse, forecasts) is not
read in another format at all.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

Kind = TypeVar("Kind")


class _Said(msgspec.Struct):
    v: int = 1
    format: int = 1


def format_of(data: bytes) -> int:
    """The format that a map says it is of. Raises msgspec.DecodeError for what is no map."""
    said = msgspec.json.decode(data, type=_Said) if data[:1] == b"{" else msgspec.msgpack.decode(data, type=_Said)
    return max(said.v, said.format)


def read(data: bytes, kind: type[Kind], known: int, what: str, error: type[Exception]) -> Kind:
    """What a map holds. Raises `error` where it is of a newer format than `known`, msgspec.DecodeError where it is
    none of `kind`.
    """
    refuse_newer(format_of(data), known, what, error)
    return msgspec.json.decode(data, type=kind) if data[:1] == b"{" else msgspec.msgpack.decode(data, type=kind)


def refuse_newer(found: int, known: int, what: str, error: type[Exception]) -> None:
    """Raises `error` where a format is newer than the one that is known."""
    if found > known:
        raise error(
            f"{what} has format {found}, and this version of Rebu knows it up to {known}: start the version that wrote "
            "it, or a newer one; nothing was changed"
        )
