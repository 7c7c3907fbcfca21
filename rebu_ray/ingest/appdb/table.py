"""One table of the application database: how far it has been read, and what of it is known.

Everything that a pull reads goes through `novel`, which drops what is known already; so every way of reading may
read too much, and together they must read enough:

- by version: rows whose `updated_at` is not older than the newest one seen, less an overlap. Quick, with an index.
- by transaction (tables of PostgreSQL): rows written since the oldest transaction that was in flight at the last
  such look. The database's own book-keeping: a transaction that commits late, or writes an old `updated_at`, is
  found whatever its clock said. Takes a scan, so it may use a fiftieth of the time.
- by key (a sweep): every row's key and version against the ledger. Finds what is gone, and whatever else escaped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from rebu_ray.ingest.appdb.database import Shape
from rebu_ray.ingest.appdb.ledger import Known, Ledger, State, hash_of
from rebu_ray.ingest.dialects import tables
from rebu_ray.ingest.dialects.tables import Row
from rebu_ray.records import Parsed, Record, Refusal, Source
from rebu_ray.store.cursor import FORMAT, Cursors
from rebu_ray.store.journal import JournalError
from rebu_ray.store.versions import read


class Saved(msgspec.Struct):
    """The cursor's file."""

    format: int = FORMAT
    watermark: int | None = None
    """The newest version that was handed on, ms; never later than when that was."""
    loaded: bool = False
    place: list[Any] | None = None
    """Where the first load has come to."""
    done: int | None = None
    """PostgreSQL: all that earlier transactions wrote has been handed on."""
    sent: int = 0
    refused: int = 0
    ledger: State = msgspec.field(default_factory=State)


class Batch(NamedTuple):
    """What to hand on, and what to remember when that is durable."""

    parsed: Parsed
    known: list[Known]
    watermark: int | None


class Pace(NamedTuple):
    """How often a whole table is looked at, where something changed."""

    sweep_seconds: float = 2.0
    """At most once in so long all keys, where the table does not tell what was written last."""
    telling_factor: int = 30
    """So many times that long where it does."""
    count_seconds: float = 2.0
    """At most once in so long the number of rows."""
    share: float = 50.0
    """Each of these takes one part in so many of the time at most,"""
    hurried_share: float = 5.0
    """one in so many where rows are known to be missing."""


class Schedule:
    """When a costly look is due: when something has changed since the last one, and that is not too short ago."""

    def __init__(self, least_seconds: float, pace: Pace) -> None:
        self.least_seconds = least_seconds
        self._pace = pace
        self.wanted = True
        self.begun_at = -1.0
        """When the last look began."""
        self._from = 0.0
        self._soonest = 0.0

    def due(self, now: float) -> bool:
        return self.wanted and now >= self._from

    def begun(self) -> None:
        self.wanted, self.begun_at = False, time.monotonic()

    def ended(self, now: float, cost: float) -> None:
        self._from = now + max(self.least_seconds, self._pace.share * cost)
        self._soonest = now + self._pace.hurried_share * cost

    def hurry(self) -> None:
        """Something is known to be amiss."""
        self.wanted, self._from = True, min(self._from, self._soonest)


class Sweep:
    """A walk through the keys of a table, under way."""

    def __init__(self) -> None:
        self.place: tuple[Any, ...] | None = None
        self.seen: list[int] = []
        self.cost = 0.0


class Reading:
    """One table. No method waits; `load` and `save` block on the cursor's place."""

    def __init__(self, source: Source, cursors: Cursors, pace: Pace) -> None:
        """Raises OSError, msgspec.DecodeError for a cursor that is none, JournalError for one of a newer version."""
        self.source = source
        self._cursors = cursors
        self._name = f"appdb/{source}"
        data = cursors.load(self._name)
        what = f"the cursor of the table `{source}`"
        self.saved = Saved() if data is None else read(data, Saved, FORMAT, what, JournalError)
        self.ledger = Ledger(cursors, self._name, self.saved.ledger)
        self.shape: Shape | None = None
        self.trouble = "it is not there"
        """Why the table cannot be read, where it cannot."""
        self.total = 0
        """Rows to load, while they are loaded."""
        self.mark = ""
        """Everything up to here has been read by version."""
        self.late = Schedule(0.0, pace)
        self.count = Schedule(pace.count_seconds, pace)
        self.sweep = Schedule(pace.sweep_seconds, pace)
        self.sweeping: Sweep | None = None

    def has_rested(self, since: float, now: float) -> bool:
        """Whether all that was there at a time has been read, as far as it is known that something was (monotonic)."""
        if self.shape is None:
            return True
        looks = [self.count, self.late] if self.shape.has_xmin else [self.count]
        waits = any(look.wanted and look.begun_at < since for look in looks)
        return self.saved.loaded and not waits and self.sweeping is None and not self.sweep.due(now)

    def save(self) -> None:
        """Make it durable how far this has come."""
        self.saved.ledger = self.ledger.state()
        self._cursors.save(self._name, msgspec.msgpack.encode(self.saved))
        self.ledger.saved()

    def novel(self, rows: Sequence[Row], now: int) -> Batch:
        """What of these rows is not known yet, as records received at `now` (ms)."""
        parsed: Parsed = []
        known: list[Known] = []
        watermark = self.saved.watermark
        moved: list[tuple[int, int]] = []
        for row in rows:
            form = tables.form(self.source, row)
            digest = form.digest
            key = tables.key_of(self.source, row)
            if key is None:
                key = f"\0{digest:016x}"
            key_hash = hash_of(key)
            if self.sweeping is not None:
                self.sweeping.seen.append(key_hash)
            before = self.ledger.get(key_hash)
            version = self.version(row)
            if before is not None and before.digest == digest and not before.gone:
                continue
            if watermark is None or watermark < version:
                watermark = min(version, now) or watermark
            if before is not None and before.gone and version <= before.version:
                # It was gone and is there again as it was: as a new version, or it would stay gone.
                version = before.version + 1
                if self.source is not Source.RIDE_DESTINATIONS:
                    row = {**row, "updated_at": version}
                    form = tables.form(self.source, row)
            entry = tables.row(self.source, row, now, form)
            user = None
            if isinstance(entry, Record):
                user = entry.user_id
                if before is not None and before.user != hash_of(user) and version > before.version:
                    moved.append((key_hash, version))
            parsed.append(entry)
            known.append(Known(key, user, version, digest))
        return Batch(self._taken_back(moved, now) + parsed, known, watermark)

    def lost(self, now: int) -> Batch:
        """What a sweep that has come to its end did not see: the rows that are gone."""
        assert self.sweeping is not None
        parsed: Parsed = []
        known: list[Known] = []
        for was in self.ledger.missing(self.sweeping.seen):
            at = max(now, was.version + 1)
            known.append(Known(was.key, was.user, at, was.digest, True))
            if self.source is not Source.RIDE_DESTINATIONS and not was.key.startswith("\0"):
                parsed.append(tables.deletion(self.source, was.key, was.user, at, now))
        return Batch(parsed, known, self.saved.watermark)

    def handed_on(self, batch: Batch) -> None:
        """The batch is durable in the shards."""
        self.ledger.put(batch.known)
        self.saved.watermark = batch.watermark
        refused = sum(isinstance(entry, Refusal) for entry in batch.parsed)
        self.saved.refused += refused
        self.saved.sent += len(batch.parsed) - refused

    def differing(self, rows: Iterable[Row]) -> list[Any]:
        """Of rows that a sweep sees, the keys of those that are unknown or known in another version."""
        assert self.shape is not None
        assert self.sweeping is not None
        found = []
        for row in rows:
            key = tables.key_of(self.source, row)
            before = None if key is None else self.ledger.get(hash_of(key))
            version = self.version(row)
            if before is None or before.gone or version == 0 or version != before.version:
                found.append(row[self.shape.keys[0]])
            elif key is not None:
                self.sweeping.seen.append(hash_of(key))
        return found

    def version(self, row: Row) -> int:
        """The version of a row, ms; 0 where it does not say."""
        column = tables.SCHEMAS[self.source].version
        return tables.moment(row.get(column)) or 0

    def _taken_back(self, moved: list[tuple[int, int]], now: int) -> Parsed:
        """Rows that are another user's now are gone from the one whose they were, just before they became theirs."""
        whole = self.ledger.find(key_hash for key_hash, _ in moved) if moved else {}
        taken: Parsed = []
        for key_hash, version in moved:
            was = whole.get(key_hash)
            if was is not None:
                taken.append(tables.deletion(self.source, was.key, was.user, version - 1, now))
        return taken
