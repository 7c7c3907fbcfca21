"""Senders that go on whatever happens, and remember what they were promised."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final

import httpx

from rebu_ray.records import derived_id
from tests.system.running import Item, Running, await_true

USERS: Final = 6
BATCH: Final = 10
PAUSE_SECONDS: Final = 0.05
"""Between two batches of a writer: tests wait for what happens meanwhile, which wants the cores more."""
RESENT: Final = 11
"""Every so manieth request that was acknowledged is sent once more, on purpose."""


class Load:
    """Writers of batches, each of which is sent again until it is acknowledged, as the SDKs do.

    A batch is a user's events in one of several formats, those of their phone, or an error line and the access line
    that names its user. Now and then one is sent again although it was acknowledged: all of it must be a duplicate.
    """

    def __init__(
        self,
        platform: Running,
        name: str,
        writers: int = 4,
        *,
        users: int = USERS,
        pause: float = PAUSE_SECONDS,
        mistakes: bool = False,
    ) -> None:
        """`pause`: seconds between two batches of a writer. `mistakes`: some batches hold a record that is none."""
        self._url = platform.url
        self._key = platform.write_key
        self._pause, self._mistakes = pause, mistakes
        self.name = name
        self.users = [f"{name}-{number}" for number in range(users)]
        self.acknowledged: dict[str, list[str]] = {user: [] for user in self.users}
        self.latest: dict[str, deque[tuple[int, str]]] = {user: deque(maxlen=100) for user in self.users}
        """Event times and ids of what was acknowledged last."""
        self.joined: dict[str, list[str]] = {user: [] for user in self.users}
        """Error lines, which find their user by way of another shard and may come a moment later."""
        self.refused: list[str] = []
        """Ids of records that were refused, and are dead letters."""
        self.resent = 0
        self.sent: set[str] = set()
        self.answers: Counter[int] = Counter()
        self.other: list[str] = []
        """Answers other than 200 and those that say when to come again. Many an SDK takes them for final."""
        self.broken: Counter[str] = Counter()
        """Requests that were not answered at all."""
        self.problems: list[str] = []
        self._numbers = itertools.count()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._write, daemon=True) for _ in range(writers)]

    def __enter__(self) -> Load:
        now = time.time_ns() // 1_000_000
        phones = [
            self._event(f"{user}-link", now, user, type="identify", anonymousId=f"{user}-phone") for user in self.users
        ]
        answer = httpx.post(f"{self._url}/v1/batch", json={"batch": phones}, headers=self._headers(), timeout=120)
        assert answer.json()["accepted"] == len(self.users)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(180)
            assert not thread.is_alive()

    def await_more(self, count: int) -> None:
        """Wait until so many more records are acknowledged."""
        least = self.total + count
        await_true(lambda: self.total >= least or self.problems, f"{count} more records to be acknowledged")
        assert not self.problems, self.problems

    @property
    def total(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def check(self, platform: Running) -> None:
        """Everything that was acknowledged is there, once each, in order, and nothing that was never sent."""
        assert not self.problems, self.problems[:5]
        for user in self.users:
            items = platform.history(user, limit=1000)
            found = [item["id"] for item in items]
            assert len(set(found)) == len(found), f"{user} has {len(found) - len(set(found))} records twice"
            lacking = set(self.acknowledged[user]) - set(found)
            assert not lacking, f"{user} lacks {len(lacking)} of {len(self.acknowledged[user])}: {sorted(lacking)[:5]}"
            assert set(found) <= self.sent | {f"{user}-link"}, f"{user} has what was never sent"
            places = [(item["timestamp"], item["id"]) for item in items]
            assert places == sorted(places, reverse=True), f"the history of {user} is out of order"
            joined = set(self.joined[user])
            await_true(lambda u=user, j=joined: j <= self._ids(platform, u), f"error lines of {user}")  # type: ignore[misc]
        letters = [item["record"].get("messageId") for item in platform.deadletters(limit=1000)] if self.refused else []
        for refused in self.refused:
            assert letters.count(refused) == 1, f"{refused} is {letters.count(refused)} times among the dead letters"

    def _ids(self, platform: Running, user: str) -> set[str]:
        return {item["id"] for item in platform.history(user, limit=1000)}

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}

    def _event(self, record_id: str, at: int, user: str | None, **fields: Any) -> Item:
        return {"type": "track", "event": "Tapped", "messageId": record_id, "userId": user, "timestamp": at, **fields}

    def _write(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers(), timeout=120) as http:
            while not self._done.is_set():
                number = next(self._numbers)
                user = self.users[number % len(self.users)]
                now = time.time_ns() // 1_000_000
                told = self._batch(http, number, user, now)
                with self._lock:
                    self.acknowledged[user] += told
                    self.latest[user] += [(now, name) for name in told]
                self._done.wait(self._pause)

    def _batch(self, http: httpx.Client, number: int, user: str, now: int) -> list[str]:
        """Send one batch; the ids that were acknowledged as this user's."""
        names = [f"{self.name}-{number}-{n}" for n in range(BATCH)]
        match number // len(self.users) % 7:
            case 0:
                events = [self._event(n, now, user) for n in names]
                bad = f"{self.name}-{number}-bad" if self._mistakes else None
                mistakes = [] if bad is None else [self._event(bad, now, None)]
                told = self._send(http, "/v1/batch", {"batch": [*events, *mistakes]}, names, bad)
                if told and bad:
                    self.refused.append(bad)
                return told
            case 1:
                phone = [self._event(n, now, None, anonymousId=f"{user}-phone") for n in names]
                return self._send(http, "/v1/batch", {"batch": phone}, names)
            case 2:
                return self._send_lines(http, user, f"{self.name}-request-{number}", now, names)
            case 3:
                plain = [{"id": n, "user_id": user, "event": "Tapped", "time": now} for n in names]
                text = "".join(f"{json.dumps(line)}\n" for line in plain).encode()
                return self._send(http, "/v1/logs/app-events", text, names, None, "application/x-ndjson")
            case 4:
                fault = {"type": "error", "error": {"name": "Boom", "message": "no answer"}}
                return self._send(
                    http, "/v1/logs/app-errors", [self._event(n, now, user, **fault) for n in names], names
                )
            case 5:
                return self._send_access(http, user, number, now, len(names))
            case _:
                return self._send(http, "/v1/logs", _otlp(names, user, now), names)

    def _send_lines(self, http: httpx.Client, user: str, request: str, now: int, names: list[str]) -> list[str]:
        """Errors of a request, then the access line that names its user: that one is answered for here."""
        faults = [
            {"id": name, "level": "error", "message": "boom", "request_id": request, "time": now} for name in names[1:]
        ]
        known = {"id": names[0], "method": "GET", "path": "/rides", "status": 500, "user_id": user, "time": now}
        errors = self._send(http, "/v1/logs/error", faults, names[1:])
        told = self._send(http, "/v1/logs/access", [known | {"request_id": request}], names[:1])
        if told:
            with self._lock:
                self.joined[user] += errors
        return told

    def _send_access(self, http: httpx.Client, user: str, number: int, now: int, count: int) -> list[str]:
        """Lines of a log without ids: producer and sequence name them."""
        at = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now / 1000))
        lines = [f'10.0.0.{n} - {user} [{at}] "GET /prices HTTP/1.1" 200 {number}' for n in range(count)]
        first = number * BATCH
        names = [derived_id("access", line.encode(), n, self.name, first + n) for n, line in enumerate(lines)]
        text = "".join(f"{line}\n" for line in lines).encode()
        headers = {"X-Rebu-Producer": self.name, "X-Rebu-Sequence": str(first)}
        return self._send(http, "/v1/logs/access", text, names, None, "text/plain", headers)

    def _send(
        self,
        http: httpx.Client,
        path: str,
        body: object,
        names: Sequence[str],
        bad: str | None = None,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> list[str]:
        """Send until it is acknowledged; what was, which is nothing where the end came first."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": content_type, **(headers or {})}
        with self._lock:
            self.sent.update(names)
        receipt = self._until_told(http, path, content, sent)
        if receipt is None:
            return []
        self._note(receipt, receipt.get("rejected", 0) == (bad is not None), len(names))
        if int.from_bytes(names[0].encode()[-4:]) % RESENT == 0:
            again = self._until_told(http, path, content, sent)
            if again is not None:
                self.resent += len(names)
                self._note(again, again["accepted"] == 0, len(names))
        return list(names)

    def _note(self, receipt: Item, right: bool, count: int) -> None:
        if not (right and receipt["accepted"] + receipt["duplicate"] == count):
            self.problems.append(json.dumps(receipt))

    def _until_told(self, http: httpx.Client, path: str, content: bytes, headers: dict[str, str]) -> Item | None:
        """The receipt; None where the end came first."""
        while not self._done.is_set():
            try:
                answer = http.post(path, content=content, headers=headers)
            except httpx.TransportError as error:
                with self._lock:
                    self.broken[type(error).__name__] += 1
                self._done.wait(0.1)
                continue
            with self._lock:
                self.answers[answer.status_code] += 1
                if answer.status_code == 200:
                    receipt: Item = answer.json()
                    return receipt
                if answer.status_code not in (429, 503):
                    self.other.append(f"{path}: {answer.status_code}: {answer.text}")
                elif "retry-after" not in answer.headers:
                    self.other.append(f"{path}: {answer.status_code} without Retry-After: {answer.text}")
            self._done.wait(0.1)
        return None


def _otlp(names: Sequence[str], user: str, now: int) -> Item:
    """Log records as OpenTelemetry's exporters send them."""
    records = [
        {
            "timeUnixNano": str(now * 1_000_000),
            "severityNumber": 9,
            "body": {"stringValue": "fare shown"},
            "attributes": [
                {"key": "log.record.uid", "value": {"stringValue": name}},
                {"key": "user.id", "value": {"stringValue": user}},
            ],
        }
        for name in names
    ]
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}
