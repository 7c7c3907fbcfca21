"""GET /metrics: what every process has counted, and the state of the platform, in one text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from rebu_ray import __version__
from rebu_ray.access.cluster import Cluster
from rebu_ray.access.measures import Reporter
from rebu_ray.ingest.answer import CLOSED, DAMAGED, STARTING
from rebu_ray.ingest.appdb import asked as appdb
from rebu_ray.metrics import Part, exposition
from rebu_ray.store.index import UNAVAILABLE
from rebu_ray.store.redis_cluster import Client

FRESH_SECONDS: Final = 1.0
"""For how long a text is good for the next who asks: anybody may."""
STATES: Final = ("current", "behind", STARTING, CLOSED, DAMAGED, "away")
APPDB_STATES: Final = ("following", "loading", "missing")

OF_SHARDS: Final = {
    "stored": ("stored_total", "Rows stored by a shard since it started."),
    "duplicate": ("duplicate_total", "Rows that a shard had already, since it started."),
    "delivered": ("delivered_total", "Lines joined to a user by their request id, since the shard started."),
    "unattributed_expired": ("unattributed_expired_total", "Lines whose request nobody claimed within the hour."),
    "groups": ("groups_total", "Group commits since the shard started."),
    "flushes": ("flushes_total", "Moves from journal to lake since the shard started."),
    "documents": ("documents_total", "Documents of rides and messages that changed, since the shard started."),
    "rows": ("rows", "Rows ever journalled in the shard's partitions."),
    "queued_bytes": ("queued_bytes", "Bytes of rows that wait for their group commit."),
    "queue_age_s": ("queue_age_seconds", "How long the oldest of them has waited."),
    "load_bytes_s": ("load_bytes_per_second", "Bytes of rows that the shard takes a second, of late."),
    "journal_bytes": ("journal_bytes", "Bytes of rows that are in the journal and not in the lake."),
    "journal_age_s": ("journal_age_seconds", "Age of the oldest row that is not in the lake."),
    "unindexed_rows": ("unindexed_rows", "Rows that the index lacks."),
    "index_lag_s": ("index_lag_seconds", "For how long the index has lacked something."),
    "unprocessed_rows": ("unprocessed_rows", "Rows whose rides and messages are not computed yet."),
    "documents_lag_s": ("documents_lag_seconds", "For how long the first of them has been readable."),
    "remembered_ids": ("remembered_ids", "Ids against which duplicates are recognised."),
    "unattributed_waiting": ("unattributed_waiting", "Lines that wait for their request's user."),
    "uncomputed_subjects": ("uncomputed_subjects", "People whose documents cannot be computed: the log says why."),
    "undelivered": ("undelivered", "Joined lines that could not be delivered yet."),
}
"""By the name in a shard's state, what it is called here, and what it is."""


class Scrape:
    """The text, as one gateway replica answers it: put together not more often than it must be."""

    def __init__(self, reporter: Reporter, redis: Callable[[], Client], cluster: Cluster) -> None:
        self._reporter = reporter
        self._redis = redis
        self._cluster = cluster
        self._asking = asyncio.Lock()
        self._at = float("-inf")
        self._text = b""

    async def text(self) -> bytes:
        """All of it, a second old at most. Raises an error of Ray's where the coordinator is away."""
        async with self._asking:
            if time.monotonic() - self._at >= FRESH_SECONDS:
                state, parts = await self._reporter.report("measured")
                state |= await self._cluster.status()
                found = [*_of_platform(state), *_of_shards(state["shards"]), *await self._redis_families()]
                pulled = await appdb.status()
                if pulled is not None and (data := pulled.pop("measured", b"")):
                    parts = [*parts, Part("appdb", {}, data)]
                found += _of_database(pulled)
                self._text = await asyncio.to_thread(exposition, parts, found)
                self._at = time.monotonic()
        return self._text

    async def _redis_families(self) -> list[Metric]:
        try:
            memory = await self._redis().info("memory")
        except UNAVAILABLE:
            return [_gauge("rebu_redis_up", "Whether Redis answers.", 0)]
        return [
            _gauge("rebu_redis_up", "Whether Redis answers.", 1),
            _gauge("rebu_redis_used_memory_bytes", "Memory that Redis uses.", memory["used_memory"]),
            _gauge("rebu_redis_max_memory_bytes", "What it may use; 0: as much as there is.", memory["maxmemory"]),
        ]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    family: Any = (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(name, text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    found: Metric = family
    return found


def _of_shards(shards: list[dict[str, Any]]) -> Iterator[Metric]:
    for name, (called, text) in OF_SHARDS.items():
        values = [((str(shard["slot"]),), shard[name]) for shard in shards if name in shard]
        yield _labelled(f"rebu_shard_{called}", text, ("slot",), values)
    states = [((str(s["slot"]), state), float(s["index"] == state)) for s in shards for state in STATES]
    yield _labelled("rebu_shard_state", "1 for the state that a shard is in.", ("slot", "state"), states)


def _of_platform(state: Mapping[str, Any]) -> Iterator[Metric]:
    yield _labelled("rebu_build_info", "The version that runs.", ("version",), [((__version__,), 1)])
    yield _gauge("rebu_shards", "Shards that there are.", len(state["shards"]))
    yield _gauge("rebu_partitions", "Partitions that they share.", state["partitions"])
    yield _gauge("rebu_shards_wanted", "Shards that there are to be.", state["wanted_shards"])
    leaving = len(state["routing"]["leaving"])
    yield _gauge("rebu_partitions_leaving", "Partitions that are on their way to another shard.", leaving)
    for name, text in (("moved", "Partitions moved between shards"), ("fenced", "Slots taken from shards")):
        value = state["moves"][name]
        yield CounterMetricFamily(f"rebu_partitions_{name}", f"{text}, since the coordinator started.", value=value)
    if pauses := state["moves"]["pauses_ms"]:
        text = "The longest pause of a partition's writes among the last moves."
        yield _gauge("rebu_partitions_longest_pause_seconds", text, max(pauses) / 1000)
    suspended = [((str(one["source"]),), one["senders"]) for one in state["suspended"]]
    yield _labelled(
        "rebu_suspended_senders", "Senders nearly all of whose records are refused.", ("source",), suspended
    )
    yield _gauge("rebu_erasures_pending", "People who are being erased.", state["erasures"]["pending"])
    yield from _of_warehouse(state["warehouse"])
    room = [((name,), free) for name, free in state["free_bytes"].items()]
    yield _labelled("rebu_free_bytes", "Room that is left where journal and lake are.", ("store",), room)
    if "nodes" in state:  # Ray may not answer
        alive = sum(node["alive"] for node in state["nodes"])
        yield _gauge("rebu_nodes", "Nodes of Ray that are alive.", alive)
        cpus = sum(node["cpus"] for node in state["nodes"] if node["alive"])
        yield _gauge("rebu_node_cpus", "What they count as processors.", cpus)
        replicas = [
            ((of["deployment"], str(kind).lower()), count)
            for of in state["replicas"]
            for kind, count in of["replicas"].items()
        ]
        yield _labelled("rebu_replicas", "Replicas of Serve by state.", ("deployment", "state"), replicas)


def _of_warehouse(state: Mapping[str, Any]) -> Iterator[Metric]:
    loaded = state["loaded_at"] is not None
    at = [((), state["loaded_at"] / 1000)] if loaded else []
    yield _labelled("rebu_warehouse_loaded_timestamp_seconds", "When the warehouse was loaded last.", (), at)
    rides = [((), state["rides"])] if loaded else []
    yield _labelled("rebu_warehouse_rides", "Rides in it.", (), rides)
    failing = float(state["detail"] is not None)
    yield _gauge("rebu_warehouse_failing", "Whether loading it failed the last time.", failing)


def _of_database(state: Mapping[str, Any] | None) -> Iterator[Metric]:
    """Without a series where no application database is read."""
    known = [] if state is None else [state]
    connected = [((), float(one["connected"])) for one in known]
    yield _labelled("rebu_appdb_connected", "Whether the application database is read.", (), connected)
    lags = [((), one["lag_s"]) for one in known if one.get("lag_s") is not None]
    yield _labelled("rebu_appdb_lag_seconds", "How long ago all that was in it had been handed on.", (), lags)
    tables = sorted(state["tables"].items()) if state else []
    for name, called, text in (
        ("sent", "sent_rows_total", "Rows handed on."),
        ("refused", "refused_rows_total", "Rows that were refused: they are dead letters."),
        ("rows", "rows", "Rows in the table."),
    ):
        values = [((table,), of[name] or 0) for table, of in tables]
        yield _labelled(f"rebu_appdb_{called}", text, ("table",), values)
    states = [((table, name), float(of["state"] == name)) for table, of in tables for name in APPDB_STATES]
    yield _labelled("rebu_appdb_table_state", "1 for the state that a table is in.", ("table", "state"), states)
