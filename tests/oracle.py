"""What the contract says must come out of what went in: slow, plain, and without a line of the product's own code.

`judge` takes deliveries as they were sent and gives each delivery's verdict and each user's whole history. An id that
the platform derives (a log line without one) is None here: compare such entries by time, kind and name.
"""

from __future__ import annotations

import bisect
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import zstandard

HOUR_MS = 3_600_000
MAX_RECORD_BYTES = 32 * 1024
MAX_TIME_MS = 253_402_300_799_999
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

SEGMENT_ROUTES = ("batch", "track", "identify", "page", "screen", "group", "alias")
LOG_ROUTES = ("access", "error", "app-events", "app-errors")


@dataclass(frozen=True)
class Delivery:
    """One request. `received_at` (ms): of the whole request, or one for each of its records."""

    route: str
    headers: Mapping[str, str]
    body: bytes
    received_at: int | Sequence[int]


@dataclass(frozen=True)
class Verdict:
    """What a write must answer. `refused`: the code with which it is refused as a whole."""

    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    refused: str | None = None


@dataclass(frozen=True)
class Entry:
    """One item of a history. Entries sort by time, then id."""

    event_time: int
    id: str | None
    kind: str
    name: str
    matched_by: str | None

    def order(self) -> tuple[int, str, str, str]:
        return (self.event_time, self.id or "", self.kind, self.name)


@dataclass
class Judgement:
    verdicts: list[Verdict] = field(default_factory=list)
    histories: dict[str, list[Entry]] = field(default_factory=dict)
    """User -> entries, oldest first. A user with no entry is not there."""
    unattributed: list[Entry] = field(default_factory=list)


class Bad(Exception):
    """A record that must be rejected."""


class RefusedWhole(Exception):
    """A request that must be refused."""


@dataclass(frozen=True)
class Said:
    """One accepted record."""

    entry: Entry
    key: object
    received_at: int
    user: str | None = None
    anonymous: str | None = None
    request: str | None = None
    links: str | None = None

    @property
    def stream(self) -> tuple[str, str]:
        if self.user is not None:
            return ("u", self.user)
        if self.anonymous is not None:
            return ("a", self.anonymous)
        return ("r", self.request) if self.request is not None else ("n", "")


def judge(deliveries: Iterable[Delivery], unlinked: Iterable[tuple[str, str]] = ()) -> Judgement:
    """Verdicts in the order of the deliveries, and everybody's history after all of them.

    `unlinked`: (user, anonymous id) pairs whose link was taken back.
    """
    result = Judgement()
    seen: set[object] = set()
    said: list[Said] = []
    for delivery in deliveries:
        accepted = duplicate = rejected = 0
        try:
            for record in records(delivery):
                if record is None:
                    rejected += 1
                elif (record.stream, record.key) in seen:
                    duplicate += 1
                else:
                    accepted += 1
                    seen.add((record.stream, record.key))
                    said.append(record)
        except RefusedWhole as refusal:
            result.verdicts.append(Verdict(refused=str(refusal)))
        else:
            result.verdicts.append(Verdict(accepted, duplicate, rejected))
    attribute(said, result, frozenset(unlinked))
    return result


def attribute(said: list[Said], result: Judgement, unlinked: frozenset[tuple[str, str]]) -> None:
    links: dict[str, list[tuple[int, str, str]]] = {}
    bindings: dict[str, list[tuple[int, str]]] = {}
    for record in said:
        if record.links is not None and record.user is not None and (record.user, record.links) not in unlinked:
            when = (record.entry.event_time, record.entry.id or "", record.user)
            links.setdefault(record.links, []).append(when)
        if record.entry.kind == "server_access" and record.user is not None and record.request is not None:
            bindings.setdefault(record.request, []).append((record.received_at, record.user))
    for known in links.values():
        known.sort()
    shown: set[tuple[str, str]] = set()
    for record in said:
        user, matched_by = record.user, record.entry.matched_by
        if user is None and record.anonymous is not None:
            user, matched_by = owner(links.get(record.anonymous, []), record.entry.event_time), "anonymous_id"
        elif user is None and record.request is not None:
            near = [
                holder
                for learned_at, holder in bindings.get(record.request, [])
                if abs(learned_at - record.received_at) <= HOUR_MS
            ]
            user, matched_by = (near[0] if near else None), "request_id"
        if user is None:
            result.unattributed.append(replace(record.entry, matched_by=None))
            continue
        if record.entry.id is not None:
            if (user, record.entry.id) in shown:
                continue
            shown.add((user, record.entry.id))
        result.histories.setdefault(user, []).append(replace(record.entry, matched_by=matched_by))
    for history in result.histories.values():
        history.sort(key=Entry.order)
    result.unattributed.sort(key=Entry.order)


def owner(links: list[tuple[int, str, str]], at: int) -> str | None:
    """The user of the first link at or after `at`, else of the last one before it. `links` are sorted by time."""
    if not links:
        return None
    following = bisect.bisect_left(links, at, key=lambda link: link[0])
    return links[min(following, len(links) - 1)][2]


def records(delivery: Delivery) -> Iterator[Said | None]:
    """Each record of a delivery in order; None: to be rejected."""
    headers = {key.lower(): value for key, value in delivery.headers.items()}
    body = unpacked(delivery.body, headers.get("content-encoding", ""))
    source = delivery.route.rstrip("/").rpartition("/")[2]
    envelope_sent: object = None
    raws: list[tuple[bytes | None, Any]] = []
    """(the line as it came, or None; the value if it was a part of one JSON text)"""
    if source in SEGMENT_ROUTES and "/logs" not in delivery.route:
        whole = parsed_whole(body)
        if source == "batch":
            if not isinstance(whole, dict) or not isinstance(whole.get("batch"), list):
                raise RefusedWhole("invalid_json")
            envelope_sent = whole.get("sentAt")
            raws = [(None, value) for value in whole["batch"]]
        else:
            raws = [(None, {"type": source} | whole if isinstance(whole, dict) else whole)]
        source = "app-events"
    elif source in LOG_ROUTES:
        if headers.get("content-type", "").startswith("application/json"):
            whole = parsed_whole(body)
            raws = [(None, value) for value in (whole if isinstance(whole, list) else [whole])]
        else:
            raws = [(line, None) for line in (part.rstrip(b"\r") for part in body.split(b"\n")) if line]
    else:
        raise ValueError(f"no such route: {delivery.route}")
    producer, sequence = headers.get("x-rebu-producer"), headers.get("x-rebu-sequence")
    for ordinal, (line, value) in enumerate(raws):
        moment = delivery.received_at
        received_at = moment if isinstance(moment, int) else moment[ordinal]
        derived: tuple[object, ...]
        if producer is not None and sequence is not None:
            derived = (source, producer, int(sequence) + ordinal)
        else:
            derived = (source, ordinal, line if line is not None else compact(value))
        try:
            yield one(source, line, value, received_at, derived, envelope_sent)
        except Bad:
            yield None


def unpacked(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return body


def parsed_whole(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise RefusedWhole("invalid_json") from error


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def one(source: str, line: bytes | None, value: Any, received_at: int, derived: object, sent: object) -> Said:
    size = len(line) if line is not None else len(compact(value))
    if size > MAX_RECORD_BYTES:
        raise Bad
    if line is not None:
        if source in ("access", "error") and not line.lstrip().startswith(b"{"):
            return text_line(source, line.decode("utf-8", "replace"), received_at, derived)
        try:
            value = json.loads(line)
        except ValueError as error:
            raise Bad from error
    if not isinstance(value, dict):
        raise Bad
    if source in ("access", "error"):
        return server_json(source, value, received_at, derived)
    return app_json(source, value, received_at, derived, sent)


def text_of(value: object) -> str | None:
    """An id as text; nothing, an empty text and null are no id."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Bad


def event_time(written: object, sent: object, received_at: int) -> int:
    if written is None:
        return received_at
    at = instant(written)
    return at if sent is None else received_at - max(0, instant(sent) - at)


def instant(written: object) -> int:
    """Milliseconds of RFC 3339 text or of epoch milliseconds."""
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        at = int(written)
    elif isinstance(written, str):
        found = re.fullmatch(
            r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))?", written
        )
        if found is None:
            raise Bad
        zone: timezone = UTC
        if found[9]:
            offset = timedelta(hours=int(found[10]), minutes=int(found[11]))
            zone = timezone(-offset if found[9] == "-" else offset)
        whole = seconds([int(part) for part in found.groups()[:6]], zone)
        at = whole * 1000 + int(((found[7] or "") + "000")[:3])
    else:
        raise Bad
    if not 0 <= at <= MAX_TIME_MS:
        raise Bad
    return at


def seconds(parts: list[int], zone: timezone = UTC) -> int:
    try:
        year, month, day, hour, minute, second = parts
        return int(datetime(year, month, day, hour, minute, second, tzinfo=zone).timestamp())
    except (ValueError, OverflowError) as error:
        raise Bad from error


def app_json(source: str, value: dict[str, Any], received_at: int, derived: object, envelope_sent: object) -> Said:
    user, anonymous = text_of(value.get("userId")), text_of(value.get("anonymousId"))
    given = text_of(value.get("messageId")) or text_of(value.get("id"))
    kind, links = "app_event", None
    said_type = str(value.get("type") or "")
    if source == "app-errors":
        kind = "app_error"
        error = value.get("error")
        name = str((error.get("name") if isinstance(error, dict) else None) or said_type or "error")
    elif said_type == "track":
        name = str(value.get("event") or said_type)
    elif said_type in ("page", "screen"):
        name = str(value.get("name") or said_type)
    else:
        name = said_type
    if said_type == "identify" and kind == "app_event":
        links = anonymous
    elif said_type == "alias" and kind == "app_event":
        links = text_of(value.get("previousId")) or anonymous
    if user is None and anonymous is None:
        raise Bad
    own_sent = value.get("sentAt")
    written = value.get("timestamp")
    written = value.get("originalTimestamp") if written is None else written
    at = event_time(written, envelope_sent if own_sent is None else own_sent, received_at)
    matched = "user_id" if user is not None else None
    entry = Entry(at, given, kind, name, matched)
    return Said(entry, given or derived, received_at, user, anonymous, links=links if user is not None else None)


def server_json(source: str, value: dict[str, Any], received_at: int, derived: object) -> Said:
    given = text_of(value.get("id"))
    path = str(value.get("path") or "")
    user = text_of(value.get("user_id"))
    user = text_of(value.get("userId")) if user is None else user
    if source == "access":
        kind, name = "server_access", f"{value.get('method')} {path.partition('?')[0]}"
        user = text_of(value.get("remote_user")) if user is None else user
    else:
        kind, error = "server_error", value.get("error")
        named = (error.get("name") or error.get("type")) if isinstance(error, dict) else None
        name = str(named or value.get("level"))
    keys = ("timestamp", "time", "@timestamp", "ts")
    written = next((value[key] for key in keys if value.get(key) is not None), None)
    at = event_time(written, None, received_at)
    return server(
        Entry(at, given, kind, name, None), given or derived, received_at, user, path, value.get("request_id")
    )


COMBINED = re.compile(
    r"(?P<host>\S+) (?P<ident>\S+) (?P<user>\S+) "
    r"\[(?P<day>\d\d)/(?P<month>[A-Z][a-z]{2})/(?P<year>\d{4}):(?P<clock>\d\d:\d\d:\d\d) (?P<zone>[+-]\d{4})\] "
    r'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/[\d.]+" (?P<status>\d{3}) (?P<size>\d+|-)'
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?(?: "(?P<request>[^"]*)")?'
)
NGINX = re.compile(r"(\d{4})/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d) \[(\w+)\] (.*)", re.S)
APACHE = re.compile(
    r"\[[A-Z][a-z]{2} ([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d)(?:\.(\d+))? (\d{4})\] \[(?:\w*:)?(\w+)\] (.*)",
    re.S,
)


def text_line(source: str, line: str, received_at: int, derived: object) -> Said:
    if source == "access":
        found = COMBINED.fullmatch(line.rstrip())
        if found is None:
            raise Bad
        offset = timedelta(hours=int(found["zone"][1:3]), minutes=int(found["zone"][3:]))
        zone = timezone(-offset if found["zone"][0] == "-" else offset)
        clock = [int(part) for part in found["clock"].split(":")]
        at = 1000 * seconds([int(found["year"]), month(found["month"]), int(found["day"]), *clock], zone)
        entry = Entry(at, None, "server_access", f"{found['method']} {found['target'].partition('?')[0]}", None)
        return server(
            entry, derived, received_at, text_of(dash(found["user"])), found["target"], dash(found["request"])
        )
    if (found := NGINX.fullmatch(line)) is not None:
        at, level, rest = 1000 * seconds([int(part) for part in found.groups()[:6]]), found[7], found[8]
    elif (found := APACHE.fullmatch(line)) is not None:
        parts = [int(found[7]), month(found[1]), *(int(found[place]) for place in (2, 3, 4, 5))]
        at, level, rest = 1000 * seconds(parts) + int(((found[6] or "") + "000")[:3]), found[8], found[9]
    else:
        raise Bad
    named = dict(re.findall(r'\b(request_id|user_id|request): "([^"]*)"', rest))
    target = named.get("request", "").partition(" ")[2].partition(" ")[0]
    entry = Entry(at, None, "server_error", level, None)
    return server(entry, derived, received_at, text_of(named.get("user_id")), target, named.get("request_id"))


def month(name: str) -> int:
    if name not in MONTHS:
        raise Bad
    return MONTHS.index(name) + 1


def dash(text: str | None) -> str | None:
    """What a log writes where there is nothing."""
    return None if text in (None, "", "-") else text


def server(entry: Entry, key: object, received_at: int, user: str | None, path: str, request: object) -> Said:
    matched = "user_id" if user is not None else None
    if user is None:
        in_path = re.search(r"/users/([^/?#]+)/", path.partition("?")[0])
        if in_path is not None:
            user, matched = in_path[1], "path"
    return Said(replace(entry, matched_by=matched), key, received_at, user, None, dash(text_of(request)))
