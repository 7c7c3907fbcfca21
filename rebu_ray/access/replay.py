"""Replay of dead letters: what was refused is tried again, a page at a time, and leaves the list where it is accepted.

The record is stored first, then its letter is marked: a crash in between leaves a letter whose next replay finds its
record a duplicate. So a replay may be repeated, whole or in part, and stores nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.access.deadletters import page_of
from rebu_ray.access.history import Histories
from rebu_ray.ingest.dialects import json_text, times
from rebu_ray.ingest.dialects.fields import RefusedError
from rebu_ray.ingest.identity import route
from rebu_ray.ingest.intake import Intake
from rebu_ray.ingest.position import Position
from rebu_ray.ingest.replay import Letter, again
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.records import BadRequest, Record, Refusal, Source
from rebu_ray.store.replays import mark
from rebu_ray.store.rows import Routed

PARAMETERS: Final = ("source", "since", "until", "ids", "dry_run", "limit", "cursor")
MOST_BYTES: Final = 1024 * 1024
"""Of a request's body."""
STATUSES: Final = ("duplicate", "replayed", "suppressed")
"""What a shard's verdicts mean here; suppressed is what is about somebody who was erased."""
LOOKED_AT: Final = 20_000
"""How many letters one request looks at for the `ids` that it wants; `next` goes on from there."""


class _Item(msgspec.Struct):
    id: str
    source: Source
    received_at: str
    reason: str
    record: msgspec.Raw


_ITEM: Final = msgspec.json.Decoder(_Item)


def routes(
    keys: Keys,
    histories: Callable[[], Histories],
    intake: Callable[[], Intake],
    ask: Callable[..., Awaitable[Any]],
) -> list[Route]:
    """POST /v1/deadletters/replay, for the admin key."""

    async def replay(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        params = await _params(request)
        dry_run = query.truth(params, "dry_run") or False
        letters, following = await _letters(histories(), params)
        now = time.time_ns() // 1_000_000
        outcomes = await asyncio.to_thread(lambda: [again(letter, now) for letter in letters])
        verdicts, position = await _store(intake(), histories().partitions, letters, outcomes, now, dry_run)
        if letters and not dry_run and following is None:
            # A list of which the lake has a part learns of marks from the lake.
            await ask("flush")
        results = [
            _result(letter, outcome, verdict)
            for letter, outcome, verdict in zip(letters, outcomes, verdicts, strict=True)
        ]
        said = [result["status"] for result in results]
        body = {
            "dry_run": dry_run,
            **{status: said.count(status) for status in ("replayed", "duplicate", "rejected", "suppressed")},
            "position": position.encode(),
            "results": results,
            "next": following,
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

    return [Route("/v1/deadletters/replay", replay, methods=["POST"])]


async def _store(
    intake: Intake,
    partitions: int,
    letters: list[Letter],
    outcomes: list[Record | Refusal],
    now: int,
    dry_run: bool,
) -> tuple[list[int], Position]:
    """Store what was accepted and mark the letters; the verdict on each record. A dry run takes all for new."""
    rows: list[Routed] = []
    first: list[int | None] = []
    for outcome in outcomes:
        first.append(len(rows) if isinstance(outcome, Record) else None)
        if isinstance(outcome, Record):
            rows += route(outcome, partitions)
    if dry_run:
        return [1] * len(letters), Position({})
    verdicts, position = await intake.verdicts(rows) if rows else (bytearray(), Position({}))
    marks = []
    for letter, outcome in zip(letters, outcomes, strict=True):
        if isinstance(outcome, Record):
            marks.append(mark(letter.source, letter.id, letter.received_at, now, partitions, None))
        elif outcome.reason != letter.reason:
            refused = (outcome.reason, letter.record)
            marks.append(mark(letter.source, letter.id, letter.received_at, now, partitions, refused))
    if marks:
        seqs = dict(position.seqs)
        for partition, seq in (await intake.append(marks)).seqs.items():
            seqs[partition] = max(seq, seqs.get(partition, 0))
        position = Position(seqs)
    return [1 if at is None else verdicts[at] for at in first], position


def _result(letter: Letter, outcome: Record | Refusal, verdict: int) -> dict[str, str]:
    said = {"id": letter.id, "source": str(letter.source)}
    if isinstance(outcome, Refusal):
        return {**said, "status": "rejected", "reason": outcome.reason}
    return {**said, "status": STATUSES[verdict], "record_id": outcome.id}


async def _params(request: Request) -> dict[str, str]:
    """The parameters of the query and of the body, a JSON object; as texts, lists with commas between."""
    found = dict(request.query_params)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise BadRequest(413, "too_large", "the body is over 1 MB: name fewer ids, or use since and until")
    if body.strip():
        try:
            said = json_text.json_object(body)
        except RefusedError as error:
            raise BadRequest(400, "invalid_json", "the body must be a JSON object of parameters") from error
        for name, value in said.items():
            if value is not None:
                found[name] = _text(name, value)
    query.known(found, PARAMETERS)
    return found


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        if all(isinstance(part, str) and "," not in part for part in value):
            return ",".join(value)
    elif isinstance(value, str | int | float):
        return str(value)
    raise BadRequest(400, "invalid_parameter", f"{name} must be a text, a number, true or false, or a list of texts")


async def _letters(histories: Histories, params: Mapping[str, str]) -> tuple[list[Letter], str | None]:
    """A page of the letters asked for, oldest first, and the cursor of the next."""
    wanted = set(params["ids"].split(",")) if "ids" in params else None
    asked = {name: text for name, text in params.items() if name not in ("ids", "dry_run")} | {"order": "asc"}
    if wanted is None:
        page, following = await page_of(histories, asked)
        return [_letter(fragment) for fragment in page.fragments], following
    most = query.limit(asked)
    asked["limit"] = str(query.MAX_LIMIT)
    found: list[Letter] = []
    looked = 0
    while True:
        page, following = await page_of(histories, asked)
        letters = [_letter(fragment) for fragment in page.fragments]
        found += [letter for letter in letters if letter.id in wanted]
        looked += len(letters)
        if len({letter.id for letter in found}) == len(wanted):
            return found, None
        if following is None or looked >= LOOKED_AT or len(found) >= most:
            return found, following
        asked["cursor"] = following


def _letter(fragment: bytes) -> Letter:
    item = _ITEM.decode(b"{" + fragment)
    at = times.milliseconds(item.received_at)
    return Letter(item.id, item.source, at, item.reason, bytes(item.record))
