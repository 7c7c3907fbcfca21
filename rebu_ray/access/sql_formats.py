"""Rows of any types as JSON, CSV, Parquet and an Arrow stream."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from rebu_ray.access.ride_formats import MEDIA_TYPES as RIDE_TYPES
from rebu_ray.access.ride_formats import arrow, moments

MEDIA_TYPES: Final = {"json": "application/json", **RIDE_TYPES}


def encoded(form: str, schema: pa.Schema, batches: Sequence[pa.RecordBatch], truncated: bool) -> bytes:
    """Rows in a format. Columns of one name get numbers; JSON says whether there are more rows."""
    table = pa.Table.from_batches(batches, schema)
    table = pa.table([_integers(column) for column in table.columns], names=_distinct(schema.names))
    if form == "json":
        items = [{name: plain(value) for name, value in row.items()} for row in table.to_pylist()]
        return msgspec.json.encode({"items": items, "truncated": truncated})
    if form == "arrow":
        return arrow(table)
    sink = pa.BufferOutputStream()
    if form == "csv":
        pacsv.write_csv(_flat(table), sink)
    else:
        pq.write_table(_storable(table), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def plain(value: Any) -> Any:
    """A value as JSON has it: times in RFC 3339 (those without a zone are UTC), what no number can be as null."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return plain(int(value)) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        text = value.isoformat(timespec="milliseconds" if value.microsecond % 1000 == 0 else "microseconds")
        return f"{text}Z" if value.tzinfo is None else text.replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, pa.MonthDayNano):
        return f"{value.months} months {value.days} days {value.nanoseconds / 1e9:g} seconds"
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value)


def _integers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals without places as integers, where 64 bits hold all of them."""
    if pa.types.is_decimal(column.type) and column.type.scale == 0:
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column
    return column


def _distinct(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        number, wanted = 1, name
        while wanted in found:
            wanted, number = f"{name}_{number}", number + 1
        found.append(wanted)
    return found


def _flat(table: pa.Table) -> pa.Table:
    """A table that CSV can hold: what nests is JSON text, times have their zone."""
    columns = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_timestamp(kind):
            columns.append(moments(column))
        elif pa.types.is_nested(kind) or not _is_simple(kind):
            columns.append(_texts(column))
        else:
            columns.append(column)
    return pa.table(columns, names=table.column_names)


def _storable(table: pa.Table) -> pa.Table:
    """A table that Parquet can hold."""
    columns = [c if _is_simple(c.type) or pa.types.is_nested(c.type) else _texts(c) for c in table.columns]
    return pa.table(columns, names=table.column_names)


def _is_simple(kind: pa.DataType) -> bool:
    tests = (
        *(pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string),
        *(pa.types.is_timestamp, pa.types.is_date, pa.types.is_decimal, pa.types.is_binary),
    )
    return any(test(kind) for test in tests)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    values = [None if value is None else _json(value) for value in column.to_pylist()]
    return pa.array(values, pa.string())


def _json(value: Any) -> str:
    found = plain(value)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
