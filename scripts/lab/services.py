"""Redis and PostgreSQL on the first host of the laboratory, as a company has them somewhere: `python -m ... WORK`."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from rebu_ray.platform.redis_server import find_binary

ADDRESS: Final = "10.77.0.11"
REDIS_PORT: Final = 6390
POSTGRES_PORT: Final = 5432
NETWORK: Final = "10.77.0.0/24"


def secrets(work: Path) -> dict[str, str]:
    """What nobody else may read."""
    lines = (work / "secrets.env").read_text("ascii").splitlines()
    return dict(line.split("=", 1) for line in lines)


def redis(work: Path) -> subprocess.Popen[bytes]:
    """A Valkey that keeps nothing on disk."""
    password = secrets(work)["REDIS_PASSWORD"]
    config = work / "redis.conf"
    config.write_text(
        f'bind {ADDRESS}\nport {REDIS_PORT}\nrequirepass {password}\nsave ""\nappendonly no\n'
        f'maxmemory-policy noeviction\ndir "{work}"\nlogfile "{work / "redis.log"}"\n'
    )
    return subprocess.Popen([find_binary(), str(config)])


def postgres(work: Path) -> subprocess.Popen[bytes]:
    """The server of the package pgserver, as somebody who is not root: it refuses root."""
    spec = importlib.util.find_spec("pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    folder = work / "postgres"
    shutil.copytree(package / "pginstall", folder / "pgserver" / "pginstall")
    libraries = package.with_name("pgserver.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / "pgserver.libs")
    programs, data = folder / "pgserver" / "pginstall" / "bin", folder / "data"
    data.mkdir()
    password = folder / "password"
    password.write_text(secrets(work)["POSTGRES_PASSWORD"])
    nobody = pwd.getpwnam("nobody")
    for path in (data, password):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    as_nobody: Any = {"user": nobody.pw_uid, "group": nobody.pw_gid}
    options = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync", "--username=rebu"]
    subprocess.run(
        [programs / "initdb", *options, f"--pwfile={password}", "-D", data],
        check=True, extra_groups=[], cwd=data, **as_nobody,
    )  # fmt: skip
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {NETWORK} scram-sha-256\n")
    server = ["-c", f"listen_addresses={ADDRESS}", "-c", f"port={POSTGRES_PORT}", "-c", "unix_socket_directories="]
    return subprocess.Popen([programs / "postgres", "-D", data, *server], extra_groups=[], cwd=data, **as_nobody)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    while not (folder / "secrets.env").exists():
        time.sleep(0.05)
    running = [redis(folder), postgres(folder)]
    for process in running:
        process.wait()
