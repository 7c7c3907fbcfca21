"""What is counted of records, of documents and of forecasts."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec
from prometheus_client import CollectorRegistry

from rebu_ray.ingest.measures import ForecastMeasures, ShardMeasures, Verdicts
from rebu_ray.process.forecast.choice import Day
from rebu_ray.process.forecast.question import Kept, Known, Past, Question, answered
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.rows import Routed, to_batch

TODAY = date(2026, 3, 10)


def test_records_are_counted_by_source_and_verdict_and_shown_before_there_are_any() -> None:
    registry = CollectorRegistry()
    verdicts = Verdicts(registry)

    def count(source: str, verdict: str) -> float | None:
        return registry.get_sample_value("rebu_ingest_records_total", {"source": source, "verdict": verdict})

    assert count("rides", "suppressed") == 0
    verdicts.note(Source.ACCESS, (5, 2, 1, 0), 0.02)
    verdicts.note(Source.ACCESS, (1, 0, 0, 3), 0.02)
    assert [count("access", of) for of in ("accepted", "duplicate", "rejected", "suppressed")] == [6, 2, 1, 3]
    assert registry.get_sample_value("rebu_ingest_acknowledge_seconds_count") == 2


def document(kind: Kind, name: str, body: object) -> Routed:
    return Routed(0, "u:ada", Record(kind, name, name, Source.COMPUTED, 1, 1, msgspec.json.encode(body)))


def test_matches_and_rides_that_ended_too_early_are_counted_in_what_was_computed() -> None:
    measures = ShardMeasures()
    messages = [
        document(Kind.MESSAGE_DOCUMENT, f"m{n}", {"document": {"link": {"status": status}}, "about": {}})
        for n, status in enumerate(("linked", "none", "linked", "ambiguous"))
    ]
    rides = [
        document(Kind.RIDE_DOCUMENT, f"r{n}", {"ride_id": f"r{n}", "premature": premature})
        for n, premature in enumerate((True, False, None))
    ]
    gone = [
        document(Kind.MESSAGE_DOCUMENT, "m9", {"message_id": "m9", "deleted": True}),
        document(Kind.MOVED, "o:r8", {"version": 2}),
    ]
    measures.computed(to_batch([*messages, *rides, *gone]))

    def links(link: str) -> float | None:
        return measures.registry.get_sample_value("rebu_shard_messages_total", {"link": link})

    assert (links("linked"), links("ambiguous"), links("none")) == (2, 1, 1)
    assert measures.registry.get_sample_value("rebu_shard_premature_rides_total") == 1


def test_the_error_of_forecasts_is_that_of_the_days_that_came() -> None:
    registry = CollectorRegistry()
    measures = ForecastMeasures(registry)
    first = TODAY - timedelta(70)
    counts = tuple(100 + 10 * (n % 7) for n in range(70))
    question = Question("UTC", TODAY, 7, first, counts)
    measures.note(question, Known(None, False, []))
    assert registry.get_sample_value("rebu_forecast_error_days") == 0

    def said(days_ago: int, mean: float) -> Past:
        day = TODAY - timedelta(days_ago)
        return Past(Day(day, mean, 0, 0, 0, 0), day - timedelta(1))

    came = [counts[70 - n] for n in (1, 2)]
    past = [said(1, came[0] + 30), said(2, came[1] - 10), said(90, 5)]
    measures.note(question, Known(Kept("", 0, answered(question)), True, past))
    assert registry.get_sample_value("rebu_forecast_error_days") == 2, "the third was before all that is known"
    assert registry.get_sample_value("rebu_forecast_error_ratio") == 40 / sum(came)
    assert registry.get_sample_value("rebu_forecast_backtest_coverage_ratio", {"band": "80"}) is not None
