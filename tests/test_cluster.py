"""cluster.yaml: Ray takes it, and what it says of this project is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from rebu_ray.settings import Role, Settings, load
from scripts.lab.derive import derive

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "cluster.yaml").read_text()


@pytest.fixture
def config() -> dict[str, Any]:
    prepared: dict[str, Any] = prepare_config(yaml.safe_load(TEXT))
    return prepared


def heredoc(config: dict[str, Any], name: str) -> str:
    """What a set-up command writes to a file."""
    command: str = next(c for c in config["setup_commands"] if f"cat > ~/rebu/{name} " in c)
    return command.split("<<'END'\n", 1)[1].rsplit("END", 1)[0]


def starts(config: dict[str, Any]) -> list[str]:
    """Every command that starts Ray."""
    return [
        command
        for name in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[name]
        if "ray start" in command
    ]


def test_ray_takes_it(config: dict[str, Any]) -> None:
    validate_config(config)
    assert config["provider"]["type"] == "aws"


def test_there_are_a_head_and_two_types_of_workers_of_which_one_is_spot(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    spot = {name for name, kind in types.items() if "InstanceMarketOptions" in kind["node_config"]}
    assert config["head_node_type"] == "head"
    assert set(types) == {"head", "shards-and-serve", "tasks"}
    assert spot == {"tasks"}
    assert types["shards-and-serve"]["min_workers"] >= 2
    assert sum(kind["max_workers"] for kind in types.values()) == config["max_workers"]


def test_actors_find_places_and_none_of_them_on_spot(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    named = {name: {r for r in kind["resources"] if r.startswith("rebu_")} for name, kind in types.items()}
    assert named == {"head": {"rebu_warehouse"}, "shards-and-serve": {"rebu_shard", "rebu_gateway"}, "tasks": set()}
    assert set().union(*named.values()) == {f"rebu_{role}" for role in Role}
    assert types["head"]["resources"]["rebu_warehouse"] == 1


def test_every_start_of_ray_has_haproxy_throughput_and_the_token(config: dict[str, Any]) -> None:
    assert len(starts(config)) == 2
    for command in starts(config):
        for variable in ("RAY_SERVE_ENABLE_HA_PROXY=1", "RAY_SERVE_THROUGHPUT_OPTIMIZED=1", "RAY_AUTH_MODE=token"):
            assert variable in command
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_every_command_is_one_that_a_shell_can_read(config: dict[str, Any]) -> None:
    commands = [c for name, value in config.items() if name.endswith("_commands") for c in value]
    assert len(commands) > 10
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_its_settings_are_settings(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "cluster.env").write_text(heredoc(config, "cluster.env"))
    secrets = "set -a; HOME=/srv/admin REDIS_PASSWORD=one POSTGRES_PASSWORD=two; "
    shown = subprocess.run(
        ["env", "-i", "bash", "-c", f"{secrets}. {shlex.quote(str(tmp_path / 'cluster.env'))}; /usr/bin/env"],
        check=True,
        capture_output=True,
        text=True,
    )
    env = dict(line.split("=", 1) for line in shown.stdout.splitlines() if line.startswith("REBU_"))
    assert {name.removeprefix("REBU_").lower() for name in env} <= set(Settings.__struct_fields__)
    settings = load(env)
    assert settings.journal.startswith("s3://")
    assert settings.lake.startswith("s3://")
    assert re.fullmatch(r"rediss\+cluster://:one@[^@]+:6379", settings.redis_url)
    assert settings.appdb_url.startswith("postgresql://rebu:two@")
    assert settings.data_dir == "/srv/admin/rebu/data"
    assert set(settings.node_roles.split(",")) == set(Role)
    assert settings.shards <= 2 * config["available_node_types"]["shards-and-serve"]["resources"]["rebu_shard"]


def test_its_files_are_what_it_says_how_to_make(config: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"dist/{project['name'].replace('-', '_')}-*.whl" in TEXT
    ignored = (ROOT / ".gitignore").read_text().split()
    for place in config["file_mounts"].values():
        assert (ROOT / place).exists() or place in ignored, place


def test_no_secret_and_no_account_is_in_it() -> None:
    assert not re.search(r"AKIA|:\d{12}:|://[^$/]*:[^$@/]+@", TEXT)


def test_the_laboratory_starts_ray_as_the_cluster_does(config: dict[str, Any], tmp_path: Path) -> None:
    derived = prepare_config(derive(ROOT / "cluster.yaml", tmp_path))
    validate_config(derived)
    assert derived["provider"]["type"] == "local"
    assert not any("pip" in command or "apt-get" in command for command in derived["setup_commands"])
    assert len(starts(derived)) == len(starts(config))
    for here, there in zip(starts(derived), starts(config), strict=True):
        told = re.search(r" --num-cpus=\d+ --resources='(\{[^']*\})' --object-store-memory=\d+", here)
        assert told is not None
        assert here.replace(told.group(), "", 1) == there
        assert re.search(r"rebu_\w+", told.group(1))
    assert f"REBU_LAKE_URI={tmp_path}/shared/lake\n" in heredoc(derived, "cluster.env")
    assert heredoc(derived, "node.sh") == heredoc(config, "node.sh")
