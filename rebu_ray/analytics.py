"""Commands about the warehouse: `rebu warehouse` and `rebu sql`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from rebu_ray import settings as config
from rebu_ray.connect import DataDir, Key, Url, client, running_here
from rebu_ray.output import Form, Out, table_format, whole
from rebu_ray.platform.running import find

warehouse = typer.Typer(no_args_is_help=True, help="The analytics database: a star schema in one DuckDB file.")
Appdb = Annotated[
    str | None, typer.Option(help="postgresql:// or sqlite:/// of the application database, where no platform runs.")
]


@warehouse.command("load")
def load(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make every table anew, with the types of today.")] = False,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Load what is new, or everything where there is no warehouse yet. Safe to interrupt and to run again.

    A platform that runs moves what it has acknowledged to the lake first. Where none runs, the lake is loaded as it is.

    Example: rebu warehouse load --data-dir ./data
    """
    with Console(stderr=True).status("loading the warehouse"):
        found = _asked("POST", "load", url, key, data_dir, {"rebuild": "true"} if rebuild else None)
        if found is None:
            settings = _with_lake(data_dir)
            from rebu_ray.ingest.warehouse_tasks import load_warehouse  # it brings Ray: see tests/test_project.py

            found = msgspec.to_builtins(load_warehouse(settings, rebuild))
            found["notes"] = [*found["notes"], "no platform runs on this data dir: what its lake has was loaded"]
    for note in found["notes"]:
        print(f"rebu: {note}", file=sys.stderr)
    counts = ", ".join(f"{found[name]:,} {name}" for name in ("rides", "messages", "users", "drivers", "events"))
    what = "rebuilt" if found["rebuilt"] else "brought up to date" if found["changed"] else "up to date already"
    typer.echo(f"{found['path']} is {what} after {found['seconds']:.1f} s: {counts}")


@warehouse.command("verify")
def verify(url: Url = None, key: Key = None, data_dir: DataDir = None, appdb: Appdb = None) -> None:
    """Compare the warehouse with its sources, day by day, and check its dimensions. Exits with 1 on any difference.

    Sources are the application database, where there is one, else the rows in the lake; for events the lake.

    Example: rebu warehouse verify --data-dir ./data
    """
    with Console(stderr=True).status("comparing the warehouse with its sources"):
        found = _asked("GET", "verify", url, key, data_dir)
        if found is None:
            settings = _with_lake(data_dir, appdb)
            from rebu_ray.ingest.warehouse_tasks import verify_warehouse

            found = msgspec.to_builtins(verify_warehouse(settings))
    if not verdict(found):
        sys.exit(1)


@warehouse.command("path")
def path(data_dir: DataDir = None) -> None:
    """Print where the DuckDB file is. Open it to read: a new one takes its place with each load.

    Example: duckdb -readonly "$(rebu warehouse path)"

    Example: rebu warehouse path --data-dir ./data
    """
    typer.echo(str(config.load(data_dir=data_dir).warehouse_file))


def sql(
    statement: Annotated[str, typer.Argument(help="One statement that reads; - takes it from standard input.")],
    form: Form = None,
    out: Out = None,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Run one statement over the warehouse of a running platform: JSON, one object a line, unless told.

    Example: rebu sql "SELECT city, count(*) AS rides FROM fact_ride GROUP BY city ORDER BY rides DESC"
    """
    kind = table_format(form, out, "rows")
    text = sys.stdin.read() if statement == "-" else statement
    with client(url, key, data_dir, timeout=600) as rebu:
        answer = rebu.ask_sql(text, kind)
        if kind == "json":
            found = answer.json()
            truncated = found["truncated"]
            data = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in found["items"]).encode()
        else:
            truncated, data = answer.headers.get("X-Rebu-Truncated") == "true", answer.content
    if out is None:
        sys.stdout.write(data.decode())
    else:
        with whole(out) as file:
            file.write(data)
        typer.echo(f"{out}: {len(data):,} bytes of {kind}")
    if truncated:
        print("rebu: there are more rows than an answer holds (REBU_SQL_ROWS): ask for fewer", file=sys.stderr)


def verdict(found: Mapping[str, Any]) -> bool:
    """Print a comparison as a table, and whether everything is equal."""
    typer.echo(f"{'table':<10}  {'date':<12}  {'source':>12}  {'warehouse':>12}  equal")
    for day in found["days"]:
        rows = f"{day['source_rows']:>12,}  {day['warehouse_rows']:>12,}"
        typer.echo(f"{day['table']:<10}  {day['date'] or '-':<12}  {rows}  {'yes' if day['equal'] else 'NO'}")
    for rule in found["rules"]:
        print(f"rebu: {rule}", file=sys.stderr)
    for table, keys in found["examples"].items():
        print(f"rebu: {table} that differ, for example: {', '.join(keys)}", file=sys.stderr)
    if not found["equal"]:
        wrong = sum(not day["equal"] for day in found["days"])
        print(f"rebu: {wrong} of {len(found['days'])} days differ, {len(found['rules'])} rules broken", file=sys.stderr)
    return bool(found["equal"])


def _with_lake(data_dir: str | None, appdb: str | None = None) -> config.Settings:
    """The settings of a data dir on which a platform has run. Raises NotRunning."""
    settings = config.load(data_dir=data_dir, appdb_url=appdb)
    if "://" not in settings.lake and not Path(settings.lake).is_dir():
        find(settings.data_dir)
    return settings


def _asked(
    method: str,
    what: str,
    url: str | None,
    key: str | None,
    data_dir: str | None,
    params: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """What the platform answers; None where no platform runs on the data dir, and none elsewhere is named."""
    if not running_here(url, data_dir):
        return None
    with client(url, key, data_dir, timeout=3600) as rebu:
        answer: dict[str, Any] = rebu.send(method, f"/v1/admin/warehouse/{what}", params=params).json()
        return answer
