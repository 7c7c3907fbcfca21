"""Another version of Rebu in the place of the one that runs, part after part, while data flows.

The coordinator first, since it makes the shards; then these, one by one, whose partitions go to another one before
each; then Serve's deployments, of which a new replica is up before an old one goes; then the puller. The code that
this process has is sent to every node with them: it need not be installed where they run, only what it depends on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from typing import Any, Final

import httpx

from rebu_ray.build import BUILD, PACKAGE
from rebu_ray.keys import load_keys
from rebu_ray.platform.running import Running
from rebu_ray.platform.stores import check_versions
from rebu_ray.settings import Settings

PATIENCE_SECONDS: Final = 600.0
"""How long it may take until one more part runs the new version."""
DRAINING_SECONDS: Final = 120.0
"""How long replicas of the earlier version may go on answering when the new ones are up."""
_SAME: Final = 20
"""So many gateways in a row have to answer with the new version: each request may meet another one."""


class NotUpgraded(Exception):
    """It came no further; the message says how far it is."""


def upgrade(running: Running, say: Callable[[str], None]) -> None:
    """Have everything on a platform run the code of this process. It may be called again where it broke off.

    Raises NotUpgraded, what `check_versions` raises, or what Ray raises.
    """
    os.environ |= running.ray_environment  # before Ray is imported: it reads this then
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    with _ray(running):
        say(f"upgrading the platform at {running.url} to {BUILD}")
        settings = _replace_coordinator(say)
        _replace_shards(say)
        _replace_gateways(settings, running.url, say)
        _replace_puller(settings, say)
    say("everything runs that version")


@contextmanager
def _ray(running: Running) -> Iterator[None]:
    import ray

    with chdir("/"):  # workers look for modules in the folder of whoever starts them before they do anywhere else
        ray.init(
            address=running.gcs_address,
            log_to_driver=False,
            configure_logging=False,
            runtime_env={"py_modules": [str(PACKAGE)]},
        )
    try:
        yield
    finally:
        ray.shutdown()


def _replace_coordinator(say: Callable[[str], None]) -> Settings:
    import ray

    from rebu_ray.ingest.actors import exists
    from rebu_ray.ingest.routing import COORDINATOR, NAMESPACE
    from rebu_ray.ingest.shards import find_or_make

    if not exists(COORDINATOR):  # an upgrade broke off here; a gateway makes one when it has waited long enough
        raise NotUpgraded("there is no coordinator at the moment: call this again in half a minute")
    before: Any = ray.get_actor(COORDINATOR, NAMESPACE)
    settings: Settings = ray.get(before.settings.remote(), timeout=60)
    check_versions(settings)
    ray.get(before.rest.remote(), timeout=PATIENCE_SECONDS)
    ray.kill(before)
    _await(lambda: not exists(COORDINATOR), "the coordinator does not end")
    after: Any = find_or_make(settings)
    _expect(ray.get(after.status.remote(), timeout=PATIENCE_SECONDS)["build"], "the coordinator", say)
    return settings


def _expect(build: str, what: str, say: Callable[[str], None]) -> None:
    if build != BUILD:
        raise NotUpgraded(
            f"{what} runs {build} though it was sent {BUILD}: is there a folder rebu_ray where `rebu up` was started? "
            "It wins over what is sent; start it elsewhere"
        )
    say(f"{what}: {build}")


def _replace_shards(say: Callable[[str], None]) -> None:
    import ray

    from rebu_ray.ingest.routing import COORDINATOR, NAMESPACE

    coordinator: Any = ray.get_actor(COORDINATOR, NAMESPACE)
    release = ray.get(coordinator.renew.remote(), timeout=PATIENCE_SECONDS)
    told: set[int] = set()
    moved_before, deadline = None, time.monotonic() + PATIENCE_SECONDS
    while True:
        state = ray.get(coordinator.status.remote(), timeout=PATIENCE_SECONDS)
        new = {s["slot"]: s["build"] for s in state["shards"] if s.get("release", 0) >= release}
        for slot in sorted({slot for slot in new if slot < state["wanted_shards"]} - told):
            _expect(new[slot], f"shard {slot}", say)
            told.add(slot)
        owners = set(state["routing"]["owners"])
        if len(told) == state["wanted_shards"] == len(state["shards"]) and owners <= told:
            pauses = state["moves"]["pauses_ms"]
            if pauses:
                say(f"moves of partitions paused them for {min(pauses):.0f} to {max(pauses):.0f} ms")
            return
        if (len(told), state["moves"]["moved"]) != moved_before:
            moved_before, deadline = (len(told), state["moves"]["moved"]), time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > deadline:
            raise NotUpgraded(
                f"the shards come no further: {sorted(told)} are new; `rebu status` says what the others do"
            )
        time.sleep(0.2)


def _replace_gateways(settings: Settings, url: str, say: Callable[[str], None]) -> None:
    from ray import serve

    from rebu_ray.access.gateway import APPLICATION, application

    keys = load_keys(settings.data_dir, settings.write_key, settings.read_key, settings.admin_key)
    serve.run(application(settings, keys), name=APPLICATION, route_prefix="/", blocking=False)
    deadline = time.monotonic() + DRAINING_SECONDS
    while (others := _other_answers(url)) and time.monotonic() < deadline:
        time.sleep(0.2)
    _expect(next(iter(others), BUILD), "the gateways", say)


def _other_answers(url: str) -> set[str]:
    """What gateways say that they run, but for what they are to."""
    found = set()
    for _ in range(_SAME):
        try:
            found.add(str(httpx.get(f"{url}/healthz", timeout=10).json().get("build")))
        except (httpx.TransportError, ValueError) as error:
            found.add(type(error).__name__)
    return found - {BUILD}


def _replace_puller(settings: Settings, say: Callable[[str], None]) -> None:
    import ray

    from rebu_ray.ingest.actors import exists
    from rebu_ray.ingest.appdb import actor
    from rebu_ray.ingest.appdb.asked import APPDB
    from rebu_ray.ingest.routing import NAMESPACE

    if not exists(APPDB):
        return
    before: Any = ray.get_actor(APPDB, NAMESPACE)
    ray.get(before.stop.remote(), timeout=60)
    ray.kill(before)
    _await(lambda: not exists(APPDB), "the puller does not end")
    after: Any = actor.start(settings)
    ray.get(after.status.remote(), timeout=PATIENCE_SECONDS)
    say("the puller of the application database: begun anew")


def _await(done: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise NotUpgraded(problem)
        time.sleep(0.1)
