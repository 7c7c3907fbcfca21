"""What questions to a platform come back as: rows that are fetched while they are iterated over, and tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PAGE: Final = 1000
BROKEN: Final = 6
"""How often in a row a stream may break off before anything more has come."""
Sized = TypeVar("Sized")
_Place = tuple[datetime | None, str]
"""Where a ride is in the order of a list: when it was requested, and its id."""


class BrokenOff(httpx.TransportError):
    """The connection broke while the body of an answer was read."""


class Asking(Protocol):
    """A client, as results use it."""

    progress: bool

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON of a GET."""

    def streamed(self, path: str, params: Mapping[str, Any]) -> AbstractContextManager[Iterator[bytes]]:
        """The answer of a GET as it comes. Raises BrokenOff halfway."""

    def ask_sql(self, statement: str, form: str) -> httpx.Response:
        """The answer to a statement in a format."""


class Rows:
    """The items of a list route, fetched page by page while they are iterated over; at once where it has no pages."""

    def __init__(self, client: Asking, path: str, params: Mapping[str, Any], *, paged: bool = True) -> None:
        self._client = client
        self._path = path
        self._params = texts(params)
        self._paged = paged

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self._paged:
            yield from self._client.get(self._path, self._params)["items"]
            return
        wanted = self._limit
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

        return pa.Table.from_pylist(self._all())

    def to_pandas(self) -> pd.DataFrame:
        """All items as a data frame."""
        import pandas as pd

        return pd.DataFrame(self._all())

    def _all(self) -> list[dict[str, Any]]:
        return list(self._shown(self, lambda _: 1))

    @property
    def _limit(self) -> int | None:
        return int(self._params["limit"]) if "limit" in self._params else None

    def _shown(self, parts: Iterable[Sized], rows: Callable[[Sized], int]) -> Iterator[Sized]:
        """The same parts, with a bar that counts their rows where the client was asked for one."""
        if not self._client.progress:
            yield from parts
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(self._path.rpartition("/")[2], total=self._limit)
            for part in parts:
                bar.advance(task, rows(part))
                yield part
            bar.update(task, total=bar.tasks[0].completed)


class Answer:
    """The rows of a statement, asked for when they are looked at."""

    def __init__(self, client: Asking, statement: str) -> None:
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
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame


class Rides(Rows):
    """Ride documents: nested ones while they are iterated over, flat ones with typed columns as a table."""

    def to_arrow(self) -> pa.Table:
        """All rides as an Arrow table, a column each for what a document has nested (`user_id`, `errors_app`, …)."""
        import pyarrow as pa

        return pa.concat_tables(self._shown(self.tables(), lambda table: table.num_rows))

    def to_pandas(self) -> pd.DataFrame:
        """All rides as a data frame, with the columns of `to_arrow`; truth values that may be missing are `boolean`."""
        table = self.to_arrow()
        frame: pd.DataFrame = table.to_pandas()
        for name in table.column_names:
            if table.schema.field(name).type == "bool" and table[name].null_count:
                frame[name] = frame[name].astype("boolean")
        return frame

    def tables(self) -> Iterator[pa.Table]:
        """All rides as Arrow tables of some thousand rows, newest first: never more than one of them is held.

        The first may have no rows; it has the columns. Where an answer breaks off another one goes on after the last
        ride that came. Raises RebuError, or httpx.TransportError where nothing answers any more.
        """
        params = {**self._params, "format": "arrow"}
        left = self._limit
        if left is not None and left > PAGE:  # more than a page has; the stream is cut where it is enough
            del params["limit"]
        last: _Place | None = None
        broken = 0
        while True:
            try:
                for table in self._stream(params, last):
                    part = table if left is None else table.slice(0, left)
                    left = None if left is None else left - part.num_rows
                    last, broken = _last(part) or last, 0
                    yield part
                    if left == 0:
                        return
                return
            except BrokenOff:
                broken += 1
                # A ride without a time has no place in the order.
                if broken == BROKEN or (last is not None and last[0] is None):
                    raise
                if last is not None and last[0] is not None:
                    params["until"] = (last[0] + timedelta(milliseconds=1)).isoformat()
                    if "limit" in params:
                        params["limit"] = str(PAGE)

    def _stream(self, params: Mapping[str, str], last: _Place | None) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.compute as pc

        with self._client.streamed(self._path, params) as parts:
            reader = pa.ipc.open_stream(io.BufferedReader(_File(parts), 2**20))
            yield reader.schema.empty_table()
            for batch in reader:
                table = pa.Table.from_batches([batch])
                if last is not None:
                    at, name = pa.scalar(last[0], table["requested_at"].type), last[1]
                    same = pc.and_(pc.equal(table["requested_at"], at), pc.less(table["ride_id"], name))
                    table = table.filter(pc.or_(pc.less(table["requested_at"], at), same))
                yield table


def _last(table: pa.Table) -> _Place | None:
    return (table["requested_at"][-1].as_py(), table["ride_id"][-1].as_py()) if table.num_rows else None


class _File(io.RawIOBase):
    """Bytes that come piece by piece, as a file to read."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._part = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._part:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._part = memoryview(part)
        size = min(len(buffer), len(self._part))
        buffer[:size] = self._part[:size]
        self._part = self._part[size:]
        return size


def texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as a query has them: none that is None, truth in small letters, times as RFC 3339.

    Several values are one text with commas.
    """
    return {name: _text(value) for name, value in params.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(map(_text, value))
    return value.isoformat() if isinstance(value, datetime) else str(value)
