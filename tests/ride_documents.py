"""Documents of rides to test with, and what a list of them must be by plain reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hypothesis import strategies as st

from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.ride_table import Wanted
from tests.records import NOW

Document = dict[str, Any]


def text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Said(NamedTuple):
    """What is computed of a ride at some time."""

    ride_id: str
    user: str | None = "ada"
    requested_at: int = NOW
    deleted: bool = False
    status: str = "completed"
    city: str | None = "berlin"
    driver: str | None = "d1"
    premature: bool = False
    cause: str | None = None
    app: int = 0
    server: int = 0
    linked: int = 0
    ambiguous: int = 0


class Rides:
    """Versions of documents, each computed a second after the one before it, from what was known at that time."""

    def __init__(self) -> None:
        self.versions: list[Document] = []
        self.clock = NOW
        self._numbers: dict[str, int] = {}

    def computed(self, said: Said) -> Record:
        """The record of the next document."""
        self.clock += 1000
        number = self._numbers.get(said.ride_id, 0) + 1
        self._numbers[said.ride_id] = 0 if said.deleted else number
        ends = {"version": number, "known_at": text(self.clock - 500), "computed_at": text(self.clock)}
        gone: Document = {"ride_id": said.ride_id, "deleted": True}
        document = (gone if said.deleted else nested(said)) | ends
        self.versions.append(document)
        return Record(
            kind=Kind.RIDE_DOCUMENT,
            id=f"{said.ride_id}@{number}@{self.clock}",
            name=said.ride_id,
            source=Source.COMPUTED,
            event_time=self.clock if said.deleted else said.requested_at,
            received_at=self.clock,
            body=json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(),
            user_id=said.user,
        )

    def listed(self, wanted: Wanted, *, as_of: int | None = None, descending: bool = True) -> list[Document]:
        """The newest document of each ride that is wanted, in order."""
        newest: dict[str, Document] = {}
        for document in self.versions:
            if as_of is None or milliseconds(document["known_at"]) <= as_of:
                newest[document["ride_id"]] = document
        found = [d for d in newest.values() if not d.get("deleted") and meets(d, wanted)]
        return sorted(found, key=order, reverse=descending)


def nested(said: Said) -> Document:
    return {
        "ride_id": said.ride_id,
        "status": said.status,
        "city": said.city,
        "user": None if said.user is None else {"user_id": said.user, "name": f"Name of {said.user}"},
        "driver": None if said.driver is None else {"driver_id": said.driver, "name": None},
        "requested_at": text(said.requested_at),
        "accepted_at": None,
        "picked_up_at": text(said.requested_at + 60_000),
        "ended_at": None,
        "fare_cents": 1250,
        "currency": "EUR",
        "distance_m": None,
        "rating": 4.5,
        "pickup": {"lat": 52.5, "lon": 13.25},
        "destination": None,
        "dropoff": None,
        "wait_s": 60.0,
        "duration_s": None,
        "requested_distance_m": 1000.5,
        "destination_gap_m": None,
        "destination_matched": None,
        "progress": None,
        "errors": {
            "app": said.app,
            "server": said.server,
            "items": [
                {"id": f"e{n}", "kind": "app_error", "name": 'é,"', "timestamp": text(NOW)} for n in range(said.app)
            ],
        },
        "premature": said.premature,
        "cause": said.cause,
        "quality": 0.75,
        "flags": ["no_destination", "ended_at_missing"] if said.premature else [],
        "messages": {"linked": said.linked, "ambiguous": said.ambiguous},
    }


def milliseconds(value: str) -> int:
    return round(datetime.fromisoformat(value).timestamp() * 1000)


def order(document: Document) -> tuple[int, bytes]:
    return milliseconds(document["requested_at"]), document["ride_id"].encode()


def meets(document: Document, wanted: Wanted) -> bool:
    """Whether a document is wanted, by the words of the interface."""
    about = document["messages"]["linked"] + document["messages"]["ambiguous"]
    return (
        (wanted.status is None or document["status"] in wanted.status)
        and (wanted.city is None or document["city"] in wanted.city)
        and (wanted.cause is None or document["cause"] in wanted.cause)
        and (wanted.user_id is None or (document["user"] or {}).get("user_id") == wanted.user_id)
        and (wanted.driver_id is None or (document["driver"] or {}).get("driver_id") == wanted.driver_id)
        and (wanted.premature is None or document["premature"] == wanted.premature)
        and (wanted.has_messages is None or (about > 0) == wanted.has_messages)
        and (wanted.min_errors is None or document["errors"]["app"] + document["errors"]["server"] >= wanted.min_errors)
    )


_RIDE_IDS = ("r1", "r2", "r10", "é", "🚕", 'r,"1')
_CITIES = ("berlin", "paris")
_USERS = ("ada", "bob", "eve")
statements = st.builds(
    Said,
    ride_id=st.sampled_from(_RIDE_IDS),
    user=st.sampled_from((*_USERS[:1] * 6, *_USERS, None)),
    requested_at=st.sampled_from([NOW] * 5 + [NOW + 1, NOW + 2, NOW - 1000]),
    deleted=st.sampled_from([False] * 7 + [True]),
    status=st.sampled_from(["completed", "cancelled_by_rider", "requested"]),
    city=st.sampled_from((*_CITIES, None)),
    driver=st.sampled_from(["d1", "d2", None]),
    premature=st.booleans(),
    cause=st.sampled_from(["driver", "rider", "app", "unknown", None]),
    app=st.integers(0, 2),
    server=st.integers(0, 2),
    linked=st.integers(0, 1),
    ambiguous=st.integers(0, 1),
)
"""Things said of a few rides; most of them keep their user and their time."""


def _some(values: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True).map(lambda v: tuple(sorted(v)))


conditions = st.just(Wanted()) | st.builds(
    Wanted,
    status=st.none() | _some(["completed", "requested", "failed"]),
    city=st.none() | _some([*_CITIES, "rome"]),
    cause=st.none() | _some(["driver", "rider", "app", "unknown"]),
    user_id=st.none() | st.sampled_from(_USERS),
    driver_id=st.none() | st.sampled_from(["d1", "d2"]),
    premature=st.none() | st.booleans(),
    has_messages=st.none() | st.booleans(),
    min_errors=st.none() | st.integers(0, 4),
)


def spread(said: Iterable[Said]) -> list[Said]:
    """Rides as they come: without the deletion of one that does not exist."""
    known: set[str] = set()
    out = []
    for one in said:
        if one.deleted and one.ride_id not in known:
            continue
        known.discard(one.ride_id) if one.deleted else known.add(one.ride_id)
        out.append(one)
    return out
