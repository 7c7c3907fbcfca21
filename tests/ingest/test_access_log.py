from __future__ import annotations

import json
from typing import Any

import pytest

from rebu_ray.ingest.dialects import parse_logs
from rebu_ray.records import MAX_RECORD_BYTES, Kind, MatchedBy, Parsed, Record, Refusal, Source
from tests.ingest.promises import RECEIVED_AT, body, check, only, refused

AT_EIGHT = RECEIVED_AT - 10_000
AGENT = "Mozilla/5.0 (X11; Linux) curl/8"


def access(*lines: bytes | str | dict[str, Any], content_type: str | None = "text/plain") -> Parsed:
    raws = [
        line if isinstance(line, bytes) else line.encode() if isinstance(line, str) else json.dumps(line).encode()
        for line in lines
    ]
    parsed = parse_logs(Source.ACCESS, content_type, b"\n".join(raws) + b"\n", RECEIVED_AT)
    assert len(parsed) == len(lines)
    check(parsed)
    return parsed


def line(
    request: str = "GET /v1/rides?limit=2 HTTP/1.1",
    *,
    client: str = "10.0.0.7 - -",
    time: str = "01/Mar/2026:09:00:00 +0100",
    status: str = "200",
    size: str = "512",
    rest: str = f' "https://rebu.example/" "{AGENT}"',
) -> str:
    return f'{client} [{time}] "{request}" {status} {size}{rest}'


def test_the_combined_format() -> None:
    text = line(rest=f' "https://rebu.example/" "{AGENT}" "req-1"')
    record = only(access(text))
    assert (record.kind, record.name, record.source) == (Kind.SERVER_ACCESS, "GET /v1/rides", Source.ACCESS)
    assert (record.event_time, record.request_id) == (AT_EIGHT, "req-1")
    assert (record.user_id, record.matched_by, record.anonymous_id) == (None, None, None)
    assert body(record) == {
        "method": "GET",
        "path": "/v1/rides",
        "query": "limit=2",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 512,
        "referer": "https://rebu.example/",
        "user_agent": AGENT,
        "remote_addr": "10.0.0.7",
        "remote_user": None,
        "request_id": "req-1",
        "host": None,
        "forwarded_for": None,
        "line": text,
    }


@pytest.mark.parametrize(
    ("rest", "request_id", "forwarded_for"),
    [
        ("", None, None),
        (' "-" "-"', None, None),
        (' "-" "-" "-"', None, None),
        (' "-" "-" ""', None, None),
        (' "req-1"', "req-1", None),
        (' "-" "-" "req-1"', "req-1", None),
        (' "-" "-" "req \\"1\\""', 'req "1"', None),
        (' "-" "-" 0.003 "req-1"', "req-1", None),
        (' "-" "-" "req-1" 0.003', None, None),
        (' "-" "-" "12345"', "12345", None),
        # nginx's own `main` format ends with X-Forwarded-For: an address is nobody's request.
        (' "-" "-" "203.0.113.9"', None, "203.0.113.9"),
        (' "-" "-" "203.0.113.9, 2001:db8::1"', None, "203.0.113.9, 2001:db8::1"),
        (' "-" "-" "203.0.113.9" "req-1"', "req-1", "203.0.113.9"),
    ],
)
def test_what_follows_the_size(rest: str, request_id: str | None, forwarded_for: str | None) -> None:
    record = only(access(line(rest=rest)))
    assert record.request_id == request_id
    assert body(record)["forwarded_for"] == forwarded_for


@pytest.mark.parametrize(
    ("client", "address", "user", "host"),
    [
        ("10.0.0.7 - u-1", "10.0.0.7", "u-1", None),
        ("2001:db8::7 - u-1", "2001:db8::7", "u-1", None),
        ("unix: - -", "unix:", None, None),
        ("client.example.com ident ann smith", "client.example.com", "ann smith", None),
        ("10.0.0.7 - ann smith jr", "10.0.0.7", "ann smith jr", None),
        ('10.0.0.7 - ""', "10.0.0.7", None, None),
        ("10.0.0.7 - ann\\x20\\xc3\\xa9", "10.0.0.7", "ann é", None),
        ("api.rebu.example:443 10.0.0.7 - u-1", "10.0.0.7", "u-1", "api.rebu.example:443"),
        ("api.rebu.example client.example.com - -", "client.example.com", None, "api.rebu.example"),
        ("10.0.0.7, 10.0.0.8 - u-1", "10.0.0.7, 10.0.0.8", "u-1", None),
    ],
)
def test_what_precedes_the_time(client: str, address: str, user: str | None, host: str | None) -> None:
    record = only(access(line(client=client)))
    found = body(record)
    assert (found["remote_addr"], found["remote_user"], found["host"]) == (address, user, host)
    assert (record.user_id, record.matched_by) == (user, MatchedBy.USER_ID if user else None)


@pytest.mark.parametrize(
    ("request_text", "name", "path", "query"),
    [
        ("GET / HTTP/1.1", "GET /", "/", None),
        ("GET /", "GET /", "/", None),
        ("POST /a/b?x=1?y&z=/users/9/ HTTP/2.0", "POST /a/b", "/a/b", "x=1?y&z=/users/9/"),
        ("GET /a? HTTP/1.1", "GET /a", "/a", ""),
        ("GET /with space HTTP/1.1", "GET /with space", "/with space", None),
        ("GET http://rebu.example/a?b HTTP/1.1", "GET /a", "/a", "b"),
        ("GET http://rebu.example HTTP/1.1", "GET /", "/", None),
        ("OPTIONS * HTTP/1.1", "OPTIONS *", "*", None),
        ("CONNECT rebu.example:443 HTTP/1.1", "CONNECT rebu.example:443", "rebu.example:443", None),
        ('GET /\\"quoted\\" HTTP/1.1', 'GET /"quoted"', '/"quoted"', None),
        ("GET /\\x22x\\x22 HTTP/1.1", 'GET /"x"', '/"x"', None),
        ('GET /un"escaped" HTTP/1.1', 'GET /un"escaped"', '/un"escaped"', None),
        ("-", "invalid request", None, None),
        ("", "invalid request", None, None),
        ("\\x16\\x03\\x01\\x00\\xff", "invalid request", None, None),
        ("GET", "invalid request", None, None),
        ("GET  HTTP/1.1", "invalid request", None, None),
        ("quit", "invalid request", None, None),
        ("hello world", "invalid request", None, None),
    ],
)
def test_requests(request_text: str, name: str, path: str | None, query: str | None) -> None:
    record = only(access(line(request_text, status="400", size="-")))
    found = body(record)
    assert (record.name, found["path"], found["query"], found["bytes"]) == (name, path, query, None)
    assert found["status"] == 400


@pytest.mark.parametrize(
    ("path", "user_id"),
    [
        ("/users/u-1/rides", "u-1"),
        ("/users/u-1/", "u-1"),
        ("/users/u-1", "u-1"),
        ("/api/v1/users/u-1?x=1", "u-1"),
        ("/users/ann%40rebu.example/profile", "ann@rebu.example"),
        ("/users/%C3%A9/", "é"),
        ("/users/a%2Fb/c", "a/b"),
        ("/users/u-1/users/u-2/", "u-1"),
        ("/users/", None),
        ("/users", None),
        ("/users//rides", None),
        ("/superusers/u-1/", None),
        ("/rides?next=/users/u-1/", None),
        ("/users/%FF/", None),
        ("/users/%00/", None),
        ("/users/" + "x" * 600 + "/", None),
    ],
)
def test_users_in_paths(path: str, user_id: str | None) -> None:
    record = only(access(line(f"GET {path} HTTP/1.1")))
    assert (record.user_id, record.matched_by) == (user_id, MatchedBy.PATH if user_id else None)


def test_the_remote_user_goes_before_the_path() -> None:
    record = only(access(line("GET /users/u-2/rides HTTP/1.1", client="10.0.0.7 - u-1")))
    assert (record.user_id, record.matched_by) == ("u-1", MatchedBy.USER_ID)


def test_a_client_cannot_forge_fields_of_a_server_that_escapes() -> None:
    text = line('GET /\\" 200 1 \\"-\\" \\"-\\" \\"req-of-another HTTP/1.1', status="404", rest=' "-" "-" "req-1"')
    record = only(access(text))
    assert (record.request_id, body(record)["status"]) == ("req-1", 404)
    agent = only(access(line(rest=' "-" "evil\\" \\"req-of-another" "req-1"')))
    assert agent.request_id == "req-1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", "unknown_format: an access line"),
        ("[Sun Mar 01 08:00:00 2026] [error] no", "unknown_format: an access line"),
        (line(client="10.0.0.7"), "unknown_format: an access line must begin"),
        (line(time="31/Feb/2026:09:00:00 +0100"), "invalid_time: time must"),
        (line(time="-"), "invalid_time: time must"),
        (line(client=f"10.0.0.7 - {'u' * 600}"), "invalid_id: remote_user must"),
        (line(client="10.0.0.7 - u\\x00"), "invalid_id: remote_user must"),
        (line(client="10.0.0.7 - u\\xff"), "invalid_id: remote_user must be valid UTF-8"),
        (line(rest=f' "-" "-" "{"r" * 600}"'), "invalid_id: request_id must"),
        (line("GET /" + "x" * MAX_RECORD_BYTES), "too_large: the record"),
        ("{}", "unknown_format: an access line in JSON"),
        ('{"host": "h"}', "unknown_format: an access line in JSON"),
        ('{"message": "not a line"}', "unknown_format: an access line"),
        ('{"status": 200, "time": "never"}', "invalid_time: time must"),
        ('{"status": 200, "user_id": ["u"]}', "invalid_id: user_id must"),
        ('{"status": 200, "request_id": "\\u0000"}', "invalid_id: request_id must"),
        ('{"status": 200', "invalid_json: the record"),
    ],
)
def test_refusals(text: str, reason: str) -> None:
    entry = refused(access(text))
    assert entry.reason.startswith(reason)
    assert entry.raw == text.encode()


def test_bytes_that_are_no_utf8_are_mended_outside_of_ids() -> None:
    raw = line(rest=' "-" "agent \udcff"').encode("utf-8", "surrogateescape")
    assert body(only(access(raw)))["user_agent"] == "agent \ufffd"
    bad = line(client="10.0.0.7 - u\udcff").encode("utf-8", "surrogateescape")
    assert refused(access(bad)).reason == "invalid_id: remote_user must be valid UTF-8"


JSON_LINE: dict[str, Any] = {
    "time_iso8601": "2026-03-01T09:00:00+01:00",
    "remote_addr": "10.0.0.7",
    "remote_user": "-",
    "request": "GET /v1/rides?x=1 HTTP/1.1",
    "status": "502",
    "request_id": "req-1",
}


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json", "application/x-ndjson"])
def test_json(content_type: str | None) -> None:
    raw = json.dumps(JSON_LINE, indent=None, separators=(" , ", " : ")).encode()
    record = only(access(raw, content_type=content_type))
    assert (record.kind, record.name, record.event_time) == (Kind.SERVER_ACCESS, "GET /v1/rides", AT_EIGHT)
    assert (record.user_id, record.request_id, record.body) == (None, "req-1", raw)


@pytest.mark.parametrize(
    ("fields", "user_id", "matched_by"),
    [
        ({"user_id": "u-1", "remote_user": "u-2", "path": "/users/u-3/"}, "u-1", MatchedBy.USER_ID),
        ({"userId": 17}, "17", MatchedBy.USER_ID),
        ({"user": {"id": "u-1"}}, "u-1", MatchedBy.USER_ID),
        ({"user_id": "-", "remote_user": "u-2", "path": "/users/u-3/"}, "u-2", MatchedBy.USER_ID),
        ({"user_id": "", "user": "u-2"}, "u-2", MatchedBy.USER_ID),
        ({"user_id": None, "user": "-", "uri": "/users/u-3/?x"}, "u-3", MatchedBy.PATH),
        ({"request_uri": "/users/u-3"}, "u-3", MatchedBy.PATH),
        ({"request": "GET /users/u-3 HTTP/1.1"}, "u-3", MatchedBy.PATH),
        ({"request": {"method": "GET", "uri": "/users/u-3/x"}}, "u-3", MatchedBy.PATH),
        ({"user": {"name": "Ann"}, "path": "/rides"}, None, None),
    ],
)
def test_users_in_json(fields: dict[str, Any], user_id: str | None, matched_by: MatchedBy | None) -> None:
    record = only(access({"method": "GET", "status": 200} | fields))
    assert (record.user_id, record.matched_by) == (user_id, matched_by)


@pytest.mark.parametrize(
    "fields",
    [
        {"time": "2026-03-01T08:00:00Z"},
        {"timestamp": 1772352000000},
        {"@timestamp": "2026-03-01T08:00:00.000Z"},
        {"msec": "1772352000.000"},
        {"ts": 1772352000.0},
        {"time_local": "01/Mar/2026:09:00:00 +0100"},
        {"date": 1772352000.0},
        {"time": None, "timestamp": "2026-03-01T08:00:00Z"},
    ],
)
def test_times_in_json(fields: dict[str, Any]) -> None:
    assert only(access({"status": 200} | fields)).event_time == AT_EIGHT


def test_json_without_a_request_or_a_time() -> None:
    record = only(access({"status": 499, "id": "e-1"}))
    assert (record.name, record.event_time, record.id) == ("invalid request", RECEIVED_AT, "e-1")


def test_arrays() -> None:
    array = json.dumps([JSON_LINE, line(), {"log": line() + "\n"}, 5, None, "nonsense"]).encode()
    parsed = parse_logs(Source.ACCESS, "application/json", array, RECEIVED_AT)
    check(parsed)
    assert [type(entry) for entry in parsed] == [Record, Record, Record, Refusal, Refusal, Refusal]


def test_envelopes_of_shippers() -> None:
    text = line("GET /users/u-1/ HTTP/1.1", rest=' "-" "-" "req-1"')
    bare = only(access(text))
    for wrapped in (
        {
            "file": "/var/log/nginx/access.log",
            "message": text,
            "source_type": "file",
            "timestamp": "2026-03-01T08:00:09Z",
        },
        {"date": 1772352009.1, "log": text + "\n"},
        {"message": json.dumps({"log": text + "\r\n", "stream": "stdout"})},
    ):
        assert only(access(wrapped)) == bare
    parsed_by_the_shipper = {
        "date": 1772352000.0,
        "remote": "10.0.0.7",
        "user": "-",
        "method": "GET",
        "path": "/users/u-1/?x",
    }
    record = only(access(parsed_by_the_shipper))
    assert (record.name, record.user_id, record.event_time) == ("GET /users/u-1/", "u-1", AT_EIGHT)
    assert only(access({"message": json.dumps(JSON_LINE), "host": "h"})).body == json.dumps(JSON_LINE).encode()


def test_text_and_json_may_be_mixed_and_ids_stay() -> None:
    lines: list[str | dict[str, Any]] = [line(), JSON_LINE, line(), "nonsense"]
    first, second = access(*lines), access(*lines)
    assert [type(entry) for entry in first] == [Record, Record, Record, Refusal]
    assert first == second
    assert len({entry.id for entry in first}) == 4
