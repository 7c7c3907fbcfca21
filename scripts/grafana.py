"""Writes monitoring/grafana-dashboard.json, which Grafana imports; with --check says whether it is up to date."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = Path(__file__).resolve().parents[1] / "monitoring" / "grafana-dashboard.json"
WIDTH: Final = 24
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
HERE: Final = 'instance=~"$instance"'
OVER: Final = "[$__rate_interval]"


class Panel(NamedTuple):
    """One picture: its title, its unit, and by legend what it shows."""

    title: str
    unit: str
    shows: dict[str, str]
    kind: str = "timeseries"
    width: int = 8
    text: str = ""


def of(name: str, *labels: str) -> str:
    """A selector of the platform that is looked at."""
    return f"{name}{{{', '.join((HERE, *labels))}}}"


def rate(name: str, *labels: str) -> str:
    return f"rate({of(name, *labels)}{OVER})"


def quantile(share: float, name: str, *by: str, where: tuple[str, ...] = ()) -> str:
    """The quantile of a histogram, for each of `by`."""
    return f"histogram_quantile({share}, sum by ({', '.join(('le', *by))}) ({rate(f'{name}_bucket', *where)}))"


ACCEPTED: Final = 'verdict="accepted"'
REJECTED: Final = 'verdict="rejected"'
FAILED: Final = 'status=~"5.."'
SERVES: Final = 'state="current"'
REQUESTS: Final = 'replica!=""'
"""Of what came in as requests, and was not pulled from the application database."""
ACK: Final = "rebu_ingest_acknowledge_seconds"
RESPONSES: Final = "rebu_gateway_responses_total"

ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "At a glance": (
        Panel(
            "Records accepted", "cps", {"a second": f"sum({rate('rebu_ingest_records_total', ACCEPTED)})"}, "stat", 4
        ),
        Panel("A write's answer, p99", "s", {"p99": quantile(0.99, ACK, where=(REQUESTS,))}, "stat", 4),
        Panel(
            "Answers with 5xx",
            "percentunit",
            {"of all": f"(sum({rate(RESPONSES, FAILED)}) or vector(0)) / sum({rate(RESPONSES)})"},
            "stat",
            4,
        ),
        Panel("Index behind", "s", {"at most": f"max({of('rebu_shard_index_lag_seconds')})"}, "stat", 4),
        Panel("Documents behind", "s", {"at most": f"max({of('rebu_shard_documents_lag_seconds')})"}, "stat", 4),
        Panel("Shards that serve", "none", {"shards": f"sum({of('rebu_shard_state', SERVES)})"}, "stat", 4),
    ),
    "What comes in": (
        Panel(
            "Accepted, by source",
            "cps",
            {"{{source}}": f"sum by (source) ({rate('rebu_ingest_records_total', ACCEPTED)})"},
        ),
        Panel("Verdicts", "cps", {"{{verdict}}": f"sum by (verdict) ({rate('rebu_ingest_records_total')})"}),
        Panel(
            "Dead letters, by source",
            "cps",
            {"{{source}}": f"sum by (source) ({rate('rebu_ingest_records_total', REJECTED)})"},
        ),
        Panel(
            "From a parsed request to its answer",
            "s",
            {f"p{round(100 * q)}": quantile(q, ACK, where=(REQUESTS,)) for q in (0.5, 0.9, 0.99)},
            text="Durable in the journal and readable.",
        ),
        Panel("Answers, by status", "reqps", {"{{status}}": f"sum by (status) ({rate(RESPONSES)})"}),
        Panel(
            "Held by gateways",
            "bytes",
            {"{{kind}}s": f"sum by (kind) ({of('rebu_gateway_held_bytes')})"},
            text="Bodies that are being worked on; beyond REBU_INFLIGHT_BYTES a replica refuses with 429.",
        ),
    ),
    "Shards": (
        Panel(
            "A batch in its shard, p99",
            "s",
            {
                "in all": quantile(0.99, "rebu_shard_append_seconds"),
                "journal": quantile(0.99, "rebu_shard_commit_seconds"),
                "index": quantile(0.99, "rebu_shard_index_seconds"),
            },
        ),
        Panel("Taken in", "Bps", {"shard {{slot}}": of("rebu_shard_load_bytes_per_second")}),
        Panel("The oldest row that waits", "s", {"shard {{slot}}": of("rebu_shard_queue_age_seconds")}),
        Panel("In the journal, not in the lake", "bytes", {"shard {{slot}}": of("rebu_shard_journal_bytes")}),
        Panel("The oldest of that", "s", {"shard {{slot}}": of("rebu_shard_journal_age_seconds")}),
        Panel("Moves to the lake, p99", "s", {"p99": quantile(0.99, "rebu_shard_flush_seconds")}),
        Panel("Rows that the index lacks", "none", {"shard {{slot}}": of("rebu_shard_unindexed_rows")}),
        Panel(
            "Partitions moved and fenced",
            "none",
            {
                "moved": f"increase({of('rebu_partitions_moved_total')}{OVER})",
                "fenced": f"increase({of('rebu_partitions_fenced_total')}{OVER})",
            },
        ),
        Panel("Shards", "none", {"are": of("rebu_shards"), "wanted": of("rebu_shards_wanted")}),
    ),
    "Rides and messages": (
        Panel("Documents that change", "cps", {"documents": f"sum({rate('rebu_shard_documents_total')})"}),
        Panel(
            "From a readable row to its documents",
            "s",
            {f"p{round(100 * q)}": quantile(q, "rebu_shard_documents_seconds") for q in (0.5, 0.99)},
        ),
        Panel("Rows not computed yet", "none", {"shard {{slot}}": of("rebu_shard_unprocessed_rows")}),
        Panel(
            "Messages, by what they link to",
            "cps",
            {"{{link}}": f"sum by (link) ({rate('rebu_shard_messages_total')})"},
        ),
        Panel("Rides that ended too early", "cps", {"rides": f"sum({rate('rebu_shard_premature_rides_total')})"}),
        Panel("People who cannot be computed", "none", {"people": f"sum({of('rebu_shard_uncomputed_subjects')})"}),
    ),
    "Reading, analytics, forecast": (
        Panel(
            "Answers, p99",
            "s",
            {"{{kind}}": quantile(0.99, "rebu_gateway_response_seconds", "kind")},
        ),
        Panel(
            "Forecast of rides",
            "percentunit",
            {
                "error": of("rebu_forecast_error_ratio"),
                "within the {{band}} % band": of("rebu_forecast_backtest_coverage_ratio"),
            },
            text="Of the forecast that was asked for last.",
        ),
        Panel("Age of the warehouse", "s", {"age": f"time() - {of('rebu_warehouse_loaded_timestamp_seconds')}"}),
    ),
    "Application database": (
        Panel("Behind", "s", {"lag": of("rebu_appdb_lag_seconds")}, width=12),
        Panel("Rows handed on", "cps", {"{{table}}": rate("rebu_appdb_sent_rows_total")}, width=12),
    ),
    "Machines": (
        Panel("Processors in use", "none", {"{{process}}": rate("rebu_process_cpu_seconds_total")}),
        Panel("Memory", "bytes", {"{{process}}": of("rebu_process_resident_memory_bytes")}),
        Panel("Memory of Redis", "bytes", {"used": of("rebu_redis_used_memory_bytes")}),
        Panel("Replicas", "none", {"{{deployment}} {{state}}": of("rebu_replicas")}),
        Panel("Nodes", "none", {"nodes": of("rebu_nodes")}),
        Panel("Room that is left", "bytes", {"{{store}}": of("rebu_free_bytes")}),
    ),
}


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana exports one."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row, pictures in ROWS.items():
        panels.append({"type": "row", "title": row, "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top}, "panels": []})
        top += 1
        left = height = 0
        for picture in pictures:
            if left + picture.width > WIDTH:
                left, top = 0, top + height
            height = 4 if picture.kind == "stat" else 8
            panels.append(_panel(picture, {"h": height, "w": picture.width, "x": left, "y": top}))
            left += picture.width
        top += height
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "title": "Rebu",
        "uid": "rebu",
        "tags": ["rebu"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": [_restarts()]},
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    query = "label_values(rebu_build_info, instance)"
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0},
        {
            "name": "instance",
            "label": "Platform",
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": "instance"},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": False,
            "includeAll": False,
        },
    ]


def _restarts() -> dict[str, Any]:
    return {
        "name": "Processes that began anew",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "orange",
        "expr": f"changes({of('rebu_process_start_time_seconds')}[1m]) > 0",
        "titleFormat": "{{process}}",
    }


def _panel(picture: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
        for n, (legend, expression) in enumerate(picture.shows.items())
    ]
    found: dict[str, Any] = {
        "type": picture.kind,
        "title": picture.title,
        "description": picture.text,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": picture.unit, "min": 0}, "overrides": []},
    }
    if picture.kind == "stat":
        found["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "area"}
    else:
        found["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return found


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where it would change")
    if parser.parse_args().check:
        if FILE.read_text(encoding="utf-8") != text():
            print(f"{FILE.name} is not what this script writes: run it", file=sys.stderr)
            return 1
        return 0
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
