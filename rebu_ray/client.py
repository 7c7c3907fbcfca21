"""The Python client: results iterate over plain dicts and turn into pandas or Arrow."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import httpx

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

RETRIES: Final = 6
"""How often a request is sent again after 429, 503 or a broken connection, with growing pauses."""
PAGE: Final = 1000


class RebuError(Exception):
    """The platform refused a request; `code` is its reason to branch on."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Rows:
    """The items of a list route, fetched page by page while they are iterated over; at once where it has no pages."""

    def __init__(self, client: Rebu, path: str, params: Mapping[str, Any], *, paged: bool = True) -> None:
        self._client = client
        self._path = path
        self._params = texts(params)
        self._paged = paged

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self._paged:
            yield from self._client.get(self._path, self._params)["items"]
            return
        wanted = int(self._params["limit"]) if "limit" in self._params else None
        params = dict(self._params)
        while True:
            params["limit"] = str(PAGE if wanted is None else min(PAGE, wanted))
            page = self._client.get(self._path, params)
            yield from page["items"]
            if wanted is not None:
                wanted -= len(page["items"])
            if page["next"] is None or wanted == 0:
                return
            params["cursor"] = page["next"]

    def to_arrow(self) -> pa.Table:
        """All items as an Arrow table."""
        import pyarrow as pa

        return pa.Table.from_pylist(list(self))

    def to_pandas(self) -> pd.DataFrame:
        """All items as a data frame."""
        import pandas as pd

        return pd.DataFrame(list(self))


class Answer:
    """The rows of a statement, asked for when they are looked at."""

    def __init__(self, client: Rebu, statement: str) -> None:
        self._client = client
        self._statement = statement

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from self._client.ask_sql(self._statement, "json").json()["items"]

    def to_arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        import pyarrow as pa

        return pa.ipc.open_stream(self._client.ask_sql(self._statement, "arrow").content).read_all()

    def to_pandas(self) -> pd.DataFrame:
        """All rows as a data frame."""
        return self.to_arrow().to_pandas()


class Rebu:
    """A platform at `url`, asked with `key`.

    >>> rebu = Rebu("http://127.0.0.1:8000", "READ-KEY")
    >>> for event in rebu.history("rider-17", since="2026-03-01T00:00:00Z"):
    ...     print(event["timestamp"], event["name"])
    >>> gone_wrong = rebu.rides(premature=True, since="2026-03-01T00:00:00Z").to_pandas()
    """

    def __init__(self, url: str, key: str, timeout: float = 60.0) -> None:
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
        city: str | None = None,
        status: str | None = None,
        premature: bool | None = None,
        cause: str | None = None,
        min_errors: int | None = None,
        has_messages: bool | None = None,
        user_id: str | None = None,
        driver_id: str | None = None,
        as_of: str | datetime | None = None,
        limit: int | None = None,
    ) -> Rows:
        """The ride documents that the filters leave, or the first `limit` of them; with `as_of`, as they were then."""
        filters = {name: value for name, value in locals().items() if name != "self"}
        return Rows(self, "/v1/rides", filters)

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
        """Write the answer of a GET to a file as it comes; how many bytes. Raises as `get`, also halfway."""
        answer = self._answer(self._http.build_request("GET", path, params=texts(params)), stream=True)
        with contextlib.closing(answer):
            return sum(file.write(part) for part in answer.iter_bytes())

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


def quoted(name: str) -> str:
    """An id as one part of a path."""
    from urllib.parse import quote

    return quote(name, safe="")


def texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as a query has them: none that is None, truth in small letters, times as RFC 3339."""
    return {name: _text(value) for name, value in params.items() if value is not None}


def _error(answer: httpx.Response) -> RebuError:
    try:
        body = answer.json()
        return RebuError(answer.status_code, body["code"], body["message"])
    except (ValueError, KeyError, TypeError):
        return RebuError(answer.status_code, "unexpected_answer", f"HTTP {answer.status_code}: {answer.text[:200]}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)
