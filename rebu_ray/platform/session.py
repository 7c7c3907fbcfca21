"""A session of its own for the platform, so that a signal to a whole process group does not hit Ray's processes.

Ctrl-C, `timeout` and service managers signal groups. Ray's and Redis's processes must outlive that for as long
as an orderly stop takes; they are in the child's session, and the parent passes on what it is sent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

WATCH_SECONDS: Final = 0.5
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_in_session(work: Callable[[], int]) -> NoReturn:
    """Run `work` in a child with its own session and exit with its status; the child does not outlive this process."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        status = 1
        try:
            status = work()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def pass_on(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    for name in _PASSED_ON:
        signal.signal(name, pass_on)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) % 256)


def _end_with(parent: int) -> None:
    """Leave at once when the parent was killed: the next start finds things as after a crash, and copes."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(137)
