"""Logs of real servers and phones, as they were found: those of a known format are read whole, the others kept."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest

from rebu_ray.ingest.dialects import parse_logs, times
from rebu_ray.records import Kind, Parsed, Record, Refusal, Source
from tests.ingest.promises import RECEIVED_AT, body, check
from tests.real_data import DATA, needs_data

pytestmark = needs_data

APACHE_ACCESS = "apache_access/apache_logs.gz"
NGINX_ACCESS = "server_log_formats_beats/nginx_access.log"
APACHE_20_ERROR = "apache_error_loghub/Apache_2k.log"
APACHE_22_ERROR = "server_log_formats_beats/apache_error_ubuntu-2.2.22.log"
ANDROID = "android_logcat_loghub/Android_2k.log"
SERVICE = "openstack_api_loghub/OpenStack_2k.log"
HEALTH_APP = "healthapp_loghub/HealthApp_2k.log"
ALL = [APACHE_ACCESS, NGINX_ACCESS, APACHE_20_ERROR, APACHE_22_ERROR, ANDROID, SERVICE, HEALTH_APP]
LOG_SOURCES = [Source.ACCESS, Source.ERROR, Source.APP_EVENTS, Source.APP_ERRORS]


def read(name: str) -> bytes:
    raw = (DATA / name).read_bytes()
    return gzip.decompress(raw) if name.endswith(".gz") else raw


def parse(source: Source, raw: bytes) -> Parsed:
    parsed = parse_logs(source, "text/plain", raw, RECEIVED_AT)
    check(parsed)
    return parsed


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("source", LOG_SOURCES)
def test_every_line_is_kept_in_its_order(name: str, source: Source) -> None:
    raw = read(name)
    lines = [line.rstrip(b"\r") for line in raw.split(b"\n") if line.strip()]
    parsed = parse(source, raw)
    assert len(parsed) == len(lines)
    for line, entry in zip(lines, parsed, strict=True):
        kept = entry.raw if isinstance(entry, Refusal) else body(entry)["line"].encode()
        assert kept.strip() == line.strip()


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (APACHE_ACCESS, Source.ACCESS),
        (NGINX_ACCESS, Source.ACCESS),
        (APACHE_20_ERROR, Source.ERROR),
        (APACHE_22_ERROR, Source.ERROR),
    ],
)
def test_known_formats_are_accepted_whole(name: str, source: Source) -> None:
    parsed = parse(source, read(name))
    assert [entry.reason for entry in parsed if isinstance(entry, Refusal)] == []
    kind = Kind.SERVER_ACCESS if source is Source.ACCESS else Kind.SERVER_ERROR
    assert {entry.kind for entry in parsed if isinstance(entry, Record)} == {kind}
    assert len({entry.id for entry in parsed}) == len(parsed)


def test_the_access_log_says_what_a_plain_split_says() -> None:
    raw = read(APACHE_ACCESS)
    records = [entry for entry in parse(Source.ACCESS, raw) if isinstance(entry, Record)]
    lines = raw.decode().splitlines()
    assert [body(record)["status"] for record in records] == [int(line.split('"')[2].split()[0]) for line in lines]
    assert [body(record)["remote_addr"] for record in records] == [line.split()[0] for line in lines]
    assert {times.text(record.event_time)[:7] for record in records} == {"2015-05"}
    assert Counter(record.name.split()[0] for record in records) == Counter(
        line.split('"')[1].split()[0] for line in lines
    )


def test_the_error_logs_levels_and_clients() -> None:
    records = [entry for entry in parse(Source.ERROR, read(APACHE_20_ERROR)) if isinstance(entry, Record)]
    lines = read(APACHE_20_ERROR).decode().splitlines()
    assert Counter(record.name for record in records) == Counter(
        line.split("] [")[1].split("]")[0] for line in lines if line
    )
    assert sum(body(record)["client"] is not None for record in records) == sum("[client " in line for line in lines)
    assert {times.text(record.event_time)[:7] for record in records} == {"2005-12"}


def test_the_service_log_names_requests_in_its_own_way_only() -> None:
    assert all(isinstance(entry, Refusal) for entry in parse(Source.ERROR, read(SERVICE)))


@pytest.mark.parametrize("framing", ["ndjson", "array"])
def test_app_events_of_a_music_service(framing: str) -> None:
    for file in sorted((DATA / "app_events_sparkify").glob("*.json.gz")):
        raw = gzip.decompress(file.read_bytes())
        sent = [json.loads(line) for line in raw.splitlines()]
        if framing == "array":
            raw = b"[" + b",".join(raw.splitlines()) + b"]"
        parsed = parse_logs(Source.APP_EVENTS, None, raw, RECEIVED_AT)
        check(parsed)
        assert len(parsed) == len(sent)
        for event, entry in zip(sent, parsed, strict=True):
            if event["userId"] == "":
                assert isinstance(entry, Refusal)
                assert entry.reason.startswith("missing_id")
            else:
                assert isinstance(entry, Record)
                assert (entry.user_id, entry.name, entry.event_time) == (event["userId"], event["page"], event["ts"])
                assert body(entry) == event
