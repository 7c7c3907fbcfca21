"""The servers: what they write into access and error logs when the app calls them, and for nobody at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

import msgspec

from rebu_ray.simulate import faults
from rebu_ray.simulate.clock import HOUR, MINUTE, SECOND, combined, nginx, rfc3339
from rebu_ray.simulate.faults import BadKind
from rebu_ray.simulate.identifiers import request_id, uuid_text
from rebu_ray.simulate.people import Phone

Log = Literal["access", "error"]
Service = Literal["api", "dispatch", "maps", "payments", "identity"]

EDGES: Final = ("edge-1", "edge-2")
APIS: Final = ("api-1", "api-2", "api-3")
SERVICES: Final[tuple[Service, ...]] = ("api", "dispatch", "maps", "payments", "identity")
_HOST: Final = "api.rebu.example"
_HEALTH_EVERY: Final = 30 * SECOND
_BAD_SHARE: Final[dict[Log, float]] = {"access": 0.003, "error": 0.01}

_EXCEPTIONS: Final[dict[Service, tuple[tuple[str, str], ...]]] = {
    "api": (("DatabaseDeadlock", "deadlock detected, gave up after 3 tries"), ("StaleRideVersion", "row has changed")),
    "dispatch": (("DispatchQueueFull", "queue length 5000"), ("NoQuorum", "2 of 5 replicas answered")),
    "maps": (("GeocodeUnavailable", "upstream answered 503"), ("RouteTimeout", "no route within 2000 ms")),
    "payments": (("PaymentGatewayTimeout", "no answer within 8000 ms"), ("LedgerConflict", "entry exists already")),
    "identity": (("TokenStoreUnreachable", "connection refused"), ("TooManyAttempts", "12 within a minute")),
}  # fmt: skip
_NGINX_CAUSES: Final = {
    502: "upstream prematurely closed connection while reading response header from upstream",
    503: "no live upstreams while connecting to upstream",
    504: "upstream timed out (110: Connection timed out) while reading response header from upstream",
}
_BOTS: Final = (
    ("GET", "/robots.txt", 404, "Mozilla/5.0 (compatible; Crawlbot/2.1; +http://crawl.example/bot)"),
    ("GET", "/.env", 404, "python-requests/2.31.0"),
    ("GET", "/wp-login.php", 404, "Mozilla/5.0 zgrab/0.x"),
    ("POST", "/xmlrpc.php", 404, "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"),
    ("GET", "/", 301, "curl/8.5.0"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line that `server` writes to its `log` at `at` (ms), without the line end. `bad`: why it must be refused."""

    at: int
    server: str
    log: Log
    raw: bytes
    bad: BadKind | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """A service that is in trouble for a while."""

    service: Service
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    at: int


def incidents(rng: Random, start_ms: int, end_ms: int) -> list[Incident]:
    """At least one, and about one each eight hours, of 5 to 25 minutes."""
    count = max(1, round((end_ms - start_ms) / (8 * HOUR)))
    found = []
    for _ in range(count):
        start = rng.randrange(start_ms, end_ms)
        found.append(Incident(rng.choice(SERVICES), start, start + rng.randrange(5 * MINUTE, 25 * MINUTE)))
    return found


def service_of(method: str, path: str) -> Service:
    """The service that stands behind a path."""
    if "/payment" in path or path.endswith(("/tip", "/receipt")):
        return "payments"
    if method == "POST" and path.endswith("/rides"):
        return "dispatch"
    if "/zones" in path or "/estimates" in path:
        return "maps"
    return "identity" if "/sessions" in path else "api"


class Servers:
    """Answers calls and hands every line that this makes to `write`, in no order."""

    def __init__(self, rng: Random, troubles: list[Incident], write: Callable[[Line], None]) -> None:
        self._rng = rng
        self._troubles = troubles
        self._write = write

    def is_down(self, service: Service, at: int) -> bool:
        return any(trouble.service == service and trouble.start <= at < trouble.end for trouble in self._troubles)

    def call(self, at: int, phone: Phone, user_id: str | None, method: str, path: str, fails: bool = False) -> Answer:
        """The answer to a call that the app makes at `at`; `path` may have a query. `fails`: certainly, else by chance.

        Who called stands in the path, or as the combined log's remote user, or in neither: then now and then only in
        another access line with the same request id.
        """
        rng = self._rng
        service = service_of(method, path.partition("?")[0])
        request = request_id(rng)
        failed = fails or rng.random() < (0.3 if self.is_down(service, at) else 0.01)
        if failed:
            status = rng.choices((500, 502, 503, 504), (50, 20, 10, 20))[0]
        elif method == "POST" and path.endswith("/payments") and rng.random() < 0.05:
            status = 402
        else:
            status = 201 if method == "POST" else 200 if rng.random() < 0.97 else 304
        done = at + (rng.randrange(8000, 12000) if status == 504 else 20 + round(rng.expovariate(1 / 90)))
        edge = rng.choice(EDGES)
        in_path = user_id is not None and f"/users/{user_id}/" in path
        remote = user_id if user_id is not None and rng.random() < (0.25 if in_path else 0.8) else None
        size = 0 if status == 304 else rng.randrange(90, 6000)
        self._access(done, edge, phone.address, remote, method, path, status, size, phone.user_agent, request)
        if user_id is not None and remote is None and not in_path:
            # The line names nobody, but the edge asked another service on the user's behalf.
            hop_path = f"/users/{user_id}/entitlements"
            hop_at = at + rng.randrange(5, 20)
            self._access(
                hop_at, rng.choice(APIS), "10.2.0.7", None, "GET", hop_path, 200, 312, "rebu-edge/3.1", request
            )
        if status >= 500:
            self._failure(at, done, edge, phone, user_id, method, path, status, service, request)
        elif status == 402:
            self._json_error(
                at + 15, "warn", service, request, user_id, None, ("CardDeclined", "issuer said no"), as_type=True
            )
        elif rng.random() < 0.015:
            took = rng.randrange(900, 4000)
            self._json_error(at + took, "warn", service, request, user_id, f"slow query: {took} ms", None)
        return Answer(status, done)

    def noise(self, start: int, end: int) -> None:
        """Health checks and robots within [start, end): lines that are nobody's."""
        rng = self._rng
        for number, server in enumerate(EDGES):
            for at in range(start + number * 7 * SECOND, end, _HEALTH_EVERY):
                self._access(at, server, "10.2.0.2", None, "GET", "/healthz", 200, 2, "kube-probe/1.31", "-")
        at = start
        while (at := at + 1 + round(rng.expovariate(1 / (2 * MINUTE)))) < end:
            method, path, status, agent = rng.choice(_BOTS)
            edge, request = rng.choice(EDGES), request_id(rng)
            address = f"203.0.113.{rng.randrange(1, 255)}"
            self._access(at, edge, address, None, method, path, status, 153, agent, request)
            if status == 404 and rng.random() < 0.5:
                cause = f'open() "/srv/www{path}" failed (2: No such file or directory)'
                self._nginx_error(at, edge, cause, address, f"{method} {path}", request, None)

    def _access(
        self, at: int, server: str, address: str, remote: str | None, method: str, path: str,
        status: int, size: int, agent: str, request: str,
    ) -> None:  # fmt: skip
        line = (
            f'{address} - {remote or "-"} [{combined(at)}] "{method} {path} HTTP/1.1" {status} {size} "-" "{agent}"'
            f' "{request}"'
        )
        self._put(at, server, "access", line.encode())

    def _failure(
        self, at: int, done: int, edge: str, phone: Phone, user_id: str | None, method: str, path: str,
        status: int, service: Service, request: str,
    ) -> None:  # fmt: skip
        rng = self._rng
        cause = _NGINX_CAUSES.get(status)
        if cause is not None:
            named = user_id if rng.random() < 0.15 else None
            self._nginx_error(done - 1, edge, cause, phone.address, f"{method} {path}", request, named)
            if rng.random() < 0.6:
                return
        # A handler says so before the answer is out; a job that outlives the call says so after it.
        moment = rng.randrange(at, done) if rng.random() < 0.8 else done + rng.randrange(1, 90 * SECOND)
        self._json_error(moment, "error", service, request, user_id, None, rng.choice(_EXCEPTIONS[service]))

    def _nginx_error(
        self, at: int, server: str, cause: str, address: str, request_line: str, request: str, user_id: str | None
    ) -> None:
        rng = self._rng
        process = rng.randrange(700, 760)
        line = (
            f"{nginx(at)} [error] {process}#{process}: *{rng.randrange(10**5, 10**7)} {cause}, client: {address}, "
            f'server: {_HOST}, request: "{request_line} HTTP/1.1", host: "{_HOST}", request_id: "{request}"'
        )
        if user_id is not None:
            line += f', user_id: "{user_id}"'
        self._put(at, server, "error", line.encode())

    def _json_error(
        self, at: int, level: str, service: Service, request: str, user_id: str | None, message: str | None,
        error: tuple[str, str] | None, *, as_type: bool = False,
    ) -> None:  # fmt: skip
        rng = self._rng
        line: dict[str, object] = {"timestamp": rfc3339(at), "level": level, "service": service, "request_id": request}
        if service == "payments":
            line["id"] = uuid_text(rng)
        if user_id is not None and rng.random() < 0.25:
            line["user_id"] = user_id
        if error is None:
            line["message"] = message
        elif as_type:
            line["error"] = {"type": error[0], "message": error[1]}
        else:
            stack = f"{error[0]}: {error[1]}\n    at {service}.handler:{rng.randrange(40, 400)}\n    at http.serve:88"
            line |= {
                "message": f"unhandled {error[0]}",
                "error": {"name": error[0], "message": error[1], "stack": stack},
            }
        self._put(at, rng.choice(APIS), "error", msgspec.json.encode(line))

    def _put(self, at: int, server: str, log: Log, raw: bytes) -> None:
        if self._rng.random() < _BAD_SHARE[log]:
            kind, raw = faults.damaged_line(self._rng, raw)
            self._write(Line(at, server, log, raw, kind))
        else:
            self._write(Line(at, server, log, raw))
