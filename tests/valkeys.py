"""A real Redis Cluster of three servers on loopback."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from rebu_ray.platform.local_ray import free_port
from rebu_ray.platform.redis_server import find_binary

SLOTS = 16384


class Member:
    """One server of the cluster, which can be killed and started again with what it had saved: nothing."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.bus = free_port()
        """Where the other servers talk to it."""
        self._folder = folder
        self._folder.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def client(self) -> redis.Redis:
        """A client of this server alone."""
        return redis.Redis(port=self.port, protocol=2)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "cluster-enabled": "yes",
            "cluster-port": self.bus,
            "cluster-config-file": self._folder / "nodes.conf",
            "cluster-node-timeout": 2000,
            "dir": self._folder,
            "save": "",
            "logfile": self._folder / "log",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([find_binary(), *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        with self.client as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.BusyLoadingError):
                    assert self._process.poll() is None, (self._folder / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

    def kill(self) -> None:
        """As power does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class Valkeys:
    """The three servers."""

    def __init__(self, folder: Path) -> None:
        self.members = [Member(folder / str(number)) for number in range(3)]
        share = SLOTS // 3 + 1
        for number, member in enumerate(self.members):
            with member.client as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
                for other in self.members[:number]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus)
        self.await_whole()

    @property
    def url(self) -> str:
        """Where clients find the cluster."""
        return f"redis+cluster://127.0.0.1:{self.members[0].port}"

    def await_whole(self) -> None:
        """Return when every server knows that all slots are served."""
        deadline = time.monotonic() + 60
        for member in self.members:
            with member.client as client:
                while True:
                    state = client.execute_command("CLUSTER INFO")
                    if state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "3":
                        break
                    assert time.monotonic() < deadline, state
                    time.sleep(0.05)

    def flush(self) -> None:
        """Forget everything."""
        for member in self.members:
            with member.client as client:
                client.flushall()


@contextmanager
def valkeys() -> Iterator[Valkeys]:
    """A cluster inside the block."""
    with tempfile.TemporaryDirectory(prefix="rebu-valkeys-") as folder:
        found = Valkeys(Path(folder))
        try:
            yield found
        finally:
            for member in found.members:
                member.kill()
