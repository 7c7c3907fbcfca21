"""What a platform that was killed leaves behind, and how the death of Ray's own processes is noticed."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rebu_ray.platform.local_ray import clear_leftovers, fallen, free_port, session_folder

_SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.mark.parametrize("by", ["command line", "environment"])
def test_what_an_earlier_platform_left_is_ended_and_nothing_else(tmp_path: Path, by: str) -> None:
    mine, other = (session_folder(str(tmp_path / name)) / "h" / "admin.sock" for name in ("mine", "other"))
    started = []
    for place in (mine, other):
        named = [str(place)] if by == "command line" else []
        inherited = {} if by == "command line" else {"RAY_SERVE_HAPROXY_SOCKET_PATH": str(place)}
        started.append(subprocess.Popen([*_SLEEP, *named], env=os.environ | inherited))
    left, stranger = started
    try:
        # Only once it has been executed does it show what it is.
        while "time.sleep(60)" not in " ".join(psutil.Process(stranger.pid).cmdline()):
            time.sleep(0.01)
        assert clear_leftovers(str(tmp_path / "mine")) == 1
        left.wait(30)
        assert stranger.poll() is None
        assert clear_leftovers(str(tmp_path / "mine")) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_process_that_died_is_missed_whether_or_not_anybody_has_waited_for_it() -> None:
    processes = {name: subprocess.Popen(_SLEEP) for name in ("unburied", "buried", "alive")}
    watched = {name: psutil.Process(process.pid) for name, process in processes.items()}
    try:
        assert fallen(watched) == []
        processes["unburied"].kill()
        processes["buried"].kill()
        processes["buried"].wait()
        while watched["unburied"].status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert fallen(watched) == ["unburied", "buried"]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


_ASK = "from rebu_ray.platform.local_ray import free_port; print([free_port() for _ in range(500)])"


def test_a_port_is_given_to_one_alone_and_never_to_a_connection() -> None:
    mine = {free_port() for _ in range(100)}
    assert len(mine) == 100
    # Linux gives connections those from 32768 on, where nobody has it do otherwise.
    assert max(mine) < 32_768
    theirs = ast.literal_eval(
        subprocess.run([sys.executable, "-c", _ASK], capture_output=True, check=True).stdout.decode()
    )
    assert len(set(theirs)) == 500
    assert not mine & set(theirs)
    with socket.create_server(("127.0.0.1", min(mine))) as server:
        assert server.getsockname()[1] == min(mine)
