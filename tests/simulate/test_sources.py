"""The files that a simulated day leaves behind."""

from __future__ import annotations

import email
import email.policy
import gzip
import hashlib
import json
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rebu_ray.simulate import SourcesSummary, write_sources
from tests.oracle import Delivery, judge

RIDERS, DAYS, SEED = 150, 1.0, 5
NAMES = {
    "app.sqlite",
    "app-events.ndjson.gz",
    "app-errors.ndjson.gz",
    "access.log.gz",
    "error.log.gz",
    "truth.parquet",
}
SOURCES = {
    "app-events": "app-events.ndjson.gz",
    "app-errors": "app-errors.ndjson.gz",
    "access": "access.log.gz",
    "error": "error.log.gz",
}
COLUMNS = {
    "users": "user_id, name, email, phone, created_at, updated_at",
    "drivers": "driver_id, name, vehicle_plate, vehicle_model, rating, created_at, updated_at",
    "rides": "ride_id, user_id, driver_id, city, status, requested_at, accepted_at, picked_up_at, ended_at, pickup_lat,"
    " pickup_lon, destination_lat, destination_lon, dropoff_lat, dropoff_lon, distance_m, fare_cents, currency, rating,"
    " updated_at",
    "ride_destinations": "ride_id, changed_at, destination_lat, destination_lon",
    "messages": "message_id, user_id, channel, direction, sent_at, subject, body, ride_id, thread_id, updated_at",
}
STATUSES = {
    "requested", "accepted", "in_progress", "completed", "cancelled_by_rider", "cancelled_by_driver", "failed",
}  # fmt: skip
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> SourcesSummary:
    return write_sources(tmp_path_factory.mktemp("day") / "out", RIDERS, DAYS, SEED)


@pytest.fixture(scope="module")
def rows(day: SourcesSummary) -> Iterator[dict[str, list[dict[str, Any]]]]:
    connection = sqlite3.connect(day.out / "app.sqlite")
    connection.row_factory = sqlite3.Row
    yield {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in COLUMNS}
    connection.close()


@pytest.fixture(scope="module")
def truth(day: SourcesSummary) -> dict[str, str | None]:
    return {row["message_id"]: row["ride_id"] for row in pq.read_table(day.out / "truth.parquet").to_pylist()}


def lines(day: SourcesSummary, source: str) -> list[bytes]:
    return gzip.decompress((day.out / SOURCES[source]).read_bytes()).split(b"\n")[:-1]


def test_the_same_seed_writes_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from rebu_ray.simulate import write_sources;"
        "write_sources(Path(sys.argv[1]), 60, 0.25, int(sys.argv[2]))"
    )
    for name, seed, hash_seed in (("one", "3", "1"), ("two", "3", "2"), ("other", "4", "1")):
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name), seed],
            check=True,
            cwd=Path(__file__).parents[2],
            env={"PYTHONHASHSEED": hash_seed},
        )
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert set(one) == NAMES
    assert one == two
    assert all(one[name] != other[name] for name in NAMES)


def test_packed_files_hold_no_time_of_writing(day: SourcesSummary) -> None:
    for name in SOURCES.values():
        head = (day.out / name).read_bytes()[:10]
        assert head[3] == 0, "a flag tells that a file name follows"
        assert head[4:8] == bytes(4)


def test_an_existing_file_is_not_written_over(day: SourcesSummary) -> None:
    before = digests(day.out)
    with pytest.raises(FileExistsError, match="empty directory"):
        write_sources(day.out, 5, 0.1, 1)
    assert digests(day.out) == before


def test_progress_rises_to_one(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    write_sources(tmp_path, 5, 0.25, 1, progress=lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) == 6


@pytest.mark.parametrize("source", SOURCES)
def test_files_hold_what_the_summary_declares(day: SourcesSummary, source: str) -> None:
    count = day.sources[source]
    found = lines(day, source)
    assert len(found) == count.records
    assert sum(count.bad_by_kind.values()) == count.bad
    body = b"\n".join(found)
    (verdict,) = judge([Delivery(f"/v1/logs/{source}", {"Content-Type": "text/plain"}, body, day.end)]).verdicts
    assert (verdict.duplicate, verdict.rejected) == (count.duplicates, count.bad)
    assert verdict.accepted == count.records - count.duplicates - count.bad


def test_there_is_every_kind_of_bad_record(tmp_path: Path) -> None:
    summary = write_sources(tmp_path, 300, 1, 2)
    kinds = {source: set(count.bad_by_kind) for source, count in summary.sources.items()}
    assert kinds["app-events"] == {
        "no_identity", "impossible_time", "too_large", "not_an_object", "broken_json", "binary",
    }  # fmt: skip
    assert kinds["app-errors"]
    assert kinds["access"] == {"truncated", "binary", "impossible_time"}
    assert kinds["error"] & {"truncated", "broken_json"}
    assert summary.sources["app-events"].duplicates > 0


ACCESS = re.compile(
    rb"^\d+\.\d+\.\d+\.\d+ - (-|u-\d{6}) \[\d\d/[A-Z][a-z][a-z]/\d{4}:[0-2]\d:[0-5]\d:[0-5]\d \+0000\] "
    rb'"(GET|POST|PUT|DELETE) /[^ "]* HTTP/1\.1" [1-5]\d\d \d+ "-" "[^"]+" "([0-9a-f]{32}|-)"$'
)


def test_every_access_line_is_combined_with_a_request_id_or_known_to_be_bad(day: SourcesSummary) -> None:
    bad = [line for line in lines(day, "access") if not ACCESS.match(line)]
    assert len(bad) == day.sources["access"].bad
    good = [line for line in lines(day, "access") if ACCESS.match(line)]
    clocks = [line.split(b"[")[1].split(b"]")[0] for line in good]
    times = [datetime.strptime(clock.decode(), "%d/%b/%Y:%H:%M:%S %z") for clock in clocks]
    assert times == sorted(times)
    assert sum(b"/users/u-" in line for line in good) > len(good) / 2


def test_app_events_look_like_those_of_an_sdk(day: SourcesSummary) -> None:
    types, stamped, messages = Counter[str](), 0, 0
    for line in lines(day, "app-events"):
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if not isinstance(message, dict):
            continue
        messages += 1
        stamped += "sentAt" in message
        types[message["type"]] += 1
        assert {"messageId", "timestamp", "context"} <= set(message)
        assert "library" in message["context"]
    assert set(types) == {"identify", "track", "screen", "alias"}
    assert 0.05 < stamped / messages < 0.4


def test_app_errors_have_the_shape_of_the_contract(day: SourcesSummary) -> None:
    for line in lines(day, "app-errors"):
        try:
            error = json.loads(line)
        except ValueError:
            continue
        if isinstance(error, dict):
            assert error["type"] == "error"
            assert set(error["error"]) == {"name", "message", "stack", "fatal"}


def test_tables_have_the_columns_of_the_contract(day: SourcesSummary, rows: dict[str, list[dict[str, Any]]]) -> None:
    connection = sqlite3.connect(day.out / "app.sqlite")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    columns = {
        table: ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})")) for table in tables
    }
    connection.close()
    assert columns == COLUMNS
    assert {table: len(found) for table, found in rows.items()} == day.tables


def test_rows_refer_to_rows_that_are_there(rows: dict[str, list[dict[str, Any]]]) -> None:
    users = {row["user_id"] for row in rows["users"]}
    drivers = {row["driver_id"] for row in rows["drivers"]} | {None}
    rides = {row["ride_id"] for row in rows["rides"]}
    assert len(rides) == len(rows["rides"]) > 80
    assert {row["user_id"] for row in rows["rides"]} <= users
    assert {row["driver_id"] for row in rows["rides"]} <= drivers
    assert {row["ride_id"] for row in rows["ride_destinations"]} <= rides
    assert {row["user_id"] for row in rows["messages"]} <= users | {None}
    assert {row["channel"] for row in rows["messages"]} == {"email", "voice", "chat"}
    assert {row["direction"] for row in rows["messages"]} == {"inbound", "outbound"}


def test_rides_run_through_their_times_in_order(rows: dict[str, list[dict[str, Any]]]) -> None:
    assert {row["status"] for row in rows["rides"]} <= STATUSES
    assert {row["status"] for row in rows["rides"]} >= {
        "completed",
        "cancelled_by_rider",
        "cancelled_by_driver",
        "failed",
    }
    last = datetime(2026, 3, 3, 6, tzinfo=UTC)
    for row in rows["rides"]:
        times = [row[name] for name in ("requested_at", "accepted_at", "picked_up_at", "ended_at") if row[name]]
        assert all(RFC3339.fullmatch(time) for time in [*times, row["updated_at"]])
        assert times == sorted(times)
        assert times[-1] <= row["updated_at"]
        assert datetime.fromisoformat(row["updated_at"]) <= last
        assert (row["ended_at"] is None) == (row["status"] in ("requested", "accepted", "in_progress"))
        if row["status"] == "completed":
            assert row["driver_id"] is not None


def test_truth_covers_every_message_and_names_rides_of_its_writer(
    day: SourcesSummary, rows: dict[str, list[dict[str, Any]]], truth: dict[str, str | None]
) -> None:
    riders = {row["ride_id"]: row["user_id"] for row in rows["rides"]}
    asked = {row["ride_id"]: row["requested_at"] for row in rows["rides"]}
    assert set(truth) == {row["message_id"] for row in rows["messages"]}
    for row in rows["messages"]:
        ride_id = truth[row["message_id"]]
        assert row["ride_id"] in (None, ride_id)
        if ride_id is not None:
            assert row["user_id"] in (None, riders[ride_id])
            assert row["sent_at"] > asked[ride_id]
    about = sum(ride_id is not None for ride_id in truth.values())
    assert about == day.messages_about_a_ride
    assert 0.5 < about / len(truth) < 0.95
    threads: dict[str, set[str | None]] = {}
    for row in rows["messages"]:
        if row["thread_id"] is not None:
            threads.setdefault(row["thread_id"], set()).add(truth[row["message_id"]])
    assert all(len(rides) == 1 for rides in threads.values())


def test_messages_come_as_text_mail_and_transcripts(rows: dict[str, list[dict[str, Any]]]) -> None:
    addresses = {row["user_id"]: row["email"] for row in rows["users"]}
    forms = Counter[str]()
    for row in rows["messages"]:
        body = row["body"]
        if body.startswith("From: "):
            forms["mail"] += 1
            mail = email.message_from_string(body, policy=email.policy.default)
            sent = datetime.fromisoformat(row["sent_at"])
            assert mail["Date"].datetime == sent.replace(microsecond=0)
            rider = mail["From"] if row["direction"] == "inbound" else mail["To"]
            assert rider in addresses.values()
            assert row["user_id"] is None or rider == addresses[row["user_id"]]
            text = mail.get_body(("plain",))
            assert text is not None
            assert text.get_content().strip()
        elif body.startswith("WEBVTT"):
            forms["vtt"] += 1
            assert re.search(r"\n\d\d:\d\d:\d\d\.\d{3} --> \d\d:\d\d:\d\d\.\d{3}\n<v Caller>\S", body)
        elif row["channel"] == "voice":
            forms["transcript"] += 1
            assert "Caller: " in body
        else:
            forms["text"] += 1
    assert set(forms) == {"mail", "vtt", "transcript", "text"}
