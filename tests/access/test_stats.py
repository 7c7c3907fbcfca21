"""The daily numbers over a real index and lake, against plain reading of everything that was computed."""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from rebu_ray.store.index import position_key, position_value
from rebu_ray.store.ride_table import Wanted
from tests.access.serving import READ, WRITE, Backends, FakeIntake, reading, refused, visit
from tests.access.worlds import World
from tests.conftest import Valkey
from tests.records import NOW
from tests.ride_documents import Rides, Said

HOUR_MS = 3_600_000
TODAY = date(2026, 3, 2)


def get(world: World, params: dict[str, Any], headers: dict[str, str] = READ) -> httpx.Response:
    return reading(world, lambda client: client.get("/v1/stats/rides/daily", headers=headers, params=params))


def say(world: World, rides: Rides, *said: Said) -> None:
    for one in said:
        world.write(rides.computed(one))


def expected(rides: Rides, days: int, zone: str) -> list[dict[str, Any]]:
    found = []
    for n in range(days - 1, -1, -1):
        day = TODAY - timedelta(n)
        of_day = [
            document
            for document in rides.listed(Wanted())
            if datetime.fromisoformat(document["requested_at"]).astimezone(ZoneInfo(zone)).date() == day
        ]
        completed = sum(document["status"] == "completed" for document in of_day)
        premature = sum(document["premature"] for document in of_day)
        counts = {"rides": len(of_day), "completed": completed, "premature": premature}
        found.append({"date": day.isoformat(), **counts, "partial": day == TODAY})
    return found


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Kathmandu"])
def test_every_day_up_to_today_with_zeros_wherever_the_documents_are(world: World, zone: str) -> None:
    rides = Rides()
    params = {"days": 4, "tz": zone, "today": TODAY.isoformat()}
    assert get(world, params).json() == {"items": expected(rides, 4, zone)}
    status = ["completed", "requested", "cancelled_by_rider"]
    for n in range(30):
        said = Said(f"r{n}", requested_at=NOW - 3 * n * HOUR_MS, premature=n % 4 == 0, status=status[n % 3])
        say(world, rides, said)
        if n % 7 == 0:
            world.flush()
            world.settle_rides()
    assert get(world, params).json() == {"items": expected(rides, 4, zone)}
    # One ends, one is deleted, one was another day's, one becomes another user's.
    say(world, rides, Said("r1", requested_at=NOW - 3 * HOUR_MS, status="completed"), Said("r2", deleted=True))
    say(world, rides, Said("r3", requested_at=NOW - 60 * HOUR_MS), Said("r4", user="eve"))
    assert get(world, params).json() == {"items": expected(rides, 4, zone)}
    for step in (world.flush, world.settle_rides):
        step()
        assert get(world, params).json() == {"items": expected(rides, 4, zone)}
    assert sum(item["rides"] for item in get(world, params).json()["items"]) > 20


def test_a_month_up_to_the_current_date_unless_told(world: World) -> None:
    items = get(world, {}).json()["items"]
    assert len(items) == 31
    assert [item["partial"] for item in items] == [False] * 30 + [True]


def test_what_is_not_understood_is_refused(world: World) -> None:
    for params, code in (
        ({"days": "0"}, "invalid_days"),
        ({"days": "3661"}, "invalid_days"),
        ({"tz": "Mars"}, "invalid_tz"),
        ({"today": "soon"}, "invalid_today"),
        ({"since": "0"}, "unknown_parameter"),
    ):
        assert refused(get(world, params)) == (400, code)
    assert refused(get(world, {}, {})) == (401, "unauthorized")
    assert refused(get(world, {}, WRITE)) == (403, "forbidden")


def test_the_forecast_is_of_the_days_after_today_by_those_before_it(world: World) -> None:
    rides = Rides()
    for n in range(60):
        said = [Said(f"r{n}-{m}", requested_at=NOW - n * 24 * HOUR_MS) for m in range(1 if n == 0 else 3 + n % 7 // 5)]
        say(world, rides, *said)
        if n == 30:
            world.flush()
            world.settle_rides()
    params = {"days": "7", "today": TODAY.isoformat()}
    answer = reading(world, lambda client: client.get("/v1/stats/rides/forecast", headers=READ, params=params)).json()
    assert [item["date"] for item in answer["items"]] == [(TODAY + timedelta(n)).isoformat() for n in range(1, 8)]
    assert (answer["trained_to"], answer["status"]) == ((TODAY - timedelta(1)).isoformat(), "fitted")
    assert answer["trained_from"] == (TODAY - timedelta(58)).isoformat()
    # The ride of today, which is not over, pulls nothing down.
    assert all(2.5 < item["mean"] < 4.5 for item in answer["items"])
    for item in answer["items"]:
        assert 0 <= item["lo95"] <= item["lo80"] <= item["mean"] <= item["hi80"] <= item["hi95"]
    assert answer["backtest"]["horizon"] == 7
    assert answer["backtest"]["windows"] > 3
    assert 0 <= answer["backtest"]["coverage80"] <= answer["backtest"]["coverage95"] <= 1


def test_the_baseline_is_said_while_nothing_is_fitted_yet(world: World) -> None:
    async def scene() -> dict[str, Any]:
        async with world.reading() as histories:
            backends = Backends(FakeIntake(world=world), histories)
            backends.fitted = False
            answer = await visit(backends, lambda client: client.get("/v1/stats/rides/forecast", headers=READ))
            found: dict[str, Any] = answer.json()
            return found

    answer = asyncio.run(scene())
    assert (answer["status"], answer["model"], answer["made_at"]) == ("fitting", "weekday_mean", None)
    assert len(answer["items"]) == 30
    assert answer["note"]


@pytest.mark.parametrize("params", [{"days": "91"}, {"days": "0"}, {"tz": "X"}, {"today": "1"}, {"format": "csv"}])
def test_a_forecast_of_something_else_is_refused(world: World, params: dict[str, str]) -> None:
    answer = reading(world, lambda client: client.get("/v1/stats/rides/forecast", headers=READ, params=params))
    assert refused(answer)[0] == 400


def test_half_an_index_is_no_answer(world: World, valkey: Valkey) -> None:
    valkey.client.set(position_key(2), position_value(0, behind=True))
    answer = get(world, {})
    assert refused(answer) == (503, "index_catching_up")
    assert int(answer.headers["retry-after"]) > 0
