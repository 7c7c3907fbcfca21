"""What is read from the lake: a deployment of its own, so that it never delays a hot read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from ray import serve

from rebu_ray import traces
from rebu_ray.access.autoscaling import LOOK_BACK_SECONDS
from rebu_ray.access.measures import tell_in_background
from rebu_ray.access.ride_formats import arrow, table_of
from rebu_ray.ingest.roles import place
from rebu_ray.ingest.sizing import READER_CPUS
from rebu_ray.logs import SERVE_LOGS
from rebu_ray.settings import Role, Settings
from rebu_ray.store.lake import Lake, again
from rebu_ray.store.member import Codec, members
from rebu_ray.store.ride_days import RideDays
from rebu_ray.store.ride_files import RideFiles
from rebu_ray.store.ride_scan import Overlay, RideQuery, last_place, newest_rides


class RidePage(NamedTuple):
    """One page of a list of rides."""

    data: bytes
    """The documents with commas between them, or where asked for `ride_formats.FLAT` as a stream of Arrow IPC."""
    last: bytes | None
    """The place of the last ride, where there are more after it."""


class LakeReader:
    """Reads from Parquet: pages of streams and of lists of rides, and counts of rides."""

    def __init__(self, lake_uri: str) -> None:
        self._lake = Lake(lake_uri)
        self._rides = RideFiles(self._lake)
        self._days = RideDays(self._rides)

    async def page(
        self, partition: int, stream: str, low: bytes, high: bytes, descending: bool, limit: int, after_seq: int = 0
    ) -> list[bytes]:
        """The first `limit` members of a stream with low <= place < high, as the index would hold them.

        Of the files that hold rows after `after_seq`, which may hold earlier ones as well.
        """
        return await asyncio.to_thread(self._page, partition, stream, low, high, descending, limit, after_seq)

    async def rides(self, partitions: int, query: RideQuery, overlay: Overlay, limit: int, flat: bool) -> RidePage:
        """The first `limit` rides of a list."""
        return await asyncio.to_thread(self._ride_page, partitions, query, overlay, limit, flat)

    async def ride_counts(self, partitions: int, bounds: Sequence[int], overlay: Overlay) -> list[list[int]]:
        """Rides, completed and premature ones between each bound (ms, ascending) and the next."""
        return await asyncio.to_thread(self._ride_counts, partitions, bounds, overlay)

    def _ride_counts(self, partitions: int, bounds: Sequence[int], overlay: Overlay) -> list[list[int]]:
        counts: list[list[int]] = again(lambda: self._days.counts(partitions, bounds, overlay)).tolist()
        return counts

    def _page(
        self, partition: int, stream: str, low: bytes, high: bytes, descending: bool, limit: int, after_seq: int
    ) -> list[bytes]:
        def read() -> pa.Table:
            # The newest manifest, never a remembered one: Redis lets go of rows as soon as it is there.
            files = [file for file in self._lake.manifest(partition).files if file.last_seq > after_seq]
            return self._lake.page(partition, stream, low, high, descending, limit, files)

        return [m for batch in again(read).combine_chunks().to_batches() for m in members(batch, Codec())]

    def _ride_page(self, partitions: int, query: RideQuery, overlay: Overlay, limit: int, flat: bool) -> RidePage:
        # One more than is shown tells whether there are more.
        found = again(lambda: next(newest_rides(self._rides, partitions, query, overlay, limit + 1), None))
        bodies: list[bytes] = [] if found is None else found["body"].slice(0, limit).to_pylist()
        last = None if found is None or found.num_rows <= limit else last_place(found.slice(0, limit))
        return RidePage(arrow(table_of(bodies)) if flat else b",".join(bodies), last)


class ServedLakeReader(LakeReader):
    """A replica of it."""

    def __init__(self, settings: Settings) -> None:
        traces.begin(settings, "lake-reader")
        super().__init__(settings.lake)
        tell_in_background("lake-reader")


def deployment(settings: Settings) -> serve.Application:
    """The Serve deployment of the lake's reader."""
    reader: Any = serve.deployment(ServedLakeReader)
    bound: serve.Application = reader.options(
        name="LakeReader",
        ray_actor_options={"num_cpus": READER_CPUS, "resources": place(settings, Role.GATEWAY)},
        max_ongoing_requests=16,
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": 2,
            "look_back_period_s": LOOK_BACK_SECONDS,
            "upscale_delay_s": 5,
            "downscale_delay_s": 60,
        },
        max_surge_percent=100,
        logging_config=SERVE_LOGS,
    ).bind(settings)
    return bound
