"""A backup of a platform under load, restored elsewhere: everything acknowledged before is there, and adds up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.system.load import Load
from tests.system.ride_load import RideLoad
from tests.system.running import Running, processes_of, rebu

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def test_a_restored_backup_has_everything_that_was_acknowledged_before(rebu_up: Running) -> None:
    with tempfile.TemporaryDirectory(prefix="rebu-backup-", ignore_cleanup_errors=True) as folder:
        copy, restored = Path(folder) / "copy", Running(Path(folder) / "data")
        with Load(rebu_up, "bk") as load, RideLoad(rebu_up, "bk-rides", pause=0.2) as rides:
            load.await_more(300)
            acknowledged = {user: list(ids) for user, ids in load.acknowledged.items()}
            done = dict(rides.done)
            made = rebu("backup", copy, "--data-dir", rebu_up.data_dir)
            assert made.returncode == 0, made.stderr
            load.await_more(100)
        load.check(rebu_up)
        assert rebu("backup", copy, "--data-dir", rebu_up.data_dir).returncode == 1
        checked = rebu("restore", copy, "--check")
        assert (checked.returncode, "are what they were" in checked.stdout) == (0, True), checked.stderr
        brought = rebu("restore", copy, "--data-dir", restored.data_dir, "--erasures", rebu_up.data_dir)
        assert brought.returncode == 0, brought.stderr
        try:
            restored.start("--shards", "2")
            assert (restored.write_key, restored.admin_key) == (rebu_up.write_key, rebu_up.admin_key)
            for user, wanted in acknowledged.items():
                items = restored.history(user, limit=1000)
                found = [item["id"] for item in items]
                assert len(set(found)) == len(found)
                assert set(wanted) <= set(found) <= load.sent | {f"{user}-link"}
            for ride in done:
                assert restored.get(f"/v1/rides/{ride}").status_code == 200
            for command in ("audit", "verify"):
                held = rebu(command, "--data-dir", restored.data_dir)
                assert held.returncode == 0, (held.stdout, held.stderr)
            assert restored.stop() == 0, restored.said()
            assert processes_of(restored.data_dir) == []
        finally:
            restored.clean_up()
