"""The Python client: what it asks for, and what it makes of the answers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from rebu_ray.client import Rebu, RebuError
from tests.answering import Answer, Request, answering

TOTAL = 2345


class Rides:
    """A platform with rides r-0, r-1, ... and two messages about each."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.refusals = 0

    def __call__(self, request: Request) -> Answer:
        self.asked.append(request)
        if self.refusals:
            self.refusals -= 1
            return Answer({"code": "overloaded", "message": "wait"}, 503)
        parts = request.path.split("/")[2:]
        if parts == ["rides"]:
            if "format" in request.query:
                return Answer(b"ride_id\nr-0\n" * 50_000)
            first, size = int(request.query.get("cursor", 0)), int(request.query["limit"])
            items = [{"ride_id": f"r-{number}"} for number in range(first, min(first + size, TOTAL))]
            return Answer({"items": items, "next": str(first + size) if first + size < TOTAL else None})
        if parts[1] == "r%2F7":
            return Answer({"ride_id": "r/7"})
        if parts[0] == "rides" and parts[1] == "r-3" and parts[2:] == ["messages"]:
            links = [{"message_id": f"m-{n}", "link": {"confidence": 0.5 + n / 10}} for n in range(2)]
            return Answer({"ride_id": parts[1], "items": links})
        if parts == ["messages", "m-1"]:
            return Answer({"message_id": "m-1", "link": {"status": "none", "ride_id": None}})
        return Answer({"code": "unknown_ride", "message": f"there is no ride {parts[1]}"}, 404)


@pytest.fixture
def platform() -> Rides:
    return Rides()


@pytest.fixture
def rebu(platform: Rides) -> Iterator[Rebu]:
    with answering(platform) as url, Rebu(url, "the-key") as client:
        yield client


def test_rides_are_followed_to_the_last_page(rebu: Rebu, platform: Rides) -> None:
    assert [ride["ride_id"] for ride in rebu.rides()] == [f"r-{number}" for number in range(TOTAL)]
    assert len(platform.asked) == 3
    assert {request.key for request in platform.asked} == {"the-key"}
    assert len(list(rebu.rides(limit=1234))) == 1234
    assert rebu.rides(limit=3).to_arrow() == pa.table({"ride_id": ["r-0", "r-1", "r-2"]})
    assert list(rebu.rides(limit=3).to_pandas()["ride_id"]) == ["r-0", "r-1", "r-2"]


def test_filters_are_written_as_the_route_has_them(rebu: Rebu, platform: Rides) -> None:
    filters: dict[str, Any] = {
        "since": datetime(2026, 3, 1, 8, tzinfo=UTC), "until": "2026-03-02", "city": "Harbour & Hill",
        "status": "failed", "premature": True, "cause": "app", "min_errors": 2, "has_messages": False,
        "user_id": "u-1", "driver_id": "d-1", "as_of": 1_772_000_000_000, "limit": 5,
    }  # fmt: skip
    list(rebu.rides(**filters))
    assert platform.asked[0].query == {
        "since": "2026-03-01T08:00:00+00:00", "until": "2026-03-02", "city": "Harbour & Hill",
        "status": "failed", "premature": "true", "cause": "app", "min_errors": "2", "has_messages": "false",
        "user_id": "u-1", "driver_id": "d-1", "as_of": "1772000000000", "limit": "5",
    }  # fmt: skip


def test_single_rides_and_messages(rebu: Rebu, platform: Rides) -> None:
    assert rebu.ride("r/7") == {"ride_id": "r/7"}
    assert rebu.message("m-1")["link"]["status"] == "none"
    assert [message["message_id"] for message in rebu.messages("r-3")] == ["m-0", "m-1"]
    assert platform.asked[-1].query == {}
    assert len(rebu.messages("r-3", min_confidence=0.55).to_pandas()) == 2
    assert platform.asked[-1].query == {"min_confidence": "0.55"}
    for call in (lambda: rebu.ride("r-x"), lambda: list(rebu.messages("r-x/y")), lambda: rebu.message("m-x")):
        with pytest.raises(RebuError, match="there is no ride") as raised:
            call()
        assert (raised.value.status, raised.value.code) == (404, "unknown_ride")


def test_a_table_is_written_as_it_comes(rebu: Rebu, platform: Rides) -> None:
    file = io.BytesIO()
    platform.refusals = 1
    size = rebu.save("/v1/rides", {"format": "csv", "premature": True, "cause": None}, file)
    assert file.getvalue() == b"ride_id\nr-0\n" * 50_000
    assert size == len(file.getvalue())
    assert [request.query for request in platform.asked] == [{"format": "csv", "premature": "true"}] * 2
    with pytest.raises(RebuError, match="no ride"):
        rebu.save("/v1/rides/r-x", {}, file)
    assert len(file.getvalue()) == size
