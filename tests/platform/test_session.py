"""The platform's own session: what reaches it of signals, and what becomes of it when its parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

_WORK = """
import signal, sys, time
from rebu_ray.platform.session import run_in_session

def work():
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    import subprocess
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(helper.pid, flush=True)
    while not asked:
        time.sleep(0.02)
    alive = helper.poll() is None
    helper.kill()
    helper.wait()
    print("orderly" if alive and len(asked) == 1 else "disturbed", flush=True)
    return 7

run_in_session(work)
"""


def started() -> tuple[subprocess.Popen[str], psutil.Process]:
    process = subprocess.Popen([sys.executable, "-c", _WORK], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


def test_a_signal_to_the_group_reaches_the_work_once_and_not_what_it_started() -> None:
    process, _ = started()
    os.killpg(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (out.strip(), process.returncode) == ("orderly", 7)


def test_the_work_ends_with_a_parent_that_is_killed() -> None:
    process, helper = started()
    work = helper.parent()
    assert work is not None
    process.kill()
    process.wait(30)
    deadline = time.monotonic() + 30
    while work.is_running() and work.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    helper.kill()
    process.communicate(timeout=30)


_ANEW = """
import os, signal, sys, time
from pathlib import Path
from rebu_ray.platform import session

runs = Path(sys.argv[1])

def work():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
    number = len(runs.read_text()) if runs.exists() else 0
    runs.write_text("x" * (number + 1))
    how = sys.argv[2 + number]
    if how == "anew":
        session.begin_anew()
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "asked":
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
    return 3

session.LIVED_SECONDS = float(os.environ["LIVED"])
session.run_in_session(work, again=os.environ["AGAIN"] == "1")
"""


@pytest.mark.parametrize(
    ("again", "lived", "how", "runs", "status"),
    [
        (True, 0, ("anew", "anew", "ends"), 3, 3),
        (True, 0, ("killed", "ends"), 2, 3),
        (True, 0, ("anew", "asked"), 2, 9),
        (True, 60, ("killed",), 1, 256 - signal.SIGKILL),
        (False, 0, ("anew",), 1, 75),
        (False, 0, ("killed",), 1, 256 - signal.SIGKILL),
    ],
)
def test_work_is_begun_anew_where_that_was_asked_for(
    tmp_path: Path, again: bool, lived: float, how: tuple[str, ...], runs: int, status: int
) -> None:
    environment = os.environ | {"AGAIN": str(int(again)), "LIVED": str(lived)}
    command = [sys.executable, "-c", _ANEW, str(tmp_path / "runs"), *how]
    done = subprocess.run(command, env=environment, timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "runs").read_text()) == (status, "x" * runs), done.stderr
    assert done.stderr.count("started again") == runs - 1
