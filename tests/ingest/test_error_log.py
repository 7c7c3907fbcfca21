from __future__ import annotations

import json
from typing import Any

import pytest

from rebu_ray.ingest.dialects import parse_logs
from rebu_ray.records import MAX_RECORD_BYTES, Kind, MatchedBy, Parsed, Source
from tests.ingest.promises import RECEIVED_AT, body, check, only, refused

AT_EIGHT = RECEIVED_AT - 10_000

NGINX = (
    "2026/03/01 08:00:00 [error] 1234#5678: *90 upstream timed out (110: Connection timed out) while reading, "
    'client: 10.0.0.7, server: api.rebu.example, request: "POST /v1/rides?x=1 HTTP/1.1", '
    'upstream: "http://10.1.0.2:8080/v1/rides", host: "api.rebu.example", referrer: "https://rebu.example/"'
)
APACHE_24 = (
    "[Sun Mar 01 08:00:00.123456 2026] [proxy:error] [pid 1234:tid 5678] [client 10.0.0.7:4711] "
    "AH00898: Error reading from remote server, referer: https://rebu.example/"
)


def error(*lines: str | dict[str, Any]) -> Parsed:
    raws = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    parsed = parse_logs(Source.ERROR, None, "\n".join(raws).encode(), RECEIVED_AT)
    assert len(parsed) == len(lines)
    check(parsed)
    return parsed


def test_nginx() -> None:
    record = only(error(NGINX))
    assert (record.kind, record.name, record.source) == (Kind.SERVER_ERROR, "error", Source.ERROR)
    assert (record.event_time, record.user_id, record.request_id) == (AT_EIGHT, None, None)
    assert body(record) == {
        "level": "error",
        "message": "upstream timed out (110: Connection timed out) while reading",
        "pid": 1234,
        "tid": 5678,
        "connection": 90,
        "client": "10.0.0.7",
        "request": "POST /v1/rides?x=1 HTTP/1.1",
        "server": "api.rebu.example",
        "upstream": "http://10.1.0.2:8080/v1/rides",
        "host": "api.rebu.example",
        "referrer": "https://rebu.example/",
        "request_id": None,
        "line": NGINX,
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "2026/03/01 08:00:00 [notice] 1#1: signal process started",
            {"level": "notice", "message": "signal process started", "pid": 1, "client": None, "request": None},
        ),
        (
            "[Sun Mar 01 08:00:00 2026] [notice] jk2_init() Found child 6725 in scoreboard slot 10",
            {
                "level": "notice",
                "message": "jk2_init() Found child 6725 in scoreboard slot 10",
                "pid": None,
                "client": None,
            },
        ),
        (
            "[Sun Mar  1 08:00:00 2026] [error] [client 10.0.0.7] File does not exist: /x, referer: http://a/, b",
            {"level": "error", "message": "File does not exist: /x", "client": "10.0.0.7", "referrer": "http://a/, b"},
        ),
        (
            "[Sun Mar 01 08:00:00.000001 2026] [:warn] [pid 7] [client 2001:db8::7:80] text",
            {"level": "warn", "message": "text", "module": None, "pid": 7, "client": "2001:db8::7:80"},
        ),
    ],
)
def test_other_text(line: str, expected: dict[str, Any]) -> None:
    record = only(error(line))
    found = body(record)
    assert {name: found[name] for name in expected} == expected
    assert (record.name, record.event_time) == (expected["level"], AT_EIGHT)


def test_apache_24() -> None:
    record = only(error(APACHE_24))
    assert record.event_time == AT_EIGHT + 123
    assert body(record) == {
        "level": "error",
        "message": "AH00898: Error reading from remote server",
        "module": "proxy",
        "pid": 1234,
        "tid": 5678,
        "client": "10.0.0.7:4711",
        "request": None,
        "referrer": "https://rebu.example/",
        "request_id": None,
        "line": APACHE_24,
    }


@pytest.mark.parametrize(
    "line", [NGINX, "[Sun Mar 01 08:00:00 2026] [error] it broke", "2026/03/01 08:00:00 [warn] 1#1: it broke"]
)
@pytest.mark.parametrize(
    ("more", "request_id"),
    [
        (', request_id: "req-1"', "req-1"),
        (", request_id: req-1, x: y", "req-1"),
        (' request_id="req \\"1\\""', 'req "1"'),
        (" request_id=req-1, and more", "req-1"),
        (" [request_id=req-1]", "req-1"),
        (" [request-id: req-1] text", "req-1"),
        (" [request_id req-1] text", "req-1"),
        (" (X-Request-ID: req-1)", "req-1"),
        (" requestId=req-1", "req-1"),
        (" request_id=first request_id=second", "first"),
        (' request_id: "-"', None),
        (" request_id=-", None),
        (' request_id: ""', None),
        (" [req-1]", None),
        (" request failed", None),
        (" my_request_id=req-1", None),
        (" GET /x?request_id=req-1", None),
        (" /request_id=req-1", None),
        (' "GET /x request_id=req-1 HTTP/1.1"', None),
        (' "open request_id=req-1', None),
    ],
)
def test_request_ids(line: str, more: str, request_id: str | None) -> None:
    record = only(error(line + more))
    assert record.request_id == request_id
    assert body(record)["request_id"] == request_id


@pytest.mark.parametrize(
    ("request_line", "more", "user_id", "matched_by"),
    [
        ("GET /v1/rides HTTP/1.1", ', user_id: "u-1"', "u-1", MatchedBy.USER_ID),
        ("GET /users/u-2/rides HTTP/1.1", ", user_id=u-1", "u-1", MatchedBy.USER_ID),
        ("GET /users/u-2/rides HTTP/1.1", ', userId: "u-1"', "u-1", MatchedBy.USER_ID),
        ("GET /users/u-2/rides HTTP/1.1", ', remote_user: "u-1"', "u-1", MatchedBy.USER_ID),
        ("GET /users/u-2/rides HTTP/1.1", ', remote_user: "u-3", user_id: "u-1"', "u-1", MatchedBy.USER_ID),
        ("GET /users/u-2/rides HTTP/1.1", ', user_id: "-", remote_user: "-"', "u-2", MatchedBy.PATH),
        ("GET /users/u-2?user_id=u-9 HTTP/1.1", "", "u-2", MatchedBy.PATH),
        ("GET /v1/rides?user_id=u-9 HTTP/1.1", "", None, None),
    ],
)
def test_users(request_line: str, more: str, user_id: str | None, matched_by: MatchedBy | None) -> None:
    record = only(error(NGINX.replace("POST /v1/rides?x=1 HTTP/1.1", request_line) + more))
    assert (record.user_id, record.matched_by) == (user_id, matched_by)


def test_what_the_server_appends_goes_before_what_a_client_wrote() -> None:
    line = (
        NGINX.replace("upstream timed out", "user_id=u-9 request_id=req-9 sent")
        + ', request_id: "req-1", user_id: "u-1"'
    )
    record = only(error(line))
    assert (record.user_id, record.request_id) == ("u-1", "req-1")


def test_a_referer_names_nobody() -> None:
    assert only(error(APACHE_24 + " request_id=req-9 user_id=u-9")).request_id is None


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"level": "error", "message": "x"}, "error"),
        ({"severity": "WARNING", "msg": "x"}, "WARNING"),
        ({"level": 50, "msg": "x"}, "error"),
        ({"level": 35, "msg": "x"}, "35"),
        ({"level": "error", "error": {"name": "TimeoutError", "message": "m", "stack": "s"}}, "TimeoutError"),
        ({"level": "error", "error": {"type": "TimeoutError"}}, "TimeoutError"),
        ({"level": "error", "error": {}}, "error"),
        ({"level": "fatal", "error": "text"}, "fatal"),
        ({"error": "text"}, "error"),
        ({"message": "x"}, "error"),
        ({"level": {}, "message": "x"}, "error"),
    ],
)
def test_names_in_json(fields: dict[str, Any], name: str) -> None:
    record = only(error(fields))
    assert (record.kind, record.name) == (Kind.SERVER_ERROR, name)
    assert body(record) == fields


@pytest.mark.parametrize(
    ("fields", "user_id", "matched_by", "request_id"),
    [
        ({"user_id": "u-1", "request_id": "req-1"}, "u-1", MatchedBy.USER_ID, "req-1"),
        ({"userId": 17, "requestId": "req-1"}, "17", MatchedBy.USER_ID, "req-1"),
        ({"remote_user": "u-1", "req_id": "req-1"}, "u-1", MatchedBy.USER_ID, "req-1"),
        ({"request": "GET /users/u-1/ HTTP/1.1", "request_id": "-"}, "u-1", MatchedBy.PATH, None),
        ({"method": "GET", "path": "/users/u-1/rides", "request_id": 5}, "u-1", MatchedBy.PATH, "5"),
        ({"user_id": None, "request_id": None}, None, None, None),
    ],
)
def test_ids_in_json(
    fields: dict[str, Any], user_id: str | None, matched_by: MatchedBy | None, request_id: str | None
) -> None:
    record = only(error({"level": "error", "ts": "2026-03-01T08:00:00Z"} | fields))
    assert (record.user_id, record.matched_by, record.request_id) == (user_id, matched_by, request_id)
    assert record.event_time == AT_EIGHT


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Traceback (most recent call last):", "unknown_format: an error line must be"),
        ('10.0.0.7 - - [01/Mar/2026:08:00:00 +0000] "GET / HTTP/1.1" 200 1', "unknown_format: an error line must be"),
        ("2026/13/01 08:00:00 [error] 1#1: x", "invalid_time: the line's time"),
        ("[Sun Foo 01 08:00:00 2026] [error] x", "invalid_time: the line's time"),
        ("2026/03/01 08:00:00 [error] 1#1: " + "x" * MAX_RECORD_BYTES, "too_large: the record"),
        (NGINX + f', request_id: "{"r" * 600}"', "invalid_id: request_id must"),
        (NGINX + ', user_id: "\ufffd"', "invalid_id: user_id must be valid UTF-8"),
        ("{}", "unknown_format: an error line in JSON"),
        ('{"time": "2026-03-01T08:00:00Z"}', "unknown_format: an error line in JSON"),
        ('{"level": "error", "time": "never"}', "invalid_time: time must"),
        ('{"level": "error", "user_id": {}}', "invalid_id: user_id must"),
        ('{"level": "error"', "invalid_json: the record"),
        ('{"log": "no known format"}', "unknown_format: an error line in JSON"),
    ],
)
def test_refusals(line: str, reason: str) -> None:
    entry = refused(error(line))
    assert entry.reason.startswith(reason)
    assert entry.raw == line.encode()


def test_envelopes_of_shippers() -> None:
    line = NGINX + ', request_id: "req-1"'
    bare = only(error(line))
    assert (
        only(error({"message": line, "host": "h", "source_type": "file", "timestamp": "2026-03-01T08:00:09Z"})) == bare
    )
    assert only(error({"date": 1.5, "log": line + "\n"})) == bare
    inner = {"severity": "error", "message": line, "request_id": "req-2"}
    own = only(error({"message": json.dumps(inner), "host": "h"}))
    assert (body(own), own.request_id) == (inner, "req-2")
    named = only(error({"message": '{"a": 1}', "request_id": "req-1"}))
    assert named.request_id == "req-1"
    unknown = only(error({"message": "it broke", "host": "h", "timestamp": "2026-03-01T08:00:00Z"}))
    assert (unknown.name, unknown.event_time) == ("error", AT_EIGHT)


def test_a_line_full_of_quotes_is_read_in_a_moment() -> None:
    for tail in ('"\\' * 8000, 'request_id="\\' * 2000, '"' * 16_001, "[request_id " * 2000):
        assert only(error("2026/03/01 08:00:00 [error] 1#1: " + tail)).name == "error"
