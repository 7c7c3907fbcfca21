"""The demo: a platform, a simulated morning streamed through its HTTP interface, and what came out of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import httpx
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rebu_ray.client import Rebu, quoted
from rebu_ray.platform.up import Platform, Stopped, platform
from rebu_ray.settings import Settings
from rebu_ray.simulate import Upload, uploads

SENDERS: Final = 8
PROBE_EVERY: Final = 25
"""Of so many uploads one is read back at once, to see how soon it is visible."""
SAMPLED_USERS: Final = 40
HOUR_MS: Final = 3_600_000


class Check(NamedTuple):
    """One line of the summary: what was expected to hold, what was seen."""

    text: str
    seen: str
    holds: bool


@dataclass
class Tally:
    """What went in, as sent and as answered."""

    sent: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    bad: int = 0
    repeated_bad: int = 0
    duplicates: int = 0
    retried: int = 0
    freshness_ms: list[float] = field(default_factory=list)
    unseen: int = 0
    users: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def total(self, verdict: str) -> int:
        return sum(counts[verdict] for counts in self.verdicts.values())


def run(settings: Settings, *, riders: int, hours: float, seed: int, stop: threading.Event, stay: bool) -> bool:
    """Run the demo; whether every check holds. Keeps serving until `stop` where `stay`.

    Without a data dir of the user's choice it uses a temporary one and removes it at the end.
    """
    console = Console()
    with contextlib.ExitStack() as stack:
        if settings.data_dir == Settings().data_dir or settings.data_dir.endswith("/.rebu"):
            folder = stack.enter_context(_temporary())
            settings = msgspec.structs.replace(settings, data_dir=folder)
        try:
            started = time.monotonic()
            up = stack.enter_context(platform(settings, lambda step: console.print(f"{step} ..."), stop))
        except Stopped:
            return False
        console.print(f"Rebu is ready at {up.url} after {time.monotonic() - started:.0f} s")
        with Rebu(up.url, up.keys.admin) as client:
            # A data dir that has seen this morning gets another one: the same would be all duplicates.
            earlier = sum(shard["rows"] for shard in client.status()["shards"])
            tally = asyncio.run(_stream(up, riders, hours, seed + earlier, stop, console))
            if stop.is_set():
                return False
            checks = _checks(client, tally, earlier)
            _summary(console, up, client, tally, checks)
        if stay:
            console.print("Serving on; Ctrl-C stops.")
            while not stop.wait(0.5):
                up.supervise()
        return all(check.holds for check in checks)


@contextlib.contextmanager
def _temporary() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="rebu-demo-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _stream(up: Platform, riders: int, hours: float, seed: int, stop: threading.Event, console: Console) -> Tally:
    """Send a morning that ends now, as fast as it is taken, reading back a part of it on the way."""
    start_ms = time.time_ns() // 1_000_000 - round(hours * HOUR_MS)
    morning = uploads(riders, hours, seed, start_ms=start_ms)
    with console.status("imagining the morning"):
        planned = await asyncio.to_thread(list, morning)
    tally = Tally()
    queue: Iterator[tuple[int, Upload]] = iter(enumerate(planned))
    started = time.monotonic()
    columns = (
        TextColumn("streaming the morning"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("records"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    limits = httpx.Limits(max_connections=2 * SENDERS)
    async with httpx.AsyncClient(base_url=up.url, timeout=60, limits=limits) as http:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=sum(u.records for u in planned), rate=0.0)

            async def sender() -> None:
                for number, upload in queue:
                    if stop.is_set():
                        return
                    await _send(http, up, upload, tally, number % PROBE_EVERY == 0)
                    elapsed = time.monotonic() - started
                    bar.update(task, advance=upload.records, rate=sum(tally.sent.values()) / elapsed)

            await asyncio.gather(*(sender() for _ in range(SENDERS)))
    tally.seconds = time.monotonic() - started
    return tally


async def _send(http: httpx.AsyncClient, up: Platform, upload: Upload, tally: Tally, probe: bool) -> None:
    headers = {**upload.headers, "Authorization": f"Bearer {up.keys.write}"}
    sent_at = time.perf_counter()
    while True:
        answer = await http.request(upload.method, upload.path, content=upload.body, headers=headers)
        if answer.status_code not in (429, 503):
            break
        tally.retried += 1
        await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
    answer.raise_for_status()
    body = answer.json()
    tally.sent[upload.source] += upload.records
    counts = tally.verdicts.setdefault(upload.source, Counter())
    counts.update({name: body[name] for name in ("accepted", "duplicate", "rejected")})
    tally.bad += upload.bad
    tally.duplicates += upload.duplicates
    tally.repeated_bad += upload.bad if upload.duplicates else 0
    message = _a_message(upload)
    if message is None:
        return
    user, message_id = message
    tally.users[user] += 1
    refused = {result["id"] for result in body["results"]}
    if probe and message_id not in refused:
        params = {"limit": "1000", "min_position": body["position"]}
        key = {"Authorization": f"Bearer {up.keys.read}"}
        read = await http.get(f"/v1/users/{quoted(user)}/events", params=params, headers=key)
        if read.status_code == 200 and message_id in read.text:
            tally.freshness_ms.append((time.perf_counter() - sent_at) * 1000)
        else:
            tally.unseen += 1


def _a_message(upload: Upload) -> tuple[str, str] | None:
    """(user, id) of the last message with both of a plain batch."""
    if upload.path != "/v1/batch" or "Content-Encoding" in upload.headers or upload.bad:
        return None
    for message in reversed(json.loads(upload.body)["batch"]):
        if message.get("userId") and message.get("messageId"):
            return str(message["userId"]), message["messageId"]
    return None


def _checks(client: Rebu, tally: Tally, earlier: int) -> list[Check]:
    sent = sum(tally.sent.values())
    answered = sum(tally.total(v) for v in ("accepted", "duplicate", "rejected"))
    kept = sum(1 for _ in client.deadletters())
    wanted = tally.bad - tally.repeated_bad
    broken = [user for user, _ in tally.users.most_common(SAMPLED_USERS) if not _in_order(client, user)]
    sampled = min(SAMPLED_USERS, len(tally.users))
    return [
        Check("every record got a verdict", f"{answered:,} of {sent:,}", answered == sent),
        Check(
            "what the simulator spoilt was rejected, nothing else",
            f"{tally.total('rejected'):,} of {tally.bad:,}",
            tally.total("rejected") == tally.bad,
        ),
        Check(
            "what was sent again was recognised, nothing else",
            f"{tally.total('duplicate'):,} of {tally.duplicates:,}",
            tally.total("duplicate") == tally.duplicates,
        ),
        Check(
            "every rejected record is kept with its reason",
            f"{kept:,} dead letters of {wanted:,}",
            kept >= wanted if earlier else kept == wanted,
        ),
        Check("what was read back at once was there", f"{len(tally.freshness_ms):,} reads", tally.unseen == 0),
        Check(
            "sampled histories are whole in both directions, in order, without repeats",
            f"{sampled - len(broken)} of {sampled} users",
            not broken,
        ),
    ]


def _in_order(client: Rebu, user: str) -> bool:
    """Whether a history reads the same from both ends, sorted by time and id, no id twice."""
    forwards = [(e["timestamp"], e["id"]) for e in client.history(user, order="asc")]
    backwards = [(e["timestamp"], e["id"]) for e in client.history(user)]
    return (
        bool(forwards)
        and forwards == backwards[::-1] == sorted(forwards)
        and len({record_id for _, record_id in forwards}) == len(forwards)
    )


def _summary(console: Console, up: Platform, client: Rebu, tally: Tally, checks: list[Check]) -> None:
    went_in = Table("source", "records", "accepted", "duplicate", "rejected", title="What went in")
    for source in sorted(tally.sent):
        counts = tally.verdicts[source]
        numbers = (tally.sent[source], counts["accepted"], counts["duplicate"], counts["rejected"])
        went_in.add_row(source, *(f"{n:,}" for n in numbers))
    total = sum(tally.sent.values())
    sums = (total, *(tally.total(v) for v in ("accepted", "duplicate", "rejected")))
    went_in.add_row("all", *(f"{n:,}" for n in sums), style="bold")
    console.print(went_in)
    console.print(
        f"{total / tally.seconds:,.0f} records/s over {tally.seconds:.1f} s, {tally.retried} requests sent again"
    )
    if len(tally.freshness_ms) > 1:
        cuts = statistics.quantiles(tally.freshness_ms, n=100, method="inclusive")
        console.print(
            f"freshness, from sending a batch to reading it back: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms "
            f"({len(tally.freshness_ms)} probes)"
        )
    user = tally.users.most_common(1)[0][0]
    found: list[dict[str, Any]] = list(client.history(user))
    came_out = Table("kind", "matched by", "records", title=f"What came out: the history of {user}")
    for (kind, matched), count in sorted(Counter((e["kind"], e["matched_by"]) for e in found).items()):
        came_out.add_row(kind, matched, f"{count:,}")
    console.print(came_out)
    verdicts = Table("check", "seen", "holds", title="Checks")
    for check in checks:
        verdicts.add_row(check.text, check.seen, "[green]yes[/]" if check.holds else "[red]NO[/]")
    console.print(verdicts)
    console.print(f"Open:  {up.url}/docs", soft_wrap=True)
    console.print(
        f'Ask:   curl -H "Authorization: Bearer {up.keys.read}" "{up.url}/v1/users/{quoted(user)}/events?limit=5"',
        soft_wrap=True,
        highlight=False,
    )
