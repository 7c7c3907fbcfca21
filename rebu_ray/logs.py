"""Lines of log, as text for people or as JSON for programs, and the requests that they are about.

A request has an id from when it comes in until nothing is done about it any more: in the gateway, in the shards that
store what it brought, in the tasks that compute what that touches. What runs for requests knows their ids (`about`),
and every line that is logged meanwhile has them. No line has a key, or says who did what.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import msgspec

Form = Literal["text", "json"]
MOST_ORIGINS: Final = 256
"""The most requests that something is known to be about."""
SANE: Final = re.compile(r"[A-Za-z0-9-]{8,64}")
"""Ids that are taken from a sender: UUIDs, ULIDs, hexadecimal numbers. No key of ours is among them."""
SERVE_LOGS: Final[dict[str, Any]] = {"enable_access_log": False, "log_level": "WARNING"}
"""What Ray Serve logs of itself, to be said of each deployment anew: of requests there are lines of ours, if wanted."""
_FIELDS: Final = "fields"
_MARK: Final = "_rebu_handler"

_form: Form = "text"
_requests = False
_origins: ContextVar[tuple[str, ...]] = ContextVar("origins", default=())


def origins() -> tuple[str, ...]:
    """The requests that what runs now is about: of each its id and, where it is traced, a space and `traceparent`."""
    return _origins.get()


@contextmanager
def about(found: Iterable[str]) -> Iterator[None]:
    """What runs inside is about these requests."""
    token = _origins.set(tuple(dict.fromkeys(found))[:MOST_ORIGINS])
    try:
        yield
    finally:
        _origins.reset(token)


def id_of(origin: str) -> str:
    """A request's id."""
    return origin.partition(" ")[0]


def new_id() -> str:
    """An id for a request that brings none."""
    return os.urandom(16).hex()


def taken(given: str | None) -> str:
    """The id that a sender gave its request, if it is one, else a new one."""
    return given if given is not None and SANE.fullmatch(given) else new_id()


def signed(message: str) -> str:
    """A message for a client, with the id by which its request is found in the log."""
    here = origins()
    return f"{message} (request {id_of(here[0])})" if here else message


def event(log: logging.Logger, message: str, **fields: float | str) -> None:
    """Log that something was done for requests, where that is wanted of this process.

    The fields stand by themselves in JSON, and behind the message in text.
    """
    if _requests:
        log.info(message, extra={_FIELDS: fields})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}"
        text += "".join(f" {name}={value}" for name, value in getattr(record, _FIELDS, {}).items())
        ids = [id_of(origin) for origin in _origins.get()]
        if ids:
            text += f" (request {', '.join(ids)})"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "pid": record.process,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        here = _origins.get()
        if len(here) == 1:
            request, _, trace = here[0].partition(" ")
            line["request_id"] = request
            if trace:
                line["trace_id"] = trace.split("-")[1]
        elif here:
            line["request_ids"] = [id_of(origin) for origin in here]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure(form: Form, requests: bool, process: str, stream: TextIO | None = None) -> None:
    """Have this process, of that name, log so: its own from INFO on, libraries from WARNING on.

    With `requests`, what is done for each of them has its lines (`event`).
    """
    global _form, _requests
    _form, _requests = form, requests
    # The process's own: in replicas of Serve `sys.stderr` leads to Serve's log, which is told to drop what comes there.
    handler = logging.StreamHandler(stream or sys.__stderr__)
    handler.setFormatter(_Json(process) if form == "json" else _Text())
    setattr(handler, _MARK, True)
    root = logging.getLogger()
    root.handlers = [*(known for known in root.handlers if not hasattr(known, _MARK)), handler]
    logging.getLogger("rebu").setLevel(logging.INFO)


def configured() -> tuple[Form, bool]:
    """How this process logs, as `configure` was told."""
    return _form, _requests


def is_configured() -> bool:
    """Whether it was told."""
    return any(hasattr(handler, _MARK) for handler in logging.getLogger().handlers)
