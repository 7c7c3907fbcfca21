"""What the benchmarks send: Segment batches of ride-hailing events, the same for whoever is measured."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

NAMES = (
    "Ride Requested",
    "Driver Assigned",
    "Map Moved",
    "Fare Shown",
    "Pick-up Changed",
    "Ride Rated",
    "Promo Opened",
)
CITIES = ("Tallinn", "Berlin", "Porto", "Cork", "Graz")
DEVICES = (
    '{"type":"android","model":"Pixel 8"},"os":{"name":"Android","version":"15"}',
    '{"type":"ios","model":"iPhone16,2"},"os":{"name":"iOS","version":"18.4.1"}',
)


@dataclass(frozen=True, slots=True)
class Batch:
    """One body of POST /v1/batch and what is in it."""

    body: bytes
    events: int
    event_bytes: int
    """The JSON of the events alone, without the batch around them."""
    ids: tuple[tuple[str, str], ...]
    """(user id, message id) of each event."""


@dataclass
class Workload:
    """An endless supply of batches with fresh message ids. Seeded: the same seed makes the same batches."""

    users: int = 5_000
    seed: int = 1
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    sent: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """user id -> message ids, of every batch that was made."""
    _made: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def user(self, number: int) -> str:
        return f"usr-{self.seed:04x}-{number:07d}"

    def batches(self, events: int, size: int) -> list[Batch]:
        """`events` events in batches of `size`, over users drawn at random, in the order of their time."""
        return [self._batch(min(size, events - start)) for start in range(0, events, size)]

    def _batch(self, size: int) -> Batch:
        draw = self._random
        lines, ids = [], []
        sent_at = _rfc3339(self.now)
        for _ in range(size):
            self._made += 1
            user = self.user(draw.randrange(self.users))
            message = f"{draw.getrandbits(64):016x}-{self.seed:04x}-{self._made:012x}"
            # A millisecond apart, the last hours before now.
            at = _rfc3339(self.now - timedelta(milliseconds=10_000_000 - self._made % 10_000_000))
            lines.append(
                f'{{"type":"track","messageId":"{message}","userId":"{user}","event":"{draw.choice(NAMES)}",'
                f'"timestamp":"{at}","properties":{{"ride_id":"ride-{draw.getrandbits(32):08x}",'
                f'"city":"{draw.choice(CITIES)}","lat":{draw.uniform(35, 60):.5f},"lon":{draw.uniform(-9, 25):.5f},'
                f'"fare_cents":{draw.randrange(400, 6000)}}},"context":{{"app":'
                f'{{"version":"5.2.{draw.randrange(9)}"}},"device":{draw.choice(DEVICES)}}}}}'
            )
            ids.append((user, message))
            self.sent[user].add(message)
        events = ",".join(lines)
        body = f'{{"batch":[{events}],"sentAt":"{sent_at}"}}'.encode()
        return Batch(body, size, len(events) - size + 1, tuple(ids))


def _rfc3339(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
