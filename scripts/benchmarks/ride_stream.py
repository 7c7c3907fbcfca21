"""How much memory and time does it take to hand out every ride as a table, against the peer?

A lake of partitions holds the documents of rides, a tenth of them in two versions. The route /v1/rides, with the reader
of the lake in the same process, streams them as Parquet, CSV and Arrow to a client that keeps nothing; then the Python
client takes them table by table. The peer is DuckDB, which writes the newest versions of the same files, flattened and
in the same order, as one Parquet file. Memory is what a process has had at most, less what it had before.

The same is done with a tenth of the rides: memory that is bounded is about the same for both. Exit status 1 where it
is not, or where anything but every ride came out.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final

import duckdb
import httpx
import numpy as np
import pyarrow as pa
from memory import peak_bytes
from report import Report, arguments, progress

from rebu_ray import Rebu
from rebu_ray.ingest.dialects.times import text
from rebu_ray.records import Kind, Source
from rebu_ray.store.lake import Lake
from rebu_ray.store.ride_table import to_rides
from rebu_ray.store.rows import ROWS

_PARTITIONS: Final = 16
_FILES: Final = 4
"""Files a partition; their rides lie in between each other's."""
_START_MS: Final = 1_767_225_600_000
_READ_KEY: Final = "read"
_AS_OF: Final = str(_START_MS * 2)
"""Later than everything: what the lake has is then all there is, and no index is asked."""
_MIB: Final = 2**20
_SLACK_BYTES: Final = 96 * _MIB
"""Allocators keep what they were given: so much more is no growth."""
_DOCUMENT: Final = (
    '{{"ride_id":"{name}","status":"completed","city":"Riga","user":{{"user_id":"{user}","name":"Rider {user}"}},'
    '"driver":{{"driver_id":"d-{driver}","name":"Driver {driver}"}},"requested_at":"{at}","accepted_at":"{at}",'
    '"picked_up_at":"{at}","ended_at":"{at}","fare_cents":{fare},"currency":"EUR","distance_m":{fare},"rating":4,'
    '"pickup":{{"lat":56.95,"lon":24.1}},"destination":{{"lat":56.96,"lon":24.2}},"dropoff":{{"lat":56.96,"lon":24.2}},'
    '"wait_s":240,"duration_s":900,"requested_distance_m":6170.2,"destination_gap_m":3.1,"destination_matched":true,'
    '"progress":0.9995,"errors":{{"app":1,"server":0,"items":[{{"id":"e-{name}","kind":"app_error","name":"GpsLost",'
    '"timestamp":"{at}"}}]}},"premature":false,"cause":null,"quality":1,"flags":[],'
    '"messages":{{"linked":0,"ambiguous":0}},"version":{version},"known_at":"{at}","computed_at":"{at}"}}'
)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rides", type=int, default=1_000_000, help="and a tenth of it (1000000)")


def make_lake(uri: str, rides: int) -> None:
    """`rides` documents, every tenth in two versions."""
    lake = Lake(uri)
    for partition in range(_PARTITIONS):
        manifest, files, seq = lake.manifest(partition), [], 0
        own = np.arange(partition, rides, _PARTITIONS)
        for number in range(_FILES):
            part = [(i, 1) for i in own[number::_FILES].tolist()]
            if number == _FILES - 1:
                part += [(i, 2) for i in own[::10].tolist() if i not in set(own[number::_FILES].tolist())]
            rows = _rows(partition, part, seq)
            table = to_rides(rows, lambda found: pa.array(np.zeros(found.num_rows, bool)))
            files.append(lake.write_rides(partition, table, manifest.version + 1))
            seq += len(part)
        lake.commit(partition, manifest, (), seq, files)


def _rows(partition: int, part: Sequence[tuple[int, int]], seq: int) -> pa.Table:
    times = [_START_MS + i * 1_000 for i, _ in part]
    names = [f"ride-{i:08}" for i, _ in part]
    users = [f"u-{i % 50_000}" for i, _ in part]
    bodies = [
        _DOCUMENT.format(
            name=name, user=user, driver=i % 2_000, at=text(at), fare=500 + i % 3_000, version=version
        ).encode()
        for (i, version), name, user, at in zip(part, names, users, times, strict=True)
    ]
    count = len(part)
    columns: dict[str, Any] = {
        "seq": range(seq + 1, seq + 1 + count),
        "partition": [partition] * count,
        "fingerprint": range(count),
        "key": [f"u:{user}" for user in users],
        "id": [f"{name}@{version}" for name, (_, version) in zip(names, part, strict=True)],
        "kind": [str(Kind.RIDE_DOCUMENT)] * count,
        "name": names,
        "source": [str(Source.COMPUTED)] * count,
        "event_time": times,
        "received_at": times,
        "user_id": users,
        **dict.fromkeys(("anonymous_id", "request_id", "matched_by", "links"), [None] * count),
        "body": bodies,
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in ROWS], schema=ROWS)


def serve(uri: str, listener: socket.socket) -> None:
    """The route and the reader of the lake, on a socket that listens already."""
    import uvicorn
    from starlette.applications import Starlette

    from rebu_ray.access.cold import LakeReader
    from rebu_ray.access.rides_table import routes
    from rebu_ray.keys import Keys

    class Nothing:
        """There is no index: what the lake has is all."""

        partitions = _PARTITIONS

    async def flush(method: str) -> None:
        assert method == "flush"

    reader, nothing = LakeReader(uri), Nothing()
    pages: Any = reader.rides
    histories: Any = nothing
    app = Starlette(routes=routes(Keys("write", _READ_KEY, "admin"), lambda: histories, lambda: pages, flush))
    asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener]))


class Served:
    """The route in a process of its own."""

    def __init__(self, uri: str) -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._process: SpawnProcess = get_context("spawn").Process(target=serve, args=(uri, listener), daemon=True)
        self._process.start()
        listener.close()
        with httpx.Client(base_url=self.url, timeout=120) as client:
            client.get("/v1/rides", params={"limit": 1, "as_of": _AS_OF}, headers=_bearer()).raise_for_status()
        self._before = peak_bytes(self._process.pid)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    @property
    def grown(self) -> int:
        """How much more memory it has had at most than when it began to serve."""
        return peak_bytes(self._process.pid) - self._before


def _bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {_READ_KEY}"}


def streamed(url: str, form: str) -> tuple[int, int]:
    """Bytes of a format, and how much more memory the client had at most: it keeps nothing."""
    before, size = peak_bytes(), 0
    params = {"format": form, "as_of": _AS_OF}
    with httpx.stream("GET", f"{url}/v1/rides", params=params, headers=_bearer(), timeout=600) as answer:
        answer.raise_for_status()
        for part in answer.iter_bytes():
            size += len(part)
    return size, peak_bytes() - before


def taken(url: str) -> tuple[int, int]:
    """Rides that the Python client took table by table, and how much more memory it had at most."""
    with Rebu(url, _READ_KEY) as rebu:
        rebu.rides(limit=1, as_of=_AS_OF).to_arrow()  # libraries are loaded
        before = peak_bytes()
        found, seen = 0, ""
        for table in rebu.rides(as_of=_AS_OF).tables():
            for name in (table["ride_id"][0].as_py(), table["ride_id"][-1].as_py()) if table.num_rows else ():
                if seen and name >= seen and table.num_rows > 1:
                    raise SystemExit(f"{name} came after {seen}")
                seen = name
            found += table.num_rows
    return found, peak_bytes() - before


def copied(uri: str, target: str) -> int:
    """The peer: newest versions, flattened and sorted, into a file; how much more memory it had at most."""
    with duckdb.connect() as connection:
        connection.execute("SELECT 1")
        before = peak_bytes()
        connection.execute(
            f"""COPY (
                SELECT unnest(json_transform(decode(body), '{{"ride_id":"VARCHAR","status":"VARCHAR","city":"VARCHAR",
                    "user":{{"user_id":"VARCHAR","name":"VARCHAR"}},"driver":{{"driver_id":"VARCHAR","name":"VARCHAR"}},
                    "requested_at":"TIMESTAMP","accepted_at":"TIMESTAMP","picked_up_at":"TIMESTAMP",
                    "ended_at":"TIMESTAMP","fare_cents":"BIGINT","currency":"VARCHAR","distance_m":"BIGINT",
                    "rating":"DOUBLE","pickup":{{"lat":"DOUBLE","lon":"DOUBLE"}},
                    "destination":{{"lat":"DOUBLE","lon":"DOUBLE"}},"dropoff":{{"lat":"DOUBLE","lon":"DOUBLE"}},
                    "wait_s":"DOUBLE","duration_s":"DOUBLE","requested_distance_m":"DOUBLE",
                    "destination_gap_m":"DOUBLE","destination_matched":"BOOLEAN","progress":"DOUBLE",
                    "errors":{{"app":"BIGINT","server":"BIGINT","items":"JSON"}},"premature":"BOOLEAN",
                    "cause":"VARCHAR","quality":"DOUBLE","flags":["VARCHAR"],"version":"BIGINT",
                    "messages":{{"linked":"BIGINT","ambiguous":"BIGINT"}}}}'))
                FROM read_parquet('{uri}/*/rides-*.parquet')
                QUALIFY row_number() OVER (PARTITION BY name ORDER BY seq DESC) = 1
                ORDER BY event_time DESC, name DESC
            ) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"""
        )
        return peak_bytes() - before


def apart(work: Callable[..., Any], *values: Any) -> tuple[Any, float]:
    """What a call in a fresh process answers, and its seconds without the process's start."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(peak_bytes).result()
        started = time.perf_counter()
        return pool.submit(work, *values).result(), time.perf_counter() - started


def measured(folder: Path, rides: int, report: Report) -> dict[str, int]:
    """Rows for so many rides; by what was done, how much memory it took."""
    uri = str(folder / f"lake-{rides}")
    started = time.perf_counter()
    make_lake(uri, rides)
    progress(f"lake of {rides:,} rides made in {time.perf_counter() - started:.0f} s")
    peer_bytes, peer_s = apart(copied, uri, str(folder / f"peer-{rides}.parquet"))
    progress(f"peer: {peer_s:.1f} s, {peer_bytes / _MIB:,.0f} MiB")
    grown: dict[str, int] = {}
    for form in ("parquet", "csv", "arrow", "client"):
        with ExitStack() as stack:
            served = stack.enter_context(Served(uri))
            if form == "client":
                (found, own), seconds = apart(taken, served.url)
                if found != rides:
                    raise SystemExit(f"the client took {found:,} of {rides:,} rides")
                grown["client"] = own
            else:
                (size, _), seconds = apart(streamed, served.url, form)
                progress(f"{form}: {size / _MIB:,.0f} MiB")
            what = "arrow, to the client's tables" if form == "client" else form
            grown[f"platform, {what}"] = served.grown
        report.add(f"{rides:,} rides as {what}", "s", [seconds], [peer_s])
        report.add(f"{rides:,} rides as {what}", "MiB", [grown[f"platform, {what}"] / _MIB], [peer_bytes / _MIB])
    report.add(f"{rides:,} rides in the client", "MiB", [grown["client"] / _MIB], [peer_bytes / _MIB])
    return grown


def main() -> int:
    given = arguments(__doc__, options, rounds=0)
    report = Report("Every ride as a table", "Rebu (streamed)", "DuckDB (COPY)")
    with tempfile.TemporaryDirectory(prefix="rebu-stream-") as folder:
        few = measured(Path(folder), given.rides // 10, report)
        many = measured(Path(folder), given.rides, report)
    report.finish(given.json)
    bounded = True
    for what, size in many.items():
        bounded &= size <= few[what] + _SLACK_BYTES
        print(f"memory of the {what}: {few[what] / _MIB:,.0f} MiB for a tenth, {size / _MIB:,.0f} MiB for all")
    print(f"bounded: {bounded}")
    return 0 if bounded else 1


if __name__ == "__main__":
    sys.exit(main())
