"""The Python client: results iterate over plain dicts and turn into pandas or Arrow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

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
    """The items of a list route, fetched page by page while they are iterated over."""

    def __init__(self, client: Rebu, path: str, params: Mapping[str, Any]) -> None:
        self._client = client
        self._path = path
        self._params = {name: _text(value) for name, value in params.items() if value is not None}

    def __iter__(self) -> Iterator[dict[str, Any]]:
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


class Rebu:
    """A platform at `url`, asked with `key`.

    >>> rebu = Rebu("http://127.0.0.1:8000", "READ-KEY")
    >>> for event in rebu.history("rider-17", since="2026-03-01T00:00:00Z"):
    ...     print(event["timestamp"], event["name"])
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

    def deadletters(
        self, *, source: str | None = None, since: str | datetime | None = None, until: str | datetime | None = None
    ) -> Rows:
        """Refused records with their reasons; needs the admin key."""
        return Rows(self, "/v1/deadletters", {"source": source, "since": since, "until": until})

    def status(self) -> dict[str, Any]:
        """The state of the platform."""
        state: dict[str, Any] = self.get("/v1/status")
        return state

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON of a GET. Raises RebuError, or httpx.TransportError where nothing answers."""
        return self.send("GET", path, params=params).json()

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
        pause = 0.2
        for attempt in range(RETRIES + 1):
            last = attempt == RETRIES
            try:
                answer = self._http.request(method, path, params=params, content=content, headers=headers)
            except httpx.TransportError:
                if last:
                    raise
            else:
                if answer.status_code < 400:
                    return answer
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


def quoted(user_id: str) -> str:
    """A user id as one part of a path."""
    from urllib.parse import quote

    return quote(user_id, safe="")


def _error(answer: httpx.Response) -> RebuError:
    try:
        body = answer.json()
        return RebuError(answer.status_code, body["code"], body["message"])
    except (ValueError, KeyError, TypeError):
        return RebuError(answer.status_code, "unexpected_answer", f"HTTP {answer.status_code}: {answer.text[:200]}")


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
