"""Rows for the tests of the matching: one rider, Sam Reed, with five rides on five days, and drivers of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from rebu_ray.process.matching import link
from rebu_ray.process.tables import DRIVERS, MESSAGES, RIDE_STATS, USERS

Row = dict[str, Any]
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NAMES = ("Goran Novak", "Aya Holm", "Zoltan Weiss", "Leila Sato", "Hugo Lobo")
PLATES = ("AB 1234", "CD 5678", "EF 9012", "GH 3456", "KL 7890")
CARS = ("grey Toyota Corolla", "black Skoda Octavia", "white Kia Niro", "red Seat Leon", "blue Hyundai Ioniq")


def ms(text: str) -> int:
    """An instant in UTC, written as ISO 8601, in ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


FIRST_RIDE = ms("2026-03-02T08:00")  # a Monday
AFTER = FIRST_RIDE + 4 * DAY + 2 * HOUR
"""An hour and a quarter after the end of the fifth ride."""


def ride(number: int, **changes: Any) -> Row:
    """Ride `number` (0 to 4) of Sam, a day each, 8:00 to 8:45."""
    at = FIRST_RIDE + number * DAY
    row: Row = dict.fromkeys(RIDE_STATS.names)
    row |= {
        "ride_id": f"r-{'abcde'[number] * 4}{number + 2}{'vwxyz'[number] * 5}", "user_id": "u1",
        "user_name": "Sam Reed",
        "driver_id": f"d{number}", "driver_name": NAMES[number], "city": "Portmere", "status": "completed",
        "requested_at": at, "accepted_at": at + MINUTE, "picked_up_at": at + 5 * MINUTE, "ended_at": at + 45 * MINUTE,
        "fare_cents": 1046 + 337 * number, "currency": "EUR", "wait_s": 300.0, "destination_matched": True,
        "errors_app": 0,
        "errors_server": 0, "errors": [], "premature": False, "quality": 1.0, "flags": [], "received_at": at,
    }  # fmt: skip
    return row | changes


def rides() -> list[Row]:
    """The five rides."""
    return [ride(number) for number in range(5)]


def drivers() -> list[Row]:
    """Their five drivers."""
    return [
        {"driver_id": f"d{n}", "name": NAMES[n], "vehicle_plate": PLATES[n], "vehicle_model": CARS[n], "received_at": 0}
        for n in range(5)
    ]


def message(body: str | None, **changes: Any) -> Row:
    """A chat of Sam's, sent after the fifth ride."""
    row: Row = {
        "message_id": "m1", "user_id": "u1", "channel": "chat", "direction": "inbound", "sent_at": AFTER,
        "subject": None,
        "body": body, "ride_id": None, "thread_id": None, "updated_at": AFTER, "deleted": False, "received_at": AFTER,
        "record_id": "m1@1",
    }  # fmt: skip
    return row | changes


def linked(messages: list[Row], stats: list[Row] | None = None, more_users: list[Row] | None = None) -> dict[str, Row]:
    """LINKS by message id."""
    users: list[Row] = [{"user_id": "u1", "name": "Sam Reed", "email": None, "phone": None, "received_at": 0}]
    answer = link(
        pa.Table.from_pylist(messages, schema=MESSAGES),
        pa.Table.from_pylist(rides() if stats is None else stats, schema=RIDE_STATS),
        pa.Table.from_pylist(drivers(), schema=DRIVERS),
        pa.Table.from_pylist(users + (more_users or []), schema=USERS),
    )
    return {row["message_id"]: row for row in answer.to_pylist()}


def one(body: str, stats: list[Row] | None = None, **changes: Any) -> Row:
    """What is said of a single message."""
    return linked([message(body, **changes)], stats)["m1"]
