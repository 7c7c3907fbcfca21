"""`rebu node`: what a node of a Ray cluster wants to know, and how it is left."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer

from rebu_ray.platform import local_ray

NOTICE_SECONDS: Final = 5.0
"""How often it is asked whether the instance is to go."""
METADATA: Final = "http://169.254.169.254"

node = typer.Typer(no_args_is_help=True, help="On a node of a Ray cluster.")


@node.command()
def environment(
    folder: Annotated[Path, typer.Option(help="Where HAProxy's script and sockets are; a short path.")] = Path(
        "/tmp/rebu-haproxy"
    ),
) -> None:
    """Print what every `ray start` and `rebu up` on a cluster wants in the environment, for `eval`.

    Example: rebu node environment --folder /run/rebu
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # which only its owner may
    for name, value in local_ray.serving(folder).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@node.command()
def drain(
    on_notice: Annotated[
        bool, typer.Option("--on-notice", help="Wait until AWS says that this spot instance will be interrupted.")
    ] = False,
    seconds: Annotated[int, typer.Option(help="How long the node will still be there.", min=1)] = 110,
    metadata: Annotated[str, typer.Option(help="Where the instance's metadata are.", hidden=True)] = METADATA,
) -> None:
    """Have Ray put nothing more on this node, and move what can be moved to others.

    Example: rebu node drain --seconds 60
    """
    if on_notice:
        while not interrupted(metadata):
            time.sleep(NOTICE_SECONDS)
    typer.echo(f"draining {local_ray.drain(seconds)}")


def interrupted(metadata: str) -> bool:
    """Whether the instance has been told that it will be interrupted."""
    try:
        with httpx.Client(base_url=metadata, timeout=2, trust_env=False) as client:
            token = client.put("/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
            notice = client.get(
                "/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token.text}
            )
    except httpx.TransportError:
        return False
    return token.status_code == 200 and notice.status_code == 200
