"""The embedded Redis: what it is taken for when it had to be started again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
import redis

from rebu_ray.platform.local_ray import free_port
from rebu_ray.platform.redis_server import RedisServer
from rebu_ray.store.index import parse_position, position_key, position_value


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_died_comes_back_with_an_index_that_lags_behind(tmp_path: Path, how: signal.Signals) -> None:
    server = RedisServer(str(tmp_path), free_port())
    server.start()
    try:
        assert server.revive() is False
        with redis.Redis.from_url(server.url) as client:
            for partition in (0, 15):
                client.set(position_key(partition), position_value(7 + partition))
            client.set("other", "kept")
            client.save()
        process = psutil.Process(server.pid)
        process.send_signal(how)
        while server.pid is not None:
            time.sleep(0.01)
        assert server.revive() is True
        # The password is the same as before, and so is everything but whether it is to be believed.
        with redis.Redis.from_url(server.url) as client:
            for partition in (0, 15):
                position = parse_position(client.get(position_key(partition)))
                assert position is not None
                assert (position.seq, position.behind) == (7 + partition, True)
            assert client.get("other") == b"kept"
            assert client.exists(position_key(1)) == 0
        assert (tmp_path / "password").read_text() in (tmp_path / "server.conf").read_text()
    finally:
        server.stop()


def test_nobody_is_let_in_before_what_comes_first_is_done(tmp_path: Path) -> None:
    server = RedisServer(str(tmp_path), free_port())
    refused = []

    def first(client: redis.Redis) -> None:
        with redis.Redis.from_url(server.url) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        refused.append(client.ping())

    try:
        server.start(first)
        assert refused == [True]
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    finally:
        server.stop()
