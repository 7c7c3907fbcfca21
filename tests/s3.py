"""A server that speaks S3's protocol, on loopback, in a process of its own; it keeps everything in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from rebu_ray.platform.local_ray import free_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


_SERVER = """
import sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

store, one = DomainDispatcherApplication(create_backend_app), threading.Lock()

def serve(environ, start_response):
    # S3 creates an object or refuses to in one step. This server looks first and creates then, in a thread a request:
    # of two that ask for the same name at once both may be told that it is theirs.
    if environ["REQUEST_METHOD"] != "PUT":
        return store(environ, start_response)
    with one:
        return store(environ, start_response)

run_simple("127.0.0.1", int(sys.argv[1]), serve, threaded=True, request_handler=MotoRequestHandler)
"""


class Store:
    """Where it is, and the URIs of what is in it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def uri(self, path: str) -> str:
        return f"s3://rebu-tests/{path}?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{self.port}"


@contextmanager
def object_store() -> Iterator[Store]:
    """A store with an empty bucket."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-c", _SERVER, str(port)]
    process = subprocess.Popen(
        command, env=os.environ | CREDENTIALS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.put(f"http://127.0.0.1:{port}/rebu-tests").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, f"the S3 server ended with {process.returncode}"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.1)
        yield Store(port)
    finally:
        process.terminate()
        process.wait(30)
