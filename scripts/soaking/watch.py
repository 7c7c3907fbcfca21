"""Whether the platform serves, asked again and again, and whether what it answers is whole."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

import httpx
import psutil

from tests.system.load import Load
from tests.system.running import Running, path_of, processes_of

PAUSE_S: Final = 0.1
SLOW_S: Final = 2.0
"""A write and a read that take longer do not count as service."""
CALM: Final = 10
"""So many good answers in a row are service."""
USER: Final = "soak-probe"


class Probe(NamedTuple):
    """One write and one read, by `time.monotonic`."""

    begun: float
    ended: float
    good: bool


class Prober:
    """Writes and reads a little, from a thread of its own, without trying twice."""

    def __init__(self, platform: Running) -> None:
        self._platform = platform
        self.probes: list[Probe] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._probe, daemon=True)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(60)

    def calm(self) -> bool:
        """Whether the last answers were all good."""
        last = self.probes[-CALM:]
        return len(last) == CALM and all(probe.good for probe in last)

    def returned_after(self, begun: float, until: float) -> float:
        """Seconds from `begun` to the first good answer after the last bad one up to `until`; 0 where none was bad."""
        window = [probe for probe in self.probes if probe.ended > begun and probe.begun <= until]
        bad = [place for place, probe in enumerate(window) if not probe.good]
        if not bad:
            return 0.0
        after = window[bad[-1] + 1 :]
        return (after[0].ended if after else until) - begun

    def _probe(self) -> None:
        with httpx.Client(base_url=self._platform.url, timeout=10) as http:
            number = 0
            while not self._done.wait(PAUSE_S):
                number += 1
                begun = time.monotonic()
                answered = self._exchange(http, f"{USER}-{number}")
                ended = time.monotonic()
                self.probes.append(Probe(begun, ended, answered and ended - begun < SLOW_S))

    def _exchange(self, http: httpx.Client, record_id: str) -> bool:
        now = time.time_ns() // 1_000_000
        event = {"type": "track", "event": "Probe", "messageId": record_id, "userId": USER, "timestamp": now}
        headers = {"Authorization": f"Bearer {self._platform.admin_key}"}
        try:
            written = http.post("/v1/batch", json={"batch": [event]}, headers=headers)
            read = http.get(f"{path_of(USER)}/events", params={"limit": 1}, headers=headers)
        except httpx.TransportError:
            return False
        return written.status_code == read.status_code == 200


@dataclass
class Reads:
    """What the reader saw."""

    whole: int = 0
    refused: int = 0
    incomplete: int = 0
    example: str = ""


class Reader:
    """Reads what was acknowledged a moment before: an answer has it all, or is a refusal."""

    def __init__(self, platform: Running, load: Load, dice: random.Random) -> None:
        self._platform, self._load, self._dice = platform, load, dice
        self.seen = Reads()
        self.statuses: Counter[int] = Counter()
        self.incomplete_at: list[float] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(60)

    def _read(self) -> None:
        with httpx.Client(base_url=self._platform.url, timeout=30) as http:
            while not self._done.wait(PAUSE_S):
                user = self._dice.choice(self._load.users)
                wanted = list(self._load.latest[user])[-30:]
                if wanted:
                    self._compare(http, user, wanted)

    def _compare(self, http: httpx.Client, user: str, wanted: list[tuple[int, str]]) -> None:
        # A log line has whole seconds.
        since = (min(at for at, _ in wanted) // 1000 - 1) * 1000
        begun = time.monotonic()
        try:
            answer = http.get(
                f"{path_of(user)}/events",
                params={"since": datetime.fromtimestamp(since / 1000, UTC).isoformat(), "limit": 1000},
                headers={"Authorization": f"Bearer {self._platform.read_key}"},
            )
        except httpx.TransportError:
            return
        self.statuses[answer.status_code] += 1
        if answer.status_code != 200:
            self.seen.refused += 1
            return
        page = answer.json()
        lacking = {name for _, name in wanted} - {item["id"] for item in page["items"]}
        if not lacking:
            self.seen.whole += 1
        elif page["next"] is None:
            self.seen.incomplete += 1
            self.incomplete_at.append(begun)
            self.seen.example = f"{user} lacked {len(lacking)} of {len(wanted)}: {sorted(lacking)[:3]}"


def memory(platform: Running) -> dict[str, int]:
    """Resident bytes of the platform's processes by kind."""
    found: Counter[str] = Counter()
    for process in processes_of(platform.data_dir):
        try:
            title = next((word for word in process.cmdline()[:1] if word.startswith("ray::")), process.name())
            found[title.removeprefix("ray::").split(".")[0].rpartition(":")[2]] += process.memory_info().rss
        except psutil.Error:
            continue
    return dict(found)
