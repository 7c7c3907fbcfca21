"""The Python client: what it asks for, and what it makes of the answers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rebu_ray.client import RETRIES, Rebu, RebuError
from rebu_ray.results import BROKEN
from tests.answering import Answer, Request, answering

TOTAL = 2345
START = datetime(2026, 3, 1, tzinfo=UTC)


def table(first: int, last: int) -> pa.Table:
    """Rides as the platform has them in tables, newest first; three were requested in the same instant."""
    numbers = range(TOTAL - 1 - first, TOTAL - 1 - last, -1)
    return pa.table(
        {
            "ride_id": [f"r-{number:04}" for number in numbers],
            "requested_at": pa.array([START + timedelta(milliseconds=n // 3) for n in numbers], FLAT_TIME),
            "destination_matched": [None if number % 3 == 0 else number % 3 == 1 for number in numbers],
        }
    )


def stream(rides: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rides.schema) as writer:
        writer.write_table(rides, max_chunksize=100)
    data: bytes = sink.getvalue().to_pybytes()
    return data


FLAT_TIME = pa.timestamp("ms", "UTC")


class Rides:
    """A platform with rides r-0, r-1, ... and two messages about each."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.refusals = 0
        self.cuts: list[int | None] = []

    def __call__(self, request: Request) -> Answer:
        self.asked.append(request)
        if self.refusals:
            self.refusals -= 1
            return Answer({"code": "overloaded", "message": "wait"}, 503)
        parts = request.path.split("/")[2:]
        if parts == ["rides"]:
            cut = self.cuts.pop(0) if self.cuts else None
            if request.query.get("format") == "arrow":
                until = request.query.get("until")
                rides = table(0, TOTAL)
                if until is not None:
                    rides = rides.filter(pc.less(rides["requested_at"], datetime.fromisoformat(until)))
                return Answer(stream(rides.slice(0, int(request.query.get("limit", TOTAL)))), cut=cut)
            if "format" in request.query:
                return Answer(b"ride_id\nr-0\n" * 50_000, cut=cut)
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


@pytest.mark.parametrize("limit", [None, 0, 1, 3, 1000, 1001, TOTAL + 1])
def test_rides_as_a_table_come_as_one_stream(rebu: Rebu, platform: Rides, limit: int | None) -> None:
    wanted = table(0, TOTAL).slice(0, limit)
    assert rebu.rides(limit=limit, city=["Riga", "Tallinn"]).to_arrow().equals(wanted)
    [request] = platform.asked
    sent = {"limit": str(limit)} if limit is not None and limit <= 1000 else {}
    assert request.query == {"format": "arrow", "city": "Riga,Tallinn", **sent}
    assert [part.num_rows for part in rebu.rides().tables()] == [0, *[100] * 23, 45]


def test_a_data_frame_has_types(rebu: Rebu) -> None:
    frame = rebu.rides(limit=6).to_pandas()
    assert list(frame["ride_id"]) == table(0, 6)["ride_id"].to_pylist()
    assert [str(kind) for kind in frame.dtypes[1:]] == ["datetime64[ms, UTC]", "boolean"]
    assert frame["destination_matched"].sum() == 2
    assert len(rebu.messages("r-3").to_pandas()) == 2


@pytest.mark.parametrize("limit", [None, 900, 2000])
def test_a_stream_that_breaks_off_goes_on_where_it_was(rebu: Rebu, platform: Rides, limit: int | None) -> None:
    size = len(stream(table(0, TOTAL)))
    platform.cuts = [size // 3, 0, size // 4, 10, size // 5]
    assert rebu.rides(limit=limit).to_arrow().equals(table(0, TOTAL if limit is None else limit).combine_chunks())
    assert len(platform.asked) == (6 if limit != 900 else 3)


def test_a_stream_that_always_breaks_off_is_given_up(rebu: Rebu, platform: Rides) -> None:
    platform.cuts = [100] * 20
    with pytest.raises(httpx.TransportError):
        rebu.rides().to_arrow()
    assert len(platform.asked) == BROKEN


@pytest.mark.parametrize(
    "take",
    [lambda rebu: rebu.save("/v1/rides", {"format": "csv"}, io.BytesIO()), lambda rebu: rebu.rides().to_arrow()],
    ids=["a file", "a table"],
)
def test_a_platform_that_went_halfway_is_tried_as_often_as_for_any_request(
    rebu: Rebu, platform: Rides, monkeypatch: pytest.MonkeyPatch, take: Callable[[Rebu], Any]
) -> None:
    platform.cuts = [1000]
    sent: list[httpx.Request] = []
    send = httpx.Client.send

    def sending(client: httpx.Client, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        sent.append(request)
        if len(sent) > 1:
            raise httpx.ConnectError("nobody is there")
        return send(client, request, stream=stream)

    monkeypatch.setattr(httpx.Client, "send", sending)
    monkeypatch.setattr("rebu_ray.client.time.sleep", lambda seconds: None)
    with pytest.raises(httpx.ConnectError):
        take(rebu)
    assert len(sent) == 1 + 1 + RETRIES


def test_progress_is_shown_where_it_is_asked_for(platform: Rides, capfd: pytest.CaptureFixture[str]) -> None:
    with answering(platform) as url, Rebu(url, "the-key", progress=True) as rebu:
        assert rebu.rides().to_arrow().num_rows == TOTAL
        assert rebu.messages("r-3").to_arrow().num_rows == 2
        assert rebu.save("/v1/rides", {"format": "csv"}, io.BytesIO()) == 600_000
    out, err = capfd.readouterr()
    assert out == ""
    assert f"{TOTAL}/{TOTAL}" in err
    assert "2/2" in err


def test_a_file_that_breaks_off_is_begun_anew(rebu: Rebu, platform: Rides) -> None:
    platform.cuts = [300_000, 0]
    file = io.BytesIO(b"before")
    file.seek(6)
    assert rebu.save("/v1/rides", {"format": "csv"}, file) == 600_000
    assert file.getvalue() == b"before" + b"ride_id\nr-0\n" * 50_000


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
