"""One platform for every test that does not need one of its own, with data of all of them in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.collector import Collector, collecting
from tests.system.running import Running, own_platform


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the shared platform sends the traces of requests that say that they are traced."""
    with collecting() as found:
        yield found


@pytest.fixture(scope="session")
def rebu_up(collector: Collector) -> Iterator[Running]:
    """The shared platform. It moves rows to the lake every few seconds and keeps little in Redis.

    It suspends nobody: to it all tests are one sender, and some of them send little but rubbish. What it does for each
    request is in its log.
    """
    settings = {"REBU_FLUSH_SECONDS": "3", "REBU_HOT_EVENTS": "200", "REBU_BREAKER_SHARE": "1"}
    settings |= {"REBU_LOG_FORMAT": "json", "REBU_LOG_REQUESTS": "true"}
    settings |= {"REBU_OTEL_ENDPOINT": collector.url, "REBU_OTEL_SHARE": "0"}
    with own_platform("shared", settings) as found:
        yield found
