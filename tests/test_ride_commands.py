"""`rebu rides`, `rebu backfill` and `rebu verify`: what they ask for, print and write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from rebu_ray.cli import app, guarded
from tests.answering import Answer, Request, answering

RIDES = [{"ride_id": f"r-{number}", "premature": number % 2 == 0, "city": "Möwen"} for number in range(5)]
TABLE = b"ride_id,premature\nr-0,true\n"


class Platform:
    """Five rides; `differ` are the partitions that a recompute finds otherwise."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.differ: set[int] = set()

    def __call__(self, request: Request) -> Answer:
        self.asked.append(request)
        if request.path == "/v1/rides":
            if "since" in request.query and request.query["since"] == "yesterday":
                return Answer({"code": "invalid_time", "message": "since is 'yesterday': write it as a time"}, 400)
            return Answer(TABLE) if "format" in request.query else Answer({"items": RIDES, "next": None})
        if (request.method, request.path) == ("POST", "/v1/admin/backfill"):
            return Answer({"rides": 1234, "messages": 56, "changed": 5})
        if (request.method, request.path) == ("GET", "/v1/admin/verify"):
            parts: list[dict[str, Any]] = [
                {
                    "partition": number, "rides": 1000 + number, "messages": number, "digest": f"{number:032x}",
                    "full_digest": f"{number + (number in self.differ):032x}", "equal": number not in self.differ,
                }
                for number in range(3)
            ]  # fmt: skip
            return Answer({"partitions": parts, "equal": not self.differ})
        return Answer({"code": "not_found", "message": "there is nothing there"}, 404)


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def rebu(platform: Platform, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> Iterator[Callable[..., Done]]:
    for name in list(os.environ):
        if name.startswith("REBU_"):
            monkeypatch.delenv(name)
    with answering(platform) as url:

        def run(*words: str | Path) -> Done:
            capfdbinary.readouterr()
            code = guarded(lambda: app([*map(str, words), "--url", url, "--key", "k"]))
            out, err = capfdbinary.readouterr()
            return Done(code, out.decode(), err.decode())

        yield run


@pytest.mark.parametrize("command", ["rides", "backfill", "verify"])
def test_help_shows_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: rebu {command}" in shown.stdout


def test_rides_come_as_lines_of_json_or_as_a_table(rebu: Callable[..., Done], platform: Platform) -> None:
    done = rebu("rides")
    assert done.code == 0
    assert [json.loads(line) for line in done.out.splitlines()] == RIDES
    assert "Möwen" in done.out
    assert rebu("rides", "--format", "csv").out.encode() == TABLE
    assert platform.asked[-1].query == {"format": "csv"}


def test_every_filter_is_passed_on(rebu: Callable[..., Done], platform: Platform) -> None:
    options = {
        "--since": "2026-03-01", "--until": "2026-03-02T00:00:00Z", "--city": "A & B", "--status": "failed",
        "--cause": "app", "--min-errors": "1", "--user-id": "u-1", "--driver-id": "d-1", "--as-of": "2026-03-03",
        "--limit": "7", "--format": "csv",
    }  # fmt: skip
    words = [word for option in options.items() for word in option]
    assert rebu("rides", *words, "--premature", "--no-has-messages").code == 0
    wanted = {name[2:].replace("-", "_"): value for name, value in options.items()}
    assert platform.asked[-1].query == wanted | {"premature": "true", "has_messages": "false"}


@pytest.mark.parametrize("name", ["rides.csv", "rides.parquet", "rides.arrow"])
def test_a_file_says_by_its_name_what_it_holds(
    rebu: Callable[..., Done], platform: Platform, tmp_path: Path, name: str
) -> None:
    done = rebu("rides", "-o", tmp_path / name)
    assert done.code == 0
    assert f"{len(TABLE)} bytes" in done.out
    assert (tmp_path / name).read_bytes() == TABLE
    assert platform.asked[-1].query == {"format": name.partition(".")[2]}


def test_a_file_is_written_whole_or_not_at_all(rebu: Callable[..., Done], tmp_path: Path) -> None:
    out = tmp_path / "rides"
    assert rebu("rides", "-o", out).code == 0
    before = out.read_bytes()
    assert [json.loads(line) for line in before.splitlines()] == RIDES
    done = rebu("rides", "-o", out, "--since", "yesterday")
    assert done.code == 1
    assert done.err.endswith("rebu: since is 'yesterday': write it as a time\n")
    assert out.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["rides"]


def test_what_cannot_be_shown_is_refused(rebu: Callable[..., Done], platform: Platform, tmp_path: Path) -> None:
    for form in ("parquet", "arrow"):
        done = rebu("rides", "--format", form)
        assert (done.code, done.out) == (1, "")
        assert f"-o rides.{form}" in done.err
    assert "one of json" in rebu("rides", "--format", "xlsx").err
    assert platform.asked == []
    done = rebu("rides", "-o", tmp_path / "none" / "x.csv")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert str(tmp_path / "none") in done.err


def test_a_backfill_says_what_it_did(rebu: Callable[..., Done], platform: Platform) -> None:
    done = rebu("backfill")
    assert (done.code, done.out) == (0, "1,234 rides and 56 messages recomputed, 5 documents changed\n")
    assert [(request.method, request.path) for request in platform.asked] == [("POST", "/v1/admin/backfill")]


def test_a_proof_lists_partitions_and_fails_on_any_difference(rebu: Callable[..., Done], platform: Platform) -> None:
    done = rebu("verify")
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        [str(n), f"{1000 + n:,}", str(n), f"{n:032x}", f"{n:032x}", "yes"] for n in range(3)
    ]
    assert lines[4] == "3,003 rides and 3 messages are served as a full recompute has them"
    platform.differ = {1}
    done = rebu("verify")
    assert done.code == 1
    assert [line.split()[-1] for line in done.out.splitlines()[1:]] == ["yes", "NO", "yes"]
    assert "rebu: 1 of 3 partitions differ" in done.err
