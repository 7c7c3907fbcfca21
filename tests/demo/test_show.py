"""The demo from end to end, against something that answers as a platform does."""

from __future__ import annotations

import asyncio
import gzip
import io
import itertools
import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from rich.console import Console

from rebu_ray.client import Rebu
from rebu_ray.demo import checks, show, summary
from rebu_ray.keys import Keys
from rebu_ray.simulate.live import create
from tests.answering import Answer, Request, answering

KEYS = Keys("write", "read", "admin")


class Up(NamedTuple):
    """As much of a platform as the demo looks at."""

    url: str
    keys: Keys


class Platform:
    """Takes every record, shows rides as the database file has them when it is asked and links as they are in truth.

    `blind` and `frozen` are rides that it never heard of, or not since they were requested.
    """

    def __init__(self, database: Path, morning: show.Morning) -> None:
        self._database = database
        self._morning = morning
        self.statuses_seen = set[str]()
        self.blind = set[str]()
        self.frozen = set[str]()
        self.taken = itertools.count()

    def __call__(self, request: Request) -> Answer:
        parts = [unquote(part) for part in request.path.split("/")[2:]]
        if request.method == "POST":
            assert request.key == "write"
            return self._take(request)
        assert request.key in ("read", "admin")
        match parts:
            case ["rides"]:
                found = [self._document(row) for row in self._rows("SELECT * FROM rides")]
                if request.query.get("premature") == "true":
                    found = [ride for ride in found if ride["premature"]]
                if "min_errors" in request.query:
                    found = [ride for ride in found if ride["errors"]["app"] >= int(request.query["min_errors"])]
                return Answer({"items": found, "next": None})
            case ["rides", ride_id]:
                rows = self._rows("SELECT * FROM rides WHERE ride_id = ?", ride_id)
                if not rows or ride_id in self.blind:
                    return Answer({"code": "unknown_ride", "message": "no such ride"}, 404)
                self.statuses_seen.add(rows[0]["status"])
                return Answer(self._document(rows[0]))
            case ["rides", ride_id, "messages"]:
                return Answer({"ride_id": ride_id, "items": self._messages("SELECT * FROM messages", ride_id)})
            case ["messages", message_id]:
                found = self._messages(f"SELECT * FROM messages WHERE message_id = '{message_id}'")
                return Answer(found[0]) if found else Answer({"code": "unknown_message", "message": "no"}, 404)
            case _:
                return Answer({"code": "not_found", "message": "nothing there"}, 404)

    def _take(self, request: Request) -> Answer:
        body = gzip.decompress(request.body) if request.body.startswith(b"\x1f\x8b") else request.body
        assert body
        next(self.taken)
        return Answer({"accepted": 1, "duplicate": 0, "rejected": 0, "results": [], "position": "p"})

    def _rows(self, sql: str, *values: str) -> list[dict[str, Any]]:
        connection = sqlite3.connect(self._database)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(sql, values)]
        finally:
            connection.close()

    def _document(self, row: dict[str, Any]) -> dict[str, Any]:
        truth = next(r for hour in self._morning.hours for r in hour.rides if r.ride_id == row["ride_id"])
        premature = truth.ended_early and row["ended_at"] is not None
        errors = [{"id": "e", "kind": "app_error", "name": "GpsLost", "timestamp": row["requested_at"]}] * premature
        if row["ride_id"] in self.frozen:
            row |= {"status": "requested", "ended_at": None}
        return row | {
            "user": {"user_id": row["user_id"], "name": "x"},
            "driver": {"driver_id": row["driver_id"], "name": "x"},
            "premature": premature,
            "cause": truth.trouble if premature else None,
            "errors": {"app": len(errors), "server": 0, "items": errors},
            "destination_gap_m": 1234.5,
            "requested_distance_m": 5678.9,
            "progress": 0.5,
            "quality": 1.0,
            "flags": ["early_end"] if premature else [],
        }

    def _messages(self, sql: str, ride_id: str | None = None) -> list[dict[str, Any]]:
        found = []
        for row in self._rows(sql):
            about = self._morning.truth[row["message_id"]]
            reasons = [
                {"signal": "lag", "detail": "an hour later", "weight": 0.5},
                {"signal": "driver", "detail": "names the [driver]", "weight": 2.5},
            ]
            status = "none" if about is None else "linked"
            if ride_id is None or about == ride_id:
                found.append(
                    row | {"link": {"status": status, "ride_id": about, "confidence": 0.9, "reasons": reasons}}
                )
        return found


@pytest.fixture(scope="module")
def morning() -> show.Morning:
    return show.imagine(150, 2.0, 49)


def made(folder: Path) -> Path:
    """An empty database of the application."""
    create(f"sqlite:///{folder / 'app.sqlite'}")
    return folder / "app.sqlite"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return made(tmp_path)


@pytest.fixture
def platform(database: Path, morning: show.Morning) -> Platform:
    return Platform(database, morning)


@pytest.fixture
def up(platform: Platform) -> Iterator[Up]:
    with answering(platform) as url:
        yield Up(url, KEYS)


def through(up: Up, morning: show.Morning, database: Path | None, stop: threading.Event | None = None) -> Any:
    url = f"sqlite:///{database}" if database else ""
    console = Console(file=io.StringIO())
    return asyncio.run(show.live_through(up, morning, url, stop or threading.Event(), console))  # type: ignore[arg-type]


class Lived(NamedTuple):
    """A morning to its end, and the platform that it was sent to."""

    past: Any
    up: Up
    platform: Platform


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, morning: show.Morning) -> Iterator[Lived]:
    database = made(tmp_path_factory.mktemp("lived"))
    platform = Platform(database, morning)
    with answering(platform) as url:
        up = Up(url, KEYS)
        yield Lived(through(up, morning, database), up, platform)


def test_the_database_lives_while_the_morning_streams(lived: Lived, morning: show.Morning) -> None:
    past, _, platform = lived
    assert past.served is not None
    rides = [ride for hour in morning.hours for ride in hour.rides]
    assert set(past.served.rides) == {ride.ride_id for ride in rides}
    assert set(past.served.messages) == set(morning.truth)
    assert past.served.late == {}
    assert past.never == []
    assert 0 < len(past.fresh_ms) <= len(rides)
    assert "completed" in platform.statuses_seen
    assert platform.statuses_seen & {"requested", "accepted", "in_progress"}
    assert sum(past.tally.sent.values()) == morning.records
    assert next(platform.taken) == len(morning.uploads)

    found = checks.of_database(past.served, set(past.served.rides))
    found += checks.of_truth(*show.counted(morning, past.served))
    assert [check.holds for check in found] == [True] * 6
    counted, links = show.counted(morning, past.served)
    assert counted.early == counted.found == counted.causes_right > 0
    assert links.precision == links.coverage == 1
    assert not checks.of_database(past.served, set())[2].holds


def test_what_is_not_served_is_seen_and_named(
    up: Up, morning: show.Morning, database: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "CATCH_UP_S", 0.0)
    monkeypatch.setattr("rebu_ray.demo.life.PATIENCE_S", 0.1)
    over = [r.ride_id for hour in morning.hours for r in hour.rides if r.ended_at <= morning.world.end]
    frozen, *blind = sorted(over)
    platform.blind, platform.frozen = set(blind), {frozen}
    past = through(up, morning, database)
    assert past.served is not None
    assert {past.served.late[f"/v1/rides/{ride_id}"] for ride_id in blind} == {"404 unknown_ride"}
    assert past.served.late[f"/v1/rides/{frozen}"].startswith("status is 'requested', in the database ")
    assert len(past.served.late) == len(over)
    assert not checks.of_database(past.served, set(past.served.rides))[0].holds
    assert past.never
    assert set(past.never) <= platform.blind
    assert not checks.of_freshness(past.fresh_ms, past.never).holds
    out = io.StringIO()
    summary.show_served(Console(file=out, width=200), past.served, past.fresh_ms, past.never)
    assert re.search(r"not as in the database: /v1/rides/r-\w+: 404 unknown_ride", out.getvalue())
    assert f"and {len(over) - 5} more" in out.getvalue()


def test_a_database_of_the_users_own_is_left_alone(up: Up, morning: show.Morning, database: Path) -> None:
    past = through(up, morning, None)
    assert past.served is None
    assert sum(past.tally.sent.values()) == morning.records
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT count(*) FROM users").fetchone() == (0,)
    connection.close()


def test_a_morning_that_is_stopped_ends_at_once(up: Up, morning: show.Morning, database: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert through(up, morning, database, stop) is None
    assert through(up, morning, None, stop) is None


def test_the_worst_rides_are_shown_with_reasons_and_messages(lived: Lived, morning: show.Morning) -> None:
    past, up, _ = lived
    out = io.StringIO()
    with Rebu(up.url, KEYS.admin) as client:
        worst = summary.show_worst(Console(file=out, width=80), client)
        early = [ride for hour in morning.hours for ride in hour.rides if ride.ended_early]
        about = {ride_id for ride_id in morning.truth.values() if ride_id}
        shown = out.getvalue()
        assert [ride["premature"] for ride in worst] == [True] * len(worst)
        assert 0 < len(worst) <= min(len(early), summary.WORST)
        for ride in worst:
            assert f"{ride['ride_id']}  {ride['user_id']}  {ride['status']}; ended too early" in shown
        assert "app_error GpsLost at " in shown
        assert "flags early_end" in shown
        assert ("driver (names the [driver])" in shown) == bool(about & {ride["ride_id"] for ride in worst})
        assert json.dumps(past.served.rides[worst[0]["ride_id"]]) == json.dumps(client.ride(worst[0]["ride_id"]))
