"""Where a running platform is: what `rebu up` leaves in the data dir for the other commands."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec


class NotRunning(Exception):
    """No platform runs on this data dir; the message says how to start one."""


class AlreadyRunning(Exception):
    """Another process runs a platform on this data dir."""


class Running(msgspec.Struct, frozen=True):
    """A running platform."""

    url: str
    pid: int
    redis_url: str
    ray_address: str
    """RAY_ADDRESS, empty where Ray is the platform's own."""
    gcs_address: str = ""
    """Where Ray's control store is."""
    ray_environment: dict[str, str] = {}
    """What of the environment is Ray's: whoever joins it needs the same."""


def announce(data_dir: str, running: Running) -> None:
    """Leave word of a platform that can serve (platform.json, mode 600: it holds the way to Redis)."""
    path = Path(data_dir) / "platform.json"
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(running))


def withdraw(data_dir: str) -> None:
    """Take the word back."""
    (Path(data_dir) / "platform.json").unlink(missing_ok=True)


def find(data_dir: str) -> Running:
    """The platform that runs on a data dir. Raises NotRunning."""
    path = Path(data_dir) / "platform.json"
    advice = (
        f"no platform runs on {data_dir}: start one with `rebu up --data-dir {data_dir}`, "
        "or name one with --url and --key"
    )
    if not path.exists():
        raise NotRunning(advice)
    running = msgspec.json.decode(path.read_bytes(), type=Running)
    try:
        os.kill(running.pid, 0)
    except ProcessLookupError as error:
        raise NotRunning(f"{advice} (the last one, process {running.pid}, is gone)") from error
    except PermissionError:
        pass
    return running


@contextmanager
def sole_owner(data_dir: str) -> Iterator[None]:
    """Hold the data dir for this process. Raises AlreadyRunning."""
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    with open(Path(data_dir) / "lock", "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"a platform runs on {data_dir} already: use another --data-dir, or stop that one first"
            ) from error
        yield
