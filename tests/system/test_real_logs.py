"""Logs of real servers, phones and apps through the real platform: every line is stored or kept as refused."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from datetime import datetime
from typing import Final, NamedTuple

import pytest

from tests.real_data import DATA, needs_data
from tests.system.running import Item, Running

pytestmark = [pytest.mark.system, needs_data]

SOURCES: Final = ("access", "error", "app-events", "app-errors")
SPARKIFY: Final = "app_events_sparkify"
FITTING: Final = {
    "apache_access/apache_logs.gz": "access",
    "server_log_formats_beats/nginx_access.log": "access",
    "apache_error_loghub/Apache_2k.log": "error",
    "server_log_formats_beats/apache_error_ubuntu-2.2.22.log": "error",
    "android_logcat_loghub/Android_2k.log": "",
    "healthapp_loghub/HealthApp_2k.log": "",
    "openstack_api_loghub/OpenStack_2k.log": "",
    SPARKIFY: "app-events",
}
"""Each log and the source whose format it has; none where it is in no format that Rebu reads."""


class Total(NamedTuple):
    accepted: int
    duplicate: int
    rejected: int


def lines_of(name: str) -> list[bytes]:
    """The lines of a file, or of all files of a folder, without their ends."""
    path = DATA / name
    found: list[bytes] = []
    for file in sorted(path.glob("*.gz")) if path.is_dir() else [path]:
        raw = file.read_bytes()
        text = gzip.decompress(raw) if file.suffix == ".gz" else raw
        found += [line.rstrip(b"\r") for line in text.split(b"\n") if line.strip()]
    return found


def send(platform: Running, source: str, lines: list[bytes], size: int, producer: str) -> Total:
    """Send lines in batches, numbered where a producer is named."""
    kind = "application/x-ndjson" if source.startswith("app-") else "text/plain"
    total = Total(0, 0, 0)
    for start in range(0, len(lines), size):
        numbers = {"X_Rebu_Producer": producer, "X_Rebu_Sequence": str(start)} if producer else {}
        body = b"".join(line + b"\n" for line in lines[start : start + size])
        receipt = platform.write(f"/v1/logs/{source}", body, kind, **numbers)
        reasons = [result["reason"] for result in receipt["results"] if result["status"] == "rejected"]
        assert len(reasons) == receipt["rejected"]
        assert all(reasons)
        total = Total(
            total.accepted + receipt["accepted"],
            total.duplicate + receipt["duplicate"],
            total.rejected + receipt["rejected"],
        )
    return total


def as_kept(line: bytes) -> str:
    """How a refused line must stand among the dead letters: its JSON where it is JSON, else the line as text."""
    try:
        return json.dumps(json.loads(line), sort_keys=True)
    except ValueError:
        return json.dumps(line.decode())


def kept(letters: list[Item]) -> Counter[str]:
    return Counter(json.dumps(letter["record"], sort_keys=True) for letter in letters)


@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "not numbered"])
@pytest.mark.parametrize("name", FITTING)
def test_every_line_is_stored_once_or_kept_as_refused(rebu_up: Running, name: str, numbered: bool) -> None:
    """Numbered: in batches, as a shipper sends them. Not numbered: some lines in one request."""
    lines = lines_of(name) if numbered else lines_of(name)[-150:]
    for source in SOURCES:
        since = time.time_ns() // 1_000_000
        producer = f"{name}/{source}" if numbered else ""
        first = send(rebu_up, source, lines, 1000, producer)
        assert first.accepted + first.rejected == len(lines)
        assert first.duplicate == 0
        if source == FITTING[name]:
            assert first.accepted > 0.9 * len(lines)
        elif name != SPARKIFY:
            assert first.rejected == len(lines)
        letters = rebu_up.deadletters(source=source, since=since)
        assert len(letters) == first.rejected
        assert all(": " in letter["reason"] for letter in letters)
        assert kept(letters) <= Counter(map(as_kept, lines))

        again = send(rebu_up, source, lines, 1000, producer)
        assert again == Total(0, first.accepted, first.rejected)
        assert rebu_up.deadletters(source=source, since=since) == letters


def test_app_events_are_in_the_histories_of_those_they_name(rebu_up: Running) -> None:
    lines = [json.loads(line) | {"numbered": False} for line in lines_of(SPARKIFY)]
    for line in lines:
        line["userId"] = line["userId"] and f"sparkify-{line['userId']}"
    send(rebu_up, "app-events", [json.dumps(line).encode() for line in lines], 700, "sparkify")
    users = Counter(line["userId"] for line in lines if line["userId"])
    assert len(users) > 20
    for user, count in users.items():
        found = rebu_up.history(user, order="asc")
        assert len(found) == count
        theirs = [line for line in lines if line["userId"] == user]
        said = sorted((line["ts"], line["page"], line["song"]) for line in theirs)
        shown = [(item["body"]["ts"], item["name"], item["body"]["song"]) for item in found]
        assert sorted(shown, key=repr) == sorted(said, key=repr)
        times = [round(datetime.fromisoformat(item["timestamp"]).timestamp() * 1000) for item in found]
        assert times == sorted(line["ts"] for line in theirs)


def test_the_same_bad_line_of_two_servers_is_kept_twice(rebu_up: Running) -> None:
    line = lines_of("openstack_api_loghub/OpenStack_2k.log")[0] + b" of two"
    since = time.time_ns() // 1_000_000
    for producer, start in (("one", 0), ("two", 0), ("two", 1), ("two", 1)):
        numbers = {"X_Rebu_Producer": producer, "X_Rebu_Sequence": str(start)}
        assert rebu_up.write("/v1/logs/error", line, "text/plain", **numbers)["rejected"] == 1
    assert kept(rebu_up.deadletters(source="error", since=since)) == {as_kept(line): 3}
