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
from typing import Final, NoReturn

WATCH_SECONDS: Final = 0.5
AGAIN: Final = 75
"""The exit status of a child whose work is to be begun anew."""
LIVED_SECONDS: Final = 60.0
"""A child that was killed sooner than this is not begun anew: it would be killed again, and again."""
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AWAITED: Final = (*_PASSED_ON, signal.SIGCHLD)


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
    # They are waited for, one after the other. A handler may run too late: before a wait that nothing ends any more.
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    # What nobody handles may be dropped instead of waiting.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        started = time.monotonic()
        status, asked = _accompany(_fork(work))
        stopping = stopping or asked
        code = os.waitstatus_to_exitcode(status)
        killed = code < 0 and time.monotonic() - started > LIVED_SECONDS
        if stopping or not again or not (code == AGAIN or killed):
            sys.exit(code % 256)
        print("the platform died and is started again", file=sys.stderr, flush=True)


def _accompany(child: int) -> tuple[int, bool]:
    """Pass on what this process is sent until the child ends: its status, and whether it was asked to stop."""
    asked = False
    while True:
        number = signal.sigwait(_AWAITED)
        if number != signal.SIGCHLD:
            asked = True
            os.kill(child, number)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status, asked


def _fork(work: Callable[[], int]) -> int:
    """A child that does the work; its process id."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    for name in _AWAITED:
        signal.signal(name, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
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
