"""What happens in the laboratory: `ray up`, `rebu up`, events and rides, a host that dies, `ray down`.

`python -m scripts.lab.play WORK [--check]`, started by scripts/cluster_lab.sh on the host of whoever operates this.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import yaml

from rebu_ray.simulate.tables import TABLES
from scripts.lab import services
from scripts.lab.derive import HEAD, SHARDS, WORKERS, derive

PORT: Final = 8000
USERS: Final = 20
RIDES: Final = 12
BATCH: Final = 40
VICTIM: Final = 3
"""The number of the host that dies, which is the last worker."""
HOSTS: Final = (HEAD, *WORKERS)


class Failed(Exception):
    """Something did not hold; the message says what."""


class Lab:
    """The cluster, and what has been found of it."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.config = work / "cluster.yaml"
        self.keys: dict[str, str] = {}
        self.up: subprocess.Popen[str] | None = None
        self.checks: list[tuple[str, str, bool]] = []
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def check(self, what: str, found: object, held: bool) -> None:
        """Take note of a check."""
        self.checks.append((what, str(found), held))
        self.say(f"{'yes' if held else 'NO '}  {what}: {found}")

    # -- the cluster ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The files that cluster.yaml asks for, and the configuration."""
        names = ("REDIS_PASSWORD", "POSTGRES_PASSWORD", "REBU_ERASURE_SECRET")
        said = {name: secrets.token_hex(16) for name in names}
        self.keys = {name: f"lab-{name}-{secrets.token_hex(8)}" for name in ("write", "read", "admin")}
        said |= {f"REBU_{name.upper()}_KEY": key for name, key in self.keys.items()}
        for name, text in (
            ("ray_token", secrets.token_hex(32)),
            ("secrets.new", "".join(f"{name}={value}\n" for name, value in said.items())),
        ):
            with open(os.open(self.work / name, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
                file.write(text)
        (self.work / "secrets.new").rename(self.work / "secrets.env")  # whoever waits for it finds it whole
        self.config.write_text(yaml.safe_dump(derive(Path("cluster.yaml"), self.work), sort_keys=False))

    def ray(self, *words: str, seconds: float = 600) -> str:
        """A command of Ray's cluster launcher. Raises Failed."""
        # With version 2 of the autoscaler the provider `local` launches no worker.
        env = {**os.environ, "RAY_UP_enable_autoscaler_v2": "0", "RAY_USAGE_STATS_ENABLED": "0", "TERM": "dumb"}
        with (self.work / "ray.log").open("a") as log:
            done = subprocess.run(
                [Path(sys.executable).with_name("ray"), *words],
                env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False,
            )  # fmt: skip
            log.write(f"$ ray {' '.join(words)}\n{done.stdout}\n")
        if done.returncode:
            raise Failed(f"ray {words[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout

    def ssh(self, host: str, command: str, seconds: float = 120, check: bool = True) -> str:
        """A command on a host. Raises Failed."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        done = subprocess.run(
            ["ssh", "-i", str(self.work / "key"), *options, f"root@{host}", f". ~/rebu/node.sh && {command}"],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise Failed(f"{command} on {host} ended with {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout

    def launch(self) -> None:
        """`ray up`, and every worker there."""
        self.ray("up", "-y", "--no-config-cache", str(self.config))
        self.say("the head is up")
        self.until("every host is a node", lambda: self._alive() == len(HOSTS), 900, 10.0)

    def _alive(self) -> int:
        count = "import ray; ray.init(log_to_driver=False); print('alive', sum(n['Alive'] for n in ray.nodes()))"
        said = self.ssh(HEAD, f'~/rebu/venv/bin/python -W ignore -c "{count}"', check=False)
        return int(said.rpartition("alive ")[2].split()[0]) if "alive " in said else 0

    def start(self) -> None:
        """`rebu up` on the head, as cluster.yaml says."""
        log = (self.work / "up.log").open("w")
        command = ". ~/rebu/node.sh && exec ~/rebu/venv/bin/rebu up"
        self.up = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "exec", "--no-config-cache", str(self.config), command],
            env={**os.environ, "TERM": "dumb"}, stdout=log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.until("rebu up says that it is ready", self._ready, 900)

    def _ready(self) -> bool:
        assert self.up is not None
        said = (self.work / "up.log").read_text()
        if self.up.poll() is not None:
            raise Failed(f"rebu up ended:\n{said[-3000:]}")
        return "Rebu is ready" in said

    def stop(self) -> None:
        """Ask `rebu up` to stop, and wait."""
        self.ssh(HEAD, r"pkill -INT -o -f '^[^ ]*python[^ ]* [^ ]*bin/rebu up$'", check=False)
        assert self.up is not None
        ended = self.up.wait(120)
        self.check("rebu up stops in good order", f"exit code {ended}", ended == 0)

    # -- the platform -----------------------------------------------------------------------------------------

    def get(self, path: str, host: str = HEAD, key: str = "admin", **params: str | int) -> Any:
        """What the platform answers to a read that is asked again while it is told to wait. Raises Failed."""
        deadline = time.monotonic() + 120
        while True:
            try:
                answer = httpx.get(
                    f"http://{host}:{PORT}{path}",
                    params=params,
                    headers={"Authorization": f"Bearer {self.keys[key]}"},
                    timeout=30,
                )
                if answer.status_code == 200:
                    return answer.json()
                said = f"{answer.status_code} {answer.text[:300]}"
            except httpx.TransportError as error:
                said = repr(error)
            if time.monotonic() > deadline:
                raise Failed(f"GET {path} of {host}: {said}")
            time.sleep(0.5)

    def until(self, what: str, held: Callable[[], bool], seconds: float, pause: float = 0.5) -> None:
        """Wait for something. Raises Failed."""
        deadline = time.monotonic() + seconds
        while not held():
            if time.monotonic() > deadline:
                raise Failed(f"not within {seconds:.0f} s: {what}")
            time.sleep(pause)
        self.say(what)

    def rides_wait(self) -> None:
        """The application's database, as soon as there is a server."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.rides(range(RIDES), "requested")
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise Failed(f"PostgreSQL does not answer: {error}") from error
                time.sleep(0.2)

    def rides_served(self) -> int:
        """How many rides the platform has documents of."""
        return len(self.get("/v1/rides", limit=1000)["items"])

    def shards(self) -> dict[str, int]:
        """How many shards each host has."""
        state = self.get("/v1/status")
        address = {node["node_id"]: node["address"] for node in state["nodes"]}
        found = [address[shard["node_id"]] for shard in state["shards"] if "node_id" in shard]
        return {host: found.count(host) for host in sorted(set(found))}

    def all_current(self) -> bool:
        """Whether every shard serves, as the platform sees it."""
        shards = self.get("/v1/status")["shards"]
        return len(shards) == SHARDS and all(shard["index"] == "current" for shard in shards)

    def all_at(self, host: str) -> bool:
        """Whether every shard serves, and is there: what is known of those that have just died is old."""
        return self.all_current() and self.shards() == {host: SHARDS}

    def kill(self, number: int) -> None:
        """End a host: all of its processes at once, and its network."""
        os.kill(int((self.work / f"host{number}" / "pid").read_text()), signal.SIGKILL)

    def check_histories(self, what: str, acknowledged: set[tuple[str, str]]) -> None:
        """Whether histories have exactly what was acknowledged, each once."""
        found: list[tuple[str, str]] = []
        for user in sorted({user for user, _ in acknowledged}):
            cursor: str | None = None
            while True:
                more = {} if cursor is None else {"cursor": cursor}
                page = self.get(f"/v1/users/{user}/events", host=WORKERS[0], limit=1000, **more)
                found += [(user, item["id"]) for item in page["items"]]
                cursor = page["next"]
                if cursor is None:
                    break
        missing, twice = acknowledged - set(found), len(found) - len(set(found))
        said = f"{len(acknowledged) - len(missing)} of {len(acknowledged)}, {twice} twice"
        self.check(what, said, not missing and not twice)

    def rides(self, numbers: range, status: str) -> None:
        """Have the application write rides to its database."""
        login: dict[str, Any] = {
            "host": services.ADDRESS,
            "port": services.POSTGRES_PORT,
            "user": "rebu",
            "password": services.secrets(self.work)["POSTGRES_PASSWORD"],
        }
        if not numbers.start:
            with psycopg.connect(dbname="postgres", autocommit=True, **login) as connection:
                connection.execute("CREATE DATABASE rides")
        with psycopg.connect(dbname="rides", **login) as connection:
            if not numbers.start:
                for name, columns in TABLES.items():
                    connection.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            for number in numbers:
                at = _now()
                connection.execute(
                    "INSERT INTO rides (ride_id, user_id, city, status, requested_at, updated_at)"
                    " VALUES (%s, %s, %s, %s, %s, %s)",
                    (f"ride{number}", f"user{number % USERS}", "berlin", status, at, at),
                )


class Writer(threading.Thread):
    """Sends events until it is stopped, each batch again until it is acknowledged."""

    def __init__(self, lab: Lab, hosts: tuple[str, ...], mark: str) -> None:
        super().__init__(daemon=True)
        self._lab = lab
        self._hosts = hosts
        self._mark = mark
        self._stopping = threading.Event()
        self.acknowledged: set[tuple[str, str]] = set()
        self.refused: dict[str, int] = {}
        self.longest = 0.0
        """The longest time from sending a batch first to its acknowledgement."""
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with httpx.Client(timeout=20, auth=(self._lab.keys["write"], "")) as client:
                turn = 0
                while not self._stopping.is_set():
                    self._send(client, turn)
                    turn += 1
                    self._stopping.wait(0.05)
        except BaseException as error:
            self.failure = error
            raise

    def _send(self, client: httpx.Client, turn: int) -> None:
        ids = [(f"user{n % USERS}", f"{self._mark}-{turn}-{n}") for n in range(BATCH)]
        events = [
            {"type": "track", "messageId": name, "userId": user, "event": "Tapped", "timestamp": _now()}
            for user, name in ids
        ]
        began = time.monotonic()
        for attempt in range(10_000):
            host = self._hosts[(turn + attempt) % len(self._hosts)]
            try:
                answer = client.post(f"http://{host}:{PORT}/v1/batch", json={"batch": events})
                said = str(answer.status_code)
            except httpx.TransportError as error:
                said = type(error).__name__
            if said == "200":
                body = answer.json()
                if body["rejected"]:
                    raise Failed(f"events were rejected: {body}")
                self.acknowledged.update(ids)
                self.longest = max(self.longest, time.monotonic() - began)
                return
            self.refused[said] = self.refused.get(said, 0) + 1
            if self._stopping.is_set() and time.monotonic() - began > 120:
                return
            time.sleep(0.2)

    def stop(self) -> None:
        """Have it finish what it has begun."""
        self._stopping.set()
        self.join(180)
        if self.failure is not None:
            raise self.failure


def play(lab: Lab) -> None:
    """All of it. Raises Failed where it cannot go on."""
    lab.prepare()
    lab.rides_wait()
    lab.say("three hosts are up; ray up")
    lab.launch()
    lab.say("rebu up on the head")
    lab.start()
    state = lab.get("/v1/status")
    lab.check("rebu status shows every node", f"{_alive_in(state)} of {len(HOSTS)}", _alive_in(state) == len(HOSTS))
    current = [shard for shard in state["shards"] if shard["index"] == "current"]
    lab.check("every shard serves", f"{len(current)} of {SHARDS}", len(current) == SHARDS)
    where = lab.shards()
    lab.check("shards are on both workers, none on the head", where, set(where) == set(WORKERS))
    deployed = {one["deployment"]: one["replicas"] for one in state["replicas"]}
    gateways = deployed.get("Gateway", {}).get("RUNNING", 0)
    lab.check("gateways run", deployed, gateways == 2)

    calm = Writer(lab, HOSTS, "calm")
    calm.start()
    time.sleep(8)
    calm.stop()
    lab.check("events are taken at every host", f"{len(calm.acknowledged)}, {calm.refused}", not calm.refused)
    lab.check_histories("events are read back", calm.acknowledged)
    lab.until("rides come in from PostgreSQL", lambda: lab.rides_served() == RIDES, 120)

    lab.say(f"host {VICTIM} is killed under load")
    busy = Writer(lab, HOSTS[:2], "busy")
    busy.start()
    time.sleep(3)
    before = len(busy.acknowledged)
    lab.kill(VICTIM)
    died = time.monotonic()
    lab.until("every shard serves again, on the host that is left", lambda: lab.all_at(WORKERS[0]), 300)
    lab.say(f"{time.monotonic() - died:.1f} s after its death")
    lab.rides(range(RIDES, 2 * RIDES), "accepted")
    time.sleep(5)
    busy.stop()
    after = len(busy.acknowledged) - before
    lab.check("writes went on", f"{after} events; the longest wait {busy.longest:.1f} s; {busy.refused}", after > 0)
    lab.check_histories("nothing acknowledged is lost", calm.acknowledged | busy.acknowledged)
    lab.until("rides of after the death come in", lambda: lab.rides_served() == 2 * RIDES, 180)
    ride = lab.get("/v1/rides/ride0")
    lab.check("a ride is served", f"{ride['ride_id']}, {ride['status']}", ride["user"]["user_id"] == "user0")
    audit = lab.get("/v1/audit")
    lab.check("the audit balances", audit["balanced"], audit["balanced"])
    said = lab.ssh(HEAD, "~/rebu/venv/bin/rebu verify; echo ended $?", seconds=300)
    lab.check("rebu verify", said.strip().splitlines()[-1], said.rstrip().endswith("ended 0"))
    asked = "~/rebu/venv/bin/rebu sql 'select count(*) as n from fact_ride'"
    said = lab.ssh(HEAD, f"~/rebu/venv/bin/rebu warehouse load && {asked}", seconds=300, check=False)
    last = said.strip().rpartition("\n")[2]
    lab.check("rebu sql counts the rides", last, last == json.dumps({"n": 2 * RIDES}))
    said = lab.ssh(WORKERS[0], "~/rebu/venv/bin/rebu node drain --seconds 600", check=False)
    lab.check("a node is drained", " ".join(said.split()), said.startswith("draining "))


def _alive_in(state: dict[str, Any]) -> int:
    return sum(node["alive"] for node in state["nodes"])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def main() -> int:
    work = Path(sys.argv[1])
    lab = Lab(work)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failure = ""
    try:
        play(lab)
        if "--check" not in sys.argv:
            lab.say(
                f"serving at http://{HEAD}:{PORT} in this namespace; the admin key is {lab.keys['admin']}; Ctrl-C ends"
            )
            signal.pause()
    except (Failed, OSError, httpx.HTTPError, psycopg.Error, subprocess.SubprocessError, json.JSONDecodeError) as error:
        failure = str(error)
        lab.say(f"failed: {error}")
    finally:
        try:
            if lab.up is not None:
                lab.stop()
            if lab.config.exists():
                lab.ray("down", "-y", str(lab.config), seconds=180)
                lab.say("the cluster is down")
        except (Failed, OSError, subprocess.SubprocessError) as error:
            failure = failure or str(error)
            lab.say(f"failed: {error}")
    held = not failure and all(held for _, _, held in lab.checks)
    lab.say(f"{sum(held for _, _, held in lab.checks)} of {len(lab.checks)} checks held")
    print("the laboratory holds" if held else "the laboratory does NOT hold", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
