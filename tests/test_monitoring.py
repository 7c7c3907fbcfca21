"""The alert rules by Prometheus' own tool, and what the dashboard shows. The tool comes with Debian's `prometheus`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pytest

MONITORING: Final = Path(__file__).resolve().parents[1] / "monitoring"
ALERTS: Final = MONITORING / "alerts.yml"
PROMTOOL: Final = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None and "CI" not in os.environ, reason="there is no promtool: apt install prometheus"
)
WEEK: Final = 7 * 24 * 60


class Case(NamedTuple):
    """What has an alert fire: series with their values step by step, in promtool's notation."""

    series: dict[str, str]
    minutes: int
    labels: Mapping[str, str] = MappingProxyType({})
    step: int = 1
    """Minutes."""


def rejected(values: str, accepted: str) -> dict[str, str]:
    name = 'rebu_ingest_records_total{instance="a", replica="0", source="error", verdict="%s"}'
    return {name % "rejected": values, name % "accepted": accepted}


def slow(bucket: str) -> dict[str, str]:
    """Requests that all took longer than a bucket's upper bound, the next one of which is 5 s."""
    name = 'rebu_ingest_acknowledge_seconds_bucket{instance="a", replica="0", le="%s"}'
    return {name % bucket: "0x30", name % "5.0": "0+60x30", name % "+Inf": "0+60x30"}


def answers(failing: str, fine: str, status: str) -> dict[str, str]:
    name = 'rebu_gateway_responses_total{instance="a", method="GET", replica="%s", route="/v1/rides", status="%s"}'
    return {name % ("0", status): failing, name % ("1", "200"): fine}


FIRES: Final = {
    "RebuDown": Case({'up{job="rebu", instance="a"}': "1 1 0x10"}, 5),
    "RebuShardNotServing": Case(
        {'rebu_shard_state{instance="a", slot="1", state="closed"}': "0 0 1x10"}, 5, {"slot": "1", "state": "closed"}
    ),
    "RebuRedisDown": Case({'rebu_redis_up{instance="a"}': "1 0x10"}, 5),
    "RebuIndexBehind": Case({'rebu_shard_index_lag_seconds{instance="a", slot="0"}': "0+60x10"}, 6, {"slot": "0"}),
    "RebuErrors": Case(answers("0+2x30", "0+100x30", "503"), 20),
    "RebuRefusing": Case(answers("0+20x30", "0+100x30", "429"), 25),
    "RebuAcknowledgesSlowly": Case(slow("2.5"), 25),
    "RebuQueueOld": Case({'rebu_shard_queue_age_seconds{instance="a", slot="0"}': "0 7x10"}, 5, {"slot": "0"}),
    "RebuReplicasMissing": Case(
        {'rebu_replicas{instance="a", deployment="Gateway", state="starting"}': "1x20"}, 15, {"deployment": "Gateway"}
    ),
    "RebuProcessRestarts": Case(
        {'rebu_process_start_time_seconds{instance="a", process="shard-1"}': "1 1 7 7 9 9 12 12x20"},
        10,
        {"process": "shard-1"},
    ),
    "RebuLeaseLost": Case({'rebu_partitions_fenced_total{instance="a"}': "0 0 1x20"}, 5),
    "RebuDocumentsBehind": Case(
        {'rebu_shard_documents_lag_seconds{instance="a", slot="0"}': "0+60x20"}, 12, {"slot": "0"}
    ),
    "RebuDocumentsNotComputed": Case({'rebu_shard_uncomputed_subjects{instance="a", slot="0"}': "1x30"}, 20),
    "RebuJournalNotMoving": Case(
        {'rebu_shard_journal_age_seconds{instance="a", slot="0"}': "0+60x30"}, 25, {"slot": "0"}
    ),
    "RebuDiskFilling": Case(
        {'rebu_free_bytes{instance="a", store="journal"}': "100000000000-1000000000x60"}, 45, {"store": "journal"}
    ),
    "RebuRedisFilling": Case(
        {
            'rebu_redis_used_memory_bytes{instance="a"}': "95x20",
            'rebu_redis_max_memory_bytes{instance="a"}': "100x20",
        },
        15,
    ),
    "RebuDeadLetters": Case(rejected("0+20x40", "0+100x40"), 30, {"source": "error"}),
    "RebuSendersSuspended": Case({'rebu_suspended_senders{instance="a", source="error"}': "1x20"}, 15),
    "RebuNothingComesIn": Case(
        rejected("0x1100", f"0+3000x{WEEK // 10 - 6} {3000 * (WEEK // 10 - 6)}x12"), WEEK + 30, step=10
    ),
    "RebuDatabaseBehind": Case({'rebu_appdb_connected{instance="a"}': "1 0x10"}, 5),
    "RebuDatabaseTableMissing": Case(
        {'rebu_appdb_table_state{instance="a", table="rides", state="missing"}': "1x20"}, 10, {"table": "rides"}
    ),
    "RebuErasurePending": Case({'rebu_erasures_pending{instance="a"}': "1x400"}, 390),
    "RebuWarehouseFailing": Case({'rebu_warehouse_failing{instance="a"}': "1x40"}, 35),
    "RebuForecastPoor": Case(
        {'rebu_forecast_error_ratio{instance="a"}': "0.8x70", 'rebu_forecast_error_days{instance="a"}': "9x70"}, 65
    ),
}
CALM: Final = {
    'up{job="rebu", instance="a"}': "1x120",
    'rebu_redis_up{instance="a"}': "1x120",
    'rebu_redis_used_memory_bytes{instance="a"}': "50x120",
    'rebu_redis_max_memory_bytes{instance="a"}': "0x120",
    'rebu_shard_state{instance="a", slot="1", state="closed"}': "0x120",
    'rebu_shard_state{instance="a", slot="1", state="current"}': "1x120",
    'rebu_shard_index_lag_seconds{instance="a", slot="1"}': "0 30 0x118",
    'rebu_shard_documents_lag_seconds{instance="a", slot="1"}': "1x120",
    'rebu_shard_queue_age_seconds{instance="a", slot="1"}': "0 9 0x118",
    'rebu_shard_journal_age_seconds{instance="a", slot="1"}': "60x120",
    'rebu_shard_uncomputed_subjects{instance="a", slot="1"}': "0x120",
    'rebu_suspended_senders{instance="a", source="error"}': "0x120",
    'rebu_partitions_fenced_total{instance="a"}': "3x120",
    'rebu_process_start_time_seconds{instance="a", process="shard-1"}': "5 5 8x118",
    'rebu_process_start_time_seconds{instance="a", process="gateway-1"}': "1 2 3 4 5x116",
    'rebu_replicas{instance="a", deployment="Gateway", state="running"}': "2x120",
    'rebu_replicas{instance="a", deployment="Gateway", state="starting"}': "0 1 1 0x117",
    'rebu_free_bytes{instance="a", store="journal"}': "900000000000-1000000x120",
    'rebu_appdb_connected{instance="a"}': "1x120",
    'rebu_appdb_lag_seconds{instance="a"}': "0.3x120",
    'rebu_erasures_pending{instance="a"}': "0 1 1 0x117",
    'rebu_warehouse_failing{instance="a"}': "0x120",
    'rebu_forecast_error_ratio{instance="a"}': "0.9x120",
    'rebu_forecast_error_days{instance="a"}': "2x120",
    **answers("0+1x120", "0+1000x120", "503"),
    **rejected("0+1x120", "0+100x120"),
}
"""A platform that is well, with what happens to one now and then."""


def names(text: str) -> list[str]:
    return re.findall(r"- alert: (\w+)", text)


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_rules_and_the_configuration_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", ALERTS)
    assert "SUCCESS" in promtool("check", "config", MONITORING / "prometheus.yml")


@needs_promtool
def test_each_alert_fires_where_it_should_and_none_where_all_is_well(tmp_path: Path) -> None:
    alerts = names(ALERTS.read_text())
    assert sorted(alerts) == sorted(FIRES)
    well = {'up{job="rebu", instance="a"}': "1x2000"}
    for step in {case.step for case in FIRES.values()}:
        cases = {alert: case for alert, case in FIRES.items() if case.step == step}
        tests = [unit(well | case.series, case.minutes, step, shown(alert, case)) for alert, case in cases.items()]
        if step == 1:
            tests.append(unit(CALM, 110, step, [(firing(alert), 0) for alert in alerts]))
        file = tmp_path / f"alerts-{step}.yml"
        every = f"{step}m"
        file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": every, "tests": tests}))
        assert "SUCCESS" in promtool("test", "rules", file)


def firing(alert: str, **labels: str) -> str:
    """How often an alert fires, with such labels."""
    chosen = "".join(f', {name}="{value}"' for name, value in labels.items())
    return f'count(ALERTS{{alertname="{alert}", alertstate="firing"{chosen}}}) or vector(0)'


def shown(alert: str, case: Case) -> list[tuple[str, int]]:
    """It fires with its labels, and that nothing answers is said only where that is so."""
    return [(firing(alert, **case.labels), 1), (firing("RebuDown"), int(alert == "RebuDown"))]


def unit(series: Mapping[str, str], minutes: int, step: int, expected: list[tuple[str, int]]) -> dict[str, Any]:
    """A test of promtool's."""
    return {
        "interval": f"{step}m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": asked, "eval_time": f"{minutes}m", "exp_samples": [{"labels": "{}", "value": count}]}
            for asked, count in expected
        ],
    }


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    blocks = ALERTS.read_text().split("- alert: ")[1:]
    for block in blocks:
        assert re.search(r"severity: (page|ticket)\b", block), block
        assert "summary:" in block, block
        assert re.search(r"description: \S", block), block


def test_the_dashboard_is_the_one_that_is_written() -> None:
    script = MONITORING.parent / "scripts" / "grafana.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_two_panels_of_the_dashboard_cover_each_other() -> None:
    panels = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(panels) > 30
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
