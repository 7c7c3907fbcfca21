"""Bodies: the JSON texts of rows, read into the columns of an Arrow schema.

A body that is as it should be is decoded by its types; only one that is not is looked at value by value,
and there a value of a wrong type becomes null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import MAX_TIME_MS, MIN_TIME_MS

_SLICE: Final = 4096
"""How many bodies are Python objects at a time, and are decoded again, one by one, where a bad one is among them."""

_INT64: Final = range(-(2**63), 2**63)
_Int = Annotated[int, msgspec.Meta(ge=_INT64.start, le=_INT64.stop - 1)]
_FAILURES: Final = (msgspec.DecodeError, UnicodeError, ValueError, RecursionError)


class BodyReader:
    """Reads the JSON objects of one table. A field named ``…_at`` is a time in RFC 3339, int64 ms in the column."""

    def __init__(self, fields: Sequence[pa.Field]) -> None:
        self._fields = fields
        self._names = [field.name for field in fields]
        self._form = msgspec.defstruct(
            "Body",
            [
                (field.name, bool, False) if pa.types.is_boolean(field.type) else (field.name, _kept(field), None)
                for field in fields
            ],
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(self._form)
        self._repairs: dict[str, Callable[[Any], Any]] = {field.name: _repair(field) for field in fields}

    def columns(self, bodies: pa.Array) -> dict[str, pa.Array]:
        """The fields of each body (binary), in order. A value of a wrong type is null, a missing boolean is false."""
        parts = [self._columns(bodies[i : i + _SLICE].to_pylist()) for i in range(0, len(bodies), _SLICE)]
        return {
            field.name: pa.concat_arrays([part[field.name] for part in parts] or [pa.array([], field.type)])
            for field in self._fields
        }

    def _columns(self, bodies: list[bytes]) -> dict[str, pa.Array]:
        read = self._read(bodies)
        columns = {}
        for field in self._fields:
            name = field.name
            values = [getattr(body, name) for body in read]
            columns[name] = times(values) if _is_time(field) else pa.array(values, field.type)
        return columns

    def _read(self, bodies: list[bytes]) -> list[Any]:
        decode = self._decoder.decode
        try:
            return [decode(body) for body in bodies]
        except _FAILURES:
            return [self._one(body) for body in bodies]

    def _one(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except _FAILURES:
            found = fields_of(body)
            return self._form(**{name: self._repairs[name](found.get(name)) for name in self._names})


def fields_of(body: bytes) -> dict[str, Any]:
    """The keys and values of a JSON object; nothing where the text is none."""
    try:
        value = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def times(texts: Sequence[str | None]) -> pa.Array:
    """RFC 3339 texts as int64 ms since the epoch, cut to the millisecond; null for what is no time in range."""
    written = pa.array(texts, pa.string())
    try:
        found = written.cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
    except pa.ArrowInvalid:
        found = pa.array([None if text is None else _instant(text) for text in texts], pa.int64())
    inside = pc.and_(pc.greater_equal(found, MIN_TIME_MS), pc.less_equal(found, MAX_TIME_MS))
    return pc.if_else(inside, found, pa.scalar(None, pa.int64()))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _instant(text: str) -> int | None:
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    elapsed = (read if read.tzinfo is not None else read.replace(tzinfo=UTC)) - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000


def _is_time(field: pa.Field) -> bool:
    return bool(field.name.endswith("_at"))


def _kept(field: pa.Field) -> Any:
    """What a value of this field is in JSON."""
    if _is_time(field) or pa.types.is_string(field.type):
        return str | None
    return float | None if pa.types.is_floating(field.type) else _Int | None


def _repair(field: pa.Field) -> Callable[[Any], Any]:
    if pa.types.is_boolean(field.type):
        return lambda value: value is True
    if _is_time(field) or pa.types.is_string(field.type):
        return _text
    return _real if pa.types.is_floating(field.type) else whole


def _text(value: object) -> str | None:
    """Text, also of a number that stands for an id."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole(value: object) -> int | None:
    """A number as the nearest whole one, where 64 bits hold it."""
    if _real(value) is None or not isinstance(value, int | float):
        return None
    near = round(value)
    return near if near in _INT64 else None
