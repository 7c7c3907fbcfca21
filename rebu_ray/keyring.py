"""`rebu keys`: the API keys of a data dir, and how they change while the platform runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Annotated

import typer

from rebu_ray import settings as config
from rebu_ray.connect import DataDir
from rebu_ray.keys import Keys, KeysError, Scope, load_keys, save_keys

keys = typer.Typer(help="The API keys of a data dir.")
Name = Annotated[str, typer.Argument(help="write, read, admin, or the name of a key that was added.")]


@keys.callback(invoke_without_command=True)
def shown(context: typer.Context, data_dir: DataDir = None) -> None:
    """The API keys of a data dir, as JSON; made at the first call.

    Example: rebu keys --data-dir ./data
    """
    if context.invoked_subcommand is None:
        settings = config.load(data_dir=data_dir)
        found = load_keys(settings.data_dir, settings.write_key, settings.read_key, settings.admin_key)
        typer.echo(json.dumps({str(scope): getattr(found, scope) for scope in Scope}))
    elif data_dir is not None:
        raise KeysError("--data-dir comes after the command: rebu keys rotate write --data-dir DIR")


@keys.command("list")
def listed(data_dir: DataDir = None) -> None:
    """All keys by name, with what they may do and until when, one JSON object a line; not the keys themselves.

    Example: rebu keys list
    """
    found = load_keys(config.load(data_dir=data_dir).data_dir)
    for scope in Scope:
        typer.echo(json.dumps({"name": scope, "scopes": [scope], "until": None}))
    for one in found.further:
        typer.echo(json.dumps({"name": one.name, "scopes": one.scopes, "until": one.until}))


@keys.command()
def rotate(
    name: Name,
    grace: Annotated[float, typer.Option(min=0, help="For how many seconds the key before it stays good.")] = 0.0,
    data_dir: DataDir = None,
) -> None:
    """Make a new key in the place of one, and print it. A running platform goes by it within seconds.

    Example: rebu keys rotate write --grace 3600
    """
    settings = config.load(data_dir=data_dir)
    if getattr(settings, f"{name}_key", ""):
        raise KeysError(f"the {name} key is given by REBU_{name.upper()}_KEY: change it there and start again")
    _changed(settings.data_dir, lambda found, now: found.rotated(name, grace, now), name)


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is, for example the shipper's or the partner's name.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be given again.")],
    data_dir: DataDir = None,
) -> None:
    """Make a key more, and print it: for a client that is to be told apart from others, limited and revoked alone.

    Example: rebu keys add shipper-7 --scope write
    """
    folder = config.load(data_dir=data_dir).data_dir
    _changed(folder, lambda found, now: found.added(name, tuple(dict.fromkeys(scope)), now), name)


@keys.command()
def revoke(name: Name, data_dir: DataDir = None) -> None:
    """Make a key worthless within seconds.

    Example: rebu keys revoke shipper-7
    """
    _changed(config.load(data_dir=data_dir).data_dir, lambda found, now: found.revoked(name, now), None)


def _changed(data_dir: str, change: Callable[[Keys, int], Keys], shown: str | None) -> None:
    """Change the keys of a data dir, and print one of them."""
    found = change(load_keys(data_dir), time.time_ns() // 1_000_000)
    save_keys(data_dir, found)
    if shown is not None:
        of_three = getattr(found, shown) if shown in list(Scope) else None
        typer.echo(json.dumps({shown: of_three or next(one.key for one in found.further if one.name == shown)}))
