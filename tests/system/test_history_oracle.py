"""A simulated morning through the real platform: every verdict and every history is what the oracle says."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import httpx
import pytest

from rebu_ray.simulate import Upload, uploads
from tests.oracle import Delivery, Entry, Judgement, Verdict, judge
from tests.system.running import Item, Running

pytestmark = pytest.mark.system

RIDERS, HOURS = 300, 2.0
SENDERS = 8

Shown = tuple[int, str, str, str, str | None]
"""Time, id (empty where the platform derives it), kind, name, matched_by."""


def world(seed: int) -> list[Upload]:
    """A morning that ends now, with riders and log shippers of its own: by themselves, all worlds share these."""
    start_ms = time.time_ns() // 1_000_000 - round(HOURS * 3_600_000)
    return [renamed(upload, seed) for upload in uploads(RIDERS, HOURS, seed, start_ms=start_ms)]


def renamed(upload: Upload, seed: int) -> Upload:
    producer = {name: f"{seed}/{value}" for name, value in upload.headers.items() if name == "X-Rebu-Producer"}
    zipped = upload.headers.get("Content-Encoding") == "gzip"
    plain = gzip.decompress(upload.body) if zipped else upload.body
    body = re.sub(rb"\bu-(?=\d{6}\b)", b"u%d-" % seed, plain)
    return replace(upload, headers=upload.headers | producer, body=gzip.compress(body, 1) if zipped else body)


def judged(sent: Sequence[Upload]) -> Judgement:
    """What must come of it: nothing says `sentAt`, so that the time of receipt decides nothing."""
    now = time.time_ns() // 1_000_000
    return judge(Delivery(upload.path, upload.headers, upload.body, now) for upload in sent)


def waves(sent: Sequence[Upload]) -> Iterator[list[tuple[int, Upload]]]:
    """Uploads that may be under way together: what is sent again comes after what it repeats."""
    wave: list[tuple[int, Upload]] = []
    for number, upload in enumerate(sent):
        if upload.duplicates and wave:
            yield wave
            wave = []
        wave.append((number, upload))
    yield wave


async def stream(platform: Running, sent: Sequence[Upload], together: bool) -> list[Verdict]:
    """Send all of it with several senders; each upload's verdict. `together`: repeats may overtake each other."""
    verdicts: dict[int, Verdict] = {}
    limits = httpx.Limits(max_connections=SENDERS)
    async with httpx.AsyncClient(base_url=platform.url, timeout=120, limits=limits) as http:

        async def sender(queue: Iterator[tuple[int, Upload]]) -> None:
            for number, upload in queue:
                headers = {**upload.headers, "Authorization": f"Bearer {platform.write_key}"}
                while True:
                    answer = await http.request(upload.method, upload.path, content=upload.body, headers=headers)
                    if answer.status_code not in (429, 503):
                        break
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                assert answer.status_code == 200, answer.text
                found = answer.json()
                verdicts[number] = Verdict(found["accepted"], found["duplicate"], found["rejected"])

        for wave in [list(enumerate(sent))] if together else waves(sent):
            queue = iter(wave)
            await asyncio.gather(*(sender(queue) for _ in range(SENDERS)))
    return [verdicts[number] for number in range(len(sent))]


def of_entry(entry: Entry) -> Shown:
    return (entry.event_time, entry.id or "", entry.kind, entry.name, entry.matched_by)


def of_item(item: Item, known: set[str]) -> Shown:
    at = datetime.fromisoformat(item["timestamp"])
    given = item["id"] if item["id"] in known else ""
    return (round(at.timestamp() * 1000), given, item["kind"], item["name"], item["matched_by"])


def check_histories(platform: Running, wanted: dict[str, list[Entry]], rng: random.Random) -> None:
    """Every user's history in both directions, with pages of any size."""
    for user, entries in wanted.items():
        backwards = platform.history(user, order="desc", limit=rng.randint(10, 300))
        forwards = platform.history(user, order="asc", limit=rng.randint(10, 300))
        assert backwards[::-1] == forwards, user
        places = [(item["timestamp"], item["id"]) for item in forwards]
        assert places == sorted(set(places)), user
        known = {entry.id for entry in entries if entry.id is not None}
        assert sorted(of_item(item, known) for item in forwards) == sorted(map(of_entry, entries)), user
        assert {item["user_id"] for item in forwards} == {user}


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "in any order"])
def test_every_verdict_and_every_history_is_what_the_oracle_says(rebu_up: Running, shuffled: bool) -> None:
    sent = world(seed=23 + shuffled)
    rng = random.Random(5)
    if shuffled:
        rng.shuffle(sent)
    wanted = judged(sent)
    assert len(wanted.histories) > 30
    assert sum(verdict.duplicate for verdict in wanted.verdicts) > 10
    kinds = {(entry.kind, entry.matched_by) for entry in itertools.chain(*wanted.histories.values())}
    assert {("server_error", "request_id"), ("app_event", "anonymous_id"), ("server_access", "path")} < kinds
    assert max(map(len, wanted.histories.values())) > 200  # more than this platform's Redis keeps
    verdicts = asyncio.run(stream(rebu_up, sent, together=shuffled))
    if shuffled:  # of two uploads of the same, either may be the first
        assert total(verdicts) == total(wanted.verdicts)
    else:
        assert verdicts == wanted.verdicts
    check_histories(rebu_up, wanted.histories, rng)
    again = range(0, len(sent), 4)
    before = total([verdicts[number] for number in again])
    repeated = total(asyncio.run(stream(rebu_up, [sent[number] for number in again], together=True)))
    assert repeated == Verdict(0, before.accepted + before.duplicate, before.rejected)
    rebu_up.flush()
    check_histories(rebu_up, wanted.histories, rng)


def total(verdicts: Sequence[Verdict]) -> Verdict:
    return Verdict(
        sum(verdict.accepted for verdict in verdicts),
        sum(verdict.duplicate for verdict in verdicts),
        sum(verdict.rejected for verdict in verdicts),
    )
