"""The Ray tasks that compute documents, and that rebuild the index."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import lru_cache

import msgspec
import pyarrow as pa
import ray

from rebu_ray.logs import event
from rebu_ray.process.compute import changes, compute
from rebu_ray.process.dirty import Touched
from rebu_ray.process.forecast.question import Question, answered
from rebu_ray.process.full import Crossing, Full, crossing, full
from rebu_ray.process.load import load, subjects_of
from rebu_ray.process.rebuild import Hot, Piece, index_piece
from rebu_ray.store.facts import Keys
from rebu_ray.store.index import Index
from rebu_ray.store.lake import Lake, again
from rebu_ray.store.redis_cluster import Client, connect
from rebu_ray.store.ride_days import RideDays
from rebu_ray.store.ride_files import RideFiles
from rebu_ray.store.ride_scan import NOTHING_FRESH
from rebu_ray.store.rows import encode, to_batch
from rebu_ray.store.tombstones import Tombstones
from rebu_ray.traces import Told, resumed, span

log = logging.getLogger("rebu.task")


@ray.remote(num_cpus=0.25, max_retries=3)
def recompute_task(redis_url: str, partitions: int, subjects: Sequence[str], by: Told) -> bytes:
    """`recompute` where there is room for it."""
    with resumed(by, "task"), span("compute documents", subjects=len(subjects)):
        found = recompute(_redis(redis_url), partitions, subjects)
        if subjects:
            event(log, "computed", subjects=len(subjects), bytes=len(found))
        return found


@ray.remote(num_cpus=0.25, max_retries=3)
def subjects_task(redis_url: str, partitions: int, touched: Touched) -> set[str]:
    """Every subject that is touched: see `process.load.subjects_of`."""
    return subjects_of(_redis(redis_url), Keys(partitions), touched)


@ray.remote(num_cpus=0.25, max_retries=3)
def crossing_task(lake_uri: str, partition: int) -> Crossing:
    """`process.full.crossing` where there is room for it."""
    return crossing(Lake(lake_uri), partition)


@ray.remote(num_cpus=1, max_retries=3)
def full_task(lake_uri: str, partition: int, partitions: int, *crossings: Crossing) -> Full:
    """`process.full.full` where there is room for it."""
    return full(Lake(lake_uri), partition, partitions, crossings, time.time_ns() // 1_000_000)


@ray.remote(num_cpus=0.25, max_retries=3)
def rebuild_task(
    redis_url: str, owner: str, lake_uri: str, partitions: int, piece: Piece, tombstones: Tombstones, hot: Hot
) -> Touched:
    """`process.rebuild.index_piece` where there is room for it, for a shard of that name."""
    return index_piece(_index(redis_url, owner), Lake(lake_uri), partitions, piece, tombstones, hot)


@ray.remote(num_cpus=0.25, max_retries=3)
def forecast_task(question: Question) -> bytes:
    """`process.forecast.question.answered` where there is room for it, encoded."""
    return msgspec.msgpack.encode(answered(question))


@ray.remote(num_cpus=0.25, max_retries=3)
def rides_task(lake_uri: str, partitions: int, edges: Sequence[int]) -> list[int]:
    """Rides between each edge (ms) and the next, as far as they are in the lake."""
    days = RideDays(RideFiles(Lake(lake_uri)))
    found: list[int] = again(lambda: days.counts(partitions, edges, NOTHING_FRESH))[:, 0].tolist()
    return found


def recompute(client: Client, partitions: int, subjects: Sequence[str]) -> bytes:
    """The documents of subjects that changed, as an encoded `WIRE` batch; empty where none did.

    Raises IndexBehind, or one of `store.index.UNAVAILABLE`.
    """
    loaded = load(client, Keys(partitions), subjects)
    found = changes(compute(loaded.facts, loaded.errors), loaded, partitions, time.time_ns() // 1_000_000)
    return encode(to_batch(found)) if found else b""


@lru_cache(maxsize=4)
def _index(url: str, owner: str) -> Index:
    pa.set_cpu_count(1)
    return Index(url, owner)


@lru_cache(maxsize=4)
def _redis(url: str) -> Client:
    """The worker's connection: workers are used again for the next task."""
    pa.set_cpu_count(1)
    return connect(url, socket_timeout=10, socket_connect_timeout=2, protocol=2)
