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
AGAIN: Final = 75
"""The exit status of a child whose work is to be begun anew."""
LIVED_SECONDS: Final = 60.0
"""A child that was killed sooner than this is not begun anew: it would be killed again, and again."""
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def begin_anew() -> NoReturn:
    """Leave the child at once, as a crash would, for the parent to begin its work anew."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(AGAIN)


def run_in_session(work: Callable[[], int], *, again: bool = False) -> NoReturn:
    """Run `work` in a child with its own session and exit with its status; the child does not outlive this process.

    With `again`, work that asks for it (`begin_anew`), and a child that was killed after it had lived a while, are
    begun anew, until somebody asks this process to stop.
    """
    stopping = False
    child = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        os.kill(child, number)

    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    while True:
        started = time.monotonic()
        child = _fork(work)
        for name in _PASSED_ON:
            signal.signal(name, pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        _, status = os.waitpid(child, 0)
        # From here on a signal would reach whatever took over the child's number, or be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        code = os.waitstatus_to_exitcode(status)
        killed = code < 0 and time.monotonic() - started > LIVED_SECONDS
        if stopping or not again or not (code == AGAIN or killed):
            sys.exit(code % 256)
        print("the platform died and is started again", file=sys.stderr, flush=True)


def _fork(work: Callable[[], int]) -> int:
    """A child that does the work; its process id."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    for name in _PASSED_ON:
        signal.signal(name, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    os.setsid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    status = 1
    try:
        status = work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_with(parent: int) -> None:
    """Leave at once when the parent was killed: the next start finds things as after a crash, and copes."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(137)
