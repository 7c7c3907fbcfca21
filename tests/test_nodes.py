"""`rebu node`: what a node of a cluster is told."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebu_ray.nodes import interrupted, node
from rebu_ray.platform.haproxy import install
from rebu_ray.platform.local_ray import free_port, serving

CONFIG = """global
    stats socket x mode 666 level admin
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind *:8000
listen stats
  bind *:8404
"""


def test_the_environment_is_what_a_shell_evaluates(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    done = CliRunner().invoke(node, ["environment", "--folder", str(folder)])
    assert done.exit_code == 0
    shown = subprocess.run(
        ["env", "-i", "bash", "-c", f"{done.stdout}\n/usr/bin/env"], check=True, capture_output=True, text=True
    )
    found = dict(line.split("=", 1) for line in shown.stdout.splitlines())
    of_the_shell = {"PWD", "SHLVL", "_"}
    assert {name: value for name, value in found.items() if name not in of_the_shell} == serving(folder)
    assert Path(found["RAY_SERVE_HAPROXY_BINARY_PATH"]).stat().st_mode & 0o777 == 0o700


def test_haproxy_serves_where_it_is_told_and_shows_itself_on_loopback_alone(tmp_path: Path) -> None:
    script = install(tmp_path)
    changed = script.read_text().replace('exec "', 'echo "')
    script.write_text(changed)
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)
    subprocess.run([script, "-db", "-f", config], check=True, stdout=subprocess.DEVNULL)
    binds = [line.strip() for line in (tmp_path / "haproxy.cfg.rebu").read_text().splitlines() if " bind " in line]
    assert binds == ["bind 127.0.0.1:9101", "bind *:8000", "bind 127.0.0.1:8404"]


def test_nobody_tells_serve_how_to_treat_a_request_but_haproxy(tmp_path: Path) -> None:
    script = install(tmp_path)
    script.write_text(script.read_text().replace('exec "', 'echo "'))
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)
    subprocess.run([script, "-db", "-f", config], check=True, stdout=subprocess.DEVNULL)
    frontend = (tmp_path / "haproxy.cfg.rebu").read_text().partition("frontend http_frontend")[2].splitlines()[1:5]
    assert [line.split()[:3] for line in frontend] == [
        ["http-request", "del-header", "x-request-id"],
        ["http-request", "del-header", "x-request-timeout-seconds"],
        ["http-request", "del-header", "x-request-disconnect-disabled"],
        ["http-request", "set-header", "x-request-disconnect-disabled"],
    ]


@contextmanager
def metadata(notice: int) -> Iterator[str]:
    """What an instance can ask about itself, with a status for whether it will be interrupted."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer(200 if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else 400, b"a-token")

        def do_GET(self) -> None:
            told = self.path == "/latest/meta-data/spot/instance-action"
            self._answer(notice if told and self.headers["X-aws-ec2-metadata-token"] == "a-token" else 401, b"{}")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    serving_thread = threading.Thread(target=server.serve_forever)
    serving_thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        serving_thread.join()
        server.server_close()


@pytest.mark.parametrize(("notice", "expected"), [(200, True), (404, False), (500, False)])
def test_an_instance_knows_whether_it_will_be_interrupted(notice: int, expected: bool) -> None:
    with metadata(notice) as url:
        assert interrupted(url) is expected


def test_where_nobody_answers_nothing_is_interrupted() -> None:
    assert interrupted(f"http://127.0.0.1:{free_port()}") is False
