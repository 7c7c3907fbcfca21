"""Clients that mean harm or cannot help it, on bare sockets: a clear word or a closed connection, and others are
served meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from rebu_ray.platform.haproxy import SLOW_SECONDS
from tests.system.load import Load
from tests.system.running import Running, processes_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

EVENT = {"type": "track", "event": "Tapped", "userId": "h", "timestamp": 1}


def work_force(platform: Running) -> set[int]:
    """The processes that do the work, shards, replicas and the proxy; there may be more of them later."""
    return {process.pid for process in processes_of(platform.data_dir, "Shard|ServeReplica|haproxy")}


@contextmanager
def unharmed(platform: Running, name: str, records: int = 100) -> Iterator[Load]:
    """Others write all the while, are answered, and find what they were promised; nobody dies."""
    workers, pids = work_force(platform), platform.shard_pids()
    with Load(platform, name, writers=2) as load:
        load.await_more(records)
        yield load
        load.await_more(records)
    load.check(platform)
    assert not load.other, (load.answers, set(load.other))
    assert workers <= work_force(platform)
    assert platform.shard_pids() == pids


def connect(platform: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", platform.port), timeout=60)


def head(platform: Running, *headers: str, path: str = "/v1/batch", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: rebu", f"Authorization: Bearer {platform.write_key}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The status of what comes, and its body; 0 where the connection just ends."""
    data, length = b"", None
    with contextlib.suppress(ConnectionResetError):
        while True:
            part = connection.recv(65536)
            data += part
            before, _, body = data.partition(b"\r\n\r\n")
            length = next(
                (int(line.split(b":")[1]) for line in before.split(b"\r\n") if line.lower().startswith(b"content-len")),
                None,
            )
            if not part or (length is not None and len(body) >= length):
                break
    return (int(data.split()[1]), data.partition(b"\r\n\r\n")[2][:length]) if data else (0, b"")


def refused(connection: socket.socket, *statuses: int, headers_came: bool = True) -> None:
    """It ends in one of these, with a word to act on: HAProxy's own where it never saw the headers of a request."""
    status, body = answer(connection)
    assert status in statuses, (status, body)
    if status and headers_came:
        said = json.loads(body)
        assert set(said) == {"code", "message"}
        assert len(said["message"]) > 20
    elif status:
        assert f"<h1>{status} ".encode() in body


def test_slow_headers_and_slow_bodies_end_in_a_timeout(rebu_up: Running) -> None:
    """More of them than a replica answers at once."""
    batch = json.dumps({"batch": [EVENT]}).encode()
    with unharmed(rebu_up, "slow"), ExitStack() as stack:
        lines = [stack.enter_context(connect(rebu_up)) for _ in range(150)]
        bodies = [stack.enter_context(connect(rebu_up)) for _ in range(300)]
        for connection in lines:
            connection.sendall(b"POST /v1/batch HTTP/1.1\r\nHost: rebu\r\nX-Slow: ")
        for connection in bodies:
            connection.sendall(head(rebu_up, f"Content-Length: {len(batch)}") + batch[:5])
        until = time.monotonic() + SLOW_SECONDS + 3
        while time.monotonic() < until:
            for connection in (*lines, *bodies):
                with contextlib.suppress(OSError):  # ended already
                    connection.send(b"a")
            time.sleep(1)
        for connection in lines:
            refused(connection, 408, headers_came=False)
        for connection in bodies:
            refused(connection, 408)


def errors_of(platform: Running) -> set[str]:
    """How often each gateway answered with a 5xx, and to what."""
    return set(re.findall(r'rebu_gateway_responses_total\{.*status="5.*', platform.http.get("/metrics").text))


def test_half_sent_bodies_store_nothing(rebu_up: Running) -> None:
    before = errors_of(rebu_up)
    lines = "".join(f'{{"id":"half-{n}","userId":"half","event":"x","type":"track"}}\n' for n in range(2000)).encode()
    with unharmed(rebu_up, "half"):
        for cut in (1, 100, 20_000, len(lines) - 1):
            with connect(rebu_up) as connection:
                kind = "Content-Type: application/x-ndjson"
                start = head(rebu_up, f"Content-Length: {len(lines)}", kind, path="/v1/logs/app-events")
                connection.sendall(start + lines[:cut])
            with connect(rebu_up) as connection:
                start = head(rebu_up, "Transfer-Encoding: chunked", kind, path="/v1/logs/app-events")
                connection.sendall(start + f"{len(lines):x}\r\n".encode() + lines[:cut])
    assert rebu_up.history("half") == []
    # What was broken off is nobody's fault here: no error was counted.
    assert errors_of(rebu_up) == before


def test_ten_thousand_tiny_requests_are_all_answered(rebu_up: Running) -> None:
    seen: Counter[int] = Counter()

    async def send(numbers: Iterator[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rebu_up.port)
        for number in numbers:
            body = json.dumps(EVENT | {"messageId": f"small-{number}", "userId": f"small-{number % 50}"}).encode()
            writer.write(head(rebu_up, f"Content-Length: {len(body)}", path="/v1/track") + body)
            status = (await reader.readline()).split()[1]
            length = 0
            while (line := await reader.readline()).strip():
                if line.lower().startswith(b"content-length"):
                    length = int(line.split(b":")[1])
            await reader.readexactly(length)
            seen[int(status)] += 1
        writer.close()

    async def send_all() -> None:
        numbers = iter(range(10_000))
        await asyncio.gather(*(send(numbers) for _ in range(200)))

    with unharmed(rebu_up, "tiny"):
        asyncio.run(send_all())
    assert sum(seen.values()) == 10_000
    assert set(seen) <= {200, 429}, seen
    stored = sum(len(rebu_up.history(f"small-{user}", limit=1000)) for user in range(50))
    assert stored == seen[200]


def test_header_floods_and_long_queries_are_refused(rebu_up: Running) -> None:
    with unharmed(rebu_up, "flood"):
        for headers in (
            [f"X-{n}: {'v' * 50}" for n in range(2000)],
            ["X-Long: " + "v" * 100_000],
            [f"X-{n}: 1" for n in range(20_000)],
            ["X-Nul: a\0b"],
            ["Bad Header"],
            ["Content-Length: 1", "Content-Length: 2"],
            ["Content-Length: -1"],
            ["Content-Length: 99999999999999999999999"],
            ["Transfer-Encoding: nonsense, chunked, chunked"],
        ):
            with connect(rebu_up) as connection:
                with contextlib.suppress(OSError):  # ended before all was sent
                    connection.sendall(head(rebu_up, *headers))
                refused(connection, 400, 0, headers_came=False)
        for path in (
            "/v1/rides?" + "a" * 100_000,
            "/v1/users/" + "u" * 60_000 + "/events",
            "/v1/batch?" + "x&" * 40_000,
        ):
            with connect(rebu_up) as connection:
                with contextlib.suppress(OSError):
                    connection.sendall(head(rebu_up, path=path, method="GET"))
                refused(connection, 400, 0, headers_came=False)
        for raw in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\0" * 1000,
            b"GET\r\n\r\n",
            b"\r\n" * 5000 + b"x y z\r\n",
        ):
            with connect(rebu_up) as connection:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                refused(connection, 400, headers_came=False)


def test_a_long_query_within_the_bounds_is_answered_by_the_routes(rebu_up: Running) -> None:
    for path in ("/v1/rides", "/v1/users/u/events", "/v1/deadletters"):
        found = rebu_up.get(path, {"x" * 4000: "y" * 4000}, rebu_up.admin_key)
        assert (found.status_code, found.json()["code"]) == (400, "unknown_parameter")
        found = rebu_up.get(path, {"cursor": "A" * 8000}, rebu_up.admin_key)
        assert (found.status_code, found.json()["code"]) == (400, "invalid_cursor")
        found = rebu_up.get(path, {"limit": "9" * 8000}, rebu_up.admin_key)
        assert (found.status_code, found.json()["code"]) == (400, "invalid_limit")


def test_a_body_shorter_or_longer_than_it_says_harms_nobody(rebu_up: Running) -> None:
    body = json.dumps({"batch": [EVENT | {"messageId": "length-1", "userId": "length"}]}).encode()
    with unharmed(rebu_up, "length"):
        with connect(rebu_up) as connection:  # the rest would be the next request
            connection.sendall(head(rebu_up, f"Content-Length: {len(body) - 5}") + body)
            refused(connection, 400)
        with connect(rebu_up) as connection:
            connection.sendall(head(rebu_up, f"Content-Length: {len(body) + 50}") + body)
            refused(connection, 408, 0)
        with connect(rebu_up) as connection:  # both at once: how requests are smuggled
            both = head(rebu_up, f"Content-Length: {len(body)}", "Transfer-Encoding: chunked")
            connection.sendall(both + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: rebu\r\n\r\n")
            refused(connection, 400, 0)
    assert rebu_up.history("length") == []


def test_chunks_without_end_are_cut_off(rebu_up: Running) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with unharmed(rebu_up, "chunks"), ExitStack() as stack:
        fast = [stack.enter_context(connect(rebu_up)) for _ in range(4)]
        for connection in fast:
            connection.sendall(head(rebu_up, "Transfer-Encoding: chunked"))
            with contextlib.suppress(OSError):
                for _ in range(200):
                    connection.sendall(chunk)
            refused(connection, 413, 0)
        with connect(rebu_up) as connection:
            connection.sendall(head(rebu_up, "Transfer-Encoding: chunked") + b"zz\r\nno chunk")
            refused(connection, 400, 0, headers_came=False)


def test_bombs_beside_each_other_leave_room_for_others(rebu_up: Running) -> None:
    bomb = gzip.compress(b'{"batch":[' + b"{}," * 4_000_000 + b"{}]}", 9)
    large = gzip.compress(b'{"batch":[' + b" " * (45 * 1024 * 1024) + b"]}", 9)

    async def send(body: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", rebu_up.port)
        writer.write(
            head(rebu_up, f"Content-Length: {len(body)}", "Content-Encoding: gzip", "Connection: close") + body
        )
        found = await reader.read()
        writer.close()
        return int(found.split()[1])

    async def send_all() -> list[int]:
        return await asyncio.gather(*(send(body) for body in [bomb, large] * 10))

    with unharmed(rebu_up, "bombs"):
        seen = Counter(asyncio.run(send_all()))
    assert set(seen) <= {200, 400, 413, 429}, seen


@pytest.mark.parametrize("table", ["users", "rides", "messages"])
def test_rows_of_random_bytes_are_refused_one_by_one(rebu_up: Running, table: str) -> None:
    rng = random.Random(table)
    good = json.dumps(
        {"user_id": "u", "ride_id": "r", "message_id": "m", "updated_at": "2026-03-01T00:00:00Z"}
    ).encode()
    spoilt = [
        b'{"user_id":"a\\u0000b"}',
        b'{"user_id":"\\ud800"}',
        b'{"updated_at":1e999}',
        b'{"user_id":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"fare_cents":' + b"9" * 5000 + b"}",
        b'{"user_id":"' + b"x" * 40_000 + b'"}',
        b"null",
        b"[]",
        b"\xff\xfe",
    ]
    for _ in range(60):
        rows = [rng.choice([*spoilt, good[: rng.randrange(len(good))], rng.randbytes(30)]) for _ in range(5)]
        found = rebu_up.post(f"/v1/records/{table}", b"\n".join(rows), "application/x-ndjson")
        assert found.status_code in (200, 400), found.text
        if found.status_code == 200:
            assert found.json()["rejected"] > 0
        else:
            assert set(found.json()) == {"code", "message"}
