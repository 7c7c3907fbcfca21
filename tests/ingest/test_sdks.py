"""The published SDKs, unmodified: what they post is what the platform takes. Only the network is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import rudderstack.analytics.request
import segment.analytics.request
from rudderstack.analytics.client import Client as RudderClient
from segment.analytics.client import Client as SegmentClient

from rebu_ray.ingest.dialects import parse_segment, write_key
from rebu_ray.ingest.framing import decompress
from rebu_ray.records import Parsed, Record
from tests.ingest.promises import RECEIVED_AT, body, check

EIGHT = datetime(2026, 3, 1, 8, tzinfo=UTC)


class Answer:
    status_code = 200


class Wire:
    """Stands for the HTTP session of an SDK and keeps what it posts."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, Any]]] = []

    def post(self, url: str, **arguments: Any) -> Answer:
        self.posts.append((url, arguments))
        return Answer()

    def bodies(self) -> Iterator[bytes]:
        for url, arguments in self.posts:
            assert url == "http://rebu/v1/batch"
            data = arguments["data"]
            plain = data.encode() if isinstance(data, str) else data
            yield decompress(plain, arguments["headers"].get("Content-Encoding"))


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    found = Wire()
    monkeypatch.setattr(segment.analytics.request, "_session", found)
    monkeypatch.setattr(rudderstack.analytics.request, "_session", found)
    return found


def speak(client: Any) -> None:
    client.identify("u-1", {"name": "Ann", "joined": EIGHT}, anonymous_id="a-1", timestamp=EIGHT)
    client.track("u-1", "Ride Requested", {"fare": Decimal("12.5"), "city": "Zürich 🚕"}, timestamp=EIGHT)
    client.track(event="Seen", anonymous_id=UUID(int=7).hex, timestamp=EIGHT)
    client.page(42, name="Home", timestamp=EIGHT)
    client.screen("u-1", timestamp=EIGHT)
    client.group("u-1", "g-1", {"plan": "pro"}, timestamp=EIGHT)
    client.alias("a-2", "u-1", timestamp=EIGHT)


def heard(wire: Wire) -> Parsed:
    return [entry for raw in wire.bodies() for entry in parse_segment(raw, RECEIVED_AT)]


def check_speech(parsed: Parsed) -> None:
    check(parsed)
    records = [entry for entry in parsed if isinstance(entry, Record)]
    assert [(record.name, record.user_id, record.anonymous_id, record.links) for record in records] == [
        ("identify", "u-1", "a-1", "a-1"),
        ("Ride Requested", "u-1", None, None),
        ("Seen", None, UUID(int=7).hex, None),
        ("Home", "42", None, None),
        ("screen", "u-1", None, None),
        ("group", "u-1", None, None),
        ("alias", "u-1", None, "a-2"),
    ]
    assert body(records[1])["properties"] == {"fare": 12.5, "city": "Zürich 🚕"}
    assert all(UUID(record.id) for record in records)


@pytest.mark.parametrize("gzip", [True, False])
def test_segment(wire: Wire, gzip: bool) -> None:
    client = SegmentClient("key", host="http://rebu", sync_mode=True, gzip=gzip)
    speak(client)
    check_speech(heard(wire))
    assert [write_key(raw) for raw in wire.bodies()] == ["key"] * 7


@pytest.mark.parametrize("gzip", [True, False])
def test_rudderstack(wire: Wire, gzip: bool) -> None:
    client = RudderClient("key", host="http://rebu", sync_mode=True, gzip=gzip)
    speak(client)
    check_speech(heard(wire))
    assert [arguments["auth"].username for _, arguments in wire.posts] == ["key"] * 7


@pytest.mark.parametrize("kind", [SegmentClient, RudderClient])
def test_batches_from_the_background_thread(wire: Wire, kind: Any) -> None:
    client = kind("key", host="http://rebu", upload_interval=0.05)
    for number in range(250):
        client.track("u-1", f"Event {number}")
    client.shutdown()
    parsed = heard(wire)
    check(parsed)
    assert len(wire.posts) < 250
    assert [entry.name for entry in parsed if isinstance(entry, Record)] == [f"Event {number}" for number in range(250)]


@pytest.mark.parametrize("kind", [SegmentClient, RudderClient])
def test_a_clock_that_is_wrong(wire: Wire, kind: Any) -> None:
    kind("key", host="http://rebu", sync_mode=True).track("u-1", "Now")
    [raw] = wire.bodies()
    sent = json.loads(raw)
    [record] = parse_segment(raw, RECEIVED_AT)
    assert isinstance(record, Record)
    took = datetime.fromisoformat(sent["sentAt"]) - datetime.fromisoformat(sent["batch"][0]["timestamp"])
    assert abs(RECEIVED_AT - record.event_time - took.total_seconds() * 1000) < 2


@pytest.mark.parametrize("kind", [SegmentClient, RudderClient])
def test_not_a_number_spoils_one_message(wire: Wire, kind: Any) -> None:
    client = kind("key", host="http://rebu", upload_interval=0.2)
    for surge in (1.5, float("nan"), 2.0):
        client.track("u-1", "Surge", {"surge": surge})
    client.shutdown()
    parsed = heard(wire)
    check(parsed)
    assert [isinstance(entry, Record) for entry in parsed] == [True, False, True]
    assert {write_key(raw) for raw in wire.bodies()} == ({"key"} if kind is SegmentClient else {None})
