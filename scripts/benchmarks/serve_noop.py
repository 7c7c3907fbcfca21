"""A route that does nothing, served in one of three ways: the peers of serve_proxy.py and idle_cpu.py.

As a program it serves one of them until it is interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import ray
import uvicorn
from platforms import HERE, Program
from ray import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from rebu_ray.platform.local_ray import free_port

WAYS: Final = {
    "haproxy": "HAProxy (Ray Serve, throughput optimized)",
    "proxy": "default proxy (Ray Serve)",
    "uvicorn": "uvicorn (alone)",
}


async def nothing(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/", nothing)])


class Ingress:
    """What Serve wraps the app in."""


class Noop:
    """The route, served in one way, in processes of its own; a context manager."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.name = WAYS[way]

    def __enter__(self) -> Self:
        # Short: HAProxy's sockets lie below it, with a node id of 56 characters in a path of at most 107.
        self._folder = Path(tempfile.mkdtemp(prefix="rb-"))
        self.address = ("127.0.0.1", free_port())
        environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        if self.way == "haproxy":
            environment |= haproxy_environment(self._folder / "h")
        command: list[str | Path] = [sys.executable, HERE / "serve_noop.py", self.way]
        command += ["--port", str(self.address[1]), "--folder", self._folder]
        self.program = Program(command, self._folder / "log", environment)
        try:
            self.program.wait_for("noop: serving")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self.program.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def haproxy_environment(folder: Path) -> dict[str, str]:
    """Serve's HAProxy with every file and port of its own, so that two of them live on one machine."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "RAY_SERVE_HAPROXY_"
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        f"{prefix}CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        f"{prefix}SOCKET_PATH": str(folder / "admin.sock"),
        f"{prefix}METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        f"{prefix}SERVER_STATE_BASE": str(folder),
        f"{prefix}SERVER_STATE_FILE": str(folder / "server-state"),
        f"{prefix}METRICS_PORT": str(free_port()),
        f"{prefix}STATS_PORT": str(free_port()),
    }


def serve_with_ray(port: int, folder: Path) -> None:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 1024**2, _temp_dir=str(folder / "ray"))
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = serve.deployment(num_replicas=1, max_ongoing_requests=100)(serve.ingress(app)(Ingress))
    serve.run(deployment.bind())
    answered = 0
    while answered < 5:  # HAProxy takes a moment to know its replica
        try:
            answered += httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
        except httpx.TransportError:
            time.sleep(0.2)
    print("noop: serving", flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    serve.shutdown()
    ray.shutdown()


def serve_with_uvicorn(port: int) -> None:
    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print("noop: serving", flush=True)

    Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning"
        )
    ).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for Ray's own files")
    arguments = parser.parse_args()
    if arguments.way == "uvicorn":
        serve_with_uvicorn(arguments.port)
    else:
        serve_with_ray(arguments.port, arguments.folder)


if __name__ == "__main__":
    main()
