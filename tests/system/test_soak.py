"""A minute of load during which everything dies once that can die: `scripts/soak.py`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

SCRIPT: Final = Path(__file__).resolve().parents[2] / "scripts" / "soak.py"
KINDS: Final = {
    *("shard", "gateway", "lake reader", "puller", "coordinator", "HAProxy", "task", "platform"),
    *("Redis killed", "Redis restarted", "Redis emptied", "Redis paused", "partitions moved"),
}
LEFT_OUT: Final = ("raylet", "GCS", "HAProxy's manager", "Serve's controller")
"""What a longer run has besides, and costs time."""


def test_nothing_is_lost_whatever_dies(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    command = [sys.executable, str(SCRIPT), "--minutes", "1", "--seed", "5", "--within", "inf", "--json", str(out)]
    command += ["--without", *LEFT_OUT]
    done = subprocess.run(command, timeout=850, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    found = json.loads(out.read_text())
    assert found["holds"] is True
    assert {name: problem for name, problem in found["checks"].items() if problem} == {}
    assert len(found["checks"]) == 9
    # Each kind of fault was there: one that could not be brought about says so.
    hit = {strike["kind"] for strike in found["strikes"] if not strike["remark"]}
    assert hit >= KINDS
    assert found["counts"]["records acknowledged"] > 1000
    assert found["counts"]["of them sent again"] > 0
    assert found["counts"]["rides acknowledged"] > 0
    assert found["counts"]["reads that were whole"] > 0
