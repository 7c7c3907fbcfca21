"""More gateways and shards when much comes, fewer when it is over, and nothing lost on the way up or down."""

from __future__ import annotations

from contextlib import ExitStack

import httpx
import pytest

from tests.system.load import Load
from tests.system.running import Running, await_true, own_platform

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SETTINGS = {
    "REBU_MIN_REPLICAS": "1",
    "REBU_MAX_REPLICAS": "2",
    "REBU_TARGET_REQUESTS": "1",
    "REBU_UPSCALE_SECONDS": "1",
    "REBU_DOWNSCALE_SECONDS": "4",
    "REBU_MAX_SHARDS": "2",
    "REBU_SHARD_BYTES_S": "2000",
}


def sizes(platform: Running) -> tuple[int, int]:
    """Gateways that run, and shards."""
    status = platform.status()
    (gateways,) = (found for found in status["replicas"] if found["deployment"] == "Gateway")
    return gateways["replicas"].get("RUNNING", 0), status["wanted_shards"]


def test_the_platform_grows_with_its_load_and_shrinks_after_it() -> None:
    with own_platform("sizes", SETTINGS, shards=1) as platform, ExitStack() as stack:
        assert sizes(platform) == (1, 1)
        with Load(platform, "rush", writers=6, pause=0.0) as load:
            await_true(lambda: sizes(platform) == (2, 2), "the platform to grow")
            load.await_more(300)
            told = platform.status()["autoscaling"]
            assert told["requests_at_once"] > 0
            # They ask nothing while the platform shrinks.
            clients = [stack.enter_context(httpx.Client(base_url=platform.url, timeout=60)) for _ in range(4)]
            assert [tap(client, platform.write_key) for client in clients] == [200] * 4
        await_true(lambda: sizes(platform) == (1, 1), "the platform to shrink")
        await_true(lambda: len(platform.status()["shards"]) == 1, "the shard that is not wanted to leave")
        assert [tap(client, platform.write_key) for client in clients] == [200] * 4
        load.check(platform)
        assert load.other == []
        assert platform.get("/v1/audit", key=platform.admin_key).json()["balanced"]


def tap(client: httpx.Client, key: str) -> int:
    """The status of a write."""
    event = {"type": "track", "event": "Tapped", "userId": "idle"}
    return client.post("/v1/track", json=event, headers={"Authorization": f"Bearer {key}"}).status_code
