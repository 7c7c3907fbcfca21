"""Reading back what is in the database, until it is served."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from rebu_ray.demo.served import read_all, ride_differs
from rebu_ray.simulate.tables import Row

RIDE: Row = {
    "ride_id": "r-1", "user_id": "u-1", "driver_id": None, "status": "failed", "accepted_at": None,
    "picked_up_at": None, "requested_at": "2026-03-02T06:00:00.000Z", "ended_at": "2026-03-02T06:10:00.000Z",
}  # fmt: skip
MESSAGE: Row = {"message_id": "m/1"}


def document(**other: Any) -> dict[str, Any]:
    times = {name: RIDE[name] for name in ("requested_at", "accepted_at", "picked_up_at", "ended_at")}
    return {"ride_id": "r-1", "status": "failed", "user": {"user_id": "u-1"}, "driver": None} | times | other


def test_a_document_is_held_against_its_row() -> None:
    assert ride_differs(RIDE, document()) is None
    assert ride_differs(RIDE, document(driver={"driver_id": None, "name": None})) is None
    for name, other in (
        ("status", {"status": "completed"}),
        ("ended_at", {"ended_at": "2026-03-02T06:10:00.001Z"}),
        ("picked_up_at", {"picked_up_at": "2026-03-02T06:05:00.000Z"}),
        ("user_id", {"user": None}),
        ("driver_id", {"driver": {"driver_id": "d-1"}}),
    ):
        difference = ride_differs(RIDE, document(**other))
        assert difference is not None
        assert difference.startswith(f"{name} is ")


def test_it_is_read_until_it_is_as_it_should_be_and_has_stopped_changing() -> None:
    answers = iter(
        [(404, {"code": "unknown_ride"}), (200, document(status="requested"))]
        + [(200, document(version=version)) for version in (1, 2, 2)]
    )
    asked = Counter[str]()

    async def get(path: str) -> tuple[int, Any]:
        asked[path] += 1
        return next(answers) if path == "/v1/rides/r-1" else (200, {"message_id": "m/1"})

    served = asyncio.run(read_all(get, [RIDE], [MESSAGE], 60))
    assert served.late == {}
    assert served.rides == {"r-1": document(version=2)}
    assert served.messages == {"m/1": {"message_id": "m/1"}}
    assert asked == {"/v1/rides/r-1": 5, "/v1/messages/m%2F1": 2}


def test_what_does_not_come_is_named_with_its_reason() -> None:
    async def get(path: str) -> tuple[int, Any]:
        if path == "/v1/messages/m%2F1":
            return 404, {"code": "unknown_message"}
        return 200, document(status="completed")

    served = asyncio.run(read_all(get, [RIDE], [MESSAGE], 0))
    assert served.late == {
        "/v1/rides/r-1": "status is 'completed', in the database 'failed'",
        "/v1/messages/m%2F1": "404 unknown_message",
    }
    assert (served.late_rides, served.late_messages) == (1, 1)
    assert served.message_documents() == {}
    assert served.ride_documents() == {"r-1": document(status="completed")}
