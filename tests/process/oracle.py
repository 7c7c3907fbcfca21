"""What ride documents must say, worked out row by row: slow and plain."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rebu_ray.records import Kind
from tests.process.worlds import Row

RADIUS = 6_371_008.8

Document = dict[str, Any]


def documents(rows: Iterable[Row]) -> list[Document]:
    """The documents of all rides, as JSON values, without quality, flags and messages; in the order of answers."""
    known = list(rows)
    users = {row["user_id"]: row for row in counting(known, Kind.USER)}
    drivers = {row["driver_id"]: row for row in counting(known, Kind.DRIVER)}
    found = [document(ride, known, users, drivers) for ride in counting(known, Kind.RIDE)]

    def order(made: Document) -> tuple[Any, ...]:
        user, at = made["user"], made["requested_at"]
        return (user is None, user["user_id"].encode() if user else b"", at is None, at or "", made["ride_id"].encode())

    return sorted(found, key=order)


def counting(rows: list[Row], kind: Kind) -> list[Document]:
    """The body of the version that counts of each row that is not deleted."""
    best: dict[str, tuple[tuple[Any, ...], Document]] = {}
    for row in rows:
        if row.kind == kind:
            body = json.loads(row.body)
            updated = ms(body.get("updated_at"))
            rank = (row.received_at if updated is None else updated, row.received_at, row.id.encode())
            if row.name not in best or rank > best[row.name][0]:
                best[row.name] = (rank, body)
    return [body for _, body in best.values() if not body.get("deleted")]


def document(ride: Document, rows: list[Row], users: dict[str, Document], drivers: dict[str, Document]) -> Document:
    times = {name: ms(ride[name]) for name in ("requested_at", "accepted_at", "picked_up_at", "ended_at")}
    requested, picked_up, ended = times["requested_at"], times["picked_up_at"], times["ended_at"]
    pickup = point(ride["pickup_lat"], ride["pickup_lon"])
    dropoff = point(ride["dropoff_lat"], ride["dropoff_lon"])
    aim = destination(ride, rows, ended)
    asked = None if pickup is None or aim is None else metres(pickup, aim)
    gap = None if dropoff is None or aim is None else metres(aim, dropoff)
    matched = None if gap is None else gap <= 250
    progress = None
    if asked is not None and gap is not None and asked >= 1:
        progress = min(1.0, max(0.0, 1 - gap / asked))
    early = picked_up is not None and ended is not None and matched is False and progress is not None and progress < 0.9
    met = errors(ride["user_id"], requested, ended, rows)
    cause = None
    if early:
        driving = any(picked_up <= row.event_time <= ended for row in met)  # type: ignore[operator]
        cause = {"cancelled_by_driver": "driver", "cancelled_by_rider": "rider"}.get(
            ride["status"], "app" if driving else "unknown"
        )
    app = sum(row.kind == Kind.APP_ERROR for row in met)
    return {
        "ride_id": ride["ride_id"],
        "status": ride["status"],
        "city": ride["city"],
        "user": person(ride, "user_id", users),
        "driver": person(ride, "driver_id", drivers),
        **{name: ride[name] for name in times},
        "fare_cents": unless_negative(ride["fare_cents"]),
        "currency": ride["currency"],
        "distance_m": unless_negative(ride["distance_m"]),
        "rating": ride["rating"] if ride["rating"] is not None and 1 <= ride["rating"] <= 5 else None,
        "pickup": shown(pickup),
        "destination": shown(aim),
        "dropoff": shown(dropoff),
        "wait_s": seconds(requested, picked_up),
        "duration_s": seconds(picked_up, ended),
        "requested_distance_m": asked,
        "destination_gap_m": gap,
        "destination_matched": matched,
        "progress": progress,
        "errors": {
            "app": app,
            "server": len(met) - app,
            "items": [
                {"id": row.id, "kind": row.kind.value, "name": row.name, "timestamp": row.event_time} for row in met
            ],
        },
        "premature": early,
        "cause": cause,
    }


def errors(user: str | None, requested: int | None, ended: int | None, rows: list[Row]) -> list[Row]:
    """The user's errors in the ride, by (event time, id)."""
    if user is None or requested is None:
        return []
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row.received_at, row.event_time, row.kind, row.name.encode())):
        if row.user_id == user and is_error(row):
            first.setdefault(row.id, row)
    within = [
        row
        for row in first.values()
        if requested <= row.event_time and row.event_time <= (row.received_at if ended is None else ended)
    ]
    return sorted(within, key=lambda row: (row.event_time, row.id.encode()))


def is_error(row: Row) -> bool:
    if row.kind != Kind.SERVER_ACCESS:
        return row.kind in (Kind.APP_ERROR, Kind.SERVER_ERROR)
    status = json.loads(row.body)["status"]
    if isinstance(status, str):
        return status.isdigit() and int(status) >= 500
    # A number that no server can have sent says nothing.
    return isinstance(status, int | float) and not isinstance(status, bool) and 500 <= status < 2**63


def destination(ride: Document, rows: list[Row], ended: int | None) -> tuple[float, float] | None:
    changes = []
    for row in rows:
        if row.kind == Kind.RIDE_DESTINATION and row.name == ride["ride_id"]:
            body = json.loads(row.body)
            at = ms(body["changed_at"])
            if at is not None and (ended is None or at <= ended):
                changes.append((at, row.received_at, row.id.encode(), body))
    body = max(changes)[3] if changes else ride
    return point(body["destination_lat"], body["destination_lon"])


def point(lat: float | None, lon: float | None) -> tuple[float, float] | None:
    if lat is None or lon is None or abs(lat) > 90 or abs(lon) > 180 or (lat == 0 and lon == 0):
        return None
    return lat, lon


def metres(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Great circle by Vincenty's formula, which is well-conditioned for all distances."""
    (lat_a, lon_a), (lat_b, lon_b) = ((math.radians(lat), math.radians(lon)) for lat, lon in (a, b))
    turn = lon_b - lon_a
    across = math.hypot(
        math.cos(lat_b) * math.sin(turn),
        math.cos(lat_a) * math.sin(lat_b) - math.sin(lat_a) * math.cos(lat_b) * math.cos(turn),
    )
    along = math.sin(lat_a) * math.sin(lat_b) + math.cos(lat_a) * math.cos(lat_b) * math.cos(turn)
    return RADIUS * math.atan2(across, along)


def ms(written: str | None) -> int | None:
    return None if written is None else round(datetime.fromisoformat(written).timestamp() * 1000)


def seconds(start: int | None, end: int | None) -> float | None:
    return None if start is None or end is None or end < start else (end - start) / 1000


def person(ride: Document, key: str, people: dict[str, Document]) -> Document | None:
    return None if ride[key] is None else {key: ride[key], "name": people.get(ride[key], {}).get("name")}


def shown(at: tuple[float, float] | None) -> Document | None:
    return None if at is None else {"lat": at[0], "lon": at[1]}


def unless_negative(value: int | None) -> int | None:
    return None if value is None or value < 0 else value
