"""An HTTP server that answers what a test says: for what talks to a platform and is to be tried without one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Request(NamedTuple):
    """What was asked."""

    method: str
    path: str
    query: dict[str, str]
    key: str
    body: bytes


class Answer(NamedTuple):
    """What is answered: JSON unless `body` is bytes."""

    body: Any
    status: int = 200
    cut: int | None = None
    """The connection ends after so many bytes of the body."""


@contextmanager
def answering(answer: Callable[[Request], Answer]) -> Iterator[str]:
    """A server on the loopback that answers with `answer` (called from many threads), at the URL that is yielded."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            key = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            found = answer(Request(self.command, parts.path, query, key, body))
            raw = found.body if isinstance(found.body, bytes) else json.dumps(found.body).encode()
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: found.cut])
            self.close_connection = found.cut is not None

        do_GET = do_POST = do

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
