"""The simulated morning as HTTP requests."""

from __future__ import annotations

import gzip
import itertools
import json
import sqlite3
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rebu_ray.simulate import Upload, World, uploads, write_database
from tests.oracle import Delivery, Entry, judge

RIDERS, HOURS, SEED = 300, 3.0, 4
SIX = int(datetime(2026, 3, 2, 6, tzinfo=UTC).timestamp()) * 1000
HOUR = 3_600_000


@pytest.fixture(scope="module")
def morning() -> list[Upload]:
    return list(uploads(RIDERS, HOURS, SEED))


@pytest.fixture(scope="module")
def live() -> list[Upload]:
    return list(uploads(RIDERS, HOURS, SEED, live=True))


def delivered(sent: list[Upload]) -> list[Delivery]:
    """As if each upload were received when it was sent."""
    return [Delivery(upload.path, upload.headers, upload.body, upload.send_at_ms) for upload in sent]


def plain(upload: Upload) -> bytes:
    return gzip.decompress(upload.body) if upload.headers.get("Content-Encoding") == "gzip" else upload.body


def shown(histories: dict[str, list[Entry]]) -> dict[str, list[tuple[int, str | None, str, str, str | None]]]:
    return {
        user: [(entry.event_time, entry.id, entry.kind, entry.name, entry.matched_by) for entry in entries]
        for user, entries in histories.items()
    }


def test_the_same_seed_makes_the_same_uploads(morning: list[Upload]) -> None:
    assert list(uploads(RIDERS, HOURS, SEED)) == morning
    assert list(uploads(RIDERS, HOURS, SEED + 1)) != morning


def test_uploads_come_in_order_of_sending_and_last_little_longer_than_the_morning(morning: list[Upload]) -> None:
    times = [upload.send_at_ms for upload in morning]
    assert times == sorted(times)
    assert times[0] >= SIX
    assert times[-1] < SIX + HOURS * HOUR + HOUR


def test_each_upload_declares_what_the_contract_makes_of_it(morning: list[Upload]) -> None:
    verdicts = judge(delivered(morning)).verdicts
    assert [verdict.refused for verdict in verdicts] == [None] * len(morning)
    declared = [(upload.records - upload.bad - upload.duplicates, upload.duplicates, upload.bad) for upload in morning]
    assert [(verdict.accepted, verdict.duplicate, verdict.rejected) for verdict in verdicts] == declared


def test_the_morning_has_bad_records_and_duplicates_of_phones_and_servers(morning: list[Upload]) -> None:
    bad, duplicates = Counter[str](), Counter[str]()
    for upload in morning:
        bad[upload.source] += upload.bad
        duplicates[upload.source] += upload.duplicates
    assert {source for source, count in bad.items() if count} >= {"app-events", "access"}
    assert {source for source, count in duplicates.items() if count} >= {"app-events", "access"}
    assert {upload.source for upload in morning} == {"app-events", "app-errors", "access", "error"}


def test_batches_hold_one_to_a_hundred_messages(morning: list[Upload]) -> None:
    sizes = [upload.records for upload in morning if upload.path == "/v1/batch"]
    assert min(sizes) == 1
    assert 20 <= max(sizes) <= 100


def test_the_numbers_of_a_shipper_follow_each_other(morning: list[Upload]) -> None:
    spans: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for upload in morning:
        if upload.source in ("access", "error"):
            first = int(upload.headers["X-Rebu-Sequence"])
            spans[upload.headers["X-Rebu-Producer"]].add((first, first + upload.records))
    assert len(spans) >= 4
    for found in spans.values():
        in_order = sorted(found)
        assert in_order[0][0] == 1
        assert all(before[1] == after[0] for before, after in itertools.pairwise(in_order))


def test_bodies_are_packed_now_and_then_and_say_what_they_are(morning: list[Upload]) -> None:
    packed = Counter(upload.headers.get("Content-Encoding", "") for upload in morning)
    assert set(packed) == {"", "gzip"}
    for upload in morning:
        if upload.path == "/v1/batch":
            assert upload.headers["Content-Type"] == "application/json"
            assert len(json.loads(plain(upload))["batch"]) == upload.records


def test_nothing_says_when_it_was_sent_unless_it_is_live(morning: list[Upload], live: list[Upload]) -> None:
    assert not any(b'"sentAt"' in plain(upload) for upload in morning)
    envelopes = [json.loads(plain(upload)) for upload in live if upload.path == "/v1/batch"]
    of_phones = [body for body in envelopes if "anonymousId" in json.dumps(body) or "previousId" in json.dumps(body)]
    assert of_phones
    assert all("sentAt" in body for body in of_phones)


def test_live_phones_have_wrong_clocks_and_land_where_they_belong(morning: list[Upload], live: list[Upload]) -> None:
    off = []
    for upload in live:
        if upload.path == "/v1/batch" and "sentAt" in (body := json.loads(plain(upload))):
            shown_at = datetime.fromisoformat(body["sentAt"]).timestamp() * 1000
            off.append(abs(shown_at - upload.send_at_ms) > 60_000)
    assert 0 < sum(off) < 0.2 * len(off)
    assert shown(judge(delivered(live)).histories) == shown(judge(delivered(morning)).histories)


def test_another_start_moves_every_time_and_nothing_else(morning: list[Upload]) -> None:
    shift = 12_345 * 1000
    moved = list(uploads(RIDERS, HOURS, SEED, start_ms=SIX + shift))
    assert [(upload.send_at_ms - shift, upload.path, upload.records) for upload in moved] == [
        (upload.send_at_ms, upload.path, upload.records) for upload in morning
    ]
    expected = {
        user: [(time + shift, *rest) for time, *rest in entries]
        for user, entries in shown(judge(delivered(morning)).histories).items()
    }
    assert shown(judge(delivered(moved)).histories) == expected


def test_histories_need_every_way_of_matching(morning: list[Upload]) -> None:
    judged = judge(delivered(morning))
    found = Counter((entry.kind, entry.matched_by) for entries in judged.histories.values() for entry in entries)
    assert set(found) >= {
        ("app_event", "user_id"),
        ("app_event", "anonymous_id"),
        ("app_error", "user_id"),
        ("server_access", "user_id"),
        ("server_access", "path"),
        ("server_access", "request_id"),
        ("server_error", "path"),
        ("server_error", "request_id"),
    }
    assert {entry.kind for entry in judged.unattributed} == {"app_event", "server_access", "server_error"}
    assert len(judged.unattributed) < sum(found.values()) / 5


def test_error_lines_arrive_before_and_after_the_access_line_that_explains_them(morning: list[Upload]) -> None:
    access: dict[str, int] = {}
    error: dict[str, int] = {}
    for place, upload in enumerate(morning):
        if upload.source not in ("access", "error"):
            continue
        for line in plain(upload).split(b"\n"):
            if upload.source == "access" and line.endswith(b'"'):
                access.setdefault(line[-33:-1].decode("latin-1"), place)
            elif line.startswith(b"{") and line.endswith(b"}"):
                error.setdefault(json.loads(line)["request_id"], place)
    orders = Counter(error[request] < access[request] for request in error.keys() & access.keys())
    assert orders[True] > 0
    assert orders[False] > 0


def test_some_phones_are_shared_and_some_report_hours_late() -> None:
    users: dict[str, set[str]] = defaultdict(set)
    late = 0
    for hour in World(3 * RIDERS, HOURS, SEED).hours():
        for parcel in hour.parcels:
            late += parcel.send_at - parcel.items[0].at > HOUR
            for item in parcel.items:
                if b'"identify"' in item.raw and item.bad is None:
                    message = json.loads(item.raw)
                    users[message["anonymousId"]].add(message["userId"])
    assert late > 0
    assert max(map(len, users.values())) == 2


def test_the_database_that_goes_with_the_uploads_knows_their_rides(morning: list[Upload], tmp_path: Path) -> None:
    summary = write_database(tmp_path / "app.sqlite", RIDERS, HOURS, SEED)
    connection = sqlite3.connect(summary.path)
    rows = {
        ride: (user, at) for ride, user, at in connection.execute("SELECT ride_id, user_id, requested_at FROM rides")
    }
    messages = {message for (message,) in connection.execute("SELECT message_id FROM messages")}
    connection.close()
    requested = {}
    for upload in morning:
        if upload.path == "/v1/batch":
            for message in json.loads(plain(upload))["batch"]:
                if isinstance(message, dict) and message.get("event") == "Ride Requested" and "userId" in message:
                    requested[message["properties"]["ride_id"]] = message["userId"]
    assert len(rows) == summary.tables["rides"] > 20
    assert requested == {ride: user for ride, (user, _) in rows.items()}
    assert all("2026-03-02T06:00" <= at < "2026-03-02T09:00" for _, at in rows.values())
    assert messages == set(summary.truth)
    assert set(summary.truth.values()) <= rows.keys() | {None}
    with pytest.raises(FileExistsError):
        write_database(summary.path, 5, 1, 1)


def test_a_world_needs_somebody_and_some_time() -> None:
    with pytest.raises(ValueError, match="riders and hours"):
        list(uploads(0, 1, 1))
    with pytest.raises(ValueError, match="riders and hours"):
        list(uploads(10, 0, 1))
