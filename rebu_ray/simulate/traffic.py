"""A simulated morning as the HTTP requests of phones and log shippers."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rebu_ray.simulate.clock import SECOND
from rebu_ray.simulate.identifiers import generator
from rebu_ray.simulate.phones import Parcel
from rebu_ray.simulate.servers import APIS, Line, Log
from rebu_ray.simulate.sources import with_sent_at
from rebu_ray.simulate.world import Hour, World

_SHIP_AFTER: Final[dict[Log, int]] = {"access": 20 * SECOND, "error": 12 * SECOND}
"""How long a shipper collects the lines of a log before it sends them."""
_SHIP_AT: Final = 500
_RETRY_SHARE: Final = 0.01
_WORTH_PACKING: Final = 2000
_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Upload:
    """One request; who sends it adds the key. Of its `records`, `bad` must be rejected and `duplicates` recognised as
    already sent in an earlier upload; all others are new.
    """

    send_at_ms: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    source: str
    records: int
    bad: int
    duplicates: int


@dataclass(slots=True)
class _Shipper:
    """Sends one log of one server. `sequence` is the number of the next line."""

    server: str
    log: Log
    sequence: int = 1
    lines: list[Line] = field(default_factory=list)

    @property
    def due(self) -> int:
        return self.lines[0].at + _SHIP_AFTER[self.log]

    def shipment(self, at: int) -> _Shipment:
        """What has been collected, to be sent at `at`."""
        taken = _Shipment(at, self, self.sequence, self.lines)
        self.sequence += len(self.lines)
        self.lines = []
        return taken


@dataclass(frozen=True, slots=True)
class _Shipment:
    """A batch of lines; `sequence` is the number of the first one."""

    at: int
    shipper: _Shipper
    sequence: int
    lines: list[Line]


def uploads(
    riders: int, hours: float, seed: int, start: datetime | None = None, start_ms: int | None = None, live: bool = False
) -> Iterator[Upload]:
    """The uploads of `riders` riders over `hours` hours in order of `send_at_ms`, made hour by hour as they are read.

    `start` (default: a Monday, 06:00 UTC) says which hours of the week these are. `start_ms` says when they are to
    have happened: every time is moved there, so that a Monday morning can end now.

    A platform takes `received_at − (sentAt − timestamp)` for the time of an event that says when it was sent, and its
    `timestamp` otherwise. So, with `live` False, nothing says `sentAt` and all clocks are right: hours may be streamed
    in seconds, and each event still lands at its simulated time. With `live` True everything of a phone says `sentAt`
    (a batch in its envelope, an app error itself), some clocks are wrong, and the platform gets the times right if each
    upload is sent when its `send_at_ms` comes.
    """
    world = World(riders, hours, seed, start, start_ms, sent_at="always" if live else "never")
    return stream(world.hours(), seed)


def stream(hours: Iterable[Hour], seed: int) -> Iterator[Upload]:
    """The uploads of a world's hours; `seed` is the world's own."""
    shippers: dict[tuple[str, Log], _Shipper] = {}
    rng = generator(seed, "shippers")
    for hour in hours:
        found = [_phone_upload(parcel) for parcel in hour.parcels]
        for shipment in _shipments(hour, shippers):
            found.append(_line_upload(shipment, shipment.at))
            if rng.random() < _RETRY_SHARE:
                # The answer was lost: the same lines again, with the same number. Not beyond the hour, to keep order.
                later = max(shipment.at, min(shipment.at + rng.randrange(SECOND, 30 * SECOND), hour.end - 1))
                found.append(_line_upload(shipment, later, again=True))
        found.sort(key=lambda upload: upload.send_at_ms)
        yield from found


def _shipments(hour: Hour, shippers: dict[tuple[str, Log], _Shipper]) -> Iterator[_Shipment]:
    """What the shippers send in an hour; no line waits past its end."""
    for line in hour.lines:
        shipper = shippers.setdefault((line.server, line.log), _Shipper(line.server, line.log))
        if shipper.lines and (line.at >= shipper.due or len(shipper.lines) == _SHIP_AT):
            yield shipper.shipment(min(shipper.due, line.at))
        shipper.lines.append(line)
    for shipper in shippers.values():
        if shipper.lines:
            yield shipper.shipment(max(shipper.lines[-1].at, min(shipper.due, hour.end - 1)))


def _line_upload(shipment: _Shipment, at: int, again: bool = False) -> Upload:
    shipper, lines = shipment.shipper, shipment.lines
    bad = sum(line.bad is not None for line in lines)
    headers = {
        "Content-Type": _NDJSON if shipper.log == "error" and shipper.server in APIS else _TEXT,
        "X-Rebu-Producer": f"{shipper.server}/{shipper.log}",
        "X-Rebu-Sequence": str(shipment.sequence),
    }
    body = b"".join(line.raw + b"\n" for line in lines)
    if len(body) > _WORTH_PACKING:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, 1, mtime=0)
    duplicates = len(lines) - bad if again else 0
    return Upload(at, "POST", f"/v1/logs/{shipper.log}", headers, body, shipper.log, len(lines), bad, duplicates)


def _phone_upload(parcel: Parcel) -> Upload:
    bad = sum(item.bad is not None for item in parcel.items)
    headers = {"Content-Type": _JSON}
    if parcel.source == "app-events":
        path = "/v1/batch"
        sent = f',"sentAt":"{parcel.sent_at}"'.encode() if parcel.sent_at else b""
        body = b'{"batch":[%b]%b}' % (b",".join(item.raw for item in parcel.items), sent)
    else:
        path = "/v1/logs/app-errors"
        raws = [with_sent_at(item, parcel.sent_at) for item in parcel.items]
        if len(raws) == 1:
            body = b"[%b]" % raws[0]
        else:
            headers["Content-Type"] = _NDJSON
            body = b"".join(raw + b"\n" for raw in raws)
    if parcel.gzips:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, 1, mtime=0)
    good = len(parcel.items) - bad
    return Upload(
        parcel.send_at, "POST", path, headers, body, parcel.source, len(parcel.items), bad, good if parcel.again else 0
    )
