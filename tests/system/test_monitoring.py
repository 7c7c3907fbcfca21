"""A real Prometheus that watches a platform: what it is told, what the dashboard asks, what the rules make of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rebu_ray.platform.local_ray import free_port
from tests.system.running import Running, await_true, kill
from tests.test_monitoring import ALERTS, MONITORING, names

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LABELS: Final = {
    *("replica", "slot", "process", "source", "verdict", "method", "route", "status", "kind", "le", "link", "state"),
    *("deployment", "store", "band", "table", "version"),
}
"""All that there are: each has few values, and none of them is somebody's."""
NOT_HERE: Final = "rebu_appdb_"
"""Series of an application database, which the shared platform has none of: described all the same."""
TIMED: Final = "rebu_warehouse_loaded_timestamp_seconds"
"""Not there before the warehouse was loaded for the first time."""


def scraped(platform: Running) -> dict[str, float]:
    """Every series of a scrape, as Prometheus writes it."""
    with httpx.Client() as anybody:  # by a new connection: another gateway may answer
        text = anybody.get(f"{platform.url}/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.M)}


def accepted(platform: Running) -> float:
    """Records of applications that were accepted, by all gateways."""
    mark = 'source="app-events",verdict="accepted"'
    return sum(value for name, value in scraped(platform).items() if mark in name)


def expressions() -> dict[str, str]:
    """By panel and legend, what the dashboard asks."""
    panels = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"]
        .replace("$instance", ".*")
        .replace("$__rate_interval", "1m")
        for panel in panels
        for target in panel.get("targets", ())
    }


def test_whichever_gateway_is_asked_every_process_is_there(rebu_up: Running) -> None:
    before = accepted(rebu_up)
    for n in range(20):
        with httpx.Client() as client:
            sent = {"batch": [{"type": "track", "event": "x", "userId": f"seen-{n}-{k}"} for k in range(10)]}
            assert client.post(f"{rebu_up.url}/v1/batch", json=sent, auth=(rebu_up.write_key, "")).status_code == 200
    for _ in range(6):
        await_true(lambda: accepted(rebu_up) >= before + 200, "what each gateway has counted")
    processes = {"coordinator", "shard-0", "shard-1", "gateway-0", "gateway-1", "lake-reader-0", "sql-reader-0"}

    def there() -> bool:
        text = rebu_up.http.get("/metrics").text
        return processes <= set(re.findall(r'rebu_process_resident_memory_bytes\{process="([\w-]+)"\}', text))

    await_true(there, "every process")


def test_what_is_shown_follows_one_scheme_and_names_nobody(rebu_up: Running) -> None:
    rebu_up.batch([{"type": "track", "event": "Xq8marked", "userId": "Xq8marked"}])
    rebu_up.http.request("BREW", "/v1/Xq8marked")
    rebu_up.get("/v1/users/Xq8marked/events", {"name": "Xq8marked"})
    answer = rebu_up.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "Xq8marked" not in answer.text
    assert "BREW" not in answer.text
    families = list(text_string_to_metric_families(answer.text))
    assert len(families) == len({family.name for family in families}) > 50
    for family in families:
        assert family.name.startswith("rebu_"), family.name
        assert family.documentation.endswith((".", "?")) or family.name.startswith("rebu_process_"), family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        for sample in family.samples:
            assert sample.labels.keys() <= LABELS, sample
    series = sum(len(family.samples) for family in families)
    assert series < 2500, "a scrape is small"


def named(text: str) -> set[str]:
    return set(re.findall(r"\brebu_\w+", text))


@pytest.fixture(scope="module")
def prometheus(rebu_up: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus with the project's own configuration, but for the address and more frequent looks."""
    program = shutil.which("prometheus")
    if program is None and "CI" not in os.environ:
        pytest.skip("this machine has no prometheus: apt install prometheus")
    assert program is not None, "CI installs prometheus"
    folder = tmp_path_factory.mktemp("prometheus")
    given = (MONITORING / "prometheus.yml").read_text()
    given = given.replace("127.0.0.1:8000", f"127.0.0.1:{rebu_up.port}").replace("15s", "1s")
    (folder / "prometheus.yml").write_text(given)
    shutil.copy(ALERTS, folder)
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30) as client:
            await_true(lambda: ready(client), "Prometheus to start")
            yield client
    finally:
        kill(process.pid)
        process.wait(30)


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/status/runtimeinfo").status_code == 200
    except httpx.TransportError:
        return False


def asked(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers to an expression."""
    answer = client.get("/query", params={"query": expression}).json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def test_a_prometheus_finds_whatever_dashboard_and_rules_name(rebu_up: Running, prometheus: httpx.Client) -> None:
    rows = [
        {"message_id": "seen-m", "user_id": "seen-u", "channel": "chat", "direction": "inbound", "body": "hello"}
        | {"sent_at": "2026-03-01T08:00:00Z", "updated_at": "2026-03-01T08:00:00Z"}
    ]
    rebu_up.write("/v1/records/messages", rows)
    rebu_up.get("/v1/stats/rides/forecast")
    rebu_up.flush()
    await_true(lambda: asked(prometheus, 'up{job="rebu"} == 1'), "a scrape")
    text = rebu_up.http.get("/metrics").text
    described = set(re.findall(r"^# TYPE (\w+) ", text, re.M))
    known = described | {f"{name}_{end}" for name in described for end in ("bucket", "sum", "count")}
    wanted = named(ALERTS.read_text()) | {name for text in expressions().values() for name in named(text)}
    assert len(wanted) > 40
    assert wanted <= known

    def lacking() -> dict[str, str]:
        """What has no value after a while."""
        return {
            what: expression
            for what, expression in expressions().items()
            if NOT_HERE not in expression and TIMED not in expression and not asked(prometheus, expression)
        }

    def all_have() -> bool:
        rebu_up.batch([{"type": "track", "event": "x", "userId": "seen"}])
        return not lacking()

    await_true(all_have, f"values of {lacking()}")


def test_the_rules_are_evaluated_and_a_well_platform_wakes_nobody(rebu_up: Running, prometheus: httpx.Client) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = prometheus.get("/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    await_true(lambda: all(rule["health"] == "ok" for rule in rules()), "every rule to be evaluated")
    found = {rule["name"]: rule for rule in rules()}
    assert sorted(found) == sorted(names(ALERTS.read_text()))
    assert found["RebuDown"]["state"] != "firing"
    assert found["RebuShardNotServing"]["state"] != "firing"
    assert found["RebuRedisDown"]["state"] != "firing"
