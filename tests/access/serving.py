"""The gateway's application with what is behind it replaced: no Ray, no network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import httpx
import pytest
from starlette.types import ASGIApp

from rebu_ray.access import gateway
from rebu_ray.access.history import Histories
from rebu_ray.access.measures import GatewayMeasures, Reporter
from rebu_ray.access.rides import Rides
from rebu_ray.ingest.dialects.ordinary import Ordinary
from rebu_ray.ingest.intake import Receipt
from rebu_ray.ingest.position import Position
from rebu_ray.ingest.reports import Reports
from rebu_ray.keys import Keys
from rebu_ray.process.forecast.question import Kept, Known, answered
from rebu_ray.records import BadRequest, Parsed, Refusal, Source
from rebu_ray.settings import Settings
from rebu_ray.store.rows import Routed
from tests.access.worlds import World
from tests.records import NOW

KEYS: Final = Keys("write-key", "read-key", "admin-key")
WRITE: Final = {"Authorization": "Bearer write-key"}
READ: Final = {"Authorization": "Bearer read-key"}
ADMIN: Final = {"Authorization": "Bearer admin-key"}
Answer = TypeVar("Answer")
Scene = Callable[[httpx.AsyncClient], Awaitable[Answer]]


STATE: Final[dict[str, Any]] = {
    "platform_id": "p",
    "partitions": 4,
    "coordinator_pid": 1,
    "build": "0",
    "shards": [],
    "routing": {"version": 1, "owners": [0] * 4, "leaving": []},
    "scaling": False,
    "release": 0,
    "renewing": False,
    "wanted_shards": 1,
    "moves": {"moved": 0, "fenced": 0, "pauses_ms": []},
    "suspended": [],
    "erasures": {"pending": 0, "completed": 0},
    "warehouse": {"path": "w", "loaded_at": None, "rides": None, "detail": None},
}
"""What a coordinator says of a platform without data."""


class FakeIntake:
    """Takes everything, or fails; keeps what it was given."""

    wait_s = 0.0

    def __init__(self, failure: Exception | None = None, world: World | None = None) -> None:
        self.failure = failure
        self.world = world
        self.taken: list[tuple[Source, Parsed, int, str | None, int | None]] = []

    async def store(
        self,
        source: Source,
        parsed: Ordinary | Parsed,
        received_at: int,
        producer: str | None = None,
        sequence: int | None = None,
    ) -> Receipt:
        if self.failure is not None:
            raise self.failure
        entries = parsed.records() if isinstance(parsed, Ordinary) else parsed
        self.taken.append((source, entries, received_at, producer, sequence))
        refused = [entry for entry in entries if isinstance(entry, Refusal)]
        return Receipt(len(entries) - len(refused), 0, len(refused), Position({1: 2}), [])

    async def append(self, rows: list[Routed]) -> Position:
        if self.failure is not None:
            raise self.failure
        assert self.world is not None
        return Position(self.world.write(*(row.record for row in rows)))


class NobodyLive:
    """Follows nobody."""

    async def follow(self, user_id: str, last_event_id: str | None) -> Any:
        raise AssertionError(f"{user_id} was to be followed")


class Backends:
    """What the gateway talks to."""

    def __init__(
        self, intake: FakeIntake | None = None, histories: Histories | None = None, state: dict[str, Any] | None = None
    ) -> None:
        self.intake = intake or FakeIntake()
        self.histories = histories
        self.redis = None if histories is None else histories.redis
        self.rides = None if histories is None else Rides(histories)
        self.world = self.intake.world
        self.ride_pages = None if self.world is None else self.world.lake_reader().rides
        self.ride_counts = None if self.world is None else self.world.lake_reader().ride_counts
        self.live = NobodyLive()
        self.state = STATE | (state or {})
        self.asked: list[str] = []
        self.measures = GatewayMeasures()
        self.reporter = Reporter("gateway", self.measures.registry, self.ask)
        self.reports = Reports(lambda: 0.0)
        self.fitted = True

    async def open(self) -> None:
        """Everything is there."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def ask(self, method: str, *args: Any) -> Any:
        self.asked.append(method)
        if method == "forecast":
            question, is_now, _ = args
            kept = Kept(question.digest, NOW, answered(question))
            return Known(kept, True, []) if self.fitted else Known(None, is_now, [])
        if method == "measured":
            number = self.reports.note(*args)
            return number, self.state | {"free_bytes": {}}, self.reports.parts()
        if method == "flush" and self.world is not None:
            self.world.flush()
        return {"status": self.state, "flush": 3, "reindex": {"partitions": 4, "rows": 9}}.get(method)


def application(backends: Backends, keys: Keys = KEYS) -> ASGIApp:
    """The real application in front of these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway, "Backends", lambda settings: backends)
        return gateway.build(Settings(), keys)


async def visit(backends: Backends, scene: Scene[Answer], keys: Keys = KEYS) -> Answer:
    """Play a scene with a client of the application."""
    transport = httpx.ASGITransport(application(backends, keys), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://rebu") as client:
        return await scene(client)


def write(backends: Backends, path: str, **request: Any) -> httpx.Response:
    """The answer to one POST."""
    return asyncio.run(visit(backends, lambda client: client.post(path, **request)))


def reading(world: World, scene: Scene[Answer], wait_seconds: float = 0.0) -> Answer:
    """Play a scene with a client who reads a world, and may change it."""

    async def play() -> Answer:
        async with world.reading(wait_seconds) as histories:
            return await visit(Backends(FakeIntake(world=world), histories), scene)

    return asyncio.run(play())


def refused(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, whose body is what every error's is."""
    body = response.json()
    assert set(body) == {"code", "message"}
    assert body["code"].replace("_", "").isalpha()
    assert body["code"] == body["code"].lower()
    assert len(body["message"]) > 10
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["code"]


def unavailable(retry_after: int) -> BadRequest:
    """A refusal as the intake raises it."""
    return BadRequest(503, "unavailable", "a shard is being restarted; send again", retry_after)
