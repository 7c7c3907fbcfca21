"""Error lines of servers: nginx's and Apache's (2.0 to 2.4) error log, or JSON as applications write it.

https://nginx.org/en/docs/ngx_core_module.html#error_log
https://httpd.apache.org/docs/2.4/mod/core.html#errorlogformat
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from rebu_ray.ingest.dialects import request_line, server_line, times, wrappers
from rebu_ray.ingest.dialects.fields import Arrival, Fields, RefusedError, check_size, first
from rebu_ray.records import Kind, Record, Refusal

_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'

_NGINX = re.compile(
    r"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(\w{1,20})\] (\d{1,18})#(\d{1,18}): (?:\*(\d{1,18}) )?(.*)",
    re.ASCII | re.DOTALL,
)
_NGINX_CONTEXT = re.compile(r", (?:client|server|request|upstream|host|request_id|user_id): ")
_NGINX_PAIR = re.compile(rf", ([a-z_]+): ({_STRING}|[^,]*)", re.ASCII | re.DOTALL)
_NGINX_DETAILS: Final = ("server", "upstream", "host", "referrer")

_APACHE = re.compile(
    r"\[(\w{3} \w{3} [\d ]\d [\d:]{8}(?:\.\d{1,9})? \d{4})\] \[(?:(\w*):)?(\w{1,20})\]"
    r"(?: \[pid (\d{1,18})(?::tid (\d{1,18}))?\])?(?: \[(?:client|remote) ([^\]]{1,100})\])? ?(.*)",
    re.ASCII | re.DOTALL,
)
_APACHE_REFERER: Final = ", referer: "

_NAMED = re.compile(
    rf"(?<![\w.?&;/%=-])(?:x-)?(request[_-]?id|user_?id|remote_user)\s*[:=]\s*({_STRING}|[^\s,;\"\])}}]+)"
    rf"|\[(request[_-]?id)\s+([^\]\s]+)\]|{_STRING}|\".*",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
"""``request_id: "x"``, ``request_id=x``, ``[request_id x]``, and the first two for users.

Other quoted text is stepped over, so that a request or a referer that a client made up names nobody.
"""

_LEVELS: Final = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}
"""The numbers of bunyan and pino."""

_LEVEL_KEYS: Final = ("level", "severity", "levelname", "log.level")
_OWN: Final = frozenset((*_LEVEL_KEYS, "msg", "error", "user_id", "request_id"))


def entry(raw: bytes, arrival: Arrival, ordinal: int) -> Record | Refusal:
    """What one line, or one element of an array, says."""
    try:
        if not raw.lstrip().startswith(b"{"):
            return _from_text(raw, arrival, ordinal)
        inner, fields = wrappers.innermost(raw, _OWN)
        line = None if _OWN & fields.keys() else wrappers.inner_line(fields)
        if line is not None and (_NGINX.match(line) or _APACHE.match(line)):
            return _from_text(line.encode(), arrival, ordinal)
        check_size(inner)
        return server_line.of_fields(Kind.SERVER_ERROR, _name(fields), arrival, inner, ordinal, fields)
    except RefusedError as refused:
        return Refusal(refused.reason, raw)


def _from_text(raw: bytes, arrival: Arrival, ordinal: int) -> Record:
    check_size(raw)
    line = raw.decode("utf-8", "replace").strip()
    try:
        event_time, body, named = _nginx(line) or _apache(line) or _unknown()
    except times.NotATimeError as error:
        raise RefusedError(f"invalid_time: the line's time is {error}") from error
    request_id = server_line.text_id(named.get("requestid"), "request_id")
    user_id = server_line.text_id(named.get("userid"), "user_id")
    return server_line.record(
        Kind.SERVER_ERROR,
        body["level"],
        arrival,
        id=arrival.derived_id(raw, ordinal),
        event_time=event_time,
        body=msgspec.json.encode({**body, "request_id": request_id, "line": line}),
        user_id=user_id or server_line.text_id(named.get("remoteuser"), "remote_user"),
        request=request_line.parse(body["request"] or ""),
        request_id=request_id,
    )


_Parts = tuple[int, dict[str, Any], dict[str, str]]
"""Event time, body, and the ids that the line names."""


def _nginx(line: str) -> _Parts | None:
    match = _NGINX.fullmatch(line)
    if match is None:
        return None
    when, level, pid, tid, connection, rest = match.groups()
    border = _NGINX_CONTEXT.search(rest)
    message, context = (rest[: border.start()], rest[border.start() :]) if border else (rest, "")
    pairs = {name: _unquoted(value) for name, value in _NGINX_PAIR.findall(context)}
    body = {
        "level": level,
        "message": message,
        "pid": int(pid),
        "tid": int(tid),
        "connection": int(connection) if connection else None,
        "client": pairs.get("client"),
        "request": pairs.get("request"),
        **{name: pairs[name] for name in _NGINX_DETAILS if name in pairs},
    }
    # What the server itself appends goes before what stands in the message, which may repeat a client's words.
    return times.nginx_error(when), body, {**_named(message), **_named(context)}


def _apache(line: str) -> _Parts | None:
    match = _APACHE.fullmatch(line)
    if match is None:
        return None
    when, module, level, pid, tid, client, rest = match.groups()
    message, mark, referer = rest.partition(_APACHE_REFERER)
    body = {
        "level": level,
        "message": message,
        "module": module or None,
        "pid": int(pid) if pid else None,
        "tid": int(tid) if tid else None,
        "client": client,
        "request": None,
        **({"referrer": referer} if mark else {}),
    }
    return times.apache_error(when), body, _named(message)


def _unknown() -> _Parts:
    raise RefusedError("unknown_format: an error line must be an nginx or Apache error log line, or JSON")


def _named(text: str) -> dict[str, str]:
    """The ids that a text names; the first of each name counts."""
    found: dict[str, str] = {}
    for key, value, bracket_key, bracket_value in _NAMED.findall(text):
        name = (key or bracket_key).lower().replace("_", "").replace("-", "")
        if name:
            found.setdefault(name, _unquoted(value or bracket_value))
    return found


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return text


def _name(fields: Fields) -> str:
    """The error's own name, else the level. Raises RefusedError for an object that is no error line."""
    error = fields.get("error")
    name = first(error, "name", "type")[1] if isinstance(error, dict) else None
    if isinstance(name, str) and name:
        return name
    level = first(fields, *_LEVEL_KEYS)[1]
    if isinstance(level, str) and level:
        return level
    if isinstance(level, int):
        return _LEVELS.get(level, str(level))
    if error is None and first(fields, "message", "msg")[1] is None:
        raise RefusedError("unknown_format: an error line in JSON must have level, message or error")
    return "error"
