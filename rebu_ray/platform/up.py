"""Bringing a platform up and down: Redis, Ray, coordinator and shards, Serve; in this order, and back."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import msgspec

from rebu_ray.ingest.progress import progress
from rebu_ray.ingest.secret import with_secret
from rebu_ray.keys import Keys, load_keys
from rebu_ray.logs import SERVE_LOGS, configure
from rebu_ray.passes import link
from rebu_ray.platform import local_ray
from rebu_ray.platform.redis_server import RedisServer
from rebu_ray.platform.running import Running, announce, sole_owner, withdraw
from rebu_ray.platform.session import begin_anew
from rebu_ray.platform.stores import check_stores, check_versions
from rebu_ray.settings import Settings, ray_address
from rebu_ray.store.journal import JournalError
from rebu_ray.store.lake import LakeError
from rebu_ray.store.layout import LayoutError
from rebu_ray.traces import check

log = logging.getLogger("rebu")

LOGICAL_CPUS: Final = 16
"""What a local Ray is told to have: actors here wait more than they compute, and shares are small."""
OBJECT_STORE_BYTES: Final = 256 * 1024 * 1024
TELL_SECONDS: Final = 5.0
"""How often a start that takes long says how far it is."""


class Platform:
    """A platform that is up."""

    def __init__(self, settings: Settings, keys: Keys, redis: RedisServer | None) -> None:
        self.settings = settings
        self.keys = keys
        self.url = _url(settings)
        self._redis = redis
        self._pillars = {} if ray_address() else local_ray.pillars()

    def dashboard(self) -> str:
        """A new link that signs a browser in, to read."""
        return link(self.url, self.keys.read, time.time_ns() // 1_000_000)

    def supervise(self) -> None:
        """Called now and then: starts the embedded Redis again should it have died, and where Ray has, everything.

        What was left of Ray would refuse to stop in good order: this is left as after a crash, with which the next
        start copes.
        """
        if fallen := local_ray.fallen(self._pillars):
            log.error("%s of the local Ray died: the platform is started again", " and ".join(fallen))
            begin_anew()
        if self._redis is not None and self._redis.revive():
            log.warning("the embedded Redis had died and was started again")


def _url(settings: Settings) -> str:
    """Where somebody on this machine finds the platform."""
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
    return f"http://{host}:{settings.port}"


class _Starting(NamedTuple):
    """The coordinator, and its answer when every shard serves."""

    coordinator: Any
    started: Any


@contextmanager
def platform(settings: Settings, say: Callable[[str], None], stop: threading.Event) -> Iterator[Platform]:
    """A platform on the settings' data dir, up inside the block. `say` is told of each step.

    `stop`, set by a signal, is looked at between the steps: then it is taken down again and Stopped raised.

    Raises SettingsError, AlreadyRunning, PortTaken, RedisServerError, StoreError, LayoutError, LakeError, JournalError
    or what Ray raises.
    """
    configure(settings.log_format, settings.log_requests, "rebu")
    check(settings)
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    with _hushed_end(settings.data_dir) as stack:
        stack.enter_context(sole_owner(settings.data_dir))
        left = local_ray.clear_leftovers(settings.data_dir)
        if left:
            say(f"ended {left} processes of an earlier run that was killed")
        local_ray.check_port(settings.host, settings.port)
        check_versions(settings)
        if settings.appdb_url:
            from rebu_ray.ingest.appdb.database import database_url

            settings = msgspec.structs.replace(settings, appdb_url=database_url(settings.appdb_url))
        keys = load_keys(settings.data_dir, settings.write_key, settings.read_key, settings.admin_key)
        redis: RedisServer | None = None
        if not settings.redis_url:
            say("starting Redis")
            redis = RedisServer(str(Path(settings.data_dir) / "redis"), local_ray.free_port())
            redis.start()
            stack.callback(redis.stop)
            settings = msgspec.structs.replace(settings, redis_url=redis.url)
        settings = with_secret(settings)
        check_stores(settings)
        _unless(stop)
        say("starting Ray")
        stack.enter_context(_ray(settings))
        _unless(stop)
        say("starting the shards and Serve")
        shards = stack.enter_context(_shards(settings))
        stack.enter_context(_serve(settings))
        _await_shards(shards, say, stop)
        _unless(stop)
        say("starting the gateways")
        _deploy(settings, keys)
        if settings.appdb_url:
            stack.enter_context(_application_database(settings))
        up = Platform(settings, keys, redis)
        announce(settings.data_dir, Running(up.url, os.getpid(), settings.redis_url, ray_address(), *_way_to_ray()))
        stack.callback(withdraw, settings.data_dir)
        yield up


@contextmanager
def _hushed_end(data_dir: str) -> Iterator[contextlib.ExitStack]:
    """What is entered is left in good order, and quietly.

    Ray tells of every actor that a stop ends, on standard output and from a thread of its own: to a file with it, which
    stays open as long as the process.
    """
    with contextlib.ExitStack() as quiet, contextlib.ExitStack() as stack:
        try:
            yield stack
        finally:
            quiet.enter_context(contextlib.redirect_stdout(_chatter(data_dir)))


def _chatter(data_dir: str) -> TextIO:
    folder = Path(data_dir)  # which is not there where nothing was begun
    return open(folder / "stop.log" if folder.is_dir() else os.devnull, "w", encoding="utf-8")


def _way_to_ray() -> tuple[str, dict[str, str]]:
    import ray

    own = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    return ray.get_runtime_context().gcs_address, own


class Stopped(Exception):
    """Asked to stop before the platform was up."""


def _unless(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


@contextmanager
def _ray(settings: Settings) -> Iterator[None]:
    """The cluster at RAY_ADDRESS, else a Ray of this platform alone."""
    address, data_dir = ray_address(), settings.data_dir
    drain = local_ray.DRAIN_SECONDS if settings.autoscales else 1.0  # which a stop takes longer
    folder = None if address else local_ray.prepare(data_dir, drain)
    local: dict[str, Any] = {
        "num_cpus": LOGICAL_CPUS,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(folder),
    }
    import ray  # after `prepare`: Ray reads its environment when it is imported

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **({} if address else local))
        for number, handler in handlers.items():  # Ray puts its own in their place
            signal.signal(number, handler)
        yield
    finally:
        workers = local_ray.workers() if folder is not None else []
        ray.shutdown()
        local_ray.await_end(workers)
        if folder is not None:
            local_ray.keep_logs(folder, data_dir)


@contextmanager
def _shards(settings: Settings) -> Iterator[_Starting]:
    """The coordinator, which has begun to make the shards."""
    import ray

    from rebu_ray.ingest.shards import find_or_make

    coordinator: Any = find_or_make(settings)
    try:
        yield _Starting(coordinator, coordinator.start.remote())
    finally:
        try:
            coordinator = find_or_make(settings)  # another one may have its place by now
            ray.get(coordinator.stop.remote(), timeout=30)
            ray.kill(coordinator)
        except (ray.exceptions.RayError, TimeoutError) as error:
            log.error("the shards did not stop in good order; the journal is replayed at the next start: %s", error)


def _await_shards(starting: _Starting, say: Callable[[str], None], stop: threading.Event) -> None:
    """Wait until every shard serves. Raises what keeps one from it."""
    import ray

    coordinator, started = starting
    while not ray.wait([started], timeout=TELL_SECONDS)[0]:
        _unless(stop)
        done, total = progress(ray.get(coordinator.status.remote())["shards"])
        if total:
            say(f"  {done:,} of {total:,} records are indexed")
    try:
        ray.get(started)
    except ray.exceptions.RayTaskError as error:
        # Whoever started the platform needs the reason, not where in an actor it was found.
        if isinstance(error.cause, (JournalError, LakeError, LayoutError, TimeoutError)):
            raise error.cause from None
        raise


@contextmanager
def _serve(settings: Settings) -> Iterator[None]:
    """Serve's own actors, which start while the shards do."""
    from ray import serve

    serve.start(
        proxy_location=settings.proxies if ray_address() else "HeadOnly",
        http_options={"host": settings.host, "port": settings.port},
        logging_config=SERVE_LOGS,
    )
    try:
        yield
    finally:
        serve.shutdown()


def _deploy(settings: Settings, keys: Keys) -> None:
    """Start the gateways and wait until requests get through to them."""
    from ray import serve

    from rebu_ray.access.gateway import APPLICATION, application

    serve.run(application(settings, keys), name=APPLICATION, route_prefix="/", blocking=False)
    _await_ready(_url(settings))


@contextmanager
def _application_database(settings: Settings) -> Iterator[None]:
    import ray

    from rebu_ray.ingest.appdb import actor

    puller: Any = actor.start(settings)
    try:
        yield
    finally:
        try:
            puller = actor.start(settings)
            ray.get(puller.stop.remote(), timeout=15)
            ray.kill(puller)
        except (ray.exceptions.RayError, TimeoutError) as error:
            log.error("the puller of the application database did not stop in good order: %s", error)


def _await_ready(url: str) -> None:
    """Wait until requests get through the proxy. Raises TimeoutError."""
    import httpx

    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing answers at {url}/readyz: the logs below the data dir's ray folder say why")
        time.sleep(0.05)
