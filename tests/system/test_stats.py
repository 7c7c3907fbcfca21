"""Daily numbers and forecast through the real platform, against counting of what was sent."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from rebu_ray.process.forecast.question import Question, answered
from tests.system.running import Item, Running, await_true
from tests.system.test_rides import LAT, MINUTE, Push, ride, send

pytestmark = pytest.mark.system

DAY = 86_400_000
TODAY = date(2021, 3, 29)
"""The day after clocks were changed in Europe; no other test has rides of that year."""
BEGIN = round(datetime(2021, 3, 29, tzinfo=UTC).timestamp() * 1000)
ZONES = ("UTC", "Europe/Riga", "America/St_Johns")


def counted(rides: dict[str, dict[str, Any]], zone: str, days: int) -> list[Item]:
    """What the answer must be of the last row of each ride."""
    found = []
    for n in range(days - 1, -1, -1):
        day = TODAY - timedelta(n)
        here = [
            row
            for row in rides.values()
            if datetime.fromtimestamp(row["requested_at"] / 1000, ZoneInfo(zone)).date() == day
        ]
        completed = sum(row["status"] == "completed" for row in here)
        premature = sum(row["dropoff_lat"] == LAT for row in here)
        counts = {"rides": len(here), "completed": completed, "premature": premature}
        found.append({"date": day.isoformat(), **counts, "partial": day == TODAY})
    return found


def daily(platform: Running, zone: str, days: int) -> list[Item]:
    params: dict[str, str | int] = {"tz": zone, "days": days, "today": TODAY.isoformat()}
    items: list[Item] = platform._settled("/v1/stats/rides/daily", params)["items"]
    return items


def test_daily_numbers_are_those_of_the_rides_at_once(rebu_up: Running) -> None:
    draw = random.Random(7)
    newest: dict[str, dict[str, Any]] = {}

    def said(number: int, update: int) -> Push:
        begins = BEGIN + DAY // 2 - draw.randrange(6 * DAY) if number not in begun or update == 2 else begun[number]
        begun[number] = begins
        columns = {
            "status": draw.choice(("completed", "completed", "cancelled_by_rider", "in_progress")),
            "dropoff_lat": draw.choice((LAT, LAT + 0.05, LAT + 0.05)),
            "updated_at": BEGIN + DAY + update * MINUTE,
        }
        who = f"st-u{(number + (update == 3)) % 9}"
        table, row = ride(f"st-r{number}", who, "st-d", begins, **columns)
        newest[f"st-r{number}"] = row
        return table, row

    begun: dict[int, int] = {}
    pushes = [
        [said(n, 0) for n in range(120)],
        [said(n, 1) for n in range(0, 120, 2)],
        [said(n, 2) for n in range(0, 120, 5)],
        [said(n, 3) for n in range(0, 120, 7)],
    ]
    for number, push in enumerate(pushes):
        send(rebu_up, push)
        if number < len(pushes) - 1:
            send_now(rebu_up, push)
    gone = [f"st-r{n}" for n in range(3, 120, 40)]
    send(rebu_up, [("rides", {"ride_id": name, "deleted": True, "updated_at": BEGIN + 2 * DAY}) for name in gone])
    for name in gone:
        del newest[name]
    for zone in ZONES:
        wanted = counted(newest, zone, 6)
        assert sum(item["rides"] for item in wanted) > 90
        await_true(lambda zone=zone, wanted=wanted: daily(rebu_up, zone, 6) == wanted, f"{zone}: {wanted}")  # type: ignore[misc]
    rebu_up.flush()
    for zone in ZONES:
        assert daily(rebu_up, zone, 6) == counted(newest, zone, 6)
    assert daily(rebu_up, "UTC", 40)[-6:] == daily(rebu_up, "UTC", 6)
    assert {item["rides"] for item in daily(rebu_up, "UTC", 40)[:-8]} == {0}


def send_now(platform: Running, push: list[Push]) -> None:
    """Wait until the last of some rows is in a document, so that the next ones are another version."""
    name, updated_at = push[-1][1]["ride_id"], push[-1][1]["status"]
    await_true(
        lambda: (
            (answer := platform.get(f"/v1/rides/{name}")).status_code == 200 and answer.json()["status"] == updated_at
        ),
        f"the document of {name}",
    )


def test_the_forecast_is_fitted_by_a_task_from_the_daily_numbers(rebu_up: Running) -> None:
    rows = [
        ride(f"sf-r{n}-{m}", f"sf-u{m}", "sf-d", BEGIN - 400 * DAY - n * DAY + m * MINUTE)
        for n in range(45)
        for m in range(4 + n % 7)
    ]
    send(rebu_up, rows)
    today = TODAY - timedelta(400)
    params: dict[str, str | int] = {"today": today.isoformat(), "days": 1097}

    def numbers() -> list[Item]:
        found: list[Item] = rebu_up._settled("/v1/stats/rides/daily", params)["items"]
        return found

    await_true(lambda: sum(day["rides"] for day in numbers()) == len(rows), "every ride to be counted")
    counts = tuple(day["rides"] for day in numbers()[:-1])
    question = Question("UTC", today, 14, today - timedelta(1096), counts)
    asked: dict[str, str | int] = {"today": today.isoformat(), "days": 14}

    def fitted() -> Item | None:
        answer = rebu_up._settled("/v1/stats/rides/forecast", asked)
        assert len(answer["items"]) == 14
        if answer["status"] != "fitted":
            assert answer["model"] == "weekday_mean" or answer["status"] == "stale"
            return None
        return answer

    answer = await_true(fitted, "the forecast to be fitted")
    assert answer is not None
    wanted = json.loads(msgspec.json.encode(answered(question)))
    assert {name: answer[name] for name in wanted} == wanted
    assert answer["backtest"]["windows"] > 0
