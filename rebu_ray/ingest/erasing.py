"""What the owner of partitions does about erased people: nothing of theirs comes in, and what is there goes."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import ray

from rebu_ray.settings import Settings
from rebu_ray.store.index import UNAVAILABLE, links_key, parse_link, unlinks_key
from rebu_ray.store.lake import Lake, Manifest
from rebu_ray.store.links import Link, standing
from rebu_ray.store.log import ShardLog
from rebu_ray.store.redis_cluster import Client, connect
from rebu_ray.store.rows import partition_of
from rebu_ray.store.scrub import Scrubbed, commit_scrubbed, scrub
from rebu_ray.store.tombstones import Tombstones, TombstoneStore

log = logging.getLogger("rebu.erasure")

_AT_ONCE: Final = 4
_AWAY_SECONDS: Final = 2.0
"""How long a Redis that did not answer is left alone: rows wait meanwhile."""


def store_of(settings: Settings) -> TombstoneStore:
    """Where a platform keeps its tombstones."""
    return TombstoneStore(settings.cursors, settings.lake, settings.erasure_secret.encode())


@ray.remote(num_cpus=0.25, max_retries=3)
def scrub_task(lake_uri: str, partition: int, manifest: Manifest, tombstones: Tombstones) -> Scrubbed:
    """`store.scrub.scrub` where there is room for it."""
    return scrub(Lake(lake_uri), partition, manifest, tombstones)


class Erasing:
    """The tombstones of one owner."""

    def __init__(self, settings: Settings, partitions: int, lake: Lake, log: ShardLog) -> None:
        """Raises TombstoneError."""
        self._settings = settings
        self._partitions = partitions
        self._lake = lake
        self._log = log
        self._store = store_of(settings)
        self._redis: Client = connect(settings.redis_url, socket_timeout=2, socket_connect_timeout=1, protocol=2)
        self._others: set[tuple[str, int]] = set()
        self._away_until = 0.0
        log.linked = self._linked
        self.load()

    def load(self) -> None:
        """Take note of every tombstone that there is. From then on the log lets nothing of the erased in or out."""
        self._log.tombstones = self._store.load()

    async def scrub(self) -> int:
        """Take the rows of the erased out of the own partitions' files; how many there were. While nothing flushes."""
        stones = self._log.tombstones
        left = {
            p: m for p, m in tuple(self._log.manifests.items()) if m.erased != stones.digest and (m.files or m.rides)
        }
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(partition: int, manifest: Manifest) -> int:
            async with limit:
                outcome: Scrubbed = await scrub_task.remote(self._settings.lake, partition, manifest, stones)
                after = await asyncio.to_thread(commit_scrubbed, self._lake, manifest, outcome, stones.digest)
                self._log.flushed({partition: after}, ())
                return outcome.rows

        gone = sum(await asyncio.gather(*(one(p, manifest) for p, manifest in sorted(left.items()))))
        if gone:
            log.info("%d rows of erased people are out of the lake", gone)
        return gone

    def _linked(self, phone: str, last: int) -> bool:
        """Whether somebody else was identified on a phone since an erased user was, for the last time, then (ms).

        Where Redis does not answer nobody was: what a phone says that may be an erased person's is not stored.
        """
        if (phone, last) in self._others:
            return True
        if time.monotonic() < self._away_until:
            return False
        partition = partition_of(f"a:{phone}", self._partitions)
        try:
            links = [Link(*parse_link(member)) for member in self._redis.zrange(links_key(partition, phone), 0, -1)]
            unlinks = self._redis.zrange(unlinks_key(partition, phone), 0, -1, withscores=True)
        except UNAVAILABLE:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            return False
        stand = standing(links, {user.decode(): int(at) for user, at in unlinks})
        found = any(link.event_time > last for link in stand)
        if found:
            self._others.add((phone, last))
        return found
