"""Writing: every form in which records may come, what is answered, and what is refused with which word."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
import zstandard
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.system.running import Item, Running, ids

pytestmark = pytest.mark.system

NOW = time.time_ns() // 1_000_000
MAX_RECORD_BYTES = 32 * 1024
SEGMENT = "/v1/batch"


def event(record_id: str, user: str, **fields: Any) -> Item:
    return {"type": "track", "event": "Tapped", "messageId": record_id, "userId": user, "timestamp": NOW, **fields}


def stamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(timespec="milliseconds")


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def counts(receipt: Item) -> tuple[int, int, int]:
    return (receipt["accepted"], receipt["duplicate"], receipt["rejected"])


# -- verdicts -----------------------------------------------------------------------------------------------------


def test_an_answer_counts_everything_and_lists_what_was_not_plainly_accepted(rebu_up: Running) -> None:
    since = time.time_ns() // 1_000_000
    bad = event("w1-bad", "w1", timestamp="yesterday")
    nobody = event("w1-nobody", "") | {"userId": None}
    batch = [event("w1-a", "w1"), bad, event("w1-b", "w1"), nobody, 17, event("w1-a", "w1")]
    answer = rebu_up.post(SEGMENT, {"batch": batch})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    receipt = answer.json()
    assert set(receipt) == {"success", "accepted", "duplicate", "rejected", "position", "results"}
    assert receipt["success"] is True
    assert counts(receipt) == (2, 1, 3)
    results = [(result["id"], result["status"], result["reason"].partition(":")[0]) for result in receipt["results"]]
    assert results == [
        ("w1-bad", "rejected", "invalid_time"),
        ("w1-nobody", "rejected", "missing_id"),
        ("", "rejected", "invalid_shape"),
        ("w1-a", "duplicate", "duplicate"),
    ]
    assert isinstance(receipt["position"], str)
    assert sorted(ids(rebu_up.history("w1", min_position=receipt["position"]))) == ["w1-a", "w1-b"]
    letters = rebu_up.deadletters(source="app-events", since=since)
    assert {(json.dumps(letter["record"]), letter["reason"].partition(":")[0]) for letter in letters} == {
        (json.dumps(bad), "invalid_time"),
        (json.dumps(nobody), "missing_id"),
        ("17", "invalid_shape"),
    }
    assert {"id", "source", "received_at", "reason", "record"} == set(letters[0])


def test_nothing_at_all_is_stored_and_says_so(rebu_up: Running) -> None:
    assert counts(rebu_up.batch([])) == (0, 0, 0)
    assert counts(rebu_up.write("/v1/logs/access", b"", "text/plain")) == (0, 0, 0)
    assert counts(rebu_up.write("/v1/logs/access", b"\n\r\n \n", "text/plain")) == (0, 0, 0)
    assert counts(rebu_up.write("/v1/logs/app-errors", [])) == (0, 0, 0)


def test_a_record_is_its_user_and_its_id(rebu_up: Running) -> None:
    assert counts(rebu_up.batch([event("w2", "w2-ada"), event("w2", "w2-ben"), event("w2", "w2-ada")])) == (2, 1, 0)
    assert counts(rebu_up.batch([event("w2", "w2-ada", event="Other", timestamp=5), event("w2", "w2-cy")])) == (1, 1, 0)
    [kept] = rebu_up.history("w2-ada")
    assert (kept["name"], ms(kept["timestamp"])) == ("Tapped", NOW)


def test_the_same_batch_from_many_at_once_is_stored_once(rebu_up: Running) -> None:
    batch = [event(f"w3-{number}", f"w3-{number % 9}") for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda _: rebu_up.batch(batch), range(8)))
    assert sum(receipt["accepted"] for receipt in receipts) == 200
    assert sum(receipt["duplicate"] for receipt in receipts) == 7 * 200
    assert sum(len(rebu_up.history(f"w3-{number}")) for number in range(9)) == 200


def test_a_very_large_request_is_answered_record_by_record(rebu_up: Running) -> None:
    lines = [json.dumps(event(f"w4-{number:05d}", f"w4-{number % 3}")) for number in range(25_000)]
    lines[7_777] = "{"
    body = gzip.compress("\n".join(lines).encode(), 1)
    receipt = rebu_up.write("/v1/logs/app-events", body, "application/x-ndjson", Content_Encoding="gzip")
    assert counts(receipt) == (24_999, 0, 1)
    assert len(rebu_up.history("w4-0", limit=1000)) == 8_334
    receipt = rebu_up.write("/v1/logs/app-events", body, "application/x-ndjson", Content_Encoding="gzip")
    assert counts(receipt) == (0, 24_999, 1)


# -- forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["track", "identify", "page", "screen", "group", "alias"])
def test_each_call_has_a_route_of_its_own(rebu_up: Running, call: str) -> None:
    message = {"messageId": f"w5-{call}", "userId": f"w5-{call}", "anonymousId": "w5-a", "timestamp": stamp(NOW)}
    named = {"track": {"event": "Ride Requested"}, "page": {"name": "Home"}, "screen": {"name": "Map"}}
    receipt = rebu_up.write(f"/v1/{call}", message | named.get(call, {}))
    assert counts(receipt) == (1, 0, 0)
    [item] = rebu_up.history(f"w5-{call}", min_position=receipt["position"])
    names = {"track": "Ride Requested", "page": "Home", "screen": "Map"}
    assert (item["name"], item["kind"], item["source"]) == (names.get(call, call), "app_event", "app-events")
    assert ms(item["timestamp"]) == NOW
    assert counts(rebu_up.write(f"/v1/{call}", message | named.get(call, {}))) == (0, 1, 0)


def encodings(body: bytes) -> Iterator[tuple[dict[str, str], bytes]]:
    yield {}, body
    yield {"Content_Encoding": "gzip"}, gzip.compress(body)
    yield {"Content_Encoding": "zstd"}, zstandard.compress(body)
    yield {"Content_Encoding": "gzip"}, gzip.compress(body[:9]) + gzip.compress(body[9:])
    streamed = zstandard.ZstdCompressor().compressobj()
    yield {"Content_Encoding": "zstd"}, streamed.compress(body) + streamed.flush()


def test_lines_may_come_as_text_ndjson_or_an_array_packed_or_not(rebu_up: Running) -> None:
    def fault(record_id: str) -> Item:
        error = {"name": "Crash", "message": "Zürich 🚕", "stack": "at x\nat y", "fatal": True}
        return {"type": "error", "messageId": record_id, "userId": "w6", "timestamp": NOW, "error": error}

    number = 0
    for form in ("array", "one", "ndjson", "crlf", "unsaid", "form"):
        for headers, _ in encodings(b"some bytes or other"):
            faults = [fault(f"w6-{number}-{n}") for n in range(1 if form == "one" else 3)]
            number += 1
            text = "\n".join(json.dumps(found) for found in faults)
            kinds = {
                "array": ("application/json", json.dumps(faults)),
                "one": ("application/json; charset=utf-8", text),
                "ndjson": ("application/x-ndjson", text),
                "crlf": ("application/x-ndjson", text.replace("\n", "\r\n") + "\r\n\r\n"),
                "unsaid": ("", text + "\n"),
                "form": ("application/x-www-form-urlencoded", text),
            }
            kind, body = kinds[form]
            sent = next(data for named, data in encodings(body.encode()) if named == headers)
            receipt = rebu_up.write("/v1/logs/app-errors", sent, kind, **headers)
            assert counts(receipt) == (len(faults), 0, 0), (form, headers)
    found = rebu_up.history("w6", limit=1000)
    assert len(found) == 5 * (5 * 3 + 1)
    assert {item["name"] for item in found} == {"Crash"}
    assert {item["body"]["error"]["message"] for item in found} == {"Zürich 🚕"}


LINE = '192.0.2.7 - w7 [{when}] "GET /rides/{number}?x=1 HTTP/1.1" 200 17 "-" "okhttp/4.9" "w7-req-{number}"'


def test_what_shippers_put_around_a_line_is_taken_off(rebu_up: Running) -> None:
    """As Vector's http sink and Fluent Bit's http output send it."""
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(NOW / 1000))
    lines = [LINE.format(when=when, number=number) for number in range(6)]
    vector = [
        {
            "message": line,
            "file": "/var/log/nginx/access.log",
            "host": "web-1",
            "source_type": "file",
            "timestamp": stamp(NOW),
        }
        for line in lines[:2]
    ]
    fluent = [{"date": NOW / 1000, "log": line} for line in lines[2:4]]
    docker = {"date": NOW / 1000, "log": json.dumps({"log": lines[4] + "\n", "stream": "stdout", "time": stamp(NOW)})}
    assert counts(rebu_up.write("/v1/logs/access", vector)) == (2, 0, 0)
    body = "\n".join(map(json.dumps, fluent)).encode()
    assert counts(rebu_up.write("/v1/logs/access", body)) == (2, 0, 0)  # Fluent Bit: json_lines, called JSON
    assert counts(rebu_up.write("/v1/logs/access", [docker, lines[5]])) == (2, 0, 0)
    found = rebu_up.history("w7")
    assert sorted(item["name"] for item in found) == [f"GET /rides/{number}" for number in range(6)]
    assert {item["body"]["status"] for item in found} == {200}
    assert sorted(item["body"]["request_id"] for item in found) == [f"w7-req-{number}" for number in range(6)]

    inner = json.dumps(event("w7-event", "w7-app"))
    assert counts(rebu_up.write("/v1/logs/app-events", [{"message": inner, "host": "phone"}])) == (1, 0, 0)
    assert ids(rebu_up.history("w7-app")) == ["w7-event"]


def otlp(user: str, number: int) -> Item:
    nanos = str((NOW + number) * 1_000_000)
    attributes = {"http.request.method": "GET", "url.path": "/rides", "user.id": user, "http.request.id": f"{user}-r"}
    said = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    bad = {"timeUnixNano": nanos, "eventName": "nobody's", "body": {"stringValue": "x"}}
    fault = {"timeUnixNano": nanos, "severityNumber": 17, "severityText": "ERROR", "body": {"stringValue": "boom"}}
    fault["attributes"] = [{"key": "user.id", "value": {"stringValue": user}}]
    records = [{"timeUnixNano": nanos, "severityNumber": 9, "attributes": said}, fault, bad]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "api"}}]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {"name": "s"}, "logRecords": records}]}]}


@pytest.mark.parametrize("form", ["json", "protobuf", "protobuf, packed"])
def test_opentelemetry_logs_are_taken(rebu_up: Running, form: str) -> None:
    user = f"w8-{form[:8]}{len(form)}"
    said = otlp(user, 1)
    body = json.dumps(said).encode()
    headers = {}
    if form != "json":
        body = ParseDict(said, ExportLogsServiceRequest()).SerializeToString()
    if form == "protobuf, packed":
        body, headers = gzip.compress(body), {"Content_Encoding": "gzip"}
    kind = "application/json" if form == "json" else "application/x-protobuf"
    receipt = rebu_up.write("/v1/logs", body, kind, **headers)
    assert counts(receipt) == (2, 0, 1)
    found = rebu_up.history(user, min_position=receipt["position"])
    shown = {(item["kind"], item["name"], item["source"], ms(item["timestamp"])) for item in found}
    assert shown == {("server_access", "GET /rides", "otlp", NOW + 1), ("server_error", "ERROR", "otlp", NOW + 1)}
    assert counts(rebu_up.write("/v1/logs", body, kind, **headers)) == (0, 2, 1)


# -- times and sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-30 * 86_400_000, -5_000, 0, 7_200_000, 40 * 86_400_000])
def test_a_wrong_clock_is_put_right_by_what_it_said_when_it_sent(rebu_up: Running, skew: int) -> None:
    user, clock = f"w9{skew}", NOW + skew
    ago = {"ten-seconds": 10_000, "at-once": 0, "a-day": 86_400_000}
    messages = [event(f"{user}-{name}", user, timestamp=stamp(clock - age)) for name, age in ago.items()]
    future = event(f"{user}-future", user, timestamp=clock + 60_000)
    own = event(f"{user}-own", user, timestamp=clock - 3_000, sentAt=stamp(clock))
    untimed = {key: value for key, value in event(f"{user}-untimed", user).items() if key != "timestamp"}
    rebu_up.batch([*messages, future, untimed], sentAt=stamp(clock))
    rebu_up.batch([own])
    rebu_up.batch([event(f"{user}-unsent", user, timestamp=clock)])
    late = {
        item["id"].removeprefix(f"{user}-"): ms(item["received_at"]) - ms(item["timestamp"])
        for item in rebu_up.history(user)
    }
    unsent = late.pop("unsent")
    assert late == {**ago, "future": 0, "own": 3_000, "untimed": 0}
    assert abs(unsent + skew) < 3_600_000  # its own word, for want of another


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-03-01T08:00:00.123Z", 1_772_352_000_123),
        ("2026-03-01T10:00:00.123456+02:00", 1_772_352_000_123),
        ("2026-03-01t03:30:00-04:30", 1_772_352_000_000),
        (1_772_352_000_123, 1_772_352_000_123),
        ("1970-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
    ],
)
def test_times_in_every_form(rebu_up: Running, written: object, meant: int) -> None:
    user = f"w10-{written}"
    assert counts(rebu_up.batch([event("w10", user, timestamp=written)])) == (1, 0, 0)
    [item] = rebu_up.history(user)
    assert item["timestamp"] == str(item["timestamp"])
    assert item["timestamp"].endswith("Z")
    assert ms(item["timestamp"]) == meant


@pytest.mark.parametrize("written", ["soon", "", -1, 253_402_300_800_000, True, {}, "2026-02-30T00:00:00Z", "NaN"])
def test_a_time_that_is_none_is_refused(rebu_up: Running, written: object) -> None:
    receipt = rebu_up.batch([event("w11", "w11", timestamp=written), event(f"w11-{written}", "w11-good")])
    assert counts(receipt) == (1, 0, 1)
    assert receipt["results"][0]["reason"].startswith("invalid_time: ")


def sized(record_id: str, size: int) -> bytes:
    empty = json.dumps(event(record_id, "w12", properties={"x": ""}), separators=(",", ":")).encode()
    return empty.replace(b'"x":""', b'"x":"' + b"y" * (size - len(empty)) + b'"')


def test_a_record_has_32_kilobytes_at_most(rebu_up: Running) -> None:
    since = time.time_ns() // 1_000_000
    fits, over = sized("w12-fits", MAX_RECORD_BYTES), sized("w12-over", MAX_RECORD_BYTES + 1)
    assert (len(fits), len(over)) == (MAX_RECORD_BYTES, MAX_RECORD_BYTES + 1)
    receipt = rebu_up.write(SEGMENT, b'{"batch":[' + fits + b"," + over + b"]}")
    assert counts(receipt) == (1, 0, 1)
    assert receipt["results"][0]["id"] == "w12-over"
    assert receipt["results"][0]["reason"].startswith("too_large: ")
    receipt = rebu_up.write("/v1/logs/app-events", sized("w12-line", 32_768) + b"\n" + over, "application/x-ndjson")
    assert counts(receipt) == (1, 0, 1)
    assert sorted(ids(rebu_up.history("w12"))) == ["w12-fits", "w12-line"]
    letters = rebu_up.deadletters(source="app-events", since=since)
    assert [letter["record"] for letter in letters] == [json.loads(over)]


# -- keys ---------------------------------------------------------------------------------------------------------


def test_a_key_may_be_shown_in_every_way_that_senders_have(rebu_up: Running) -> None:
    def send(record_id: str, key_in_body: str = "", **headers: str) -> tuple[int, str]:
        body = {"batch": [event(record_id, "w13")]} | ({"writeKey": key_in_body} if key_in_body else {})
        answer = rebu_up.http.post(SEGMENT, json=body, headers=headers)
        return answer.status_code, answer.json().get("code", "")

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    key, good = rebu_up.write_key, (200, "")
    assert send("w13-1", Authorization=basic(f"{key}:")) == good
    assert send("w13-2", Authorization=basic(f":{key}")) == good
    assert send("w13-3", Authorization=basic(f"{key}:any")) == good
    assert send("w13-4", Authorization=f"bearer {key}") == good
    assert send("w13-5", key) == good
    assert send("w13-6", rebu_up.admin_key) == good
    assert send("w13-7", Authorization=f"Bearer {rebu_up.admin_key}") == good
    unknown = (401, "unauthorized")
    assert send("w13-n1") == unknown
    assert send("w13-n2", "nonsense") == unknown
    assert send("w13-n3", Authorization=basic("nonsense:")) == unknown
    assert send("w13-n4", Authorization="Bearer") == unknown
    assert send("w13-n5", key, Authorization="Bearer nonsense") == unknown
    assert send("w13-n6", Authorization="Basic ???") == unknown
    assert send("w13-n7", Authorization=f"Digest {key}") == unknown
    assert send("w13-n8", rebu_up.read_key) == (403, "forbidden")
    assert send("w13-n9", Authorization=basic(f"{rebu_up.read_key}:")) == (403, "forbidden")
    assert sorted(ids(rebu_up.history("w13"))) == [f"w13-{number}" for number in range(1, 8)]
    for path in ("/v1/logs/access", "/v1/logs", "/v1/logs/app-events"):
        answer = rebu_up.http.post(path, json=[{"writeKey": key}])
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="Rebu"')


def test_a_key_in_the_body_is_not_kept(rebu_up: Running) -> None:
    rebu_up.http.post("/v1/track", json=event("w14", "w14", writeKey=rebu_up.write_key)).raise_for_status()
    [item] = rebu_up.history("w14")
    assert rebu_up.write_key not in json.dumps(item)
