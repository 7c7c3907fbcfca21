"""How a command finds the platform that it is about."""

from __future__ import annotations

from typing import Annotated

import typer

from rebu_ray import settings as config
from rebu_ray.client import Rebu
from rebu_ray.keys import Scope, load_keys
from rebu_ray.platform.running import NotRunning, find

DataDir = Annotated[str | None, typer.Option(help="The platform's data dir (REBU_DATA_DIR, else .rebu).")]
Url = Annotated[str | None, typer.Option(help="A platform elsewhere (REBU_URL).")]
Key = Annotated[str | None, typer.Option(help="The key for it (REBU_ADMIN_KEY, REBU_READ_KEY or REBU_WRITE_KEY).")]


def client(url: str | None, key: str | None, data_dir: str | None, timeout: float = 60.0) -> Rebu:
    """The platform that a command is about: at --url, at REBU_URL, or where the data dir says. Raises NotRunning."""
    return Rebu(*place(url, key, data_dir), timeout)


def place(url: str | None, key: str | None, data_dir: str | None, wanted: Scope = Scope.ADMIN) -> tuple[str, str]:
    """Where it is, and the key for it: the one given, else of those known the one that may do what is wanted.

    Raises NotRunning.
    """
    settings = config.load(data_dir=data_dir)
    there = url or ("" if data_dir else config.client_url())
    if there:
        first = settings.read_key if wanted is Scope.READ else ""
        known = key or first or settings.admin_key or settings.read_key or settings.write_key
        if not known:
            raise NotRunning(f"no key for {there}: give --key, or set REBU_ADMIN_KEY, REBU_READ_KEY or REBU_WRITE_KEY")
        return there, known
    running = find(settings.data_dir)
    own = load_keys(settings.data_dir, settings.write_key, settings.read_key, settings.admin_key)
    return running.url, key or (own.read if wanted is Scope.READ else own.admin)


def running_here(url: str | None, data_dir: str | None) -> bool:
    """Whether `client` would find a platform: one that is named, or one that runs on the data dir."""
    if url or (not data_dir and config.client_url()):
        return True
    try:
        find(config.load(data_dir=data_dir).data_dir)
    except NotRunning:
        return False
    return True
