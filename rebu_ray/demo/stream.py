"""Sending a simulated morning through the HTTP interface as fast as it is taken, and reading a part of it back."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import httpx

from rebu_ray.client import quoted
from rebu_ray.keys import Keys
from rebu_ray.simulate import Upload

SENDERS: Final = 8
PROBE_EVERY: Final = 25
"""Of so many uploads one is read back at once, to see how soon it is visible."""


@dataclass
class Clock:
    """How far the morning has come: the simulated instant, in ms, and whether all of it has been sent."""

    at: int
    over: bool = False


@dataclass
class Tally:
    """What went in, as sent and as answered."""

    sent: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    bad: int = 0
    repeated_bad: int = 0
    duplicates: int = 0
    retried: int = 0
    freshness_ms: list[float] = field(default_factory=list)
    unseen: int = 0
    users: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def total(self, verdict: str) -> int:
        return sum(counts[verdict] for counts in self.verdicts.values())


async def send_all(
    http: httpx.AsyncClient, keys: Keys, planned: Iterable[Upload], clock: Clock, stop: threading.Event,
    progress: Callable[[int, float], None],
) -> Tally:  # fmt: skip
    """Send the uploads in their order, moving the clock on. `progress` is told of records sent, and of records a
    second so far.
    """
    tally = Tally()
    queue: Iterator[tuple[int, Upload]] = iter(enumerate(planned))
    started = time.monotonic()

    async def sender() -> None:
        for number, upload in queue:
            if stop.is_set():
                return
            clock.at = max(clock.at, upload.send_at_ms)
            await _send(http, keys, upload, tally, number % PROBE_EVERY == 0)
            progress(upload.records, sum(tally.sent.values()) / (time.monotonic() - started))

    try:
        await asyncio.gather(*(sender() for _ in range(SENDERS)))
    finally:
        clock.over = True
    tally.seconds = time.monotonic() - started
    return tally


async def _send(http: httpx.AsyncClient, keys: Keys, upload: Upload, tally: Tally, probe: bool) -> None:
    headers = {**upload.headers, "Authorization": f"Bearer {keys.write}"}
    sent_at = time.perf_counter()
    while True:
        answer = await http.request(upload.method, upload.path, content=upload.body, headers=headers)
        if answer.status_code not in (429, 503):
            break
        tally.retried += 1
        await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
    answer.raise_for_status()
    body = answer.json()
    tally.sent[upload.source] += upload.records
    counts = tally.verdicts.setdefault(upload.source, Counter())
    counts.update({name: body[name] for name in ("accepted", "duplicate", "rejected")})
    tally.bad += upload.bad
    tally.duplicates += upload.duplicates
    tally.repeated_bad += upload.bad if upload.duplicates else 0
    message = _a_message(upload)
    if message is None:
        return
    user, message_id = message
    tally.users[user] += 1
    refused = {result["id"] for result in body["results"]}
    if probe and message_id not in refused:
        params = {"limit": "1000", "min_position": body["position"]}
        key = {"Authorization": f"Bearer {keys.read}"}
        read = await http.get(f"/v1/users/{quoted(user)}/events", params=params, headers=key)
        if read.status_code == 200 and message_id in read.text:
            tally.freshness_ms.append((time.perf_counter() - sent_at) * 1000)
        else:
            tally.unseen += 1


def _a_message(upload: Upload) -> tuple[str, str] | None:
    """(user, id) of the last message with both of a plain batch."""
    if upload.path != "/v1/batch" or "Content-Encoding" in upload.headers or upload.bad:
        return None
    for message in reversed(json.loads(upload.body)["batch"]):
        if message.get("userId") and message.get("messageId"):
            return str(message["userId"]), message["messageId"]
    return None
