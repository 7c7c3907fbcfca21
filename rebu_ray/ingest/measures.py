"""What is counted and timed on the way of a record: where requests come in, and in the shards."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client import CollectorRegistry, Counter, Gauge

from rebu_ray import traces
from rebu_ray.ingest.answer import Call, origins_of
from rebu_ray.logs import about, event
from rebu_ray.metrics import new_registry, seconds
from rebu_ray.process.forecast.question import Known, Question
from rebu_ray.records import Kind, Source
from rebu_ray.traces import Step

log = logging.getLogger("rebu.shard")

VERDICTS: Final = ("accepted", "duplicate", "rejected", "suppressed")
LINKS: Final = ("linked", "ambiguous", "none")


class Verdicts:
    """What became of records, and how long it took until that was certain."""

    def __init__(self, registry: CollectorRegistry) -> None:
        records = Counter(
            "rebu_ingest_records",
            "Records that came in, by their verdict; the rejected ones are dead letters.",
            ("source", "verdict"),
            registry=registry,
        )
        self._records: dict[Source, tuple[Counter, ...]] = {
            source: tuple(records.labels(source.value, verdict) for verdict in VERDICTS)
            for source in Source
            if source is not Source.COMPUTED
        }
        self._seconds = seconds(
            registry,
            "rebu_ingest_acknowledge_seconds",
            "From a parsed request to its verdicts: durable and, unless Redis is away, readable.",
        )

    def note(self, source: Source, counts: tuple[int, ...], took: float) -> None:
        """A request was answered: so many of each of VERDICTS, after so many seconds."""
        for counter, count in zip(self._records[source], counts, strict=True):
            if count:
                counter.inc(count)
        self._seconds.observe(took)


class ShardMeasures:
    """Of one shard's process."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.append = seconds(
            self.registry, "rebu_shard_append_seconds", "From a batch's arrival to its rows being durable and indexed."
        )
        self.commit = seconds(self.registry, "rebu_shard_commit_seconds", "Writing and syncing a group of batches.")
        self.index = seconds(self.registry, "rebu_shard_index_seconds", "Indexing what was committed together.")
        self.flush = seconds(self.registry, "rebu_shard_flush_seconds", "Moving rows from the journal to the lake.")
        self.documents = seconds(
            self.registry,
            "rebu_shard_documents_seconds",
            "From rows being readable to the documents of all that they touch being durable.",
        )
        messages = Counter(
            "rebu_shard_messages",
            "Documents of messages that changed, by what the message was linked to.",
            ("link",),
            registry=self.registry,
        )
        self._messages = {link: messages.labels(link) for link in LINKS}
        self._premature = Counter(
            "rebu_shard_premature_rides",
            "Documents of rides that changed and say that the ride ended too early.",
            registry=self.registry,
        )

    def appended(self, slot: int, calls: Sequence[Call], journalled: Step, indexed_from: float) -> None:
        """What these calls brought to a slot is durable and indexed, together: the journal took it, then the index."""
        now = time.monotonic()
        tracing = traces.active()
        for call in calls:
            self.append.observe(now - call.at)
            if tracing is not None and call.origins:
                queued, indexed = Step("queue", call.at, journalled.began), Step("index", indexed_from, now)
                told = {"rebu.slot": slot, "rebu.rows": call.batch.num_rows, "rebu.calls": len(calls)}
                tracing.done(call.origins, Step("append", call.at, now), told, (queued, journalled, indexed))
        with about(origins_of(calls)):
            rows = sum(call.batch.num_rows for call in calls)
            event(log, "stored", slot=slot, rows=rows, ms=round(1000 * (now - calls[0].at), 1))

    def computed(self, documents: pa.RecordBatch) -> None:
        """Documents became durable."""
        kinds = documents["kind"]
        for kind in (Kind.MESSAGE_DOCUMENT, Kind.RIDE_DOCUMENT):
            chosen = pc.equal(kinds, kind.value)
            if not chosen.true_count:
                continue
            for body in documents["body"].filter(chosen).to_pylist():
                found = msgspec.json.decode(body, type=_Computed)
                if found.premature:
                    self._premature.inc()
                if found.document is not None and found.document.link is not None:
                    self._messages[found.document.link.status].inc()


class _Link(msgspec.Struct):
    status: str


class _Message(msgspec.Struct):
    link: _Link | None = None


class _Computed(msgspec.Struct):
    document: _Message | None = None
    premature: bool | None = None


class ForecastMeasures:
    """How good the forecasts are that were asked for last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._error = Gauge(
            "rebu_forecast_error_ratio",
            "Of the days of the past month that were forecast: the sum of the errors, by the sum of the rides.",
            registry=registry,
        )
        self._mase = Gauge(
            "rebu_forecast_backtest_mase_ratio",
            "Mean error of the backtest, by that of last week's same day.",
            registry=registry,
        )
        self._coverage = Gauge(
            "rebu_forecast_backtest_coverage_ratio",
            "Part of the backtest's days that came within the band.",
            ("band",),
            registry=registry,
        )
        for unknown in (self._error, self._mase, self._coverage.labels("80"), self._coverage.labels("95")):
            unknown.set(math.nan)
        self._days = Gauge("rebu_forecast_error_days", "The days that the error is of.", registry=registry)

    def note(self, question: Question, known: Known) -> None:
        """A forecast of the current day was asked for, and that is what is known."""
        came = dict(zip(range(question.first.toordinal(), question.today.toordinal()), question.counts, strict=False))
        pairs = [(past.day.mean, came[n]) for past in known.past if (n := past.day.date.toordinal()) in came]
        rides = sum(actual for _, actual in pairs)
        self._days.set(len(pairs))
        if rides:
            self._error.set(sum(abs(expected - actual) for expected, actual in pairs) / rides)
        if known.kept is not None:
            scores = known.kept.forecast.backtest
            for gauge, value in (
                (self._mase, scores.mase),
                (self._coverage.labels("80"), scores.coverage80),
                (self._coverage.labels("95"), scores.coverage95),
            ):
                if value is not None:
                    gauge.set(value)
