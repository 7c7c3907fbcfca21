"""The tables of the warehouse, and the expressions that fill them from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rebu_ray.records import Kind, Source

FORMAT: Final = 1

CELLS: Final = 100
"""Zones in a degree."""


class WarehouseError(Exception):
    """The warehouse cannot be made or read; the message says why, and what to do."""


class SchemaChange(WarehouseError):
    """The source holds values of another type than before."""


RIDE_SHAPE: Final = """{
    "status": "VARCHAR", "city": "VARCHAR", "user": {"user_id": "VARCHAR", "name": "VARCHAR"},
    "driver": {"driver_id": "VARCHAR", "name": "VARCHAR"}, "requested_at": "TIMESTAMP", "accepted_at": "TIMESTAMP",
    "picked_up_at": "TIMESTAMP", "ended_at": "TIMESTAMP", "fare_cents": "BIGINT", "currency": "VARCHAR",
    "distance_m": "BIGINT", "rating": "DOUBLE", "pickup": {"lat": "DOUBLE", "lon": "DOUBLE"},
    "destination": {"lat": "DOUBLE", "lon": "DOUBLE"}, "dropoff": {"lat": "DOUBLE", "lon": "DOUBLE"},
    "wait_s": "DOUBLE", "duration_s": "DOUBLE", "requested_distance_m": "DOUBLE", "destination_gap_m": "DOUBLE",
    "destination_matched": "BOOLEAN", "progress": "DOUBLE",
    "errors": {"app": "BIGINT", "server": "BIGINT", "items": "JSON"}, "premature": "BOOLEAN", "cause": "VARCHAR",
    "quality": "DOUBLE", "flags": ["VARCHAR"], "messages": {"linked": "BIGINT", "ambiguous": "BIGINT"},
    "version": "BIGINT", "known_at": "TIMESTAMP", "computed_at": "TIMESTAMP"
}"""
"""A ride's document as DuckDB reads it."""
RIDE_COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "status": ("VARCHAR", "d.status"),
    "city": ("VARCHAR", "d.city"),
    "user_id": ("VARCHAR", 'd."user".user_id'),
    "user_name": ("VARCHAR", 'd."user".name'),
    "driver_id": ("VARCHAR", "d.driver.driver_id"),
    "driver_name": ("VARCHAR", "d.driver.name"),
    **{name: ("TIMESTAMP", f"d.{name}") for name in ("requested_at", "accepted_at", "picked_up_at", "ended_at")},
    "fare_cents": ("BIGINT", "d.fare_cents"),
    "currency": ("VARCHAR", "d.currency"),
    "distance_m": ("BIGINT", "d.distance_m"),
    "rating": ("DOUBLE", "d.rating"),
    **{
        f"{place}_{axis}": ("DOUBLE", f"d.{place}.{axis}")
        for place in ("pickup", "destination", "dropoff")
        for axis in ("lat", "lon")
    },
    **{name: ("DOUBLE", f"d.{name}") for name in ("wait_s", "duration_s")},
    **{name: ("DOUBLE", f"d.{name}") for name in ("requested_distance_m", "destination_gap_m")},
    "destination_matched": ("BOOLEAN", "d.destination_matched"),
    "progress": ("DOUBLE", "d.progress"),
    "errors_app": ("BIGINT", "d.errors.app"),
    "errors_server": ("BIGINT", "d.errors.server"),
    "errors": ("VARCHAR", "d.errors.items::VARCHAR"),
    "premature": ("BOOLEAN", "d.premature"),
    "cause": ("VARCHAR", "d.cause"),
    "quality": ("DOUBLE", "d.quality"),
    "flags": ("VARCHAR[]", "d.flags"),
    "messages_linked": ("BIGINT", "d.messages.linked"),
    "messages_ambiguous": ("BIGINT", "d.messages.ambiguous"),
    "version": ("BIGINT", "d.version"),
    "known_at": ("TIMESTAMP", "d.known_at"),
    "computed_at": ("TIMESTAMP", "d.computed_at"),
}
"""What `fact_ride` takes from a document: type and expression, by the names that `/v1/rides` uses in its files."""

MESSAGE_SHAPE: Final = """{
    "channel": "VARCHAR", "direction": "VARCHAR", "sent_at": "TIMESTAMP", "subject": "VARCHAR", "body": "VARCHAR",
    "user_id": "VARCHAR", "thread_id": "VARCHAR",
    "link": {"status": "VARCHAR", "ride_id": "VARCHAR", "confidence": "DOUBLE", "reasons": "JSON",
        "candidates": "JSON"},
    "version": "BIGINT", "known_at": "TIMESTAMP", "computed_at": "TIMESTAMP"
}"""
MESSAGE_COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    **{name: ("VARCHAR", f"d.{name}") for name in ("channel", "direction")},
    "sent_at": ("TIMESTAMP", "d.sent_at"),
    **{name: ("VARCHAR", f"d.{name}") for name in ("subject", "body", "user_id", "thread_id")},
    "link_status": ("VARCHAR", "d.link.status"),
    "ride_id": ("VARCHAR", "d.link.ride_id"),
    "confidence": ("DOUBLE", "d.link.confidence"),
    "reasons": ("VARCHAR", "d.link.reasons::VARCHAR"),
    "candidates": ("VARCHAR", "d.link.candidates::VARCHAR"),
    "version": ("BIGINT", "d.version"),
    "known_at": ("TIMESTAMP", "d.known_at"),
    "computed_at": ("TIMESTAMP", "d.computed_at"),
}

USER_COLUMNS: Final = {
    **dict.fromkeys(("name", "email", "phone"), "VARCHAR"),
    **dict.fromkeys(("created_at", "updated_at"), "TIMESTAMP"),
}
DRIVER_COLUMNS: Final = {
    **dict.fromkeys(("name", "vehicle_plate", "vehicle_model"), "VARCHAR"),
    "rating": "DOUBLE",
    **dict.fromkeys(("created_at", "updated_at"), "TIMESTAMP"),
}

NUMBERS: Final[Mapping[Source, tuple[str, ...]]] = {
    Source.USERS: (),
    Source.DRIVERS: ("rating",),
    Source.RIDES: (
        *("pickup_lat", "pickup_lon", "destination_lat", "destination_lon", "dropoff_lat", "dropoff_lon"),
        *("distance_m", "fare_cents", "rating"),
    ),
    Source.MESSAGES: (),
}
"""Columns of the contract that hold numbers."""
KNOWN: Final[Mapping[Source, tuple[str, ...]]] = {
    Source.USERS: ("user_id", "name", "email", "phone", "created_at", "updated_at"),
    Source.DRIVERS: ("driver_id", "name", "vehicle_plate", "vehicle_model", "rating", "created_at", "updated_at"),
    Source.RIDES: (
        *("ride_id", "user_id", "driver_id", "city", "status", "requested_at", "accepted_at", "picked_up_at"),
        *("ended_at", "pickup_lat", "pickup_lon", "destination_lat", "destination_lon", "dropoff_lat", "dropoff_lon"),
        *("distance_m", "fare_cents", "currency", "rating", "updated_at"),
    ),
    Source.MESSAGES: (
        *("message_id", "user_id", "channel", "direction", "sent_at", "subject", "body", "ride_id", "thread_id"),
        "updated_at",
    ),
}
"""The columns of the contract: all of them are in every row's canonical form."""
KINDS: Final = {
    Source.USERS: Kind.USER,
    Source.DRIVERS: Kind.DRIVER,
    Source.RIDES: Kind.RIDE,
    Source.MESSAGES: Kind.MESSAGE,
}
TABLE_OF: Final = {
    Source.USERS: "dim_user",
    Source.DRIVERS: "dim_driver",
    Source.RIDES: "fact_ride",
    Source.MESSAGES: "fact_message",
}
KEY_OF: Final = {
    Source.USERS: "user_id",
    Source.DRIVERS: "driver_id",
    Source.RIDES: "ride_id",
    Source.MESSAGES: "message_id",
}
FACTS: Final = (Source.RIDES, Source.MESSAGES)
DAYS: Final = "(SELECT DATE '1970-01-01' + day::INTEGER FROM (SELECT unnest($days) AS day))"
"""The dates of the parameter `days`, which are counted from 1970 on."""


def quoted(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A string of SQL."""
    return "'" + value.replace("'", "''") + "'"


def pointer(field: str) -> str:
    """A JSON pointer to a field of an object."""
    return "/" + field.replace("~", "~0").replace("/", "~1")


def pointer_of(column: str) -> str:
    """The expression for `pointer` of the field that a column names."""
    return f"'/' || replace(replace({column}, '~', '~0'), '/', '~1')"


def date_key(time: str) -> str:
    """The key of a time's day: 20260301."""
    return f"(year({time}) * 10000 + month({time}) * 100 + day({time}))::INTEGER"


def zone_key(lat: str, lon: str) -> str:
    """The key of the cell that a place lies in; null where it is no place."""
    cell = f"floor(({lat} + 90) * {CELLS}) * {360 * CELLS} + floor(({lon} + 180) * {CELLS})"
    return f"CASE WHEN {lat} BETWEEN -90 AND 90 AND {lon} BETWEEN -180 AND 180 THEN ({cell})::INTEGER END"


def ddl() -> str:
    """Every table of an empty warehouse."""
    ride = ", ".join(f"{name} {kind}" for name, (kind, _) in RIDE_COLUMNS.items())
    message = ", ".join(f"{name} {kind}" for name, (kind, _) in MESSAGE_COLUMNS.items())
    ends = "valid_from TIMESTAMP, valid_to TIMESTAMP, is_current BOOLEAN, is_deleted BOOLEAN"
    user = ", ".join(f"{name} {kind}" for name, kind in USER_COLUMNS.items())
    driver = ", ".join(f"{name} {kind}" for name, kind in DRIVER_COLUMNS.items())
    return f"""
    CREATE SCHEMA meta;
    CREATE TABLE fact_ride (ride_id VARCHAR, date_key INTEGER, user_key UBIGINT, driver_key UBIGINT,
        pickup_zone_key INTEGER, destination_zone_key INTEGER, dropoff_zone_key INTEGER, {ride});
    CREATE TABLE fact_message (message_id VARCHAR, date_key INTEGER, user_key UBIGINT, {message});
    CREATE TABLE fact_event_daily (date_key INTEGER, date DATE, kind VARCHAR, source VARCHAR, name VARCHAR,
        events BIGINT);
    CREATE TABLE dim_user (user_key UBIGINT, user_id VARCHAR, {user}, {ends});
    CREATE TABLE dim_driver (driver_key UBIGINT, driver_id VARCHAR, {driver}, {ends});
    CREATE TABLE dim_date (date_key INTEGER, date DATE, year INTEGER, quarter INTEGER, month INTEGER,
        month_name VARCHAR, day INTEGER, iso_week INTEGER, day_of_week INTEGER, day_name VARCHAR, is_weekend BOOLEAN);
    CREATE TABLE dim_zone (zone_key INTEGER, zone_id VARCHAR, city VARCHAR, south DOUBLE, west DOUBLE,
        north DOUBLE, east DOUBLE);
    CREATE TABLE meta.warehouse (format INTEGER, platform_id VARCHAR, erased VARCHAR);
    CREATE TABLE meta.loads (load_id BIGINT, started_at TIMESTAMP, finished_at TIMESTAMP, rebuilt BOOLEAN,
        rides BIGINT, messages BIGINT, users BIGINT, drivers BIGINT, events BIGINT, notes VARCHAR[]);
    CREATE TABLE meta.progress (partition INTEGER, covered_seq BIGINT);
    CREATE TABLE meta.things (kind VARCHAR, name VARCHAR, partition INTEGER, seq BIGINT, reached_at BIGINT,
        deleted BOOLEAN);
    CREATE TABLE meta.versions (source VARCHAR, name VARCHAR, id VARCHAR, version_at BIGINT, received_at BIGINT,
        seq BIGINT, deleted BOOLEAN, body VARCHAR);
    CREATE TABLE meta.extras (source VARCHAR, name VARCHAR, version_at BIGINT, received_at BIGINT, id VARCHAR,
        body VARCHAR);
    CREATE TABLE meta.columns (source VARCHAR, field VARCHAR, "column" VARCHAR, type VARCHAR);
    CREATE TABLE meta.events (partition INTEGER, date DATE, kind VARCHAR, source VARCHAR, name VARCHAR,
        events BIGINT);
    """
