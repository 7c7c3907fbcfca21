"""Requests that are refused as a whole, bombs, and bytes that mean nothing: a word to act on, and nobody falls over."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator

import httpx
import pytest
import zstandard

from tests.system.running import Running, processes_of

pytestmark = pytest.mark.system

MEGABYTE = 1024 * 1024
LOGS = [f"/v1/logs/{source}" for source in ("access", "error", "app-events", "app-errors")]
CALLS = [f"/v1/{call}" for call in ("batch", "track", "identify", "page", "screen", "group", "alias")]
ROUTES = [*CALLS, *LOGS, "/v1/logs"]


def check(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert set(answer.json()) == {"code", "message"}
    assert len(answer.json()["message"]) > 20


@pytest.mark.parametrize("path", [*CALLS, "/v1/logs", "/v1/logs/app-events", "/v1/logs/access"])
@pytest.mark.parametrize("body", [b"{", b"nonsense", b'{"batch": [', b"\xff\xfe{}", b"[1, 2", b"<xml/>", b""])
def test_what_is_no_json_is_refused(rebu_up: Running, path: str, body: bytes) -> None:
    check(rebu_up.post(path, body), 400, "invalid_json")


@pytest.mark.parametrize("body", [[], {}, {"batch": {}}, {"batch": None}, {"messages": []}, 17, "text", None])
def test_what_is_no_batch_is_refused(rebu_up: Running, body: object) -> None:
    check(rebu_up.post("/v1/batch", body), 400, "invalid_json")


def test_an_unknown_form_is_refused(rebu_up: Running) -> None:
    for path in LOGS:
        check(rebu_up.post(path, b"<x/>", "application/xml"), 415, "unsupported_media_type")
    check(rebu_up.post("/v1/logs", b"a line", "text/plain"), 415, "unsupported_media_type")
    for path in ROUTES:
        check(rebu_up.post(path, b"{}", Content_Encoding="br"), 415, "unsupported_media_type")
        check(rebu_up.post(path, b"{}", Content_Encoding="gzip"), 400, "invalid_body")
        check(rebu_up.post(path, gzip.compress(b"{}" * 50)[:-9], Content_Encoding="gzip"), 400, "invalid_body")
        check(rebu_up.post(path, zstandard.compress(b"{}" * 50)[:-3], Content_Encoding="zstd"), 400, "invalid_body")
    check(rebu_up.post("/v1/logs", b"\xff\xff\xff", "application/x-protobuf"), 400, "invalid_protobuf")
    check(rebu_up.post("/v1/logs/nonsense", b"x", "text/plain"), 404, "unknown_source")
    check(rebu_up.post("/v1/nonsense", b"x", "text/plain"), 404, "not_found")
    for sequence in ("-1", "x", "1.5", "9" * 30, ""):
        answer = rebu_up.post("/v1/logs/access", b"x", "text/plain", X_Rebu_Producer="p", X_Rebu_Sequence=sequence)
        check(answer, 400, "invalid_sequence")


def bombs() -> Iterator[tuple[str, bytes]]:
    zeros = gzip.compress(bytes(51 * MEGABYTE))
    yield "gzip", zeros
    yield "gzip", gzip.compress(b'{"batch":[' + b" " * (51 * MEGABYTE) + b"]}")
    yield "zstd", zstandard.compress(bytes(51 * MEGABYTE))
    streamed = zstandard.ZstdCompressor().compressobj()
    yield "zstd", b"".join([*(streamed.compress(bytes(MEGABYTE)) for _ in range(300)), streamed.flush()])
    yield "gzip", b"".join(gzip.compress(bytes(MEGABYTE)) for _ in range(60))


def test_what_is_too_large_is_refused_packed_or_not(rebu_up: Running) -> None:
    workers = work_force(rebu_up)
    over = b" " * (5 * MEGABYTE + 1)
    for path in ("/v1/batch", "/v1/logs/access", "/v1/logs"):
        check(rebu_up.post(path, over), 413, "too_large")
        check(rebu_up.post(path, over, Content_Encoding="gzip"), 413, "too_large")
    for encoding, body in bombs():
        for path in ("/v1/batch", "/v1/logs/error"):
            check(rebu_up.post(path, body, Content_Encoding=encoding), 413, "too_large")

    def unannounced() -> Iterator[bytes]:
        for _ in range(6):
            yield bytes(MEGABYTE)

    headers = {"Authorization": f"Bearer {rebu_up.write_key}", "Content-Type": "text/plain"}
    check(rebu_up.http.post("/v1/logs/access", content=unannounced(), headers=headers), 413, "too_large")
    # Nobody unknown gets as far as that.
    answer = rebu_up.http.post("/v1/logs/access", content=over[:MEGABYTE], headers={"Authorization": "Bearer x"})
    check(answer, 401, "unauthorized")
    assert workers <= work_force(rebu_up)


@pytest.mark.parametrize(
    "body",
    [
        b'{"batch":[' + b"[" * 200_000 + b"]" * 200_000 + b"]}",
        b"[" * 1_000_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"batch":[' + b"{}," * 9_000_000 + b"{}]}",
        b'{"batch":[{"type":"track","userId":"x","messageId":"' + b"i" * 1_000_000 + b'"}]}',
        b'{"batch":[{"type":"track","userId":' + b"9" * 1_000_000 + b"}]}",
        b'{"batch":[{"type":"track","userId":"\\ud800","messageId":"m"}]}',
        b'{"batch":[{"type":"track","userId":"a\\u0000b","messageId":"m"}]}',
        b'{"batch":[],"sentAt":' + b"1" * 5000 + b"}",
    ],
    ids=[
        "deep list",
        "open lists",
        "deep object",
        "many empty ones",
        "long id",
        "long number",
        "surrogate",
        "nul",
        "sent",
    ],
)
def test_json_that_means_harm_is_answered(rebu_up: Running, body: bytes) -> None:
    workers = work_force(rebu_up)
    for path, kind in (
        ("/v1/batch", "application/json"),
        ("/v1/track", "application/json"),
        ("/v1/logs/app-errors", "text/plain"),
    ):
        answer = rebu_up.post(path, gzip.compress(body, 1), kind, Content_Encoding="gzip")
        assert answer.status_code in (200, 400, 413), (path, answer.text)
        if answer.status_code == 200:
            assert answer.json()["accepted"] == 0, path
    assert workers <= work_force(rebu_up)


def test_no_bytes_and_no_headers_bring_anybody_down(rebu_up: Running) -> None:
    rng = random.Random(3)
    workers, pids = work_force(rebu_up), rebu_up.shard_pids()
    good = json.dumps({"batch": [{"type": "track", "userId": "f1", "messageId": "f1", "timestamp": 1}] * 3}).encode()
    kinds = [
        "",
        "application/json",
        "text/plain",
        "application/x-ndjson",
        "application/x-protobuf",
        "nonsense",
        "a" * 5000,
    ]
    seen: set[int] = set()
    for _ in range(400):
        match rng.randrange(4):
            case 0:
                body = rng.randbytes(rng.randrange(400))
            case 1:
                body = good
                for _ in range(rng.randrange(1, 6)):
                    spot = rng.randrange(len(body))
                    body = body[:spot] + rng.randbytes(1) + body[spot + 1 :]
            case 2:
                body = good[: rng.randrange(len(good))] + rng.choice((b"", b"\n", b"\0", b"]}", b'"'))
            case _:
                body = b"\n".join(rng.choice((good, b"[", b'"', b"{}", b"\xf0\x9f", b"1e999", b"-")) for _ in range(20))
        headers = {
            "Content_Encoding": rng.choice(("", "", "", "gzip", "zstd", "identity", "deflate")),
            "X_Rebu_Producer": rng.choice(("", "p", "p\xff")),
            "X_Rebu_Sequence": rng.choice(("", "0", "18446744073709551616")),
        }
        headers = {name: value for name, value in headers.items() if value}
        answer = rebu_up.post(rng.choice(ROUTES), body, rng.choice(kinds), **headers)
        assert answer.status_code < 500, (answer.status_code, answer.text, body, headers)
        if answer.status_code != 200:
            assert set(answer.json()) == {"code", "message"}
        seen.add(answer.status_code)
    assert {200, 400, 415} <= seen
    assert rebu_up.shard_pids() == pids
    assert workers <= work_force(rebu_up)
    assert rebu_up.status()["shards"][0]["index"] == "current"


def work_force(platform: Running) -> set[int]:
    """The processes that do the work, shards and replicas; there may be more of them later."""
    found = {process.pid for process in processes_of(platform.data_dir, "Shard|ServeReplica")}
    assert len(found) >= 4
    return found
