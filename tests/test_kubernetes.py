"""kubernetes/rayservice.yaml: it says of Rebu what cluster.yaml says, in the words of KubeRay."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from rebu_ray.platform.local_ray import serving
from rebu_ray.settings import Role, Settings, load

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "kubernetes" / "rayservice.yaml").read_text()
FOLDER = "/opt/rebu/haproxy"


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEXT)
    return found


def groups(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = service["spec"]["rayClusterConfig"]
    workers = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"], **workers}


def container(group: dict[str, Any]) -> dict[str, Any]:
    [found] = group["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def environment(group: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(group)["env"]}


def places(parameters: dict[str, str]) -> dict[str, int]:
    """Custom resources, which stand in a shell's quotes within a string."""
    said = parameters.get("resources", '"{}"')
    found: dict[str, int] = json.loads(json.loads(said))
    return found


def test_it_is_what_kuberay_calls_a_service(service: dict[str, Any]) -> None:
    assert (service["apiVersion"], service["kind"], service["metadata"]["name"]) == ("ray.io/v1", "RayService", "rebu")
    assert set(service["spec"]) == {"upgradeStrategy", "serveConfigV2", "rayClusterConfig"}
    for name, group in groups(service).items():
        assert set(group["rayStartParams"].values()) == set(map(str, group["rayStartParams"].values()))
        if name != "head":
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_serve_takes_its_configuration(service: dict[str, Any]) -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    [application] = config.applications
    module, _, name = application.import_path.partition(":")
    assert f"\n{name} = " in (ROOT / f"{module}.py").read_text()
    assert config.http_options.host == "0.0.0.0"


def test_its_places_and_versions_are_those_of_the_other_cluster(service: dict[str, Any]) -> None:
    types = yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"]
    for name, group in groups(service).items():
        resources = {r: n for r, n in types[name]["resources"].items() if r != "CPU"}
        assert places(group["rayStartParams"]) == resources
        assert int(group["rayStartParams"]["num-cpus"]) == types[name]["resources"]["CPU"]
        assert group.get("minReplicas", 0) == types[name].get("min_workers", 0)
        assert group.get("maxReplicas") == types[name].get("max_workers")
    pinned = service["spec"]["rayClusterConfig"]["rayVersion"]
    assert f'"ray[serve]=={pinned}"' in (ROOT / "pyproject.toml").read_text()


def test_every_pod_has_the_environment_that_rebu_wants(service: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wanted = {name: value.replace(folder, FOLDER) for name, value in serving(Path(folder)).items()}
    for group in groups(service).values():
        found = environment(group)
        assert {name: value for name, value in found.items() if not name.startswith("REBU_")} == wanted
        said = {name: value for name, value in found.items() if name.startswith("REBU_")}
        assert {name.removeprefix("REBU_").lower() for name in said} <= set(Settings.__struct_fields__)
        settings = load(said)
        assert settings.journal.startswith("s3://")
        assert set(settings.node_roles.split(",")) == set(Role)
        assert not settings.redis_url  # it has a password, and is in the secret with the keys
        assert container(group)["envFrom"] == [{"secretRef": {"name": "rebu"}}]


def test_pods_drain_before_they_go(service: dict[str, Any]) -> None:
    for name, group in groups(service).items():
        if name != "head":
            spec = group["template"]["spec"]
            command = " ".join(container(group)["lifecycle"]["preStop"]["exec"]["command"])
            assert "rebu node drain --seconds 110" in command
            assert spec["terminationGracePeriodSeconds"] >= 110
