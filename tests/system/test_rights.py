"""A person's rights on a running platform: all that is known of them, and then nothing, whatever happens."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import redis

from rebu_ray.store.journal import SegmentName, unpack
from rebu_ray.store.member import Codec
from tests.system.running import Item, Running, await_true, own_platform, path_of, rebu

pytestmark = pytest.mark.system

SECRET = "hands-off-my-umbrella"
"""A text that only the erased say."""
MAGIC = b"\x28\xb5\x2f\xfd"


@pytest.fixture(scope="module")
def own() -> Iterator[Running]:
    """A platform that these tests may kill. Each of them leaves it running."""
    with own_platform("rights", {"REBU_FLUSH_SECONDS": "2", "REBU_HOT_EVENTS": "50"}) as found:
        yield found


def populate(platform: Running, who: str, text: str, phone: str) -> None:
    """Everything that can be known of somebody: on their phone, in logs, rides, messages, dead letters."""
    body = {"userId": who, "anonymousId": phone}
    platform.batch(
        [
            {
                "type": "track",
                "event": "Opened",
                "messageId": f"{who}-0",
                "anonymousId": phone,
                "properties": {"t": text},
            },
            {"type": "identify", "messageId": f"{who}-i", **body, "traits": {"motto": text}},
            *(
                {"type": "track", "event": "Tapped", "messageId": f"{who}-{n}", **body, "properties": {"t": text}}
                for n in range(1, 120)
            ),
            {
                "type": "track",
                "event": "Bad",
                "messageId": f"{who}-b",
                "timestamp": "no time",
                "userId": who,
                "t": text,
            },
        ]
    )
    request = f"req-{who}"
    line = '10.0.0.1 - - [01/Mar/2026:08:00:00 +0000] "GET /users/%s/rides HTTP/1.1" 200 5 "-" "curl" "%s"'
    assert platform.lines("access", line % (who, request))["accepted"] == 1
    error = json.dumps({"message": text, "level": "error", "request_id": request})
    assert platform.lines("error", error)["accepted"] == 1
    at = "2026-03-01T08:00:00Z"
    platform.write("/v1/records/users", [{"user_id": who, "name": text, "updated_at": at}])
    platform.write("/v1/records/rides", [_ride(f"ride-{who}", who, at)])
    moved = {"ride_id": f"ride-{who}", "changed_at": at, "destination_lat": 57.1, "destination_lon": 24.2}
    platform.write("/v1/records/ride_destinations", [moved])
    message = {"message_id": f"msg-{who}", "user_id": who, "channel": "chat", "direction": "inbound"}
    about = {"sent_at": "2026-03-01T09:00:00Z", "body": f"{text}: my ride ride-{who}", "updated_at": at}
    platform.write("/v1/records/messages", [message | about])
    await_true(lambda: platform.get(f"/v1/rides/ride-{who}").status_code == 200, "the ride's document")
    await_true(lambda: len(platform.history(who, kind="server_error")) == 1, "the line joined by its request")
    await_true(lambda: platform.get(f"/v1/messages/msg-{who}").status_code == 200, "the message's document")


def _ride(ride_id: str, who: str, at: str) -> Item:
    return {
        "ride_id": ride_id, "user_id": who, "driver_id": "dan", "city": "Riga", "status": "completed",
        "requested_at": at, "picked_up_at": "2026-03-01T08:05:00Z", "ended_at": "2026-03-01T08:30:00Z",
        "pickup_lat": 56.95, "pickup_lon": 24.1, "destination_lat": 57.0, "destination_lon": 24.1,
        "dropoff_lat": 57.0, "dropoff_lon": 24.1, "updated_at": at,
    }  # fmt: skip


def redis_url(platform: Running) -> str:
    note: dict[str, Any] = json.loads((platform.data_dir / "platform.json").read_text())
    return str(note["redis_url"])


def found_in(platform: Running, *texts: str) -> list[str]:
    """Where any of some texts stands, in all that the platform keeps."""
    wanted = [text.encode() for text in texts]
    hits = []
    for path in platform.data_dir.rglob("*"):
        if not path.is_file():
            continue
        try:
            data = [path.read_bytes()]
            if path.suffix == ".parquet":
                data.append(repr(pq.read_table(path).to_pylist()).encode())
            elif SegmentName.parse(path.name) is not None:
                data += [frame.payload for frame in unpack(data[0], path.name)]
        except FileNotFoundError:  # merged meanwhile
            continue
        if any(text in part for text in wanted for part in data):
            hits.append(str(path.relative_to(platform.data_dir)))
    codec = Codec()
    with redis.Redis.from_url(redis_url(platform)) as client:
        for key in client.scan_iter(count=1000):
            parts = [key, *_values(client, key)]
            parts += [codec.decompress(part[part.index(MAGIC) :]) for part in parts if MAGIC in part]
            if any(text in part for text in wanted for part in parts):
                hits.append(repr(key))
    return hits


def _values(client: Any, key: bytes) -> list[bytes]:
    kind = client.type(key)
    if kind == b"zset":
        return list(client.zrange(key, 0, -1))
    if kind == b"hash":
        return [part for pair in client.hgetall(key).items() for part in pair]
    if kind == b"set":
        return list(client.smembers(key))
    return [client.get(key) or b""]


def state(platform: Running, who: str) -> Item:
    answer = platform.get(f"{path_of(who)}/erasure", key=platform.admin_key)
    assert answer.status_code == 200, answer.text
    found: Item = answer.json()
    return found


def erase(platform: Running, who: str) -> Item:
    """Erase somebody and wait until that is done."""
    answer = platform.admin("DELETE", path_of(who))
    await_true(lambda: state(platform, who)["status"] == "erased", "the erasure to be completed")
    return answer


def nothing_of(platform: Running, who: str, text: str) -> None:
    for path in ("", "/events", "/rides", "/messages"):
        assert platform.get(f"{path_of(who)}{path}").json()["code"] == "unknown_user"
    assert platform.get(f"/v1/rides/ride-{who}").status_code == 404
    assert platform.get(f"/v1/messages/msg-{who}").status_code == 404
    assert found_in(platform, who, text) == []


def everything_of(platform: Running, who: str) -> Item:
    """What the routes answer about somebody."""
    return {
        "profile": platform.get(path_of(who)).json(),
        "events": platform.history(who, order="asc"),
        "rides": platform._list(f"{path_of(who)}/rides", {"order": "asc"}),
        "messages": platform._list(f"{path_of(who)}/messages", {"order": "asc"}),
    }


def test_everything_and_then_nothing(own: Running, tmp_path: Path) -> None:
    populate(own, "ada-1", SECRET, "phone-1")
    populate(own, "bob-1", "nothing special", "phone-1")
    bob = everything_of(own, "bob-1")

    # All of it, as the other routes have it.
    out = tmp_path / "ada.ndjson"
    done = rebu("export", "ada-1", "-o", out, "--data-dir", own.data_dir)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    by_type: dict[str, list[Item]] = {}
    for line in lines:
        by_type.setdefault(line.pop("type"), []).append(line)
    ada = everything_of(own, "ada-1")
    assert by_type["profile"] == [ada["profile"]]
    assert by_type["event"] == ada["events"]
    assert len(ada["events"]) >= 123
    assert (by_type["ride"], by_type["message"]) == (ada["rides"], ada["messages"])
    letters = [item for item in own.deadletters(order="asc") if item["record"].get("userId") == "ada-1"]
    assert by_type["dead_letter"] == letters
    assert len(letters) == 1
    assert sorted(row["table"] for row in by_type["row"]) == ["messages", "ride_destinations", "rides", "users"]

    # Then nothing.
    assert found_in(own, SECRET) != []
    answer = own.admin("DELETE", path_of("ada-1"))
    assert answer["status"] in ("erasing", "erased")
    assert answer["counts"] | {"events": 0} == {"events": 0, "rides": 1, "messages": 1, "phones": 1, "dead_letters": 1}
    assert own.get(path_of("ada-1")).status_code == 404
    await_true(lambda: state(own, "ada-1")["status"] == "erased", "the erasure to be completed")
    nothing_of(own, "ada-1", SECRET)
    assert everything_of(own, "bob-1") == bob
    assert own.admin("GET", "/v1/admin/verify")["equal"]
    assert own.admin("GET", "/v1/audit")["balanced"]

    # Whoever sends it again is told.
    late = own.batch(
        [
            {"type": "track", "event": "Late", "messageId": "late", "userId": "ada-1", "t": SECRET},
            {"type": "track", "event": "Late", "messageId": "late", "userId": "bob-1"},
            {"type": "track", "event": "Bad", "messageId": "x", "timestamp": "no time", "userId": "ada-1", "t": SECRET},
        ]
    )
    assert (late["accepted"], late["duplicate"], late["rejected"], late["suppressed"]) == (1, 0, 0, 2)
    assert [(entry["id"], entry["status"]) for entry in late["results"]] == [
        ("late", "suppressed"),
        ("x", "suppressed"),
    ]
    moved = {"ride_id": "ride-ada-1", "changed_at": "2026-03-01T08:20:00Z", "destination_lat": 1, "destination_lon": 2}
    assert own.write("/v1/records/ride_destinations", [moved])["suppressed"] == 1
    own.flush()
    nothing_of(own, "ada-1", SECRET)
    assert own.admin("GET", "/v1/audit")["balanced"]

    # A rebuild brings nothing back; asking again changes nothing.
    own.admin("POST", "/v1/admin/reindex")
    own.admin("POST", "/v1/admin/backfill")
    nothing_of(own, "ada-1", SECRET)
    assert own.admin("DELETE", path_of("ada-1"))["status"] == "erased"
    assert own.status()["erasures"] == {"pending": 0, "completed": 1}


def test_an_erasure_outlives_a_kill_in_its_middle(own: Running) -> None:
    who = "ada-k"
    populate(own, who, f"{SECRET}-k", "phone-k")

    def ask() -> None:
        try:
            httpx.delete(f"{own.url}{path_of(who)}", headers={"Authorization": f"Bearer {own.admin_key}"}, timeout=60)
        except httpx.HTTPError:
            return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    threading.Event().wait(0.3)
    own.kill_group()
    asking.join(90)
    own.start("--shards", "2")
    if own.get(f"{path_of(who)}/erasure", key=own.admin_key).status_code == 404:
        erase(own, who)  # killed before it was noted
    await_true(lambda: state(own, who)["status"] == "erased", "the erasure to be completed")
    nothing_of(own, who, f"{SECRET}-k")


def test_an_erasure_outlives_an_older_lake(own: Running, tmp_path: Path) -> None:
    populate(own, "ada-r", f"{SECRET}-r", "phone-r")
    populate(own, "bob-r", "nothing special", "phone-s")
    own.flush()
    bob = everything_of(own, "bob-r")
    # Nothing moves to the lake now: it is copied as a backup would copy it.
    shutil.copytree(own.data_dir / "lake", tmp_path / "lake")
    erase(own, "ada-r")
    assert own.stop() == 0, own.said()
    shutil.rmtree(own.data_dir / "lake")
    shutil.copytree(tmp_path / "lake", own.data_dir / "lake")
    own.start("--shards", "2")
    nothing_of(own, "ada-r", f"{SECRET}-r")
    assert everything_of(own, "bob-r") == bob
    assert own.admin("GET", "/v1/admin/verify")["equal"]


def test_the_command_erases(own: Running) -> None:
    populate(own, "ada-c", f"{SECRET}-c", "phone-c")
    done = rebu("erase", "ada-c", "--data-dir", own.data_dir)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "erased"
    nothing_of(own, "ada-c", f"{SECRET}-c")
    again = rebu("erase", "nobody-at-all", "--data-dir", own.data_dir)
    assert (again.returncode, "nothing is known" in again.stderr) == (1, True)
