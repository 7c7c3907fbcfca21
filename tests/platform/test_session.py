"""The platform's own session: what reaches it of signals, and what becomes of it when its parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil

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
