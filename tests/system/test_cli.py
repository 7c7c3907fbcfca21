"""The commands, run as a user runs them, against the shared platform, against none, and the demo on its own."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import typer
import zstandard
from typer.testing import CliRunner

from rebu_ray.cli import app, guarded
from rebu_ray.platform.local_ray import free_port
from tests.system.running import (
    REBU,
    Item,
    Running,
    environment,
    ids,
    processes_of,
    rebu,
)

pytestmark = pytest.mark.system

NOW = time.time_ns() // 1_000_000


def event(record_id: str, user: str) -> Item:
    return {"type": "track", "event": "Tapped", "messageId": record_id, "userId": user, "timestamp": NOW}


def commands() -> list[list[str]]:
    """Every command of the command line, by its words."""
    found = []
    root = typer.main.get_command(app)
    for name, command in getattr(root, "commands", {}).items():
        found += [[name, inner] for inner in getattr(command, "commands", {})] or [[name]]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_shows_an_example(words: list[str]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"])
    assert shown.exit_code == 0
    assert f"Example: rebu {' '.join(words)}" in shown.stdout


Here = Callable[..., subprocess.CompletedProcess[str]]
"""Runs a command in this process, as `rebu` does in one of its own: for the many cases that a start each would slow."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    for name in list(os.environ):
        if name.startswith(("REBU_", "RAY_")):
            monkeypatch.delenv(name)

    def run(*arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = guarded(lambda: app(words))
            out, err = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, out, err)

    return run


def check_one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("rebu: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr


def test_it_says_which_version_it_is(rebu_up: Running, here: Here) -> None:
    said = here("--version")
    assert said.returncode == 0
    assert said.stdout.split() == ["rebu", httpx.get(f"{rebu_up.url}/healthz").json()["build"]]


def test_where_nothing_runs_it_is_said_in_one_sentence(here: Here, tmp_path: Path) -> None:
    lines = tmp_path / "some.ndjson"
    lines.write_text("{}\n")
    there = ("--data-dir", str(tmp_path / "none"))
    check_one_sentence(rebu("status", *there), str(tmp_path / "none"), "rebu up")
    for words in (
        ("deadletters", "list"), ("reindex",), ("backfill",), ("verify",), ("rides",),
        ("ingest", str(lines), "--source", "error"),
    ):  # fmt: skip
        check_one_sentence(here(*words, *there), str(tmp_path / "none"), "rebu up")
    (tmp_path / "gone").mkdir()
    note = {"url": "http://127.0.0.1:9", "pid": 2**22 + 1, "redis_url": "", "ray_address": ""}
    (tmp_path / "gone" / "platform.json").write_text(json.dumps(note))
    check_one_sentence(here("status", "--data-dir", tmp_path / "gone"), str(note["pid"]))
    check_one_sentence(here("status", "--url", "http://127.0.0.1:9"), "--key")
    check_one_sentence(here("status", *there, REBU_PORT="many"), "port")
    check_one_sentence(here("status", *there, REBU_FLUSH_SECONDS="0"), "flush_seconds")


def test_keys_are_made_once_for_their_owner_alone(here: Here, tmp_path: Path) -> None:
    place = tmp_path / "data"
    first = json.loads(rebu("keys", "--data-dir", place).stdout)
    assert set(first) == {"write", "read", "admin"}
    assert len(set(first.values())) == 3
    assert json.loads(here("keys", "--data-dir", place).stdout) == first
    assert json.loads(here("keys", REBU_DATA_DIR=str(place), REBU_READ_KEY="mine").stdout) == first | {"read": "mine"}
    assert [stat.S_IMODE(file.stat().st_mode) for file in place.iterdir()] == [0o600]


def test_a_platform_is_found_by_its_folder_or_by_its_address(rebu_up: Running, here: Here) -> None:
    by_folder = json.loads(rebu("status", "--data-dir", rebu_up.data_dir).stdout)
    assert by_folder["partitions"] == 16
    assert [shard["slot"] for shard in by_folder["shards"]] == [0, 1]
    for done in (
        here("status", "--url", rebu_up.url, "--key", rebu_up.read_key),
        here("status", REBU_URL=rebu_up.url, REBU_READ_KEY=rebu_up.read_key),
        here("status", REBU_DATA_DIR=str(rebu_up.data_dir)),
    ):
        assert json.loads(done.stdout)["platform_id"] == by_folder["platform_id"]
    check_one_sentence(here("status", "--url", rebu_up.url, "--key", "nonsense"), "rebu keys")
    check_one_sentence(here("deadletters", "list", "--url", rebu_up.url, "--key", rebu_up.read_key), "admin")


def counts(done: subprocess.CompletedProcess[str]) -> tuple[int, ...]:
    """accepted, duplicate, rejected, as `rebu ingest` prints them."""
    assert done.returncode == 0, done.stderr
    found = re.search(r"(\d+) accepted, (\d+) duplicate, (\d+) rejected", done.stdout)
    assert found, done.stdout
    return tuple(map(int, found.groups()))


def test_files_are_sent_plain_or_packed_and_only_once(rebu_up: Running, here: Here, tmp_path: Path) -> None:
    there = ("--data-dir", rebu_up.data_dir)
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(NOW / 1000))
    lines = [f'192.0.2.1 - c1 [{when}] "GET /rides/{n} HTTP/1.1" 200 5 "-" "-"\n'.encode() for n in range(3000)]
    lines.insert(1000, b"nothing that an access log would hold\n")
    lines.insert(2000, b"\n")
    text = b"".join(lines)
    plain, zipped, zst = (tmp_path / f"access.log{end}" for end in ("", ".gz", ".zst"))
    plain.write_bytes(text)
    zipped.write_bytes(gzip.compress(text[:70_000]) + gzip.compress(text[70_000:]))
    zst.write_bytes(zstandard.compress(text))
    sent = ("ingest", plain, "--source", "access", *there)
    assert counts(rebu(*sent)) == (3000, 0, 1)
    assert counts(here(*sent)) == (0, 3000, 1)
    plain.write_bytes(text + b"".join(lines[:10]))  # the log goes on: the same words are another line
    assert counts(here(*sent)) == (10, 3000, 1)
    for file in (zipped, zst):
        assert counts(here("ingest", file, "--source", "access", *there)) == (3000, 0, 1)
        assert counts(here("ingest", file, "--source", "access", *there)) == (0, 3000, 1)
    assert len(rebu_up.history("c1", limit=1000)) == 9010


def test_a_sender_that_was_interrupted_goes_on_where_it_was(rebu_up: Running, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson.gz"
    total = 30_000
    with gzip.open(file, "wt", compresslevel=1) as out:
        for number in range(total):
            plain = {name: value for name, value in event("", f"c2-{number % 50}").items() if name != "messageId"}
            out.write(json.dumps(plain | {"properties": {"number": number}}) + "\n")
    command = ["ingest", str(file), "--source", "app-events", "--url", rebu_up.url, "--key", rebu_up.write_key]
    for number in (signal.SIGINT, signal.SIGKILL):
        before = len(rebu_up.history("c2-0", limit=1000))
        sender = subprocess.Popen(
            [str(REBU), *command], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while sender.poll() is None and len(rebu_up.history("c2-0", limit=1000)) <= before:
            time.sleep(0.02)
        sender.send_signal(number)
        _, said = sender.communicate(timeout=60)
        assert "Traceback" not in said
    accepted, duplicate, rejected = counts(rebu(*command))
    assert rejected == 0
    assert accepted + duplicate == total
    assert duplicate > 0
    found = Counter(item["body"]["properties"]["number"] for item in rebu_up.history("c2-7", limit=1000))
    assert found == Counter(range(7, total, 50))
    assert counts(rebu(*command)) == (0, total, 0)


def test_a_file_that_cannot_be_sent_is_named(rebu_up: Running, here: Here, tmp_path: Path) -> None:
    there = ("--data-dir", rebu_up.data_dir)
    whole = gzip.compress("".join(json.dumps(event(f"c3-{n}", "c3")) + "\n" for n in range(5000)).encode())
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.gz").write_bytes(b"no gzip at all")
    (tmp_path / "none.zst").write_bytes(b"no zstd at all")
    for name in ("cut.gz", "none.gz", "none.zst", "missing.log"):
        done = here("ingest", tmp_path / name, "--source", "app-events", *there)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert f"rebu: {tmp_path / name}" in done.stderr
    assert "one of" in here("ingest", tmp_path / "cut.gz", "--source", "nonsense", *there).stderr
    (tmp_path / "empty.log").write_bytes(b"")
    assert counts(here("ingest", tmp_path / "empty.log", "--source", "error", *there)) == (0, 0, 0)


def test_dead_letters_are_listed_a_line_each(rebu_up: Running, here: Here) -> None:
    since = time.time_ns() // 1_000_000
    rebu_up.lines("error", "c4 says nothing", "c4 again: Zürich 🚕")
    rebu_up.batch([{"type": "track", "messageId": "c4-bad"}])
    window = ("--since", str(since), "--data-dir", rebu_up.data_dir)
    listed = [json.loads(line) for line in here("deadletters", "list", *window).stdout.splitlines()]
    assert [item["record"] for item in listed if item["source"] == "error"].count("c4 again: Zürich 🚕") == 1
    assert {"c4-bad"} == {item["record"]["messageId"] for item in listed if item["source"] == "app-events"}
    of_errors = here("deadletters", "list", "--source", "error", *window).stdout.splitlines()
    assert [json.loads(line)["source"] for line in of_errors] == ["error"] * 2
    assert here("deadletters", "list", "--until", "2000-01-01T00:00:00Z", "--data-dir", rebu_up.data_dir).stdout == ""
    check_one_sentence(here("deadletters", "list", "--since", "yesterday", "--data-dir", rebu_up.data_dir), "since")


def test_the_simulator_writes_the_same_files_twice_and_they_can_be_sent(
    rebu_up: Running, here: Here, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        done = rebu("simulate", "--out", folder, "--riders", "60", "--days", "0.4", "--seed", "3")
        assert done.returncode == 0, done.stderr
    names = sorted(file.name for file in folders[0].iterdir())
    assert names == [
        "access.log.gz", "app-errors.ndjson.gz", "app-events.ndjson.gz", "app.sqlite", "error.log.gz", "truth.parquet",
    ]  # fmt: skip
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    sources = {
        "app-events": "app-events.ndjson",
        "app-errors": "app-errors.ndjson",
        "access": "access.log",
        "error": "error.log",
    }
    for source, name in sources.items():
        file = folders[0] / f"{name}.gz"
        lines = [line for line in gzip.decompress(file.read_bytes()).split(b"\n") if line.strip()]
        sent = counts(here("ingest", file, "--source", source, "--data-dir", rebu_up.data_dir))
        assert sum(sent) == len(lines)
        assert sent[0] > 0.8 * len(lines)
        again = counts(here("ingest", file, "--source", source, "--data-dir", rebu_up.data_dir))
        assert again == (0, sent[0] + sent[1], sent[2])
    said = gzip.decompress((folders[0] / "app-events.ndjson.gz").read_bytes()).splitlines()
    users = Counter(json.loads(line).get("userId") for line in said if line.endswith(b"}"))
    user = next(user for user, _ in users.most_common() if user)
    assert len(ids(rebu_up.history(user))) >= 10


def test_the_demo_ends_well_and_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory(prefix="rebu-d-") as folder:
        command = ["demo", "--exit", "--riders", "200", "--hours", "1", "--port", str(free_port())]
        done = rebu(*command, seconds=240, TMPDIR=folder, COLUMNS="200")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "What went in" in done.stdout
        assert "The worst rides" in done.stdout
        assert "freshness, from a ride's commit to its document" in done.stdout
        assert "NO" not in re.findall(r"\b(?:yes|NO)\b", done.stdout)
        assert re.findall(r"\b(?:yes|NO)\b", done.stdout).count("yes") >= 13
        assert os.listdir(folder) == []
        assert processes_of(Path(folder)) == []
