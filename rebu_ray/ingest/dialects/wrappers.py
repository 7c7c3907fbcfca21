"""The envelopes that log shippers put around a line: Vector's `message`, Fluent Bit's and Docker's `log`."""

from __future__ import annotations

from typing import Final

from rebu_ray.ingest.dialects import json_text
from rebu_ray.ingest.dialects.fields import Fields, RefusedError

_MOST_LAYERS: Final = 4
"""A container's log inside a shipper's message is two; no honest chain is longer."""


def inner_line(fields: Fields) -> str | None:
    """The line that an envelope carries, without its line end; None where the object carries none."""
    for name in ("message", "log"):
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip("\r\n")
    return None


def innermost(raw: bytes, own: frozenset[str]) -> tuple[bytes, Fields]:
    """The JSON object in `raw`, or the one that its envelopes carry: the object's text and the object.

    An object that has one of the fields `own` is the record itself. Raises RefusedError for what is no object.
    """
    fields = json_text.json_object(raw)
    for _ in range(_MOST_LAYERS):
        line = None if own & fields.keys() else inner_line(fields)
        if line is None or not line.lstrip().startswith("{"):
            break
        try:
            inner = line.strip().encode()
            fields = json_text.json_object(inner)
        except RefusedError:
            break
        raw = inner
    return raw, fields
