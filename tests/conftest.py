"""A real Valkey for every test that wants one; how tests are dealt out where several processes run them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from rebu_ray.platform.local_ray import free_port
from rebu_ray.platform.redis_server import RedisServer

settings.register_profile("rebu", deadline=None)  # no test is about time
settings.load_profile("rebu")


class Valkey(NamedTuple):
    """The session's server. It outlives a test, so a test with many examples flushes it before each."""

    url: str
    client: redis.Redis

    def flush(self) -> None:
        """Forget everything."""
        self.client.flushall()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A server that may hold what tests before have left in it."""
    with tempfile.TemporaryDirectory(prefix="rebu-valkey-") as folder:
        server = RedisServer(folder, free_port())
        server.start()
        try:
            with redis.Redis.from_url(server.url, protocol=2) as client:
                yield Valkey(server.url, client)
        finally:
            server.stop()


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """Where an empty Valkey is."""
    valkey.flush()
    return valkey.url


@cache
def _scope(file: str) -> str:
    """What goes to one process together: a file, and all files whose tests share a platform."""
    return "shared platform" if "rebu_up" in Path(file).read_text("utf-8") else file


class _ByPlatform(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Deal tests out by what they share."""
    return _ByPlatform(config, log)
