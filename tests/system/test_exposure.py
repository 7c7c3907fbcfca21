"""What a running platform shows: who listens beyond loopback, what Ray asks for, which keys count, what logs hold."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from rebu_ray.platform.local_ray import session_folder
from tests.system.running import Running, await_true, environment, processes_of, rebu

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ASK = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)))
"""
REPLICA = "ray::ServeReplica"
"""Serve opens a port of each replica on all interfaces, whatever it is told; it asks for Ray's token."""


def listening(platform: Running) -> Iterator[tuple[str, str, int]]:
    """(process, address, port) of everything of a platform that listens for TCP."""
    for process in processes_of(platform.data_dir):
        try:
            name, connections = process.name(), process.net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                yield name, connection.laddr.ip, connection.laddr.port


def is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def test_only_what_the_readme_names_listens_beyond_loopback(rebu_up: Running) -> None:
    found = list(listening(rebu_up))
    assert ("127.0.0.1", rebu_up.port) in {(address, port) for _, address, port in found}
    assert {"haproxy", "valkey-server"} <= {name for name, _, _ in found}
    beyond = [name for name, address, _ in found if not is_loopback(address)]
    assert all(REPLICA.startswith(name[:15]) for name in beyond), beyond
    replicas = processes_of(rebu_up.data_dir, f"^{re.escape(REPLICA[:15])}")
    assert len(beyond) <= len(replicas)


def test_ray_answers_to_its_token_alone(rebu_up: Running, tmp_path: Path) -> None:
    command = processes_of(rebu_up.data_dir, "^raylet$")[0].cmdline()
    address = next(re.findall(r"--gcs-address=(\S+)", word)[0] for word in command if "--gcs-address=" in word)
    token = rebu_up.data_dir / "ray_token"
    assert token.stat().st_mode & 0o777 == 0o600
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    asking = {
        "known": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)},
        "wrong": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(wrong)},
        "none": {"RAY_AUTH_MODE": "disabled"},
    }
    told = {
        who: subprocess.run(
            [sys.executable, "-c", ASK, address],
            env=environment(**settings, HOME=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        for who, settings in asking.items()
    }
    assert told["known"].returncode == 0, told["known"].stderr
    assert int(told["known"].stdout) == 1, "one node"
    for who in ("wrong", "none"):
        assert told[who].returncode != 0, told[who].stdout
        assert "nauthenticated" in told[who].stderr, told[who].stderr


def shown(*arguments: str | Path) -> dict[str, str]:
    """What `rebu keys` prints."""
    done = rebu("keys", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_keys_come_are_rotated_and_go_while_it_runs(rebu_up: Running) -> None:
    place = ("--data-dir", rebu_up.data_dir)

    def read(key: str) -> int:
        return rebu_up.get("/v1/status", key=key).status_code

    def known(key: str, status: int) -> None:
        for _ in range(4):  # to each of the replicas
            await_true(lambda: read(key) == status, f"the answer {status}")

    notebook = shown("add", "notebook", "--scope", "read", *place)["notebook"]
    known(notebook, 200)
    assert rebu_up.post("/v1/track", {"userId": "keys", "event": "x"}, key=notebook).status_code == 403
    graced = shown("rotate", "notebook", "--grace", "600", *place)["notebook"]
    known(graced, 200)
    known(notebook, 200)
    last = shown("rotate", "notebook", *place)["notebook"]
    known(last, 200)
    known(graced, 401)
    assert read(notebook) == 200, "its time of grace is not over"
    done = rebu("keys", "revoke", "notebook", *place)
    assert done.returncode == 0, done.stderr
    known(last, 401)
    assert read(rebu_up.read_key) == 200
    listed = rebu("keys", "list", *place).stdout
    assert [json.loads(line)["name"] for line in listed.splitlines()][:3] == ["write", "read", "admin"]
    assert "rebu_" not in listed
    assert rebu("keys", "revoke", "nobody", *place).returncode == 1
    assert shown(*place)["read"] == rebu_up.read_key


MARK = "Xq7marked"
"""What everything personal in this file's traffic has in it."""


def test_no_log_and_no_command_line_tells_keys_or_who_did_what(rebu_up: Running) -> None:
    user = f"{MARK}-user"
    event = {"type": "track", "event": f"{MARK} event", "userId": user, "properties": {"mail": f"{MARK}@example.org"}}
    row = {
        "message_id": f"{MARK}-m",
        "user_id": user,
        "channel": "chat",
        "body": f"{MARK} says",
        "direction": "inbound",
    }
    rows = [row | {"sent_at": "2026-03-01T08:00:00Z", "updated_at": "2026-03-01T08:00:00Z"}, row]
    rebu_up.batch([event, {"type": MARK}, event | {"timestamp": MARK}, event | {"traits": {"name": MARK}}])
    rebu_up.write("/v1/records/messages", rows)
    rebu_up.lines("access", f'1.2.3.4 - {user} [02/Mar/2026:07:59:00 +0000] "GET /{MARK} HTTP/1.1" 500 5', MARK)
    rebu_up.lines("error", f"2026/03/02 07:59:00 [error] 1#1: *1 {MARK}", f"{MARK} " + "\\ud800\0")
    statuses = {
        rebu_up.post("/v1/batch", f'{{"batch": [{{"userId": "{MARK}"'.encode()).status_code,
        rebu_up.post("/v1/batch", b"x", Content_Encoding="gzip", User_Agent=MARK, X_Rebu_Producer=MARK).status_code,
        rebu_up.post(f"/v1/logs/{MARK}", b"x").status_code,
        rebu_up.post("/v1/batch", [event], key=f"{MARK}-key").status_code,
        rebu_up.get(f"/v1/users/{MARK}-nobody").status_code,
        rebu_up.post("/v1/batch", [event], X_Request_Id=f"{MARK}@example.org").status_code,
        rebu_up.post(f"/v1/{MARK}", b"x", X_Request_Id=f"{MARK} {MARK}", Traceparent=MARK).status_code,
        rebu_up.get(f"/v1/users/{user}/events", {"cursor": MARK}).status_code,
        rebu_up.get(f"/v1/users/{user}/events", {"name": MARK, "limit": 5}).status_code,
        rebu_up.get(f"/{MARK}").status_code,
        rebu_up.get("/v1/deadletters", {"source": MARK}, rebu_up.admin_key).status_code,
        httpx.get(f"{rebu_up.url}/v1/status", auth=(rebu_up.read_key, "")).status_code,
        httpx.post(f"{rebu_up.url}/v1/users/{user}", headers={"Authorization": f"Bearer {MARK}"}).status_code,
    }
    assert statuses == {200, 400, 401, 404, 405}
    assert MARK in json.dumps(rebu_up.history(user))
    rebu_up.flush()
    rebu_up.post("/v1/deadletters/replay", {"dry_run": True}, key=rebu_up.admin_key)
    rebu_up.admin("GET", f"/v1/users/{user}")
    rebu_up.admin("DELETE", f"/v1/users/{user}")
    await_true(lambda: rebu_up.admin("GET", f"/v1/users/{user}/erasure")["status"] == "erased", "the erasure")

    secrets = [MARK, rebu_up.write_key, rebu_up.read_key, rebu_up.admin_key]
    secrets.append((rebu_up.data_dir / "ray_token").read_text())
    told = [p for process in processes_of(rebu_up.data_dir) for p in words(process) if any(s in p for s in secrets)]
    assert told == []
    session = session_folder(str(rebu_up.data_dir))
    logs = [rebu_up.output, *files(session), *(file for file in files(rebu_up.data_dir) if "log" in file.name)]
    assert any("gateway" in file.name.lower() for file in logs)
    assert any(file.name == "haproxy.cfg.rebu" for file in logs)
    assert {str(file): s for file in logs for s in secrets if s.encode() in file.read_bytes()} == {}


def words(process: psutil.Process) -> list[str]:
    """A command line, which everybody on the machine may read."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def files(folder: Path) -> list[Path]:
    """What can be read below a folder."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
