"""Ray for one platform on one machine: its environment, its ports, its folder.

Serve reads its variables when it is imported, so `prepare` comes before any import of `ray.serve`. They set
HAProxy in front of Serve, straight to the replicas, which is where the throughput comes from, and give
every platform ports of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from rebu_ray.platform.haproxy import install

INLINE_BYTES: Final = 512 * 1024
"""Up to this size rows go to their shard within the call; what is larger goes by way of the object store."""
DRAIN_SECONDS: Final = 5.0
"""How long a gateway that is one too many goes on, so that HAProxy knows."""
_PORTS: Final = range(20_000, 30_000)
_FIRST_BLOCK: Final = _PORTS.stop
PORT_BLOCK: Final = 100
"""Ports reserved for the replicas of one platform."""
_SOCKET_PATH: Final = "RAY_SERVE_HAPROXY_SOCKET_PATH"
_FOLDER_LENGTH: Final = 19
"""The longest folder below which HAProxy's socket paths stay within the 97 bytes that it allows."""


class PortTaken(Exception):
    """Something listens already where the platform was to."""


class NotDrained(Exception):
    """Ray refuses to drain a node; the message says why."""


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now, for what will in a while. Nobody else is given it here for as
    long as this process runs.

    None of those that the system gives to connections (from 32768 on, on Linux): one of them might have it by then.
    Raises PortTaken where there is none.
    """
    for _ in range(1000):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if _claimed(port):
                return port
    raise PortTaken(f"found no free port from {_PORTS.start} to {_PORTS.stop - 1}: see what listens there (`ss -ltn`)")


def _claimed(port: int) -> bool:
    """Whether a port is this process's from now on, as far as processes are concerned that ask here.

    Two platforms that start at the same time would else find the same port free. On Linux, a socket's name that is no
    file stands for it, and is gone with the process.
    """
    if sys.platform == "linux":
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0rebu-port-{port}")
        except OSError:
            claim.close()
            return False
        claim.detach()
    return True


def check_port(host: str, port: int) -> None:
    """Raises PortTaken where nothing can listen on host:port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"cannot listen on {host}:{port} ({error.strerror}): choose another with --port") from error


def session_folder(data_dir: str) -> Path:
    """Where Ray and HAProxy keep their sockets and logs while they run: their paths must be short."""
    digest = hashlib.sha256(data_dir.encode()).hexdigest()[:8]
    usual = Path(tempfile.gettempdir()) / f"rebu-{digest}"
    return usual if len(str(usual)) <= _FOLDER_LENGTH else Path("/tmp") / usual.name


def keep_logs(folder: Path, data_dir: str) -> None:
    """Move the logs of the session that ends to the data dir (ray-logs), in place of those of the one before."""
    kept = Path(data_dir) / "ray-logs"
    shutil.rmtree(kept, ignore_errors=True)
    logs = folder / "session_latest" / "logs"
    if logs.exists():
        shutil.copytree(logs.resolve(), kept, ignore=lambda _, names: [n for n in names if n.endswith(".sock")])
    shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers(data_dir: str) -> int:
    """End what an earlier platform on this data dir left running when it was killed; how many processes that were.

    They are known by the session folder in their command line or, as Ray's workers write over theirs, by the place of
    HAProxy's socket in their environment. Only for the holder of the data dir's lock.
    """
    mark = f"{session_folder(data_dir)}/"
    socket_path = f"{mark}h/admin.sock"
    left = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and (
                any(mark in word for word in process.cmdline()) or process.environ().get(_SOCKET_PATH) == socket_path
            ):
                process.kill()
                left.append(process)
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    psutil.wait_procs(left, timeout=10)
    return len(left)


def pillars() -> dict[str, psutil.Process]:
    """By name, the processes of the Ray that this process has started without which nothing of it works."""
    found = {process.name(): process for process in psutil.Process().children()}
    return {name: process for name, process in found.items() if name in ("raylet", "gcs_server")}


def fallen(pillars: Mapping[str, psutil.Process]) -> list[str]:
    """The names of those that are dead."""
    return [name for name, process in pillars.items() if not _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def workers() -> list[psutil.Process]:
    """The workers of the Ray that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::"):
                found.append(process)
    return found


def await_end(workers: list[psutil.Process]) -> None:
    """Wait for workers whose Ray is gone: each notices by itself, a moment later. Ends those that do not."""
    _, left = psutil.wait_procs(workers, timeout=10)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def prepare(data_dir: str, drain_seconds: float) -> Path:
    """Set Ray's environment for a platform of its own; the folder for `ray.init(_temp_dir=...)`."""
    folder = session_folder(data_dir)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    token = Path(data_dir) / "ray_token"
    if not token.exists():
        with open(os.open(token, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
    haproxy = folder / "h"
    haproxy.mkdir(mode=0o700)
    replicas = _free_block(_FIRST_BLOCK)
    os.environ |= {
        **serving(haproxy, drain_seconds),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replicas + PORT_BLOCK - 1),
        # Without a cluster to reach, Ray's own processes listen on loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    return folder


def serving(haproxy: Path, drain_seconds: float = DRAIN_SECONDS) -> dict[str, str]:
    """What Ray and Serve want in the environment wherever Rebu runs, on one machine or on each node of a cluster.

    HAProxy is started by a script that this leaves in its folder, where its sockets are as well. A gateway that is to
    stop goes on for `drain_seconds` at least, until HAProxy sends it nothing more.
    """
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(install(haproxy)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        _SOCKET_PATH: str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        # What is sent twice counts once, so a request whose gateway left without an answer is sent to another one.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # They would cost a tenth of a small request: a line of log each, which a process of Serve's takes apart.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": f"{drain_seconds:g}",
        # An HAProxy that died is started again when it was missed three times: after three seconds, not thirty.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # A proxy that is slow to start, since everything starts at once, is not to be started again.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # Replicas and handles tell of their requests every other second, not every ten: a rush is seen as it begins.
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
        # What Serve and Ray look after and count besides, half as often or less: it is a fifth of what they take idle.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
        "REPORTER_UPDATE_INTERVAL_MS": "10000",
        # A small batch is sooner there within the call; many at once take less by way of the object store.
        "RAY_max_direct_call_object_size": str(INLINE_BYTES),
        # Ray lowers the priority of its workers; here they are the service.
        "RAY_worker_niceness": "0",
        # Arrow gives memory back after a second, not after 10 ms: what comes next has it mapped and cleared anew.
        "MIMALLOC_PURGE_DELAY": "1000",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def _free_block(first: int) -> int:
    """The first of a block of ports of which the beginning is free."""
    for start in range(first, 60_000, PORT_BLOCK):
        if all(_is_free(port) for port in range(start, start + 10)) and _claimed(start):
            return start
    raise PortTaken("no free ports between 30000 and 60000 for the replicas: stop what takes them")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def drain(seconds: int) -> str:
    """Have this node of a cluster take nothing more, since it will be gone in so many seconds; its id.

    Raises NotDrained.
    """
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

    ray.init(address="auto", log_to_driver=False, configure_logging=False)
    try:
        context = ray.get_runtime_context()
        node_id: str = context.get_node_id()
        accepted, reason = GcsClient(address=context.gcs_address).drain_node(
            node_id,
            DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "this node will be gone soon",
            time.time_ns() // 1_000_000 + 1000 * seconds,
        )
    finally:
        ray.shutdown()
    if not accepted:
        raise NotDrained(f"Ray does not drain this node: {reason}")
    return node_id
