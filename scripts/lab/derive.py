"""The laboratory's cluster: what cluster.yaml says, with other hosts, nothing to install, and stores at hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.lab.services import ADDRESS, POSTGRES_PORT, REDIS_PORT

HEAD: Final = ADDRESS
WORKERS: Final = ("10.77.0.12", "10.77.0.13")
PARTITIONS: Final = 16
SHARDS: Final = 4
MOST_CPUS: Final = 4
OBJECT_STORE_BYTES: Final = 100 * 1024 * 1024
CLOUD_ONLY: Final = ("available_node_types", "head_node_type", "idle_timeout_minutes", "upscaling_speed")


def derive(path: Path, work: Path) -> dict[str, Any]:
    """A configuration of the provider `local`. The commands that start Ray stay what they are, but that Ray is told
    what a cloud's node type would tell it.
    """
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    types = {name: config["available_node_types"][name]["resources"] for name in ("head", "shards-and-serve")}
    for name in CLOUD_ONLY:
        del config[name]
    config["cluster_name"] = "rebu-lab"
    config["provider"] = {"type": "local", "head_ip": HEAD, "worker_ips": list(WORKERS)}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(work / "key")}
    config["max_workers"] = config["min_workers"] = len(WORKERS)
    config["file_mounts"] = {
        "~/rebu/secrets.env": str(work / "secrets.env"),
        "~/.ray/auth_token": str(work / "ray_token"),
    }
    config["initialization_commands"] = []
    # Nothing is to be installed: ~/rebu/venv is there.
    written = [c for c in config["setup_commands"] if c.startswith(("chmod ", "cat ", "~/rebu/venv/bin/rebu "))]
    config["setup_commands"] = [_stores(command, work) for command in written]
    config["head_start_ray_commands"] = [_told(c, types["head"]) for c in config["head_start_ray_commands"]]
    config["worker_start_ray_commands"] = [
        _told(c, types["shards-and-serve"])
        for c in config["worker_start_ray_commands"]
        if "--on-notice" not in c  # nobody interrupts these
    ]
    return config


def _told(command: str, resources: dict[str, int]) -> str:
    """Ray's own options of a node type. Ray makes a process for each CPU before anybody wants one: a few do here."""
    custom = {name: count for name, count in resources.items() if name != "CPU"}
    options = (
        f"ray start --num-cpus={min(resources['CPU'], MOST_CPUS)} --resources='{json.dumps(custom)}' "
        f"--object-store-memory={OBJECT_STORE_BYTES}"
    )
    return command.replace("ray start", options, 1)


def _stores(command: str, work: Path) -> str:
    """The settings with stores that are here."""
    values = {
        "REBU_PARTITIONS": PARTITIONS,
        "REBU_SHARDS": SHARDS,
        "REBU_MAX_REPLICAS": 2,
        "REBU_JOURNAL_URI": work / "shared" / "journal",
        "REBU_LAKE_URI": work / "shared" / "lake",
        "REBU_REDIS_URL": f'"redis://:$REDIS_PASSWORD@{ADDRESS}:{REDIS_PORT}/0"',
        "REBU_APPDB_URL": f'"postgresql://rebu:$POSTGRES_PASSWORD@{ADDRESS}:{POSTGRES_PORT}/rides"',
    }
    if "cat > ~/rebu/cluster.env" not in command:
        return command
    for name, value in values.items():
        command, found = re.subn(rf"^{name}=.*$", lambda _, n=name, v=value: f"{n}={v}", command, flags=re.M)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"cluster.yaml does not set {name} once")
    return command
