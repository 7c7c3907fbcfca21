"""Documents of subjects, computed from what is known of them, as records to be journalled where they changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from rebu_ray.process.documents import documents
from rebu_ray.process.load import Loaded, Subject
from rebu_ray.process.matching.link import link
from rebu_ray.process.ride_stats import statistics
from rebu_ray.process.tables import from_rows
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.rows import Routed, partition_of

VERSION: Final = b',"version":'
"""Where the core of a ride's document ends."""
SINCE: Final = b',"since":'
"""Where the core of a message's document ends."""


class RideDocument(NamedTuple):
    """A ride's document before it has a version. `core` is its JSON text without version and times of computing."""

    ride_id: str
    subject: str
    requested_at: int
    core: bytes


class MessageDocument(NamedTuple):
    """A message's document before it has a version, and how each ride that it may be about shows it."""

    message_id: str
    subject: str
    sent_at: int
    status: str
    ride_id: str | None
    core: bytes
    """Up to what says since when the link stands."""
    about: dict[str, msgspec.Raw]
    """By ride id, the item of the ride's list of messages."""


class Documents(NamedTuple):
    """What was computed of rides and messages, by their ids."""

    rides: dict[str, RideDocument]
    messages: dict[str, MessageDocument]


class _Candidate(msgspec.Struct):
    ride_id: str


class _Link(msgspec.Struct):
    status: str
    ride_id: str | None
    confidence: float
    candidates: list[_Candidate]
    since: str
    history: list[dict[str, Any]]


class _Standing(msgspec.Struct):
    """What a new version of a document takes over from the one before."""

    version: int


class _StandingMessage(_Standing):
    user_id: str | None
    link: _Link


_RIDE: Final = msgspec.json.Decoder(_Standing)
_MESSAGE: Final = msgspec.json.Decoder(_StandingMessage)
_JSON: Final = msgspec.json.Encoder()


def compute(facts: pa.Table, errors: pa.Table) -> Documents:
    """The documents of all that is in `facts` (`load.FACT_ROWS`) and `errors` (`tables.ERRORS`), in whatever order."""
    inputs = from_rows(facts, errors)
    stats = statistics(inputs)
    links = link(inputs.messages, stats, inputs.drivers, inputs.users)
    rides: dict[str, RideDocument] = {}
    for row in documents(stats, links).select(["ride_id", "user_id", "requested_at", "document"]).to_pylist():
        ride_id = row["ride_id"]
        subject = f"u:{row['user_id']}" if row["user_id"] else f"o:{ride_id}"
        rides[ride_id] = RideDocument(ride_id, subject, row["requested_at"] or 0, row["document"])
    return Documents(rides, {row["message_id"]: _message(row) for row in links.to_pylist()})


def changes(found: Documents, loaded: Loaded, partitions: int, now: int) -> list[Routed]:
    """A record for each document of the loaded subjects that differs from the one that stands. `now` is in ms."""
    records: list[Routed] = []
    for subject in loaded.subjects:
        partition = partition_of(subject.key, partitions)
        for ride_id in subject.rides:
            standing = loaded.ride_documents.get(ride_id)
            record = _ride_record(subject, ride_id, found.rides.get(ride_id), standing, now)
            if record is not None:
                records.append(Routed(partition, subject.key, record))
        for message_id in subject.messages:
            standing = loaded.message_documents.get(message_id)
            record = _message_record(subject, message_id, found, standing, now)
            if record is not None:
                records.append(Routed(partition, subject.key, record))
    return records


def _message(row: dict[str, Any]) -> MessageDocument:
    message_id, status, ride_id = row["message_id"], row["status"], row["ride_id"]
    shown = {
        "message_id": message_id,
        "channel": row["channel"],
        "direction": row["direction"],
        "sent_at": None if row["sent_at"] is None else _text(row["sent_at"]),
        "subject": row["subject"],
        "body": row["body"],
    }
    link = {
        "status": status,
        "ride_id": ride_id,
        "confidence": row["confidence"],
        "reasons": row["reasons"],
        "candidates": row["candidates"],
    }
    document = {**shown, "user_id": row["user_id"], "thread_id": row["thread_id"], "link": link}
    about: dict[str, msgspec.Raw] = {}
    if status == "linked":
        theirs = {"status": status, "confidence": row["confidence"], "reasons": row["reasons"]}
        about[ride_id] = msgspec.Raw(_JSON.encode({**shown, "link": theirs}))
    elif status == "ambiguous":
        for candidate in row["candidates"]:
            theirs = {"status": status, "confidence": candidate["confidence"], "reasons": candidate["reasons"]}
            about[candidate["ride_id"]] = msgspec.Raw(_JSON.encode({**shown, "link": theirs}))
    subject = f"u:{row['user_id']}" if row["user_id"] else f"m:{message_id}"
    core = _JSON.encode(document)[: -len(b"}}")]
    return MessageDocument(message_id, subject, row["sent_at"] or 0, status, ride_id, core, about)


def _ride_record(
    subject: Subject, ride_id: str, ride: RideDocument | None, standing: bytes | None, now: int
) -> Record | None:
    listed = f"o:{ride_id}" in subject.listed
    version = 1 if standing is None else _RIDE.decode(standing).version + 1
    if ride is None or ride.subject != subject.key:
        if not listed:
            return None
        if ride is not None:
            return _moved(subject, f"o:{ride_id}", version, {}, now)
        body = _JSON.encode({"ride_id": ride_id, "deleted": True, **_times(version, subject, now)})
        return _record(Kind.RIDE_DOCUMENT, subject, ride_id, version, now, body, now)
    core = ride.core[:-1]
    if listed and standing is not None and standing.startswith(core + VERSION):
        return None
    body = core + b"," + _JSON.encode(_times(version, subject, now))[1:]
    return _record(Kind.RIDE_DOCUMENT, subject, ride_id, version, ride.requested_at, body, now)


def _message_record(
    subject: Subject, message_id: str, found: Documents, standing: bytes | None, now: int
) -> Record | None:
    message = found.messages.get(message_id)
    listed = f"m:{message_id}" in subject.listed
    known = None if standing is None else _MESSAGE.decode(standing)
    version = 1 if known is None else known.version + 1
    before = set() if known is None else _rides_of(known.link)
    if message is None or message.subject != subject.key:
        if not listed:
            return None
        if known is None or known.user_id != _user_of(subject):
            before = set(subject.rides)
        if message is not None:
            # A ride that moved along is left alone: it may list the message under its new user already.
            stayed = [r for r in sorted(before) if (ride := found.rides.get(r)) and ride.subject == subject.key]
            return _moved(subject, f"m:{message_id}", version, {"no_longer": stayed}, now)
        gone = {"message_id": message_id, "deleted": True, "no_longer": sorted(before)}
        body = _JSON.encode({**gone, **_times(version, subject, now)})
        return _record(Kind.MESSAGE_DOCUMENT, subject, message_id, version, now, body, now)
    if listed and standing is not None and standing.startswith(message.core + SINCE):
        return None
    since, history = _text(now), []
    if known is not None:
        link = known.link
        history = link.history
        if (link.status, link.ride_id) == (message.status, message.ride_id):
            since = link.since
        else:
            earlier = {"status": link.status, "ride_id": link.ride_id, "confidence": link.confidence}
            history = [*history, {**earlier, "since": link.since, "until": since}]
    ends = {"since": since, "history": history}, _times(version, subject, now)
    document = message.core + b"," + b",".join(_JSON.encode(end)[1:] for end in ends)
    record = {
        "message_id": message_id,
        "about": message.about,
        "no_longer": sorted(before - message.about.keys()),
        "document": msgspec.Raw(document),
    }
    return _record(Kind.MESSAGE_DOCUMENT, subject, message_id, version, message.sent_at, _JSON.encode(record), now)


def _moved(subject: Subject, thing: str, version: int, more: dict[str, Any], now: int) -> Record:
    """The record that a stream gives up a ride or a message, which is another one's now."""
    body = _JSON.encode({**more, **_times(version, subject, now)})
    return _record(Kind.MOVED, subject, thing, version, now, body, now)


def _rides_of(link: _Link) -> set[str]:
    """The rides whose lists show a message that is linked so."""
    if link.status == "ambiguous":
        return {candidate.ride_id for candidate in link.candidates}
    return set() if link.ride_id is None else {link.ride_id}


def _times(version: int, subject: Subject, now: int) -> dict[str, Any]:
    return {"version": version, "known_at": _text(subject.known_at), "computed_at": _text(now)}


def _record(kind: Kind, subject: Subject, name: str, version: int, event_time: int, body: bytes, now: int) -> Record:
    user_id = _user_of(subject)
    # A ride and a message may have the same id, and both are in their user's stream.
    record_id = f"{kind} {name}@{version}@{now}"
    return Record(kind, record_id, name, Source.COMPUTED, event_time, now, body, user_id)


def _user_of(subject: Subject) -> str | None:
    return subject.key[2:] if subject.key.startswith("u:") else None


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
