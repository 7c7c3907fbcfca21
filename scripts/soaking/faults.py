"""What can break: each kind of fault, how it is brought about, and how one sees that it is mended."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from typing import Final

import httpx
import psutil
import redis

from tests.system.running import PATIENCE_SECONDS, Running, processes_of, redis_of

Mended = Callable[[], bool]
"""Whether what was broken is whole again, by itself."""

SHARDS: Final = (1, 2, 3)
LONGEST_PAUSE_S: Final = 6.0


class NotThere(Exception):
    """There is nothing to be hit now."""


class Faults:
    """The faults of one platform. Whatever is hit is known by the platform's own data folder."""

    def __init__(self, platform: Running, options: tuple[str, ...], dice: random.Random) -> None:
        """`options`: of `rebu up`."""
        self._platform = platform
        self._options = options
        self._dice = dice
        self.kinds: dict[str, Callable[[], Mended]] = {
            "shard": lambda: self._kill("ray::IngestShard"),
            "gateway": lambda: self._kill("ray::ServeReplica:rebu:Gateway"),
            "lake reader": lambda: self._kill("ray::ServeReplica:rebu:LakeReader"),
            "puller": lambda: self._kill("ray::AppDatabasePuller"),
            "coordinator": lambda: self._kill("ray::Coordinator"),
            "HAProxy": lambda: self._kill("haproxy"),
            "HAProxy's manager": lambda: self._kill("ray::HAProxyManager"),
            "Serve's controller": lambda: self._kill("ray::ServeController"),
            "task": self._kill_task,
            "Redis killed": lambda: self._end_redis(signal.SIGKILL),
            "Redis restarted": lambda: self._end_redis(signal.SIGTERM),
            "Redis emptied": self._empty_redis,
            "Redis paused": self._pause_redis,
            "partitions moved": self._scale,
            "raylet": lambda: self._kill("raylet"),
            "GCS": lambda: self._kill("gcs_server"),
            "platform": self._kill_platform,
        }

    def check(self) -> None:
        """What was killed was replaced, and not doubled."""
        for title in ("valkey-server", "haproxy", "ray::Coordinator", "ray::AppDatabasePuller", "raylet", "gcs_server"):
            found = self.processes(title)
            assert len(found) == 1, f"{len(found)} processes of {title}"

    def processes(self, title: str) -> list[psutil.Process]:
        """The platform's processes of a kind."""
        return [process for process in processes_of(self._platform.data_dir) if _title(process).startswith(title)]

    def _kill(self, title: str) -> Mended:
        # Some come a moment after the rest.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := self.processes(title)):
            if time.monotonic() > deadline:
                raise NotThere(f"no {title} runs")
            time.sleep(0.2)
        self._dice.choice(found).kill()
        before = {process.pid for process in found}
        return lambda: any(process.pid not in before for process in self.processes(title))

    def _kill_task(self) -> Mended:
        """A worker that computes, or waits to."""
        found = [p for p in processes_of(self._platform.data_dir) if "_task" in _title(p) or "ray::IDLE" in _title(p)]
        if not found:
            raise NotThere("no worker runs")
        self._dice.choice(found).kill()
        return lambda: True

    def _end_redis(self, how: signal.Signals) -> Mended:
        found = redis_of(self._platform)
        if not found:
            raise NotThere("no Redis runs")
        before = {process.pid for process in found}
        for process in found:
            process.send_signal(how)
        return lambda: any(process.pid not in before for process in redis_of(self._platform))

    def _empty_redis(self) -> Mended:
        note = json.loads((self._platform.data_dir / "platform.json").read_text())
        try:
            with redis.Redis.from_url(note["redis_url"], socket_timeout=10) as client:
                client.flushall()
        except redis.RedisError as error:
            raise NotThere(f"Redis: {error}") from error
        return lambda: True

    def _pause_redis(self) -> Mended:
        found = redis_of(self._platform)
        if not found:
            raise NotThere("no Redis runs")
        for process in found:
            process.suspend()
        time.sleep(self._dice.uniform(1.0, LONGEST_PAUSE_S))
        for process in found:
            process.resume()
        return lambda: True

    def _scale(self) -> Mended:
        url, headers = self._platform.url, {"Authorization": f"Bearer {self._platform.admin_key}"}
        wanted = {"shards": self._dice.choice(SHARDS)}
        answer = httpx.post(f"{url}/v1/admin/scale", json=wanted, headers=headers, timeout=120)
        if answer.status_code != 200:
            raise NotThere(f"POST /v1/admin/scale answers {answer.status_code}")

        def scaled() -> bool:
            try:
                status = httpx.get(f"{url}/v1/status", headers=headers, timeout=30)
            except httpx.TransportError:
                return False
            return status.status_code == 200 and not status.json()["scaling"]

        return scaled

    def _kill_platform(self) -> Mended:
        self._platform.kill_group()
        self._platform.start(*self._options)
        return lambda: True


def _title(process: psutil.Process) -> str:
    """What a process calls itself: Ray's titles, else its name."""
    try:
        return next((word for word in process.cmdline()[:1] if word.startswith("ray::")), process.name())
    except psutil.Error:
        return ""
