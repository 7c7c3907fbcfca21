"""A real PostgreSQL: the binaries of the package pgserver, which needs no installed server."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

_UNPRIVILEGED: Final = "nobody"
"""PostgreSQL refuses to run as root."""


class PostgresServer:
    """A server on a socket in a folder of its own, with one database a test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._as: Any = {}
        spec = importlib.util.find_spec("pgserver")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        installed = Path(spec.submodule_search_locations[0]) / "pginstall"
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_UNPRIVILEGED)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            # Where the package lies may be closed to everybody else.
            libraries = installed.parent.with_name("pgserver.libs")
            shutil.copytree(installed, folder / "pgserver" / "pginstall")
            if libraries.exists():
                shutil.copytree(libraries, folder / "pgserver.libs")
            installed = folder / "pgserver" / "pginstall"
            folder.chmod(0o755)
        self._bin = installed / "bin"
        self._data = folder / "data"
        self._data.mkdir()
        if self._as:
            os.chown(self._data, self._as["user"], self._as["group"])
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        command = [str(self._bin / "initdb"), "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        subprocess.run(
            [*command, "--username=postgres", "-D", str(self._data)],
            check=True, capture_output=True, cwd=self._data, **self._as,
        )  # fmt: skip

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = ["-k", str(self._data), "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=30"]
        with (self._folder / "postgres.log").open("ab") as out:
            process = self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self._data, **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "postgres.log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait(60)

    def new_database(self) -> str:
        """The name of an empty database."""
        self._databases += 1
        name = f"app{self._databases}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return name

    def url(self, database: str) -> str:
        return f"postgresql://postgres:secret@/{database}?host={self._data}"

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """A connection that commits each statement."""
        return psycopg.connect(self.url(database), autocommit=True)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that runs inside the block."""
    with tempfile.TemporaryDirectory(prefix="rebu-pg-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
