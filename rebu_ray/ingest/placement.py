"""Where partitions are and are to be: makes the shards, asks after them, moves partitions between them.

What is wanted is saved; a loop compares it with what there is and does the next thing: take the partitions of a shard
whose lease has ended, move one that is not where it should be, stop a shard that is wanted no more. So a scaling that a
crash of the coordinator interrupts goes on with its next start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import ray
from ray.actor import ActorHandle

from rebu_ray.ingest.actors import exists
from rebu_ray.ingest.balance import balanced, moves
from rebu_ray.ingest.lease import Leases
from rebu_ray.ingest.moves import Away, Handed, Moves, Released, Standstill
from rebu_ray.ingest.renewal import Replace, Spare, next_step
from rebu_ray.ingest.roles import place
from rebu_ray.ingest.routing import (
    NAMESPACE,
    Routing,
    Standing,
    load_standing,
    save_standing,
    shard_name,
    spread,
)
from rebu_ray.ingest.shard import IngestShard
from rebu_ray.ingest.sizing import SHARD_CPUS
from rebu_ray.settings import Role, Settings
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.index import UNAVAILABLE, disconnect
from rebu_ray.store.journal import JournalError, open_journal
from rebu_ray.store.redis_cluster import Client, connect

log = logging.getLogger("rebu.coordinator")

HEARTBEAT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 120.0
"""How long a shard may take to flush, or to let go of partitions or take them up: another flush may be under way."""
AGAIN_SECONDS: Final = 1.0
START_SECONDS: Final = 120.0
"""How long a new process may take until it answers for the first time."""
PATIENCE_SECONDS: Final = 60.0
"""How long a scaling waits for shards that do not come up, before another one may be asked for."""
AT_ONCE: Final = 4
"""The most partitions of a move: they pause together."""


class Placement:
    """The shards of a platform, on the loop of its coordinator; the hands of its moves."""

    def __init__(self, settings: Settings, partitions: int, before_shards: Callable[[], Awaitable[None]]) -> None:
        """`before_shards` is called where no shard runs, before the first is made."""
        self._settings = settings
        self._partitions = partitions
        self._before_shards = before_shards
        self._cursors = Cursors(settings.cursors)
        self._journal = open_journal(settings.journal)
        self._redis: Client = connect(settings.redis_url, socket_timeout=5, socket_connect_timeout=2, protocol=2)
        self.shards: list[ActorHandle[IngestShard]] = []
        self.states: dict[int, dict[str, Any]] = {}
        """Of every shard, as of the last heart-beat."""
        self.measured: dict[int, bytes] = {}
        """What the process of every shard has counted, as of the last heart-beat that it answered."""
        self.still = Standstill()
        self._leases = Leases(settings.lease_seconds, time.monotonic)
        self._shunned: dict[int, float] = {}
        """Slots that lost their lease, and when their shards last failed to answer."""
        self._killed_at: dict[int, float] = {}
        self._told: dict[int, tuple[int, int]] = {}
        """The routing's version that a shard has, and its epoch."""
        self._telling: dict[int, asyncio.Task[None]] = {}
        self._moves: Moves | None = None
        self._scaling = False
        self._renewing = False
        self._progress = time.monotonic()
        """When a scaling or a renewal began, or last did something."""
        self._beginning = asyncio.Lock()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # -- calls ------------------------------------------------------------------------------------------------

    async def begin(self) -> Routing:
        """Make the shards, or find them where only the coordinator is new; who owns what. Raises JournalError."""
        async with self._beginning:
            if self._moves is None:
                standing, grace = await asyncio.to_thread(load_standing, self._cursors), 0.0
                known = max(self._settings.shards, standing.shards if standing else 0)
                if standing is None or not any(exists(shard_name(slot)) for slot in range(known)):
                    await self._before_shards()
                    standing, grace = await asyncio.to_thread(self._afresh, standing), START_SECONDS
                self.shards = [self._make(slot, grace, standing.release) for slot in range(standing.shards)]
                for slot in await asyncio.to_thread(self._journal.slots):
                    if slot >= standing.shards and exists(shard_name(slot)):
                        # It was wanted no more, and nobody was left to stop it.
                        ray.kill(ray.get_actor(shard_name(slot), NAMESPACE))
                self._scaling = standing.shards > standing.wanted
                self._moves = found = Moves(standing, self, time.monotonic)
                self._tasks = [asyncio.create_task(loop) for loop in (self._beat(), self._keep(found))]
                for task in self._tasks:
                    task.add_done_callback(_leave)
            return self._moves.routing

    async def ask(self) -> dict[int, dict[str, Any]]:
        """Ask after every shard now."""
        await asyncio.gather(*map(self._ask, range(len(self.shards))))
        return self.states

    async def scale(self, shards: int) -> dict[str, Any] | None:
        """Have so many shards, from 1 to the number of partitions; None while there are to be others."""
        await self.begin()
        assert self._moves is not None
        if self._scaling and shards != self._moves.standing.wanted:
            return None
        self._scaling, self._progress = True, time.monotonic()
        before = self._moves.standing.shards
        await self._moves.size(max(shards, before), shards)
        for slot in range(len(self.shards), shards):
            self.shards.append(self._make(slot, START_SECONDS, self._moves.standing.release))
        self._wake.set()
        owners = self._moves.routing.owners
        after = balanced(owners, range(shards))
        return {"shards": shards, "before": before, "moves": sum(a != b for a, b in zip(owners, after, strict=True))}

    def standing(self) -> tuple[int, bool, dict[int, dict[str, Any]]]:
        """How many shards there are to be, whether a scaling is under way, and the state of each."""
        if self._moves is None:
            return 0, True, {}
        return self._moves.standing.wanted, self._scaling, self.states

    async def renew(self) -> int:
        """Have every shard made anew, one after the other, while data flows; which release that is."""
        await self.begin()
        assert self._moves is not None
        self._renewing, self._progress = True, time.monotonic()
        release = await self._moves.renew()
        self._wake.set()
        return release

    async def rest(self) -> None:
        """Do nothing more by itself, from when what is under way has come to its end: somebody else goes on."""
        async with self.still.hold():
            for task in (*self._tasks, *self._telling.values()):
                task.cancel()

    def status(self) -> dict[str, Any]:
        """What is moving, and what has moved since the coordinator started."""
        if self._moves is None:
            return {}
        standing = self._moves.standing
        return {
            "routing": {
                "version": self._moves.routing.version,
                "owners": self._moves.routing.owners,
                "leaving": sorted(standing.leaving),
            },
            "scaling": self._scaling,
            "release": standing.release,
            "renewing": self._renewing,
            "wanted_shards": standing.wanted,
            "moves": {
                "moved": self._moves.moved,
                "fenced": self._moves.fenced,
                "pauses_ms": list(self._moves.pauses_ms),
            },
        }

    async def stop(self) -> None:
        """Stop the shards in good order."""
        for task in (*self._tasks, *self._telling.values()):
            task.cancel()
        if self._moves is None:  # a coordinator that was restarted, and not asked for anything since
            standing = await asyncio.to_thread(load_standing, self._cursors)
            names = [shard_name(slot) for slot in range(standing.shards if standing else 0)]
            self.shards = [ray.get_actor(name, NAMESPACE) for name in names if exists(name)]
        outcomes = await asyncio.gather(*(shard.stop.remote() for shard in self.shards), return_exceptions=True)
        for slot, outcome in enumerate(outcomes):
            if isinstance(outcome, BaseException):
                log.error(
                    "shard %d did not stop in good order; its journal is replayed at the next start: %s", slot, outcome
                )
        for shard in self.shards:
            ray.kill(shard)
        self.shards = []
        self._redis.close()

    # -- shards -----------------------------------------------------------------------------------------------

    def _afresh(self, saved: Standing | None) -> Standing:
        """Nobody runs: share the partitions out over as many shards as the settings say, and save that."""
        shards = min(self._settings.shards, self._partitions)
        if saved is None or saved.routing.partitions != self._partitions:
            routing = spread(self._partitions, shards, 1 if saved is None else saved.routing.version + 1)
        else:
            routing = Routing(saved.routing.version + 1, balanced(saved.routing.owners, range(shards)))
        standing = Standing(routing, shards, shards, release=0 if saved is None else saved.release)
        save_standing(self._cursors, standing)
        for slot in sorted(self._journal.slots()):
            mine = set() if saved is None else set(saved.routing.owned_by(slot)) - set(routing.owned_by(slot))
            if slot >= shards or mine:
                # Whoever still holds it, from a run that did not end well, must not append any more.
                self._journal.claim(slot)
        return standing

    def _make(self, slot: int, grace: float, release: int) -> ActorHandle[IngestShard]:
        actor: Any = ray.remote(IngestShard)
        made: ActorHandle[IngestShard] = actor.options(
            name=shard_name(slot),
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=SHARD_CPUS,
            resources=place(self._settings, Role.SHARD),
            scheduling_strategy="SPREAD",  # a node that dies takes as few of them with it as can be
            max_restarts=-1,
            max_concurrency=1000,
        ).remote(slot, self._settings, release)
        self._leases.renew(slot, grace)
        return made

    async def _call(self, slot: int, seconds: float, method: str, *args: object) -> Any:
        if slot >= len(self.shards):
            raise Away("there is no such shard any more")
        deadline = time.monotonic() + seconds
        try:
            called = asyncio.wrap_future(getattr(self.shards[slot], method).remote(*args).future())
            while not (await asyncio.wait([called], timeout=min(AGAIN_SECONDS, seconds)))[0]:
                if time.monotonic() >= deadline or not self._leases.held(slot):
                    called.cancel()
                    raise Away(f"no answer to `{method}`")
            return await called
        except ray.exceptions.RayError as error:
            raise Away(f"{method}: {str(error).strip().splitlines()[-1]}") from error

    async def _beat(self) -> None:
        """Ask after every shard. The question also sets a restarted one going."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self.ask()
            self._wake.set()

    async def _ask(self, slot: int) -> None:
        try:
            state = await self._call(slot, min(5.0, max(1.0, self._settings.lease_seconds / 4)), "status")
        except Away as error:
            self._leases.failed(slot)
            if slot in self._shunned:
                self._shunned[slot] = time.monotonic()
            if slot < len(self.shards):
                self.states[slot] = {"slot": slot, "index": "away", "detail": str(error)}
            log.warning("shard %d does not answer: %s", slot, error)
            return
        if slot < len(self.shards):
            self._leases.renew(slot)
            self._killed_at.pop(slot, None)
            self.measured[slot] = state.pop("measured", b"")
            self.states[slot] = state
            self._tell(slot)

    def _tell(self, slot: int) -> None:
        """Tell a shard who owns what, unless it has been told, or partitions are just being moved."""
        state = self.states.get(slot, {})
        if self._moves is None or self._moves.busy or self._moves.standing.leaving or "routing" not in state:
            return
        standing = self._moves.standing
        now = (standing.routing.version, state["epoch"])
        telling = self._telling.get(slot)
        if self._told.get(slot) == now or (telling is not None and not telling.done()):
            return

        async def told() -> None:
            try:
                await self.assign(slot, standing, {})
            except Away as error:
                log.warning("shard %d does not do what it was told: %s", slot, error)
            else:
                self._told[slot] = now

        self._telling[slot] = asyncio.create_task(told())

    # -- what is to be done -----------------------------------------------------------------------------------

    async def _keep(self, found: Moves) -> None:
        await found.resume()
        while True:
            self._wake.clear()
            try:
                while await self._next(found):
                    for slot in range(len(self.shards)):
                        self._tell(slot)
            except Away as error:
                log.warning("nothing moves at the moment: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            await self._wake.wait()

    async def _next(self, found: Moves) -> bool:
        """Do one thing that is to be done; whether there was one. Raises Away where it could not be done."""
        for slot in range(len(self.shards)):
            if not self._leases.held(slot) and await self._lost(found, slot):
                return True
        standing = found.standing
        owners = standing.routing.owners
        wanted = range(standing.wanted)
        if await self._renew(found):
            return True
        if all(map(self._runs, {*owners})) and not self._renewing:
            calm = [slot for slot in wanted if self._runs(slot) and self._calm(slot)]
            todo = moves(owners, balanced(owners, calm), AT_ONCE) if calm else []
            if todo:
                async with self.still.move():
                    await found.move(todo[0])
                self._progress = time.monotonic()
                return True
            if standing.shards > standing.wanted and max(owners) < standing.wanted:
                await self._retire(found, standing.wanted)
                return True
            waited = time.monotonic() - self._progress
            self._scaling = self._scaling and len(calm) < len(wanted) and waited < PATIENCE_SECONDS
        return False

    def _runs(self, slot: int) -> bool:
        return bool(self._leases.answering([slot])) and self.states.get(slot, {}).get("index") == "current"

    def _calm(self, slot: int) -> bool:
        """Whether a slot that lost its lease has answered for as long as a lease since."""
        since = self._shunned.get(slot)
        return since is None or time.monotonic() - since >= self._settings.lease_seconds

    async def _lost(self, found: Moves, slot: int) -> bool:
        """A lease has ended: others take up what the slot has; without others, its shard is killed and made anew."""
        now = time.monotonic()
        self._shunned[slot] = now
        owned = found.standing.routing.owned_by(slot)
        live = [s for s in range(found.standing.wanted) if s != slot and self._runs(s)]
        if owned and live:
            log.error("shard %d has lost its lease: others take up its partitions %s", slot, owned)
            await found.rescue(slot, live)
            self._killed_at[slot] = now
            return True
        # Time to come back by itself: it is fenced, and finds that out with whatever it does first.
        if now - self._killed_at.get(slot, 0.0) < 2 * self._settings.lease_seconds:
            return False
        log.error("shard %d has lost its lease: it is killed, and started anew", slot)
        self._killed_at[slot] = now
        self._leases.renew(slot, START_SECONDS)
        ray.kill(self.shards[slot], no_restart=False)
        return False

    async def _renew(self, found: Moves) -> bool:
        """Do one thing so that all shards are of the release that is wanted; whether there was one."""
        standing = found.standing
        slots = range(standing.shards)
        releases = {slot: self.states[slot].get("release", 0) for slot in slots if self._runs(slot)}
        step = next_step(standing.routing.owners, releases, standing.wanted, standing.release, AT_ONCE)
        if step is not None:
            self._renewing = True
        if len(releases) < len(slots):  # one that does not come up for long must not keep others from moving
            self._renewing = self._renewing and time.monotonic() - self._progress < PATIENCE_SECONDS
            return False
        if step is None:
            self._renewing = False
            return False
        self._progress = time.monotonic()
        if isinstance(step, Spare):
            log.info("a shard is made to take the place of others")
            await found.size(standing.shards + 1, standing.wanted)
            self.shards.append(self._make(standing.shards, START_SECONDS, standing.release))
            return False
        async with self.still.move():
            if isinstance(step, Replace):
                log.info("shard %d is made anew", step.slot)
                await self._end(step.slot, self.shards[step.slot])
                while exists(shard_name(step.slot)):
                    await asyncio.sleep(0.02)
                self.shards[step.slot] = self._make(step.slot, START_SECONDS, standing.release)
            else:
                await found.move(step)
        return True

    async def _end(self, slot: int, shard: ActorHandle[IngestShard]) -> None:
        """Stop a shard that owns nothing."""
        self.states.pop(slot, None)
        self.measured.pop(slot, None)
        self._told.pop(slot, None)
        self._shunned.pop(slot, None)
        try:
            await asyncio.wait_for(asyncio.wrap_future(shard.stop.remote().future()), 30)
        except (ray.exceptions.RayError, TimeoutError) as error:
            log.warning("shard %d, which owns nothing, did not stop in good order: %s", slot, type(error).__name__)
        ray.kill(shard)

    async def _retire(self, found: Moves, wanted: int) -> None:
        """Stop the shards that own nothing and are wanted no more. From when that is saved they are nobody's."""
        gone, self.shards = self.shards[wanted:], self.shards[:wanted]
        await found.size(wanted, wanted)
        for slot, shard in enumerate(gone, wanted):
            await self._end(slot, shard)

    # -- hands ------------------------------------------------------------------------------------------------

    async def flush(self, slot: int) -> None:
        """See `Hands.flush`."""
        await self._call(slot, ANSWER_SECONDS, "flush")

    async def prepare(self, slot: int, partitions: tuple[int, ...]) -> None:
        """See `Hands.prepare`."""
        await self._call(slot, ANSWER_SECONDS, "prepare", partitions)

    async def release(self, slot: int, partitions: tuple[int, ...], version: int) -> Released:
        """See `Hands.release`."""
        released: Released = await self._call(slot, ANSWER_SECONDS, "release", partitions, version)
        return released

    async def fence(self, slot: int) -> None:
        """See `Hands.fence`. Its connections to Redis are closed: it does not index what waited any more."""
        while True:
            try:
                await asyncio.to_thread(self._journal.claim, slot)
                break
            except (OSError, JournalError) as error:
                log.error("slot %d cannot be fenced: %s", slot, error)
                await asyncio.sleep(AGAIN_SECONDS)
        try:
            await asyncio.to_thread(disconnect, self._redis, shard_name(slot))
        except UNAVAILABLE as error:
            log.warning("the connections of slot %d to Redis are not closed: %s", slot, error)

    async def assign(self, slot: int, standing: Standing, handed: Handed) -> None:
        """See `Hands.assign`."""
        await self._call(slot, ANSWER_SECONDS, "assign", standing, handed)

    async def save(self, standing: Standing) -> None:
        """See `Hands.save`."""
        while True:
            try:
                await asyncio.to_thread(save_standing, self._cursors, standing)
                return
            except OSError as error:
                log.error("who owns what cannot be saved: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)


def _leave(task: asyncio.Task[None]) -> None:
    """A loop that fails takes the coordinator with it: Ray makes a new one, which goes on from what is saved."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the coordinator leaves, to be restarted", exc_info=error)
        os._exit(1)
