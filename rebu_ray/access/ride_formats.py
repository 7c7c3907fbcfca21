"""Rides as flat tables, and those as CSV, Parquet and Arrow streams, written piece by piece."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from rebu_ray.store.ride_table import milliseconds

_TIME: Final = pa.timestamp("ms", "UTC")
FLAT: Final = pa.schema(
    [
        ("ride_id", pa.string()),
        ("status", pa.string()),
        ("city", pa.string()),
        ("user_id", pa.string()),
        ("user_name", pa.string()),
        ("driver_id", pa.string()),
        ("driver_name", pa.string()),
        ("requested_at", _TIME),
        ("accepted_at", _TIME),
        ("picked_up_at", _TIME),
        ("ended_at", _TIME),
        ("fare_cents", pa.int64()),
        ("currency", pa.string()),
        ("distance_m", pa.int64()),
        ("rating", pa.float64()),
        ("pickup_lat", pa.float64()),
        ("pickup_lon", pa.float64()),
        ("destination_lat", pa.float64()),
        ("destination_lon", pa.float64()),
        ("dropoff_lat", pa.float64()),
        ("dropoff_lon", pa.float64()),
        ("wait_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("requested_distance_m", pa.float64()),
        ("destination_gap_m", pa.float64()),
        ("destination_matched", pa.bool_()),
        ("progress", pa.float64()),
        ("errors_app", pa.int64()),
        ("errors_server", pa.int64()),
        ("errors", pa.string()),
        ("premature", pa.bool_()),
        ("cause", pa.string()),
        ("quality", pa.float64()),
        ("flags", pa.list_(pa.string())),
        ("messages_linked", pa.int64()),
        ("messages_ambiguous", pa.int64()),
        ("version", pa.int64()),
        ("known_at", _TIME),
        ("computed_at", _TIME),
    ]
)
"""A ride's document without nesting; `errors` is the JSON text of its items."""


class _User(msgspec.Struct, gc=False):
    user_id: str | None = None
    name: str | None = None


class _Driver(msgspec.Struct, gc=False):
    driver_id: str | None = None
    name: str | None = None


class _Point(msgspec.Struct, gc=False):
    lat: float | None = None
    lon: float | None = None


class _Errors(msgspec.Struct, gc=False):
    app: int = 0
    server: int = 0
    items: msgspec.Raw = msgspec.Raw(b"[]")


class _Messages(msgspec.Struct, gc=False):
    linked: int = 0
    ambiguous: int = 0


class _Document(msgspec.Struct):
    """What is not named here is named by FLAT, and stands in the document under that name."""

    ride_id: str
    status: str | None = None
    city: str | None = None
    user: _User | None = None
    driver: _Driver | None = None
    requested_at: datetime | None = None
    accepted_at: datetime | None = None
    picked_up_at: datetime | None = None
    ended_at: datetime | None = None
    fare_cents: int | None = None
    currency: str | None = None
    distance_m: int | None = None
    rating: float | None = None
    pickup: _Point | None = None
    destination: _Point | None = None
    dropoff: _Point | None = None
    wait_s: float | None = None
    duration_s: float | None = None
    requested_distance_m: float | None = None
    destination_gap_m: float | None = None
    destination_matched: bool | None = None
    progress: float | None = None
    errors: _Errors = msgspec.field(default_factory=_Errors)
    premature: bool | None = None
    cause: str | None = None
    quality: float | None = None
    flags: list[str] = msgspec.field(default_factory=list)
    messages: _Messages = msgspec.field(default_factory=_Messages)
    version: int | None = None
    known_at: datetime | None = None
    computed_at: datetime | None = None


_DOCUMENT: Final = msgspec.json.Decoder(_Document)
_NOBODY, _NO_DRIVER, _NOWHERE = _User(), _Driver(), _Point()


def table_of(bodies: Sequence[bytes]) -> pa.Table:
    """Documents of rides as `FLAT`."""
    documents = [_DOCUMENT.decode(body) for body in bodies]
    users = [d.user or _NOBODY for d in documents]
    drivers = [d.driver or _NO_DRIVER for d in documents]
    nested: dict[str, list[Any]] = {
        "user_id": [user.user_id for user in users],
        "user_name": [user.name for user in users],
        "driver_id": [driver.driver_id for driver in drivers],
        "driver_name": [driver.name for driver in drivers],
        "errors_app": [d.errors.app for d in documents],
        "errors_server": [d.errors.server for d in documents],
        "errors": [bytes(d.errors.items).decode() for d in documents],
        "messages_linked": [d.messages.linked for d in documents],
        "messages_ambiguous": [d.messages.ambiguous for d in documents],
    }
    for name in ("pickup", "destination", "dropoff"):
        points: list[_Point] = [getattr(d, name) or _NOWHERE for d in documents]
        nested |= {f"{name}_lat": [point.lat for point in points], f"{name}_lon": [point.lon for point in points]}
    columns = []
    for field in FLAT:
        values: list[Any] = nested.get(field.name) or list(map(attrgetter(field.name), documents))
        columns.append(milliseconds(values).cast(_TIME) if field.type == _TIME else pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=FLAT)


def moments(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times in UTC as text, RFC 3339."""
    text = pc.replace_substring(column.cast(pa.timestamp(column.type.unit)).cast(pa.string()), " ", "T")
    return pc.binary_join_element_wise(text, "Z", "")


def csv(table: pa.Table) -> bytes:
    """`FLAT` as lines of CSV without the first one: times as RFC 3339, flags with blanks between them."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.type == _TIME:
            columns.append(moments(column))
        else:
            columns.append(pc.binary_join(column, " ") if name == "flags" else column)
    sink = pa.BufferOutputStream()
    pacsv.write_csv(pa.table(columns, names=table.column_names), sink, pacsv.WriteOptions(include_header=False))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def arrow(table: pa.Table) -> bytes:
    """A table as a stream of Arrow IPC."""
    writer = ArrowWriter(table.schema)
    return writer.write(table) + writer.end()


class CsvWriter:
    """Tables as CSV. As with the other writers, what it answers, one after the other, are the bytes of a file."""

    def __init__(self) -> None:
        self._head = ",".join(f'"{name}"' for name in FLAT.names).encode() + b"\n"

    def write(self, table: pa.Table) -> bytes:
        head, self._head = self._head, b""
        return head + csv(table)

    def end(self) -> bytes:
        return self._head


class ArrowWriter:
    """Tables as a stream of Arrow IPC."""

    def __init__(self, schema: pa.Schema = FLAT) -> None:
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def write(self, table: pa.Table) -> bytes:
        self._writer.write_table(table)
        return self._sink.drained()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.drained()


class ParquetWriter:
    """Tables as Parquet, a row group each."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(self._sink, FLAT, compression="zstd")

    def write(self, table: pa.Table) -> bytes:
        self._writer.write_table(table)
        return self._sink.drained()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.drained()


Writer = CsvWriter | ArrowWriter | ParquetWriter
WRITERS: Final[dict[str, type[Writer]]] = {
    "csv": CsvWriter,
    "parquet": ParquetWriter,
    "arrow": ArrowWriter,
}
MEDIA_TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}


class _Sink(io.RawIOBase):
    """A file that is written once and from which what was written is taken away."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        part = bytes(memoryview(data))  # type: ignore[arg-type]
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def drained(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
