"""Senders that go on whatever happens, and remember what they were promised."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from typing import Any, Final

import httpx

from tests.system.running import Item, Running, await_true

USERS: Final = 6


class Load:
    """Writers of batches, each of which is sent again until it is acknowledged, as the SDKs do.

    A batch is a user's events, those of their phone, or an error line and the access line that names its user.
    """

    def __init__(self, platform: Running, name: str, writers: int = 4) -> None:
        self._url = platform.url
        self._key = platform.write_key
        self.name = name
        self.users = [f"{name}-{number}" for number in range(USERS)]
        self.acknowledged: dict[str, list[str]] = {user: [] for user in self.users}
        self.joined: dict[str, list[str]] = {user: [] for user in self.users}
        """Error lines, which find their user by way of another shard and may come a moment later."""
        self.sent: set[str] = set()
        self.answers: Counter[int] = Counter()
        self.other: list[str] = []
        """Answers other than 200 and those that say when to come again. Many an SDK takes them for final."""
        self.problems: list[str] = []
        self._numbers = itertools.count()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._write, daemon=True) for _ in range(writers)]

    def __enter__(self) -> Load:
        phones = [
            self._event(f"{user}-link", user, type="identify", anonymousId=f"{user}-phone") for user in self.users
        ]
        answer = httpx.post(f"{self._url}/v1/batch", json={"batch": phones}, headers=self._headers(), timeout=120)
        assert answer.json()["accepted"] == USERS
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
        """Everything that was acknowledged is there, once each, and nothing that was never sent."""
        assert not self.problems, self.problems
        for user in self.users:
            found = self._ids(platform, user)
            assert len(set(found)) == len(found)
            lacking = set(self.acknowledged[user]) - set(found)
            assert not lacking, f"{user} lacks {len(lacking)} of {len(self.acknowledged[user])}: {sorted(lacking)[:5]}"
            assert set(found) <= self.sent | {f"{user}-link"}
            joined = set(self.joined[user])
            await_true(lambda u=user, j=joined: j <= set(self._ids(platform, u)), f"error lines of {user}")  # type: ignore[misc]

    def _ids(self, platform: Running, user: str) -> list[str]:
        return [item["id"] for item in platform.history(user, limit=1000)]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}

    def _event(self, record_id: str, user: str | None, **fields: Any) -> Item:
        now = time.time_ns() // 1_000_000
        return {"type": "track", "event": "Tapped", "messageId": record_id, "userId": user, "timestamp": now, **fields}

    def _write(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers(), timeout=120) as http:
            while not self._done.is_set():
                number = next(self._numbers)
                user = self.users[number % USERS]
                names = [f"{self.name}-{number}-{n}" for n in range(10)]
                match number // USERS % 3:
                    case 0:
                        told = self._send(http, "/v1/batch", {"batch": [self._event(n, user) for n in names]}, names)
                    case 1:
                        phone = [self._event(n, None, anonymousId=f"{user}-phone") for n in names]
                        told = self._send(http, "/v1/batch", {"batch": phone}, names)
                    case _:
                        told = self._send_lines(http, user, f"{self.name}-request-{number}", names)
                with self._lock:
                    self.acknowledged[user] += told

    def _send_lines(self, http: httpx.Client, user: str, request: str, names: list[str]) -> list[str]:
        """Errors of a request, then the access line that names its user: that one is answered for here."""
        faults = [{"id": name, "level": "error", "message": "boom", "request_id": request} for name in names[1:]]
        known = {"id": names[0], "method": "GET", "path": "/rides", "status": 500, "user_id": user}
        errors = self._send(http, "/v1/logs/error", faults, names[1:])
        told = self._send(http, "/v1/logs/access", [known | {"request_id": request}], names[:1])
        if told:
            with self._lock:
                self.joined[user] += errors
        return told

    def _send(self, http: httpx.Client, path: str, body: object, names: list[str]) -> list[str]:
        """Send until it is acknowledged; what was, which is nothing where the end came first."""
        content = json.dumps(body).encode()
        with self._lock:
            self.sent.update(names)
        while not self._done.is_set():
            try:
                answer = http.post(path, content=content)
            except httpx.TransportError:
                self._done.wait(0.1)
                continue
            with self._lock:
                self.answers[answer.status_code] += 1
                if answer.status_code == 200:
                    receipt = answer.json()
                    if receipt["accepted"] + receipt["duplicate"] != len(names):
                        self.problems.append(answer.text)
                    return names
                self.other += [answer.text] * (answer.status_code not in (429, 503))
            self._done.wait(0.1)
        return []
