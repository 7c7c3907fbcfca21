"""Whether the stores that the settings name can be used: asked before anything is started on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa
import redis

from rebu_ray.ingest.secret import with_secret
from rebu_ray.settings import Settings
from rebu_ray.store.backup import UNFINISHED
from rebu_ray.store.cursor import FORMAT, Cursors
from rebu_ray.store.journal import JournalError, check_format, open_journal
from rebu_ray.store.lake import Lake
from rebu_ray.store.layout import known_layout, open_layout
from rebu_ray.store.redis_cluster import connect, is_cluster, servers
from rebu_ray.store.tombstones import FOLDER, TombstoneStore
from rebu_ray.store.versions import format_of, refuse_newer

Item = TypeVar("Item")


class StoreError(Exception):
    """A store cannot be used; the message says which, why, and what to set."""


_CURSORS: Final = ("", "appdb", FOLDER)
"""Where cursors are that nobody can do without: what is made anew may be of any format."""
_READERS: Final = 16
"""How many files are looked at at a time: an object store takes its time for each."""


def check_versions(settings: Settings) -> None:
    """See that nothing there is of a version that this one does not know. Changes nothing.

    Raises LayoutError, LakeError, JournalError, or StoreError for a store that cannot be used.
    """
    if (Path(settings.data_dir) / UNFINISHED).exists():
        raise StoreError(
            f"a backup was being copied to {settings.data_dir}, and not all of it is there: remove what is, and "
            "`rebu restore` it again"
        )
    _open("lake", settings.lake, "REBU_LAKE_URI", lambda: _check_lake(settings.lake))
    _open("journal", settings.journal, "REBU_JOURNAL_URI", lambda: _check_journal(settings.journal))
    _open("journal's cursors", settings.cursors, "REBU_JOURNAL_URI", lambda: _check_cursors(settings.cursors))


def _check_lake(uri: str) -> None:
    layout = known_layout(uri)
    if layout is not None:
        _each(Lake(uri).manifest, range(layout.partitions))


def _check_journal(uri: str) -> None:
    journal = open_journal(uri)
    _each(lambda segment: check_format(journal, segment), journal.segments())


def _check_cursors(uri: str) -> None:
    cursors = Cursors(uri)

    def check(path: str) -> None:
        data = cursors.load(path)
        with suppress(msgspec.DecodeError):  # no map, so no cursor; or a damaged one, of which its reader tells
            if data is not None:
                refuse_newer(format_of(data), FORMAT, f"the cursor `{path.rpartition('/')[2]}`", JournalError)

    _each(check, (f"{folder}/{name}".lstrip("/") for folder in _CURSORS for name in cursors.names(folder)))


def _each(look: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Look at every one. Raises what the first of them raises that does."""
    with ThreadPoolExecutor(_READERS) as pool:
        for _ in pool.map(look, items):
            pass


def check_stores(settings: Settings) -> None:
    """Look into lake, journal, tombstones and Redis. Raises StoreError, LayoutError or JournalError."""
    _open("lake", settings.lake, "REBU_LAKE_URI", lambda: open_layout(settings.lake, settings.partitions))
    _open("journal", settings.journal, "REBU_JOURNAL_URI", lambda: open_journal(settings.journal).segments())
    secret = with_secret(settings).erasure_secret
    TombstoneStore(settings.cursors, settings.lake, secret.encode()).load()
    client = connect(settings.redis_url, socket_timeout=5, socket_connect_timeout=5)
    try:
        if not is_cluster(settings.redis_url) and client.info("cluster").get("cluster_enabled"):
            raise StoreError(
                f"Redis at {_without_password(settings.redis_url)} is one server of a Redis Cluster: "
                "write redis+cluster:// or rediss+cluster:// in REBU_REDIS_URL"
            )
        policies = {server.info("memory").get("maxmemory_policy", "noeviction") for server in servers(client)}
        for policy in policies - {"noeviction"}:
            raise StoreError(
                f"Redis at {_without_password(settings.redis_url)} drops keys when it is full (maxmemory-policy "
                f"{policy}): set it to noeviction, or histories would lack records and nobody would know"
            )
    except redis.BusyLoadingError:
        return  # it is there and reads its snapshot: the shards wait for it
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        raise StoreError(
            f"Redis at {_without_password(settings.redis_url)} cannot be used ({error}): correct REBU_REDIS_URL, "
            "or leave it out for the embedded one"
        ) from error
    finally:
        client.close()


def _open(what: str, uri: str, variable: str, look: Callable[[], object]) -> None:
    try:
        look()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(
            f"the {what} at {_without_password(uri)} cannot be used ({reason}): correct {variable}, or leave it out "
            "to keep it in the data dir"
        ) from error


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="").geturl()
