"""The write routes: who may write, what is refused as a whole, and that every refusal says what to change."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.keys import LiveKeys, Watch
from rebu_ray.records import MAX_COMPRESSED_BYTES, TABLES, BadRequest, Record, Refusal, Source
from tests.access.serving import ADMIN, KEYS, READ, WRITE, Backends, FakeIntake, refused, unavailable, visit, write
from tests.records import seeded

EVENT = {"type": "track", "event": "Ride", "userId": "ada", "messageId": "1"}
BODIES: dict[str, Any] = {
    "/v1/batch": {"json": {"batch": [EVENT]}},
    "/v1/track": {"json": EVENT},
    "/v1/identify": {"json": {"userId": "ada", "traits": {}}},
    "/v1/page": {"json": {"userId": "ada", "name": "Home"}},
    "/v1/screen": {"json": {"userId": "ada", "name": "Home"}},
    "/v1/group": {"json": {"userId": "ada", "groupId": "g"}},
    "/v1/alias": {"json": {"userId": "ada", "previousId": "p1"}},
    "/v1/logs/app-events": {"json": [EVENT]},
    "/v1/logs/app-errors": {"json": [EVENT | {"type": "error"}]},
    "/v1/logs/access": {"content": b'1.1.1.1 - ada [02/Mar/2026:08:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "-"\n'},
    "/v1/logs/error": {"content": b"2026/03/02 08:00:00 [error] 1#1: *1 failed\n"},
    "/v1/logs": {"json": {"resourceLogs": []}},
}
SEGMENT = [path for path in BODIES if not path.startswith("/v1/logs")]


def basic(user: str, password: str = "") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("headers", [WRITE, ADMIN, basic("write-key"), basic("", "admin-key"), basic("write-key", "x")])
def test_who_has_the_key_may_write(path: str, headers: dict[str, str]) -> None:
    backends = Backends()
    response = write(backends, path, headers=headers, **BODIES[path])
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert (body["success"], body["rejected"]) == (True, 0)
    assert body.keys() == {"success", "accepted", "duplicate", "rejected", "position", "results"}
    ((source, parsed, _, _, _),) = backends.intake.taken
    expected = (
        path.rpartition("/")[2] if path.startswith("/v1/logs/") else "otlp" if path == "/v1/logs" else "app-events"
    )
    assert source == expected
    assert all(isinstance(entry, Record) for entry in parsed)
    assert len(parsed) == body["accepted"] == (path != "/v1/logs")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({}, (401, "unauthorized")),
        ({"Authorization": "Bearer no-key"}, (401, "unauthorized")),
        ({"Authorization": "Bearer "}, (401, "unauthorized")),
        ({"Authorization": "Basic ???"}, (401, "unauthorized")),
        ({"Authorization": "write-key"}, (401, "unauthorized")),
        (basic("", ""), (401, "unauthorized")),
        (READ, (403, "forbidden")),
        (basic("read-key"), (403, "forbidden")),
    ],
)
def test_who_has_no_key_or_another_may_not(path: str, headers: dict[str, str], outcome: tuple[int, str]) -> None:
    backends = Backends()
    response = write(backends, path, headers=headers, **BODIES[path])
    assert refused(response) == outcome
    assert ("www-authenticate" in response.headers) == (outcome[0] == 401)
    assert backends.intake.taken == []


@pytest.mark.parametrize("path", SEGMENT)
@pytest.mark.parametrize(
    ("key", "status"), [("write-key", 200), ("admin-key", 200), ("read-key", 403), ("no-key", 401), ("", 401), (5, 401)]
)
def test_a_browser_may_send_its_key_in_the_body(path: str, key: object, status: int) -> None:
    backends = Backends()
    response = write(backends, path, json=BODIES[path]["json"] | {"writeKey": key})
    assert response.status_code == status
    assert len(backends.intake.taken) == (status == 200)


def test_the_header_wins_over_the_body() -> None:
    response = write(Backends(), "/v1/track", json=EVENT | {"writeKey": "write-key"}, headers=READ)
    assert refused(response) == (403, "forbidden")


def test_a_key_in_the_body_of_a_log_is_none() -> None:
    assert refused(write(Backends(), "/v1/logs/access", json={"writeKey": "write-key"})) == (401, "unauthorized")


# -- whole requests that are refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BODIES)
def test_a_body_over_the_limit_is_refused_by_its_length(path: str) -> None:
    """Before it is read."""
    backends = Backends()
    length = {"Content-Length": str(MAX_COMPRESSED_BYTES + 1)}
    assert refused(write(backends, path, headers=WRITE | length, content=b"{}")) == (413, "too_large")
    unknown = (413, "too_large") if path in SEGMENT else (401, "unauthorized")
    assert refused(write(backends, path, headers=length, content=b"{}")) == unknown
    assert backends.intake.taken == []


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/logs/access"])
def test_a_body_over_the_limit_is_refused_while_it_comes(path: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1024 * 1024
            yield bytes(1024 * 1024)

    assert refused(write(Backends(), path, headers=WRITE, content=endless())) == (413, "too_large")
    assert sent <= 2 * MAX_COMPRESSED_BYTES


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_that_swells_over_the_limit_is_refused(encoding: str) -> None:
    zeros = bytes(51 * 1024 * 1024)
    packed = gzip.compress(zeros, 1) if encoding == "gzip" else zstandard.compress(zeros)
    headers = WRITE | {"Content-Encoding": encoding}
    assert refused(write(Backends(), "/v1/logs/access", headers=headers, content=packed)) == (413, "too_large")


@pytest.mark.parametrize(
    ("path", "headers", "content", "outcome"),
    [
        ("/v1/batch", {"Content-Encoding": "br"}, b"x", (415, "unsupported_media_type")),
        ("/v1/logs/access", {"Content-Type": "image/png"}, b"x", (415, "unsupported_media_type")),
        ("/v1/logs/access", {"Content-Type": "application/x-protobuf"}, b"x", (415, "unsupported_media_type")),
        ("/v1/logs", {"Content-Type": "text/plain"}, b"x", (415, "unsupported_media_type")),
        ("/v1/logs", {"Content-Type": "application/x-protobuf"}, b"\xff\xff", (400, "invalid_protobuf")),
        ("/v1/batch", {"Content-Encoding": "gzip"}, b"no gzip", (400, "invalid_body")),
        ("/v1/batch", {"Content-Encoding": "zstd"}, zstandard.compress(b"{}")[:-1], (400, "invalid_body")),
        ("/v1/batch", {}, b"", (400, "invalid_json")),
        ("/v1/batch", {}, b"{", (400, "invalid_json")),
        ("/v1/batch", {}, b"[]", (400, "invalid_json")),
        ("/v1/batch", {}, b'{"batch": {}}', (400, "invalid_json")),
        ("/v1/track", {}, b"nonsense", (400, "invalid_json")),
        ("/v1/track", {}, b"[{}]", (400, "invalid_json")),
        ("/v1/logs", {"Content-Type": "application/json"}, b"nonsense", (400, "invalid_json")),
        ("/v1/logs/app-events", {"Content-Type": "application/json"}, b"nonsense", (400, "invalid_json")),
        ("/v1/logs/access", {"X-Rebu-Producer": "a", "X-Rebu-Sequence": "1.5"}, b"x", (400, "invalid_sequence")),
        ("/v1/logs/access", {"X-Rebu-Producer": "a", "X-Rebu-Sequence": "-1"}, b"x", (400, "invalid_sequence")),
        ("/v1/logs/nonsense", {}, b"x", (404, "unknown_source")),
        ("/v1/logs/otlp", {}, b"x", (404, "unknown_source")),
        ("/v1/nonsense", {}, b"x", (404, "not_found")),
    ],
)
def test_refusals(path: str, headers: dict[str, str], content: bytes, outcome: tuple[int, str]) -> None:
    backends = Backends()
    assert refused(write(backends, path, headers=WRITE | headers, content=content)) == outcome
    assert backends.intake.taken == []


@pytest.mark.parametrize("path", BODIES)
def test_other_methods_are_refused(path: str) -> None:
    response = asyncio.run(visit(Backends(), lambda client: client.get(path, headers=WRITE)))
    assert refused(response) == (405, "method_not_allowed")


@settings(seeded, max_examples=80)
@given(
    st.sampled_from(list(BODIES)),
    st.binary(max_size=40) | st.text(max_size=20).map(str.encode) | st.sampled_from([b'{"batch":[1,{}]}', b"null"]),
    st.sampled_from(["", "application/json", "text/plain", "application/x-ndjson", "application/x-protobuf"]),
    st.sampled_from(["", "gzip", "zstd", "identity"]),
)
def test_any_body_is_stored_or_refused_with_a_reason(path: str, content: bytes, kind: str, encoding: str) -> None:
    backends = Backends()
    headers = WRITE | {"Content-Type": kind, "Content-Encoding": encoding}
    response = write(backends, path, headers=headers, content=content)
    if response.status_code == 200:
        ((_, parsed, _, _, _),) = backends.intake.taken
        for entry in parsed:
            if isinstance(entry, Refusal):
                code, _, sentence = entry.reason.partition(": ")
                assert re.fullmatch("[a-z0-9_]+", code)
                assert sentence
    else:
        assert refused(response)[0] in (400, 415)
        assert backends.intake.taken == []


# -- what is taken --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("count", [1, 3000])
def test_compressed_bodies(encoding: str, count: int) -> None:
    plain = json.dumps({"batch": [EVENT | {"messageId": f"{n}"} for n in range(count)]}).encode()
    packed = gzip.compress(plain) if encoding == "gzip" else zstandard.compress(plain)
    backends = Backends()
    headers = WRITE | {"Content-Encoding": encoding}
    assert write(backends, "/v1/batch", headers=headers, content=packed).json()["accepted"] == count
    ((_, parsed, _, _, _),) = backends.intake.taken
    assert [entry.id for entry in parsed] == [f"{n}" for n in range(count)]


def test_one_bad_record_does_not_spoil_its_siblings() -> None:
    backends = Backends()
    response = write(backends, "/v1/batch", headers=WRITE, json={"batch": [EVENT, {"type": "track"}, 5, EVENT]})
    assert (response.status_code, response.json()["accepted"], response.json()["rejected"]) == (200, 2, 2)


def test_lines_are_named_by_producer_and_sequence() -> None:
    backends = Backends()
    headers = WRITE | {"X-Rebu-Producer": "shipper", "X-Rebu-Sequence": "7", "Content-Type": "text/plain"}
    line = BODIES["/v1/logs/access"]["content"]
    for content in (line * 2, line):
        assert write(backends, "/v1/logs/access", headers=headers, content=content).status_code == 200
    (_, two, _, producer, sequence), (_, one, _, _, _) = backends.intake.taken
    assert (producer, sequence) == ("shipper", 7)
    assert two[0].id != two[1].id
    assert one[0].id == two[0].id


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (BadRequest(429, "overloaded", "too many writes at the moment: send again", 7), (429, "overloaded")),
        (unavailable(7), (503, "unavailable")),
    ],
)
@pytest.mark.parametrize("path", BODIES)
def test_who_cannot_be_served_is_told_when_to_come_back(
    path: str, failure: Exception, outcome: tuple[int, str]
) -> None:
    response = write(Backends(FakeIntake(failure)), path, headers=WRITE, **BODIES[path])
    assert refused(response) == outcome
    assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize("path", BODIES)
def test_an_overloaded_platform_refuses_before_it_reads(path: str) -> None:
    """What is sent is no JSON: nobody looks."""
    backends = Backends()
    backends.intake.wait_s = 3.2
    response = write(backends, path, headers=WRITE, content=b"{nonsense")
    assert refused(response) == (429, "overloaded")
    assert response.headers["retry-after"] == "4"
    assert backends.intake.taken == []


def test_what_should_not_happen_is_an_answer_too() -> None:
    backends = Backends(FakeIntake(RuntimeError("odd")))
    response = write(backends, "/v1/track", headers=WRITE, json=EVENT)
    assert refused(response) == (500, "internal_error")
    assert "odd" not in response.text
    labels = {"method": "POST", "route": "/v1/track", "status": "500"}
    assert backends.measures.registry.get_sample_value("rebu_gateway_responses_total", labels) == 1


def test_sources_are_those_of_the_contract() -> None:
    logs = {path.rpartition("/")[2] for path in BODIES if path.startswith("/v1/logs/")}
    assert logs | {"otlp", "computed"} | TABLES.keys() == set(Source)


def test_who_sends_rubbish_is_suspended_and_others_of_the_same_key_go_on() -> None:
    bad = WRITE | {"X-Rebu-Producer": "web-7", "X-Forwarded-For": "203.0.113.7", "User-Agent": "shipper/1"}

    async def scene(client: httpx.AsyncClient) -> list[tuple[int, dict[str, Any]]]:
        rubbish = b"no line\n" * 1100
        found = []
        for path, headers, content in (
            ("access", bad, rubbish),
            ("access", bad, BODIES["/v1/logs/access"]["content"]),
            ("error", bad, BODIES["/v1/logs/error"]["content"]),
            ("access", bad | {"X-Rebu-Producer": "web-8"}, BODIES["/v1/logs/access"]["content"]),
            ("access", bad | {"X-Forwarded-For": "203.0.113.8"}, BODIES["/v1/logs/access"]["content"]),
            ("access", bad | {"User-Agent": "shipper/2"}, BODIES["/v1/logs/access"]["content"]),
            ("access", bad | ADMIN, BODIES["/v1/logs/access"]["content"]),
            ("access", WRITE, BODIES["/v1/logs/access"]["content"]),
        ):
            answer = await client.post(f"/v1/logs/{path}", content=content, headers=headers)
            found.append((answer.status_code, answer.json()))
        return found

    backends = Backends()
    (first, refusal, *others) = asyncio.run(visit(backends, scene))
    assert (first[0], first[1]["rejected"]) == (200, 1100)
    assert (refusal[0], refusal[1]["code"]) == (503, "source_suspended")
    assert [(status, body.get("accepted")) for status, body in others] == [(200, 1)] * 6
    assert backends.asked == ["suspended"]


def test_a_key_that_asks_too_often_is_told_when_to_come_again() -> None:
    keys = LiveKeys.watched(Watch("nowhere-at-all", KEYS, rate=3, clock=lambda: 0.0))

    async def scene(client: httpx.AsyncClient) -> list[httpx.Response]:
        sent = [await client.post("/v1/track", json=EVENT, headers=WRITE) for _ in range(4)]
        in_body = await client.post("/v1/track", json=EVENT | {"writeKey": "write-key"})
        return [*sent, in_body, await client.post("/v1/track", json=EVENT, headers=ADMIN)]

    *good, fourth, in_body, other = asyncio.run(visit(Backends(), scene, keys))
    assert [answer.status_code for answer in (*good, other)] == [200] * 4
    for answer in (fourth, in_body):
        assert refused(answer) == (429, "rate_limited")
        assert answer.headers["retry-after"] == "1"
