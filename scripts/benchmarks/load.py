"""A bounded HTTP load generator: keep-alive connections on one event loop, bodies made beforehand.

As a program: requests/s and latencies of one URL. As a module: `drive`, shared by the benchmarks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import statistics
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from urllib.parse import urlsplit

import httptools
import uvloop

REFUSED = (429, 503)
PAUSE_S = 0.05
"""How long a refused request waits before it is sent again: less than Retry-After asks, as some SDKs do."""


@dataclass
class Outcome:
    """What a run of `drive` saw."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    """Of the requests answered with 200."""
    broken: int = 0
    """Connections that ended before their answer did."""
    cpu_s: float = 0.0
    """What the load generator itself took."""
    answered: list[int] = field(default_factory=list)
    """Indices of the requests answered with 200."""

    @property
    def requests_per_s(self) -> float:
        return self.statuses[200] / self.seconds

    @property
    def failures(self) -> dict[str, int]:
        """Everything but a 200, by status; `broken` for lost connections."""
        failures = {str(status): count for status, count in sorted(self.statuses.items()) if status != 200}
        return failures | ({"broken": self.broken} if self.broken else {})

    def latency_ms(self, percent: int) -> float:
        if len(self.latencies_s) < 2:
            return float("nan")
        return statistics.quantiles(self.latencies_s, n=100, method="inclusive")[percent - 1] * 1000

    def __str__(self) -> str:
        parts = [f"{self.requests_per_s:,.0f} requests/s", f"p50 {self.latency_ms(50):.1f} ms"]
        parts += [f"p99 {self.latency_ms(99):.1f} ms", f"generator {self.cpu_s / self.seconds:.0%} of a core"]
        return ", ".join(parts + [f"{count} x {what}" for what, count in self.failures.items()])


class Connection(asyncio.Protocol):
    """One request at a time over one connection; it opens itself again where the server closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body: list[bytes] = []

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer. Raises ConnectionError where it does not come whole."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            self._transport, _ = await loop.create_connection(lambda: self, *self._address)
        self._answer = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = []

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._body)))
        if not self._parser.should_keep_alive():
            self.close()
            self._transport = None

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the server closed the connection before it answered"))


async def _drive(
    address: tuple[str, int],
    requests: Sequence[bytes],
    order: Iterator[int],
    connections: int,
    until: float,
    on_answer: Callable[[int, bytes], None] | None,
) -> Outcome:
    outcome = Outcome()

    async def work() -> None:
        connection = Connection(*address)
        again: int | None = None
        while time.perf_counter() < until:
            if again is None:
                again = next(order, None)
                if again is None:
                    break
            index = again
            sent = time.perf_counter()
            try:
                status, body = await connection.exchange(requests[index])
            except OSError:
                outcome.broken += 1
                await asyncio.sleep(PAUSE_S)
                continue
            outcome.statuses[status] += 1
            if status in REFUSED:
                await asyncio.sleep(PAUSE_S)
                continue
            again = None
            if status == 200:
                outcome.latencies_s.append(time.perf_counter() - sent)
                outcome.answered.append(index)
                if on_answer is not None:
                    on_answer(index, body)
        connection.close()

    before, started = _cpu_s(), time.perf_counter()
    async with asyncio.timeout(max(until - started, 0) + 60), asyncio.TaskGroup() as workers:
        for _ in range(connections):
            workers.create_task(work())
    outcome.seconds = time.perf_counter() - started
    outcome.cpu_s = _cpu_s() - before
    return outcome


def drive(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    connections: int = 8,
    seconds: float = 120,
    repeatedly: bool = False,
    seed: int = 1,
    on_answer: Callable[[int, bytes], None] | None = None,
) -> Outcome:
    """Sends each request once, in order; or, `repeatedly`, requests drawn at random until `seconds` have passed.

    A request refused with 429 or 503, or cut off, is sent again after a pause. Raises TimeoutError where an answer
    is a minute late.
    """
    order: Iterable[int] = range(len(requests))
    if repeatedly:
        draw = random.Random(seed)
        order = chain.from_iterable(draw.sample(range(len(requests)), len(requests)) for _ in repeat(None))
    until = time.perf_counter() + seconds
    return uvloop.run(_drive(address, requests, iter(order), connections, until, on_answer))


def request(
    method: str, path: str, *, host: str = "localhost", authorization: str | None = None, body: bytes = b""
) -> bytes:
    """A whole HTTP/1.1 request, ready to be written. A body is JSON."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Accept: application/json"]
    if authorization is not None:
        lines.append(f"Authorization: {authorization}")
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def basic(key: str) -> str:
    """The Authorization header of Segment's SDKs: the key as the user, no password."""
    return "Basic " + b64encode(f"{key}:".encode()).decode()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url")
    parser.add_argument("--body", type=Path, help="send this JSON file with POST")
    parser.add_argument("--key", help="sent as Basic auth, without a password")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    url = urlsplit(arguments.url)
    if url.scheme != "http" or url.hostname is None:
        parser.error("the URL must be like http://127.0.0.1:8000/path")
    body = arguments.body.read_bytes() if arguments.body else b""
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    wire = request(
        "POST" if body else "GET",
        path,
        host=url.netloc,
        authorization=basic(arguments.key) if arguments.key else None,
        body=body,
    )
    outcome = drive(
        (url.hostname, url.port or 80),
        [wire],
        connections=arguments.connections,
        seconds=arguments.seconds,
        repeatedly=True,
    )
    print(outcome)
    if arguments.json:
        numbers = {"requests_per_s": outcome.requests_per_s, "failures": outcome.failures}
        numbers |= {
            "p50_ms": outcome.latency_ms(50),
            "p99_ms": outcome.latency_ms(99),
            "generator_cpu_s": outcome.cpu_s,
        }
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
