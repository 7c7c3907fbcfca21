"""All processes of a program, those it detached included: they carry a mark in their environment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import psutil

MARK: Final = "BENCHMARK_MARK"
"""The environment variable that a program and all that it starts inherit."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes used over a while."""

    seconds: float
    cpu_s: float
    memory_bytes: int
    """Proportional set size at the end: shared pages count once."""
    processes: int
    by_name: dict[str, float]
    """CPU seconds by the kind of process."""


class ProcessTree:
    """The processes that carry `mark`, and their descendants (some overwrite their environment with a title)."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self._known: dict[int, psutil.Process] = {}

    def look(self) -> list[psutil.Process]:
        """Those that run now."""
        parents = {process.pid: process.ppid() for process in psutil.process_iter(["ppid"])}
        self._known = {pid: process for pid, process in self._known.items() if process.is_running()}
        for pid in sorted(parents):
            if pid not in self._known and self._marked(pid):
                self._known[pid] = psutil.Process(pid)
        grown = True
        while grown:
            children = [pid for pid, parent in parents.items() if parent in self._known and pid not in self._known]
            for pid in children:
                try:
                    self._known[pid] = psutil.Process(pid)
                except psutil.NoSuchProcess:
                    del parents[pid]
            grown = bool(children)
        return list(self._known.values())

    def _marked(self, pid: int) -> bool:
        try:
            return psutil.Process(pid).environ().get(MARK) == self.mark
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def kill(self, patience_s: float = 5) -> None:
        """Ends what is left of the tree: asks first, then does not."""
        left = self.look()
        for process in left:
            try:
                process.terminate()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=patience_s)
        for process in self.look():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def watch(self, seconds: float) -> Usage:
        """Looks every second: also what is born or ends in between is counted, to within that second."""
        first: dict[tuple[int, float], float] = {}
        last: dict[tuple[int, float], float] = {}
        names: dict[tuple[int, float], str] = {}
        started = time.perf_counter()
        opening = True
        while True:
            for process in self.look():
                try:
                    with process.oneshot():
                        key = (process.pid, process.create_time())
                        times = process.cpu_times()
                        names.setdefault(key, _kind(process))
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue
                last[key] = times.user + times.system
                first.setdefault(key, last[key] if opening else 0.0)
            opening = False
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                break
            time.sleep(min(1.0, seconds - elapsed))
        by_name: dict[str, float] = {}
        for key, cpu_s in last.items():
            by_name[names[key]] = by_name.get(names[key], 0.0) + cpu_s - first[key]
        memory, count = 0, 0
        for process in self.look():
            try:
                memory += _proportional_bytes(process)
                count += 1
            except psutil.NoSuchProcess:
                continue
        return Usage(elapsed, sum(by_name.values()), memory, count, by_name)


def _kind(process: psutil.Process) -> str:
    """A name that says what the process does: Ray's titles and scripts instead of `python`."""
    command = process.cmdline()
    if not command:
        return process.name()
    if command[0].startswith("ray::"):
        return command[0]
    scripts = [part.rsplit("/", 1)[-1] for part in command[:4] if part.endswith(".py")]
    return scripts[0] if scripts else command[0].rsplit("/", 1)[-1]


def _proportional_bytes(process: psutil.Process) -> int:
    """PSS where the system tells it (Linux), else the resident set."""
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))
