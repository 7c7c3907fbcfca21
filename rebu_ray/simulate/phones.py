"""What a phone records while somebody uses it, and when it gets it out: SDK messages, app errors, batches, retries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal

import msgspec

from rebu_ray.simulate import faults
from rebu_ray.simulate.clock import MINUTE, SECOND, rfc3339, rfc3339_at
from rebu_ray.simulate.faults import BadKind
from rebu_ray.simulate.identifiers import uuid_text
from rebu_ray.simulate.people import Phone
from rebu_ray.simulate.servers import Answer, Servers

ParcelSource = Literal["app-events", "app-errors"]

FLUSH_AT: Final = 20
"""Messages after which an SDK sends without waiting for its interval."""
MAX_BATCH: Final = 100
_SPOILT_SHARE: Final[dict[ParcelSource, float]] = {"app-events": 0.002, "app-errors": 0.01}
_LOST_ANSWER_SHARE: Final = 0.015


@dataclass(frozen=True, slots=True)
class Item:
    """One record of a phone, recorded at `at`: its JSON, and why it must be refused, if so."""

    at: int
    raw: bytes
    bad: BadKind | None = None


@dataclass(frozen=True, slots=True)
class Parcel:
    """Records that leave together at `send_at`. `sent_at` is what the sender's clock said then, if it tells.

    `again`: the answer to an earlier parcel with the same records was lost, so all of it that is good is a duplicate.
    """

    send_at: int
    source: ParcelSource
    items: list[Item]
    sent_at: str | None
    gzips: bool
    again: bool = False


def parcels(
    rng: Random, source: ParcelSource, items: list[Item], phone: Phone | None, flush_ms: int,
    offline: tuple[int, int] | None = None,
) -> Iterator[Parcel]:  # fmt: skip
    """The parcels of items (sorted by time): after `flush_ms`, or when full; what is due in `offline` goes after it.

    `phone` None: a server sends, with a right clock.
    """
    waiting: list[Item] = []
    due = 0
    for item in [*items, None]:
        if waiting and (item is None or item.at >= due):
            yield from _sent(rng, source, waiting, phone, due)
            waiting = []
        if item is None:
            return
        if not waiting:
            due = item.at + flush_ms
            if offline is not None and offline[0] <= due < offline[1]:
                due = offline[1] + rng.randrange(3 * SECOND)
        waiting.append(item)
        online = offline is None or not offline[0] <= item.at < offline[1]
        if len(waiting) == (FLUSH_AT if online else MAX_BATCH):
            yield from _sent(rng, source, waiting, phone, item.at if online else due)
            waiting = []


def _sent(rng: Random, source: ParcelSource, items: list[Item], phone: Phone | None, at: int) -> Iterator[Parcel]:
    at += rng.randrange(60, 900)
    gzips = phone.gzips if phone else True

    def stamp(moment: int) -> str | None:
        return rfc3339(moment + phone.skew_ms) if phone and phone.stamps else None

    yield Parcel(at, source, items, stamp(at), gzips)
    while rng.random() < _LOST_ANSWER_SHARE:
        at += rng.randrange(2 * SECOND, 2 * MINUTE)
        yield Parcel(at, source, items, stamp(at), gzips, again=True)


@dataclass(slots=True)
class Session:
    """Somebody at a phone: collects what the SDK records and makes the calls. Nothing happens after `end`."""

    phone: Phone
    rng: Random
    servers: Servers
    end: int
    offline: tuple[int, int] | None = None
    events: list[Item] = field(default_factory=list)
    errors: list[Item] = field(default_factory=list)

    def track(self, at: int, event: str, **properties: Any) -> None:
        self._message(at, {"type": "track", "event": event, "properties": properties})

    def screen(self, at: int, name: str, **properties: Any) -> None:
        self._message(at, {"type": "screen", "name": name, "properties": properties})

    def identify(self, at: int, traits: dict[str, Any]) -> None:
        """Says who holds the phone; `phone.user` must be set."""
        self._message(at, {"type": "identify", "traits": traits})

    def alias(self, at: int, user_id: str) -> None:
        """What old SDKs do instead at log-in: the new id and the previous one."""
        message = self._envelope(at, {"type": "alias", "previousId": self.phone.anonymous_id})
        del message["anonymousId"]
        message["userId"] = user_id
        self._keep("app-events", at, message)

    def error(self, at: int, name: str, text: str, *, fatal: bool) -> None:
        """An app error: to a route of its own, with the user and the phone as the SDK knows them."""
        stack = f"{name}: {text}\n    at RideController.{self.rng.choice(('refresh', 'submit', 'onTick'))}(Ride:212)"
        error = {"name": name, "message": text, "stack": stack, "fatal": fatal}
        user = self.phone.user
        message = {
            "type": "error",
            "messageId": uuid_text(self.rng),
            "userId": user.user_id if user else None,
            "anonymousId": self.phone.anonymous_id,
            "timestamp": self._written(at),
            "error": error,
            "context": self.phone.context,
        }
        self._keep("app-errors", at, message)

    def call(self, at: int, method: str, path: str, *, fails: bool = False) -> bool:
        """Calls the platform's own servers; whether that went well. Failures show up as app errors, mostly."""
        if at >= self.end:
            return True
        if self.offline is not None and self.offline[0] <= at < self.offline[1]:
            if self.rng.random() < 0.1:
                self.error(
                    at + 10 * SECOND,
                    "NetworkUnavailable",
                    "The Internet connection appears to be offline.",
                    fatal=False,
                )
            return False
        user = self.phone.user
        answer: Answer = self.servers.call(at, self.phone, user.user_id if user else None, method, path, fails)
        if answer.status >= 500 and self.rng.random() < 0.7:
            text = f"{method} {path.partition('?')[0]} answered {answer.status}"
            self.error(answer.at + self.rng.randrange(5, 60), "HttpServerError", text, fatal=False)
        return answer.status < 500

    def parcels(self) -> Iterator[Parcel]:
        """All that was recorded, as it will leave the phone."""
        for items in (self.events, self.errors):
            items.sort(key=lambda item: item.at)
        flush = self.phone.flush_ms
        yield from parcels(self.rng, "app-events", self.events, self.phone, flush, self.offline)
        yield from parcels(self.rng, "app-errors", self.errors, self.phone, 3 * flush, self.offline)

    def _message(self, at: int, body: dict[str, Any]) -> None:
        self._keep("app-events", at, self._envelope(at, body))

    def _envelope(self, at: int, body: dict[str, Any]) -> dict[str, Any]:
        message = body | {"messageId": uuid_text(self.rng), "anonymousId": self.phone.anonymous_id}
        if self.phone.user is not None:
            message["userId"] = self.phone.user.user_id
        message["timestamp"] = self._written(at)
        message["context"] = self.phone.context
        return message

    def _written(self, at: int) -> str | int:
        """An instant as this phone's clock and SDK write it."""
        shown = at + self.phone.skew_ms
        if self.phone.time_style == "epoch":
            return shown
        return rfc3339_at(shown, 60) if self.phone.time_style == "offset" else rfc3339(shown)

    def _keep(self, source: ParcelSource, at: int, message: dict[str, Any]) -> None:
        if at >= self.end:
            return
        items = self.events if source == "app-events" else self.errors
        items.append(Item(at, msgspec.json.encode(message)))
        if self.rng.random() < _SPOILT_SHARE[source]:
            kind, raw = faults.spoilt(self.rng, message | {"messageId": uuid_text(self.rng)})
            items.append(Item(at, raw, kind))
