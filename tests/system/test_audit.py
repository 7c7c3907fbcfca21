"""The audit of a running platform: every verdict is accounted for, through crashes, and one hidden record is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.system.running import Item, Running, await_true, kill, own_platform, rebu

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LINE = '10.0.0.1 - - [02/Mar/2026:07:59:00 +0000] "GET /users/audit-%d/rides HTTP/1.1" 200 5 "-" "-" "audit-%d"'


@pytest.fixture(scope="module")
def platform() -> Iterator[Running]:
    """A platform of its own: what is hidden here would be missing elsewhere."""
    with own_platform("audit", {}) as found:
        yield found


def audit(platform: Running, **params: str) -> Item:
    answers: list[Item] = []

    def ask() -> bool:
        answer = platform.get("/v1/audit", params)
        if answer.status_code == 503:
            return False
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
        return True

    await_true(ask, "the audit to be answered")
    return answers[-1]


def totals(found: Item) -> Counter[str]:
    """Over all places but those of the tests' own pulse."""
    sums: Counter[str] = Counter()
    for item in found["items"]:
        for name in ("received", "stored", "duplicate", "dead_letter", "suppressed"):
            sums[name] += item[name]
    return sums


class Sender:
    """Sends this and that, and keeps what it was told."""

    def __init__(self, platform: Running) -> None:
        self.platform = platform
        self.told: Counter[str] = Counter()

    def took(self, receipt: Item) -> None:
        for name in ("accepted", "duplicate", "rejected"):
            self.told[name] += receipt[name]

    def send(self, first: int, count: int) -> None:
        numbers = range(first, first + count)
        self.took(
            self.platform.batch(
                {"type": "track", "event": "Audited", "userId": f"audit-{n % 7}", "messageId": f"audit-{n}"}
                for n in numbers
            )
        )
        self.took(self.platform.lines("access", *(LINE % (n % 7, n) for n in numbers), f"no line {first}"))
        self.took(
            self.platform.lines(
                "error", *(f'2026/03/02 07:59:00 [error] 1#1: *{n} broken, request_id: "audit-{n}"' for n in numbers)
            )
        )

    def agrees(self) -> Item:
        """The audit balances and says what was answered; joined lines and the like are in no count."""
        found = audit(self.platform)
        assert found["problems"] == []
        assert found["balanced"], [item for item in found["items"] if not item["balanced"]]
        sums = totals(found)
        assert sums["stored"] == self.told["accepted"]
        assert sums["dead_letter"] + sums["duplicate"] == self.told["rejected"] + self.told["duplicate"]
        assert sums["received"] == sum(self.told.values())
        return found


def test_every_verdict_is_accounted_for_through_a_life(platform: Running) -> None:
    sender = Sender(platform)
    sender.send(0, 50)
    sender.agrees()
    sender.send(0, 50)
    sender.agrees()
    platform.flush()
    sender.agrees()
    sender.send(40, 50)
    found = sender.agrees()
    assert {item["source"] for item in found["items"]} == {"access", "app-events", "error"}
    only = audit(platform, source="error")
    assert {item["source"] for item in only["items"]} == {"error"}
    platform.flush()  # duplicates that came alone are durable from here on
    for pid in platform.shard_pids():
        kill(pid)
    sender.send(90, 10)  # waits for the shards
    sender.agrees()
    assert platform.stop() == 0
    platform.start("--shards", "3")
    sender.agrees()
    sender.send(95, 10)
    sender.agrees()


def test_the_command_prints_a_table_and_says_whether_it_balances(platform: Running) -> None:
    done = rebu("audit", "--data-dir", platform.data_dir)
    assert done.returncode == 0, done.stderr
    head, *_, last = done.stdout.splitlines()
    assert head.split() == [
        "source", "bucket", "received", "stored", "duplicate", "dead_letter", "suppressed", "balanced",
    ]  # fmt: skip
    assert last.split()[0] == "all"
    assert last.split()[-1] == "yes"


def test_one_hidden_record_is_seen(platform: Running) -> None:
    """The last test on this platform: it damages what is stored."""
    platform.flush()
    assert audit(platform)["balanced"]
    lake = Path(platform.data_dir) / "lake"
    files = [path for path in sorted(lake.rglob("0*.parquet")) if holds(path)]
    table = pq.ParquetFile(files[0]).read()
    hidden = next(i for i, kind in enumerate(table["kind"].to_pylist()) if kind == "app_event")
    keep: list[Any] = [i for i in range(table.num_rows) if i != hidden]
    pq.write_table(table.take(keep), files[0])
    found = audit(platform)
    assert not found["balanced"]
    (wrong,) = (item for item in found["items"] if not item["balanced"])
    assert wrong["received"] == wrong["stored"] + wrong["duplicate"] + wrong["dead_letter"] + 1
    done = rebu("audit", "--data-dir", platform.data_dir)
    assert done.returncode == 1
    assert "NO" in done.stdout
    assert "do not balance" in done.stderr


def holds(path: Path) -> bool:
    return "app_event" in pq.ParquetFile(path).read(["kind"])["kind"].to_pylist()
