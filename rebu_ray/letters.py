"""Commands about what came in and what was refused: how an audit is printed, and `rebu deadletters`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rebu_ray.connect import DataDir, Key, Url, client

deadletters = typer.Typer(no_args_is_help=True, help="The records that were refused, whole, with their reasons.")


def audited(found: Mapping[str, Any]) -> bool:
    """Print an audit as a table, and whether it balances."""
    names = ("received", "stored", "duplicate", "dead_letter", "suppressed")
    items = found["items"]
    totals = {name: sum(item[name] for item in items) for name in names}
    typer.echo(f"{'source':<17}  {'bucket':<24}  {''.join(f'{name:>12}' for name in names)}  balanced")
    for item in [*items, {"source": "all", "bucket": "", **totals, "balanced": found["balanced"]}]:
        counts = "".join(f"{item[name]:>12,}" for name in names)
        typer.echo(f"{item['source']:<17}  {item['bucket']:<24}  {counts}  {'yes' if item['balanced'] else 'NO'}")
    for problem in found["problems"]:
        print(f"rebu: {problem}", file=sys.stderr)
    if not found["balanced"]:
        wrong = sum(not item["balanced"] for item in items)
        print(f"rebu: {wrong} of {len(items)} places do not balance", file=sys.stderr)
    return bool(found["balanced"])


@deadletters.command("replay")
def replay_deadletters(
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    since: Annotated[str | None, typer.Option(help="Received at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Received before this time.")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Only this one; may be given again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of them.")] = False,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Try the refused records again, after a fix. What is accepted now leaves the list; safe to run again.

    Example: rebu deadletters replay --source access --dry-run
    """
    totals = dict.fromkeys(("replayed", "duplicate", "rejected", "suppressed"), 0)
    with client(url, key, data_dir, timeout=600) as rebu:
        for page in rebu.replay(source=source, since=since, until=until, ids=ids, dry_run=dry_run):
            for result in page["results"]:
                typer.echo(json.dumps(result, ensure_ascii=False))
            for name in totals:
                totals[name] += page[name]
    said = ", ".join(f"{count} {name}" for name, count in totals.items())
    print(f"dry run, nothing was stored: {said}" if dry_run else said, file=sys.stderr)


@deadletters.command("list")
def list_deadletters(
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    since: Annotated[str | None, typer.Option(help="Received at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Received before this time.")] = None,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """The refused records, newest first, one JSON object a line.

    Example: rebu deadletters list --source access --since 2026-03-01T00:00:00Z
    """
    with client(url, key, data_dir) as rebu:
        for item in rebu.deadletters(source=source, since=since, until=until):
            typer.echo(json.dumps(item, ensure_ascii=False))
