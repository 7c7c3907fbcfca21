"""The Python client: results iterate over plain dicts and turn into pandas or Arrow."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any, BinaryIO, Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from rebu_ray.results import PAGE, Answer, BrokenOff, Rides, Rows, texts

__all__ = ["Answer", "BrokenOff", "Rebu", "RebuError", "Rides", "Rows", "quoted", "texts"]

RETRIES: Final = 6
"""How often a request is sent again after 429, 503 or a broken connection, with growing pauses."""


class RebuError(Exception):
    """The platform refused a request; `code` is its reason to branch on."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Rebu:
    """A platform at `url`, asked with `key`; with `progress`, tables show how far they have come.

    What may help is tried again: an answer of 429 or 503, a connection that broke.

    >>> rebu = Rebu("http://127.0.0.1:8000", "READ-KEY")
    >>> for event in rebu.history("rider-17", since="2026-03-01T00:00:00Z"):
    ...     print(event["timestamp"], event["name"])
    >>> gone_wrong = rebu.rides(premature=True, since="2026-03-01T00:00:00Z").to_pandas()
    """

    def __init__(self, url: str, key: str, timeout: float = 60.0, *, progress: bool = False) -> None:
        self.progress = progress
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout)

    def history(
        self,
        user_id: str,
        *,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        kind: str | None = None,
        name: str | None = None,
        source: str | None = None,
        order: str = "desc",
        limit: int | None = None,
        min_position: str | None = None,
    ) -> Rows:
        """A user's whole history, or its first `limit` records. Iterating raises RebuError 404 for an unknown user."""
        params = {
            "since": since,
            "until": until,
            "kind": kind,
            "name": name,
            "source": source,
            "order": order,
            "limit": limit,
            "min_position": min_position,
        }
        return Rows(self, f"/v1/users/{quoted(user_id)}/events", params)

    def user(self, user_id: str) -> dict[str, Any]:
        """A user's profile and linked anonymous ids. Raises RebuError 404 for an unknown user."""
        profile: dict[str, Any] = self.get(f"/v1/users/{quoted(user_id)}")
        return profile

    def rides(
        self,
        *,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        city: str | Sequence[str] | None = None,
        status: str | Sequence[str] | None = None,
        premature: bool | None = None,
        cause: str | Sequence[str] | None = None,
        min_errors: int | None = None,
        has_messages: bool | None = None,
        user_id: str | None = None,
        driver_id: str | None = None,
        as_of: str | datetime | None = None,
        limit: int | None = None,
    ) -> Rides:
        """The ride documents that the filters leave, newest first, or the first `limit` of them.

        `as_of`: as they were known then, and only those that were; nothing that was learned later shows, in no
        column and in no filter.
        """
        filters = {name: value for name, value in locals().items() if name != "self"}
        return Rides(self, "/v1/rides", filters)

    def ride(self, ride_id: str) -> dict[str, Any]:
        """The document of a ride. Raises RebuError 404 for an unknown ride."""
        document: dict[str, Any] = self.get(f"/v1/rides/{quoted(ride_id)}")
        return document

    def messages(self, ride_id: str, min_confidence: float | None = None) -> Rows:
        """The customer-service messages about a ride, each with its link: how sure that is, and why.

        Iterating raises RebuError 404 for an unknown ride.
        """
        return Rows(self, f"/v1/rides/{quoted(ride_id)}/messages", {"min_confidence": min_confidence}, paged=False)

    def message(self, message_id: str) -> dict[str, Any]:
        """A message with its link and the other rides it may be about. Raises RebuError 404 for an unknown one."""
        found: dict[str, Any] = self.get(f"/v1/messages/{quoted(message_id)}")
        return found

    def sql(self, statement: str) -> Answer:
        """The rows of one statement that reads, over the warehouse. Looking at them raises RebuError for a bad one."""
        return Answer(self, statement)

    def ask_sql(self, statement: str, form: str) -> httpx.Response:
        """The answer to a statement in a format: json, csv, parquet or arrow. Raises RebuError."""
        body = json.dumps({"sql": statement, "format": form}).encode()
        return self.send("POST", "/v1/sql", content=body, headers={"Content-Type": "application/json"})

    def export(self, user_id: str, file: BinaryIO) -> int:
        """Write everything about a person to a file, a JSON object a line; how many bytes. Asks with the admin key.

        Raises RebuError 404 for an unknown user.
        """
        return self.save(f"/v1/users/{quoted(user_id)}/export", {}, file)

    def erase(self, user_id: str) -> dict[str, Any]:
        """Erase a person, for good; what will be gone. Asks with the admin key. `erasure` says how far it is."""
        answer: dict[str, Any] = self.send("DELETE", f"/v1/users/{quoted(user_id)}").json()
        return answer

    def erasure(self, user_id: str) -> dict[str, Any]:
        """How far the erasure of a person is. Raises RebuError 404 where nobody asked for it."""
        state: dict[str, Any] = self.get(f"/v1/users/{quoted(user_id)}/erasure")
        return state

    def deadletters(
        self, *, source: str | None = None, since: str | datetime | None = None, until: str | datetime | None = None
    ) -> Rows:
        """Refused records with their reasons; needs the admin key."""
        return Rows(self, "/v1/deadletters", {"source": source, "since": since, "until": until})

    def replay(
        self,
        *,
        source: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        ids: Sequence[str] | None = None,
        dry_run: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Try refused records again: the answers, page by page, each `replayed`, `duplicate`, `rejected`, `results`."""
        asked = {**texts({"source": source, "since": since, "until": until}), "dry_run": dry_run, "limit": PAGE}
        if ids is not None:
            asked["ids"] = list(ids)
        while True:
            content = json.dumps(asked).encode()
            kind = {"Content-Type": "application/json"}
            page = self.send("POST", "/v1/deadletters/replay", content=content, headers=kind).json()
            yield page
            if page["next"] is None:
                return
            asked["cursor"] = page["next"]

    def audit(
        self, *, source: str | None = None, since: str | datetime | None = None, until: str | datetime | None = None
    ) -> dict[str, Any]:
        """Whether everything that came in is accounted for: `balanced`, `items` by source and bucket, `problems`."""
        found: dict[str, Any] = self.get("/v1/audit", texts({"source": source, "since": since, "until": until}))
        return found

    def status(self) -> dict[str, Any]:
        """The state of the platform."""
        state: dict[str, Any] = self.get("/v1/status")
        return state

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON of a GET. Raises RebuError, or httpx.TransportError where nothing answers."""
        return self.send("GET", path, params=params).json()

    def save(self, path: str, params: Mapping[str, Any], file: BinaryIO) -> int:
        """Write the answer of a GET to a file as it comes; how many bytes. Raises as `get`, also halfway.

        Where it breaks off halfway, a file that can be cut is begun anew.
        """
        begin = file.tell() if file.seekable() else None
        for _ in range(RETRIES):
            try:
                return self._saved(path, params, file)
            except BrokenOff:
                if begin is None:
                    raise
                file.seek(begin)
                file.truncate()
        return self._saved(path, params, file)

    def _saved(self, path: str, params: Mapping[str, Any], file: BinaryIO) -> int:
        with ExitStack() as stack:
            parts = stack.enter_context(self.streamed(path, params))
            if not self.progress:
                return sum(file.write(part) for part in parts)
            columns = (TextColumn(path), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
            bar = stack.enter_context(Progress(*columns, console=Console(stderr=True)))
            task = bar.add_task(path, total=None)
            size = 0
            for part in parts:
                size += file.write(part)
                bar.update(task, completed=size)
            bar.update(task, total=size)
            return size

    @contextlib.contextmanager
    def streamed(self, path: str, params: Mapping[str, Any]) -> Iterator[Iterator[bytes]]:
        """The answer of a GET as it comes. Raises as `get`, and BrokenOff halfway."""
        answer = self._answer(self._http.build_request("GET", path, params=texts(params)), stream=True)
        with contextlib.closing(answer):
            yield _parts(answer)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request, again where that is safe and may help: every route here is idempotent."""
        return self._answer(self._http.build_request(method, path, params=params, content=content, headers=headers))

    def _answer(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        pause = 0.2
        for attempt in range(RETRIES + 1):
            last = attempt == RETRIES
            try:
                answer = self._http.send(request, stream=stream)
                if answer.status_code < 400:
                    return answer
                answer.read()
            except httpx.TransportError:
                if last:
                    raise
            else:
                if last or answer.status_code not in (429, 503):
                    raise _error(answer)
                pause = max(pause, float(answer.headers.get("retry-after", 0)))
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Rebu:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parts(answer: httpx.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_bytes()
    except httpx.TransportError as error:
        raise BrokenOff(str(error)) from error


def quoted(name: str) -> str:
    """An id as one part of a path."""
    from urllib.parse import quote

    return quote(name, safe="")


def _error(answer: httpx.Response) -> RebuError:
    try:
        body = answer.json()
        return RebuError(answer.status_code, body["code"], body["message"])
    except (ValueError, KeyError, TypeError):
        return RebuError(answer.status_code, "unexpected_answer", f"HTTP {answer.status_code}: {answer.text[:200]}")
