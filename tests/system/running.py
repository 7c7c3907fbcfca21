"""A platform in a process of its own, started as a user would start it, and what the tests ask of it."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import psutil

from rebu_ray.keys import load_keys
from rebu_ray.platform.local_ray import free_port, session_folder

REBU: Final = Path(sys.executable).with_name("rebu")
START_SECONDS: Final = 180
STOP_SECONDS: Final = 120
PATIENCE_SECONDS: Final = 60.0
"""How long a test waits for something that must happen; generous, since nothing here is about time."""

Item = dict[str, Any]
Found = TypeVar("Found")


def await_true(ask: Callable[[], Found], what: str, seconds: float = PATIENCE_SECONDS) -> Found:
    """The first answer that is true, asked again and again."""
    deadline = time.monotonic() + seconds
    pause = 0.02
    while True:
        found = ask()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(pause)
        # What is asked often takes the cores from what is waited for.
        pause = min(1.2 * pause, 0.25)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without what would make another platform of it, and with some settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REBU_", "RAY_"))}
    return kept | settings


def rebu(*arguments: str | Path, seconds: float = 120, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [str(REBU), *map(str, arguments)]
    return subprocess.run(
        command, env=environment(**settings), capture_output=True, text=True, timeout=seconds, check=False
    )


def processes_of(data_dir: Path, named: str = "") -> list[psutil.Process]:
    """The processes of the platform on a data dir, orphans included, whose name has a match of a pattern.

    Each has the folder's name about it.
    """
    name, found = str(data_dir), []
    for process in psutil.process_iter():
        try:
            if (
                process.pid == os.getpid()
                or process.status() == psutil.STATUS_ZOMBIE
                or not re.search(named, process.name())
            ):
                continue
            about = (process.cwd(), *process.cmdline(), *process.environ().values())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(name in text for text in about):
            found.append(process)
    return found


class Running:
    """`rebu up` on a data dir."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = settings
        self.output = data_dir.with_name(data_dir.name + ".log")
        self.folder: Path | None = None
        """Where it is started, unless here."""
        self._process: subprocess.Popen[bytes] | None = None
        self._http: httpx.Client | None = None

    # -- its life -------------------------------------------------------------------------------------------------

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        """Start it and wait for nothing."""
        assert self._process is None
        command = [str(REBU), "up", "--data-dir", str(self.data_dir), "--port", str(self.port), *options]
        with self.output.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                env=environment(**self.settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
            )
        return self._process

    def start(self, *options: str) -> None:
        """Start it and wait until it says that it is ready."""
        process = self.launch(*options)
        ready = f"Rebu is ready at {self.url}"
        await_true(lambda: process.poll() is not None or ready in self.said(), "the platform to start", START_SECONDS)
        assert process.poll() is None, (
            f"`rebu up` ended with {process.returncode}:\n{self.said()}\n{self._serve_said()}"
        )
        given = (self.settings.get(f"REBU_{name}_KEY", "") for name in ("WRITE", "READ", "ADMIN"))
        known = load_keys(str(self.data_dir), *given)
        self.write_key, self.read_key, self.admin_key = known.write, known.read, known.admin
        self._http = httpx.Client(base_url=self.url, timeout=120)

    @property
    def http(self) -> httpx.Client:
        assert self._http is not None
        return self._http

    def said(self) -> str:
        """What it printed."""
        return self.output.read_text(errors="replace")

    def _serve_said(self) -> str:
        """The ends of what Serve's own processes logged: why a start failed is often there alone."""
        logs = sorted((self.data_dir / "ray-logs").glob("**/serve/*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in logs)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; the exit code."""
        process = self._let_go()
        process.send_signal(number)
        return process.wait(STOP_SECONDS)

    def kill_group(self) -> None:
        """kill -9 its process group and every process of Ray, and wait until these are gone."""
        process = self._let_go()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)
        for found in self._of_ray():
            kill(found.pid)
        await_true(lambda: not self._of_ray(), "the killed processes to be gone")

    def _of_ray(self) -> list[psutil.Process]:
        return processes_of(self.data_dir, "^(?!valkey-server|redis-server|haproxy)")

    def clean_up(self) -> None:
        """Leave no process and no folder, whatever has happened."""
        process, self._process = self._process, None
        if self._http is not None:
            self._http.close()
            self._http = None
        for found in processes_of(self.data_dir):
            kill(found.pid)
        if process is not None:
            process.wait(STOP_SECONDS)
        shutil.rmtree(session_folder(str(self.data_dir)), ignore_errors=True)

    def _let_go(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        process, self._process = self._process, None
        if self._http is not None:
            self._http.close()
            self._http = None
        return process

    # -- what it is asked -----------------------------------------------------------------------------------------

    def post(
        self, path: str, body: object, content_type: str = "application/json", key: str | None = None, **headers: str
    ) -> httpx.Response:
        """Send bytes as they are, anything else as JSON, with the write key unless told."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {key or self.write_key}", "Content_Type": content_type, **headers}
        raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in sent.items()]
        return self.http.post(path, content=content, headers=raw)

    def write(self, path: str, body: object, content_type: str = "application/json", **headers: str) -> Item:
        """What a write answers, which must be a 200."""
        answer = self.post(path, body, content_type, **headers)
        assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
        receipt: Item = answer.json()
        return receipt

    def batch(self, messages: Iterable[object], **envelope: object) -> Item:
        """Send Segment messages."""
        return self.write("/v1/batch", {"batch": list(messages), **envelope})

    def lines(self, source: str, *texts: str, **headers: str) -> Item:
        """Send log lines."""
        return self.write(
            f"/v1/logs/{source}", "".join(f"{line}\n" for line in texts).encode(), "text/plain", **headers
        )

    def get(self, path: str, params: Mapping[str, str | int] | None = None, key: str | None = None) -> httpx.Response:
        """Ask with the read key unless told."""
        headers = {"Authorization": f"Bearer {key or self.read_key}"}
        return self.http.get(path, params=dict(params or {}), headers=headers)

    def page(self, user: str, **params: str | int) -> Item:
        """One page of a history; 503 says to ask again, and so we do."""
        return self._settled(f"{path_of(user)}/events", params)

    def history(self, user: str, **params: str | int) -> list[Item]:
        """A whole history, page by page; nothing where the user is unknown."""
        return self._list(f"{path_of(user)}/events", params)

    def deadletters(self, **params: str | int) -> list[Item]:
        """All dead letters, page by page."""
        return self._list("/v1/deadletters", params)

    def status(self) -> Item:
        return self._settled("/v1/status", {})

    def fresh_status(self) -> Item:
        """A status that tells of everything that was written up to now; status itself is a heart-beat old."""
        stale = {shard["slot"]: shard["rows"] for shard in self.status()["shards"]}
        self.batch({"type": "track", "event": "Pulse", "userId": f"pulse-{number}"} for number in range(64))

        def ask() -> Item | None:
            found = self.status()
            return found if all(shard["rows"] > stale[shard["slot"]] for shard in found["shards"]) else None

        found = await_true(ask, "the shards to report")
        assert found is not None
        return found

    def shard_pids(self) -> list[int]:
        """The processes of the shards, by slot; waits while one is away."""
        shards = await_true(
            lambda: [s for s in [self.status()["shards"]] if all(shard["index"] == "current" for shard in s)],
            "every shard to be current",
        )[0]
        return [shard["pid"] for shard in shards]

    def admin(self, method: str, path: str) -> Item:
        """Ask with the admin key; the answer must be a 200."""
        answer = self.http.request(method, path, headers={"Authorization": f"Bearer {self.admin_key}"})
        assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
        found: Item = answer.json()
        return found

    def flush(self) -> None:
        """Move all to the lake now."""
        self.admin("POST", "/v1/admin/flush")

    def _list(self, path: str, params: Mapping[str, str | int]) -> list[Item]:
        found: list[Item] = []
        asked = dict(params)
        while True:
            page = self._settled(path, asked)
            found += page["items"]
            if page["next"] is None:
                return found
            asked["cursor"] = page["next"]

    def _settled(self, path: str, params: Mapping[str, str | int]) -> Item:
        """The JSON of a GET, asked again after a 503; an unknown user's list is empty."""

        def ask() -> Item | None:
            answer = self.get(path, params, self.admin_key)
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) > 0
                return None
            if answer.status_code == 404:
                assert answer.json()["code"] == "unknown_user"
                return {"items": [], "next": None}
            assert answer.status_code == 200, f"{path}: {answer.status_code}: {answer.text}"
            found: Item = answer.json()
            return found

        found = await_true(ask, f"{path} to be answered")
        assert found is not None
        return found


@contextmanager
def own_platform(name: str, settings: dict[str, str], *, shards: int = 2, away: bool = False) -> Iterator[Running]:
    """A platform inside the block, which ends well and leaves no process. `away`: started where no package lies."""
    with tempfile.TemporaryDirectory(prefix=f"rebu-{name}-", ignore_cleanup_errors=True) as folder:
        found = Running(Path(folder) / "data", **settings)
        found.folder = Path(folder) if away else None
        try:
            found.start("--shards", str(shards))
            yield found
            assert found.stop() == 0, found.said()
            assert processes_of(found.data_dir) == []
        finally:
            found.clean_up()


def kill(pid: int) -> None:
    """kill -9, whether or not it is gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def path_of(user: str) -> str:
    return f"/v1/users/{quote(user, safe='')}"


def ids(items: Iterable[Item]) -> list[str]:
    return [item["id"] for item in items]


def packed(body: object) -> bytes:
    return gzip.compress(json.dumps(body).encode(), 1, mtime=0)


def redis_of(platform: Running) -> list[psutil.Process]:
    """The processes of the platform's Redis: none for as long as it takes to notice that it died."""
    return processes_of(platform.data_dir, "^(valkey|redis)-server$")
