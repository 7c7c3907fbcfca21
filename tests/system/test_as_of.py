"""What was learned later is invisible to who asks for an earlier time, in every format and under every filter."""

from __future__ import annotations

import csv
import io
import json
import random
import runpy
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rebu_ray import Rebu
from tests.system.running import Item, Running, await_true, rebu
from tests.system.test_rides import LAT, LON, MINUTE, NOW, Push, destination, driver, error, message, ride, send, user

pytestmark = pytest.mark.system

EXAMPLE: Final = Path(__file__).resolve().parents[2] / "docs" / "premature.py"
DAY: Final = 24 * 60 * MINUTE
QUESTIONS: Final[list[dict[str, str | int]]] = [
    {},
    {"premature": "true"},
    {"premature": "false"},
    {"min_errors": 1},
    {"has_messages": "true"},
    {"has_messages": "false"},
    {"cause": "driver,app"},
    {"status": "in_progress"},
    {"driver_id": "g9-d"},
]


def clock() -> int:
    """Now in ms, after everything before and before everything after."""
    time.sleep(0.01)
    now = time.time_ns() // 1_000_000
    time.sleep(0.01)
    return now


def listed(platform: Running, **params: str | int) -> list[Item]:
    return platform._list("/v1/rides", {"limit": 2, **params})


def settled(platform: Running, city: str, wanted: dict[str, dict[str, Any]]) -> list[Item]:
    """The rides of a city, once they are these and say this."""

    def ask() -> list[Item] | None:
        found = listed(platform, city=city)
        said = {item["ride_id"]: item for item in found}
        whole = said.keys() == wanted.keys() and all(
            said[name][field] == value for name, fields in wanted.items() for field, value in fields.items()
        )
        return found if whole else None

    found = await_true(ask, f"the rides of {city}: {wanted}")
    assert found is not None
    return found


def ids(form: str, data: bytes) -> list[str]:
    if form == "csv":
        return [row["ride_id"] for row in csv.DictReader(io.StringIO(data.decode(), newline=""))]
    read = pq.read_table(pa.BufferReader(data)) if form == "parquet" else pa.ipc.open_stream(data).read_all()
    found: list[str] = read["ride_id"].to_pylist()
    return found


def test_what_was_learned_later_stays_invisible(rebu_up: Running, tmp_path: Path) -> None:
    city = "Asof"
    begins = NOW - 3 * DAY
    first: list[Push] = [
        user("g9-u", "Ada"),
        driver("g9-d", "Dan"),
        *(ride(f"g9-r{n}", "g9-u", "g9-d", begins + n * 60 * MINUTE, city=city) for n in range(4)),
        ride("g9-r4", "g9-u", "g9-d", begins + 240 * MINUTE, city=city, status="in_progress", ended_at=None),
    ]
    send(rebu_up, first)
    none = {"linked": 0, "ambiguous": 0}
    known = {"name": "Ada", "user_id": "g9-u"}
    settled(rebu_up, city, {f"g9-r{n}": {"premature": False, "messages": none, "user": known} for n in range(5)})
    then = clock()
    before = {json.dumps(asked): listed(rebu_up, city=city, **asked) for asked in QUESTIONS}
    assert [len(found) for found in before.values()] == [5, 0, 5, 0, 0, 5, 0, 1, 5]
    # All that can come late: an error, a complaint, a destination, a change of the row, a ride, a name, a deletion.
    late: list[Push] = [
        error("g9-e", begins + 6 * MINUTE, "g9-u"),
        message("g9-m", "g9-u", begins + 90 * MINUTE, "My ride g9-r1 was terrible", ride_id="g9-r1"),
        destination("g9-r2", begins + 130 * MINUTE, LAT + 0.3),
        ride("g9-r3", "g9-u", "g9-d2", begins + 180 * MINUTE, city=city, status="cancelled_by_driver",
             dropoff_lat=LAT + 0.01, updated_at=NOW),
        ride("g9-r4", "g9-u", "g9-d", begins + 240 * MINUTE, city=city, updated_at=NOW),
        ride("g9-r5", "g9-u", "g9-d", begins + 30 * MINUTE, city=city),
        user("g9-u", "Ada Lovelace", NOW),
        ("rides", {"ride_id": "g9-r0", "deleted": True, "updated_at": NOW}),
    ]  # fmt: skip
    send(rebu_up, late)
    named = {"user": known | {"name": "Ada Lovelace"}}
    after: dict[str, dict[str, Any]] = {
        "g9-r1": {"messages": {"linked": 1, "ambiguous": 0}},
        "g9-r2": {"premature": True},
        "g9-r3": {"premature": True, "cause": "driver"},
        "g9-r4": {"status": "completed"},
        "g9-r5": {},
    }
    settled(rebu_up, city, {name: fields | named for name, fields in after.items()})
    for moved in (False, True):
        if moved:
            rebu_up.flush()
        for asked in QUESTIONS:
            was = before[json.dumps(asked)]
            assert listed(rebu_up, city=city, as_of=then, **asked) == was, asked
            for form in ("csv", "parquet", "arrow"):
                answer = rebu_up.get("/v1/rides", {"city": city, "as_of": then, "format": form, **asked})
                assert ids(form, answer.content) == [item["ride_id"] for item in was], (form, asked)
    assert listed(rebu_up, city=city, as_of=clock()) == listed(rebu_up, city=city)
    assert listed(rebu_up, city=city, as_of=begins) == []
    as_of = datetime.fromtimestamp(then / 1000, UTC)
    with Rebu(rebu_up.url, rebu_up.read_key) as client:
        assert list(client.rides(city=city, as_of=as_of)) == before["{}"]
        frame = client.rides(city=city, as_of=as_of).to_pandas()
        now = client.rides(city=city).to_pandas()
    assert (frame["errors_app"].sum(), frame["messages_linked"].sum(), frame["premature"].sum()) == (0, 0, 0)
    assert (now["messages_linked"].sum(), now["premature"].sum()) == (1, 2)
    assert set(frame["user_name"]) == {"Ada"}
    out = tmp_path / "rides.parquet"
    done = rebu(
        "rides", "--premature", "--since", "2020-01-01", "--city", city, "--format", "parquet", "-o", out,
        "--data-dir", rebu_up.data_dir,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert pq.read_table(out)["ride_id"].to_pylist() == ["g9-r3", "g9-r2"]


def test_the_example_learns_who_ends_rides_early_and_nothing_that_came_later(
    rebu_up: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, city = random.Random(5), "Learned"
    begins = NOW - 20 * DAY
    cut = begins + 15 * DAY
    pushes: list[Push] = []
    for n in range(400):
        who = n % 8
        early = chance.random() < (0.7 if who < 2 else 0.05)
        more = {"dropoff_lat": LAT + 0.01, "status": "cancelled_by_driver"} if early else {}
        at = begins + n * DAY // 20
        pushes.append(ride(f"g10-r{n:03}", f"g10-u{n % 5}", f"g10-d{who}", at, city=city, dropoff_lon=LON, **more))
    send(rebu_up, pushes)

    def learned() -> bool:
        page = rebu_up.get("/v1/rides", {"city": city, "format": "csv"})
        return page.status_code == 200 and len(page.text.splitlines()) == 401

    await_true(learned, "the rides to learn from")
    then = clock()
    example = runpy.run_path(str(EXAMPLE))
    with Rebu(rebu_up.url, rebu_up.read_key) as client:

        def tried() -> Any:
            return example["learn_and_try"](client, datetime.fromtimestamp(begins / 1000, UTC), str(cut), str(then),
                                            city=city)  # fmt: skip

        before = tried()
        assert (before.learned_from, before.predicted) == (300, 100)
        assert before.auc > 0.7
        assert max(before.weights, key=lambda name: abs(before.weights[name]) * (name != "one")) == "driver_ended_early"
        # Everything that was learned from is turned over afterwards: to who asks as of then, it was not.
        turned = [
            (table, row | {"updated_at": NOW, "dropoff_lat": LAT + 0.05 if row["dropoff_lat"] < LAT + 0.05 else LAT})
            for table, row in pushes[:300]
        ]
        send(rebu_up, turned)

        def turned_over() -> bool:
            found = client.rides(city=city, until=str(cut), premature=True).to_arrow()
            return bool(found.num_rows == sum(row["dropoff_lat"] == LAT for _, row in turned))

        await_true(turned_over, "the rides to be turned over")
        assert tried() == before
    bounds = {"--since": begins, "--cut": cut, "--known-at": then, "--city": city}
    example["main"]([rebu_up.url, rebu_up.read_key, *(str(word) for option in bounds.items() for word in option)])
    assert "learned from 300 rides, predicted 100" in capsys.readouterr().out
