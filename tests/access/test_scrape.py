"""What /metrics makes of the state of a platform."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from rebu_ray import __version__
from rebu_ray.access.cluster import Cluster
from rebu_ray.access.measures import GatewayMeasures, Reporter, kind_of
from rebu_ray.access.scrape import Scrape
from rebu_ray.metrics import Part

STATE: dict[str, Any] = {
    "partitions": 16,
    "shards": [
        {"slot": 0, "index": "current", "stored": 5, "index_lag_s": 0.0, "queue_age_s": 0.25, "documents_lag_s": 1.5},
        {"slot": 1, "index": "damaged", "detail": "a segment"},
    ],
    "routing": {"version": 3, "owners": [0] * 16, "leaving": [2, 5]},
    "wanted_shards": 3,
    "moves": {"moved": 4, "fenced": 1, "pauses_ms": [12.0, 80.0]},
    "suspended": [{"source": "error", "senders": 2}],
    "erasures": {"pending": 1, "completed": 7},
    "warehouse": {"path": "w", "loaded_at": 1_772_352_000_500, "rides": 12, "detail": "the disk is full"},
    "free_bytes": {"journal": 1000},
}
SERIES = {
    'rebu_shard_stored_total{slot="0"} 5.0',
    'rebu_shard_index_lag_seconds{slot="0"} 0.0',
    'rebu_shard_queue_age_seconds{slot="0"} 0.25',
    'rebu_shard_documents_lag_seconds{slot="0"} 1.5',
    'rebu_shard_state{slot="1",state="damaged"} 1.0',
    'rebu_shard_state{slot="1",state="current"} 0.0',
    f'rebu_build_info{{version="{__version__}"}} 1.0',
    "rebu_shards 2.0",
    "rebu_shards_wanted 3.0",
    "rebu_partitions 16.0",
    "rebu_partitions_leaving 2.0",
    "rebu_partitions_moved_total 4.0",
    "rebu_partitions_fenced_total 1.0",
    "rebu_partitions_longest_pause_seconds 0.08",
    'rebu_suspended_senders{source="error"} 2.0',
    "rebu_erasures_pending 1.0",
    "rebu_warehouse_rides 12.0",
    "rebu_warehouse_failing 1.0",
    "rebu_warehouse_loaded_timestamp_seconds 1.7723520005e+09",
    'rebu_free_bytes{store="journal"} 1000.0',
    "rebu_redis_up 0.0",
    'rebu_gateway_responses_total{method="other",replica="4",route="none",status="404"} 2.0',
    'rebu_gateway_response_seconds_count{kind="write",replica="4"} 1.0',
}


class NoRedis:
    """A Redis that is away."""

    async def info(self, section: str) -> dict[str, int]:
        raise redis.exceptions.ConnectionError("refused")


def test_the_state_is_told_in_one_text_that_is_good_for_a_moment() -> None:
    measures, asked = GatewayMeasures(), list[str]()
    for _ in range(2):
        measures.answered("BREW", "none", 404, 0.1)
    measures.answered("POST", "/v1/batch", 200, 0.1)

    async def ask(method: str, *args: Any) -> Any:
        asked.append(method)
        kind, _, _, data = args
        assert kind == "gateway"
        return 4, dict(STATE), [Part("gateway-4", {"replica": "4"}, data), Part("shard-0", {"slot": "0"}, data)]

    async def scene() -> list[bytes]:
        scrape = Scrape(Reporter("gateway", measures.registry, ask), NoRedis, Cluster())
        return await asyncio.gather(*(scrape.text() for _ in range(5)))

    texts = asyncio.run(scene())
    assert asked == ["measured"], "asked once for all who ask at the same time"
    assert len(set(texts)) == 1
    lines = texts[0].decode().splitlines()
    assert set(lines) >= SERIES, SERIES - set(lines)
    assert "# TYPE rebu_appdb_lag_seconds gauge" in lines
    assert not [line for line in lines if line.startswith("rebu_appdb")]


@pytest.mark.parametrize(
    ("method", "route", "kind"),
    [
        ("POST", "/v1/track", "write"),
        ("POST", "/v1/logs/{source}", "write"),
        ("POST", "/v1/records/{table}", "write"),
        ("GET", "/v1/users/{user_id}/events", "read"),
        ("GET", "/v1/status", "read"),
        ("GET", "/v1/admin/verify", "admin"),
        ("DELETE", "/v1/users/{user_id}", "admin"),
        ("POST", "/v1/deadletters/replay", "admin"),
        ("POST", "/v1/sql", "sql"),
        ("GET", "/healthz", "other"),
        ("GET", "none", "other"),
    ],
)
def test_answers_are_timed_by_what_they_are_about(method: str, route: str, kind: str) -> None:
    assert kind_of(method, route) == kind


def test_streams_are_counted_and_not_timed() -> None:
    measures = GatewayMeasures()
    measures.answered("GET", "/v1/users/{user_id}/events/stream", 200, 3600.0)
    labels = {"method": "GET", "route": "/v1/users/{user_id}/events/stream", "status": "200"}
    assert measures.registry.get_sample_value("rebu_gateway_responses_total", labels) == 1
    assert measures.registry.get_sample_value("rebu_gateway_response_seconds_count", {"kind": "read"}) == 0
