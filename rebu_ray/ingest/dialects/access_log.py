"""Access lines of web servers: common and combined log format, or JSON with nginx-like keys.

https://httpd.apache.org/docs/2.4/mod/mod_log_config.html#formats
"""

from __future__ import annotations

import ipaddress
import re
from itertools import islice
from typing import Final

import msgspec

from rebu_ray.ingest.dialects import request_line, server_line, wrappers
from rebu_ray.ingest.dialects.fields import Arrival, RefusedError, check_size, time
from rebu_ray.records import Kind, Record, Refusal

_HEAD: Final = r"([^\[]{1,1024}) \[([^\]]{0,64})\] "
_TAIL: Final = r" (\d{3}|-) (\d{1,18}|-)((?: .*)?)"
_QUOTED: Final = r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_LINE = re.compile(_HEAD + _QUOTED + _TAIL, re.ASCII | re.DOTALL)
_UNESCAPED_LINE = re.compile(_HEAD + '"(.*?)"' + _TAIL, re.ASCII | re.DOTALL)
"""For servers that write a quote inside a request as it is; tried last, because there a client can forge fields."""

_EXTRA = re.compile(rf" (?:{_QUOTED}|(\S+))", re.DOTALL)
_MOST_EXTRAS: Final = 64

_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_CONTROL: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"v": b"\v", b"f": b"\f"}
_OWN: Final = frozenset(("request", "method", "request_method", "path", "uri", "request_uri", "status"))


def entry(raw: bytes, arrival: Arrival, ordinal: int) -> Record | Refusal:
    """What one line, or one element of an array, says."""
    try:
        if not raw.lstrip().startswith(b"{"):
            return _from_text(raw, arrival, ordinal)
        inner, fields = wrappers.innermost(raw, _OWN)
        if _OWN & fields.keys():
            check_size(inner)
            request = request_line.in_fields(fields)
            name = request.name if request else request_line.INVALID
            return server_line.of_fields(Kind.SERVER_ACCESS, name, arrival, inner, ordinal, fields)
        line = wrappers.inner_line(fields)
        if line is None:
            raise RefusedError(
                "unknown_format: an access line in JSON must have request, or method and path, or status"
            )
        return _from_text(line.encode(), arrival, ordinal)
    except RefusedError as refused:
        return Refusal(refused.reason, raw)


def _from_text(raw: bytes, arrival: Arrival, ordinal: int) -> Record:
    check_size(raw)
    line = raw.decode("utf-8", "replace").strip()
    match = _LINE.fullmatch(line) or _UNESCAPED_LINE.fullmatch(line)
    if match is None:
        raise RefusedError("unknown_format: an access line must be in common or combined log format, or JSON")
    client, when, asked, status, size, rest = match.groups()
    host, remote_addr, remote_user = _client(client)
    referer, user_agent, forwarded_for, last = _extras(rest)
    request = request_line.parse(_plain(asked))
    request_id = server_line.text_id(last, "request_id")
    body = {
        "method": request.method if request else None,
        "path": request.path if request else None,
        "query": request.query if request else None,
        "protocol": request.protocol if request else None,
        "status": None if status == "-" else int(status),
        "bytes": None if size == "-" else int(size),
        "referer": referer,
        "user_agent": user_agent,
        "remote_addr": remote_addr,
        "remote_user": remote_user,
        "request_id": request_id,
        "host": host,
        "forwarded_for": forwarded_for,
        "line": line,
    }
    return server_line.record(
        Kind.SERVER_ACCESS,
        request.name if request else request_line.INVALID,
        arrival,
        id=arrival.derived_id(raw, ordinal),
        event_time=time(when, "time"),
        body=msgspec.json.encode(body),
        user_id=server_line.text_id(remote_user, "remote_user"),
        request=request,
        request_id=request_id,
    )


def _client(text: str) -> tuple[str | None, str, str | None]:
    """Virtual host (where the format has it in front), address and remote user of the words before the time."""
    words = text.split(" ")
    while len(words) > 3 and words[0].endswith(","):  # a list of proxies stands for the address
        words[:2] = [f"{words[0]} {words[1]}"]
    host = None
    if len(words) > 3 and words[1] != "-" and (words[2] == "-" or _is_address(words[1])):
        host = words.pop(0)
    if len(words) < 3:
        raise RefusedError("unknown_format: an access line must begin with address, identity and remote user")
    user = " ".join(words[2:]).strip('"')
    return host, words[0], _known(user)


def _extras(text: str) -> tuple[str | None, str | None, str | None, str | None]:
    """Referer, user agent, forwarded-for and request id of what follows the size.

    The last quoted field is the request id, unless it holds addresses: then it is the forwarded-for of nginx's
    `main` format, and taking it for a request id would give one client's errors to another.
    """
    fields = [(match[1], match[2]) for match in islice(_EXTRA.finditer(text), _MOST_EXTRAS)]
    referer = user_agent = forwarded_for = request_id = None
    if len(fields) > 1 and fields[0][0] is not None and fields[1][0] is not None:
        referer, user_agent = _known(fields[0][0]), _known(fields[1][0])
        del fields[:2]
    for position, (quoted, _) in enumerate(fields, start=1):
        value = _known(quoted)
        if value is None:
            continue
        if all(_is_address(part.strip()) for part in value.split(",")):
            forwarded_for = value
        elif position == len(fields):
            request_id = value
    return referer, user_agent, forwarded_for, request_id


def _known(text: str | None) -> str | None:
    """A field's text without its escapes; None for a dash, an empty field and one that is not there."""
    return None if text is None or text in ("", "-") else _plain(text)


def _plain(text: str) -> str:
    """A field without the escapes of Apache (``\\"``, ``\\n``, ``\\xhh``) and nginx (``\\xHH``)."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(_unescaped, text.encode()).decode("utf-8", "replace")


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes.fromhex(match[1].decode())
    return _CONTROL.get(match[2], match[2])


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return text == "unknown"
    return True
