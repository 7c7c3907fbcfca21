"""Another version in the place of the one that runs, under load: nothing is dropped, doubled or turned round."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import rebu_ray
from rebu_ray.build import digest
from tests.system.load import Load
from tests.system.running import REBU, Running, environment, ids, own_platform, processes_of, rebu
from tests.system.test_moves import Sequence, check
from tests.system.test_stream import following

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def own() -> Iterator[Running]:
    """A platform that is started where no package lies."""
    with own_platform("upgrade", {"REBU_FLUSH_SECONDS": "3"}, away=True) as found:
        yield found


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a version that calls itself otherwise."""
    folder = tmp_path_factory.mktemp("newer")
    package = folder / "rebu_ray"
    shutil.copytree(Path(rebu_ray.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    about = package / "__init__.py"
    about.write_text(about.read_text().replace(f'"{rebu_ray.__version__}"', '"99.0"'))
    return folder


def upgrade(platform: Running, version: Path) -> str:
    """Call the upgrade command of a version; what it says."""
    command = [str(REBU), "upgrade", "--data-dir", str(platform.data_dir)]
    done = subprocess.run(
        command,
        env=environment(PYTHONPATH=str(version)),
        cwd=version.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def test_a_newer_version_takes_the_place_of_this_one_while_data_flows(own: Running, newer: Path) -> None:
    build = f"99.0+{digest(newer / 'rebu_ray')}"
    before = {process.pid for process in processes_of(own.data_dir, "IngestShard")}
    with following(own, "up-order") as follower, Load(own, "up") as load:
        sequence = Sequence(own, "up-order")
        sequence.start()
        load.await_more(200)
        said = upgrade(own, newer)
        assert said.count(build) == 5, said  # what is to be, the coordinator, two shards, the gateways
        assert "paused them for" in said
        load.await_more(200)
        sent = sequence.end()
        assert not load.broken, load.broken
        assert set(load.answers) == {200}, load.answers
        # Who follows a history is cut off with the gateway that serves it, comes back, and hears of everything once.
        assert ids(follower.await_items(len(sent))) == sent
    state = own.status()
    assert state["build"] == build
    assert [(s["slot"], s["build"], s["release"], s["index"]) for s in state["shards"]] == [
        (slot, build, 1, "current") for slot in range(2)
    ]
    assert (state["wanted_shards"], state["renewing"], state["moves"]["fenced"]) == (2, False, 0)
    assert not before & set(own.shard_pids())
    assert {own.http.get("/healthz").json()["build"] for _ in range(50)} == {build}
    check(own, load)
    history = ids(own.history("up-order", limit=1000))
    assert sorted(history) == sent


def test_with_nothing_running_it_says_so(tmp_path: Path) -> None:
    done = rebu("upgrade", "--data-dir", tmp_path)
    assert done.returncode == 1
    assert "no platform runs" in done.stderr
