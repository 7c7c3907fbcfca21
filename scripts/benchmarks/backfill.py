"""How long does it take to compute every ride's document from the lake, against the peer?

Both read the same Parquet files, a lake of partitions whose records carry their rows as JSON text, and write the
documents as Parquet: every ride's row that counts, its statistics, the errors within it, the destination in force, and
the JSON text. Rebu computes a partition at a time, as many at once as there are cores, and also judges each ride's
quality, which the peer does not. The peer is one DuckDB process with as many threads over all partitions. What the
texts of messages are about is computed by neither. Afterwards both must have found the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from memory import peak_bytes
from report import Report, arguments, progress

from rebu_ray.process.documents import documents
from rebu_ray.process.ride_stats import statistics
from rebu_ray.process.tables import from_rows
from rebu_ray.records import Kind

_KINDS: Final = [Kind.USER, Kind.DRIVER, Kind.RIDE, Kind.RIDE_DESTINATION, Kind.MESSAGE]
_ERRORS: Final = [Kind.APP_ERROR, Kind.SERVER_ERROR, Kind.SERVER_ACCESS]
_COLUMNS: Final = ["kind", "name", "id", "user_id", "body", "event_time", "received_at"]
_RIDES_A_USER: Final = 5
_DRIVERS: Final = 2_000
_START_MS: Final = 1_767_225_600_000
_MIB: Final = 2**20


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rides", type=int, default=500_000, help="rides, about three versions each (500000)")
    parser.add_argument("--events", type=int, default=5_000_000, help="events, 7 %% of them errors (5000000)")
    parser.add_argument("--messages", type=int, default=50_000, help="messages, whose texts nobody reads (50000)")
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to make the lake; it must not exist, and is kept")


_MACROS: Final = """
create macro chance(number, salt) as (hash(number, salt, $seed) % 1000003) / 1000003.0;
create macro written(ms) as strftime(make_timestamp(ms::bigint * 1000), '%Y-%m-%dT%H:%M:%S.%gZ');
create macro pseudonym(prefix, number) as prefix || format('{:010x}', number * 7919 + 1000003);
"""

_WORLD: Final = """
create or replace temp table ride as
with drawn as (
    select i, 'rd_' || pseudonym('', i) as ride_id, pseudonym('u-', i % $users) as user_id,
        pseudonym('d-', hash(i, 'driver') % $drivers) as driver_id,
        ($start + chance(i, 'day') * 30 * 86400000)::bigint as requested,
        (requested + 10000 + chance(i, 'accept') * 60000)::bigint as accepted,
        (accepted + 120000 + chance(i, 'wait') * 300000)::bigint as picked_up,
        (picked_up + 300000 + chance(i, 'drive') * 1500000)::bigint as ended,
        56.9 + chance(i, 'a') / 10 as lat, 24.0 + chance(i, 'b') / 5 as lon,
        56.9 + chance(i, 'c') / 10 as to_lat, 24.0 + chance(i, 'd') / 5 as to_lon,
        if(chance(i, 'stop') < 0.06, chance(i, 'share'), 1.0) as share
    from range($partition, $rides, $partitions) r(i)
)
select *, lat + (to_lat - lat) * share + chance(i, 'e') / 2000 as end_lat,
    lon + (to_lon - lon) * share + chance(i, 'f') / 2000 as end_lon,
    case when share = 1 or chance(i, 'g') < 0.4 then 'completed' when chance(i, 'g') < 0.7 then 'cancelled_by_driver'
        else 'cancelled_by_rider' end as status
from drawn;
create or replace temp table record as
with version as (
    select *, 2 - v as missing,
        case v when 0 then requested when 1 then picked_up else ended + 60000 end as updated
    from ride, range(3) version(v)
),
entry as (
    select e, ride.*, (requested + (chance(e, 'time') * 2.2 - 0.2) * (ended - requested))::bigint as moment,
        chance(e, 'kind') as drawn, pseudonym('ev-', e) as event_id, 200 + (hash(e, 'status') % 4) * 101 as answer
    from range($partition, $events, $partitions) events(e)
    join ride on ride.i = (hash(e, 'ride') % ($rides // $partitions)) * $partitions + $partition
)
select 'ride' as kind, ride_id as name, ride_id || '@' || updated || '@' || v as id, 'rides' as source,
    requested as event_time, updated + 800 as received_at, user_id,
    to_json({ride_id: ride_id, user_id: user_id, driver_id: if(v > 0, driver_id, null), city: 'Riga',
        status: case v when 0 then 'requested' when 1 then 'in_progress' else status end,
        requested_at: written(requested), accepted_at: if(v > 0, written(accepted), null),
        picked_up_at: if(v > 0, written(picked_up), null), ended_at: if(v > 1, written(ended), null),
        pickup_lat: lat, pickup_lon: lon, destination_lat: to_lat, destination_lon: to_lon,
        dropoff_lat: if(v > 1, end_lat, null), dropoff_lon: if(v > 1, end_lon, null),
        distance_m: if(v > 1, (8000 + share * 4000)::bigint, null), fare_cents: if(v > 1, (share * 1900)::bigint, null),
        currency: 'EUR', rating: if(v > 1 and chance(i, 'rated') < 0.4, 4, null), updated_at: written(updated)}) as body
from version
union all
select 'ride_destination', ride_id, ride_id || '@d', 'ride_destinations', picked_up + 100000, picked_up + 101000, null,
    to_json({ride_id: ride_id, changed_at: written(picked_up + 100000), destination_lat: end_lat,
        destination_lon: end_lon})
from ride where chance(i, 'changed') < 0.07
union all
select 'user', user_id, user_id || '@1', 'users', $start, $start, user_id,
    to_json({user_id: user_id, name: 'Rider ' || user_id, email: user_id || '@example.org',
        phone: '+371' || (20000000 + i), created_at: written($start), updated_at: written($start)})
from ride where i < $users
union all
select 'message', pseudonym('m-', m), pseudonym('m-', m) || '@1', 'messages', ended + 3600000, ended + 3601000, user_id,
    to_json({message_id: pseudonym('m-', m), user_id: user_id, channel: 'chat', direction: 'inbound',
        sent_at: written(ended + 3600000), subject: null, body: repeat('the car never came to the place ', 8),
        ride_id: null, thread_id: null, updated_at: written(ended + 3600000)})
from range($partition, $messages, $partitions) messages(m)
join ride on ride.i = (hash(m, 'message') % ($rides // $partitions)) * $partitions + $partition
union all
select case when drawn < 0.70 then 'app_event' when drawn < 0.73 then 'app_error' when drawn < 0.75 then 'server_error'
        else 'server_access' end as kind,
    case when drawn < 0.70 then 'Ride Viewed' when drawn < 0.73 then 'PaymentDeclined' when drawn < 0.75 then 'error'
        else 'POST /v1/rides' end,
    event_id, 'app-events', moment, moment + 1500, user_id,
    case when drawn < 0.73 then to_json({type: if(drawn < 0.70, 'track', 'error'), messageId: event_id, userId: user_id,
            anonymousId: 'an-' || user_id, event: 'Ride Viewed', timestamp: written(moment),
            sentAt: written(moment + 900),
            properties: {ride_id: ride_id, city: 'Riga', screen: 'map', fare_cents: e % 4000},
            context: {app: {name: 'Rebu', version: '7.3.1'}, os: {name: 'Android', version: '16'},
                device: {manufacturer: 'Google', model: 'Pixel 9'}, locale: 'lv-LV'}})
        when drawn < 0.75 then to_json({level: 'error', message: 'upstream timed out', request_id: event_id,
            line: 'upstream timed out (110: Connection timed out) while reading response header from upstream'})
        else to_json({method: 'POST', path: '/v1/rides/' || ride_id, query: null, protocol: 'HTTP/1.1',
            status: if(answer = 503 and drawn < 0.85, 503, 200), bytes: e % 5000, referer: null,
            user_agent: 'okhttp/5.1.0', remote_addr: '10.0.3.7', remote_user: user_id, request_id: event_id}) end
from entry;
"""

_PARTITION: Final = """
copy (
    select row_number() over () as seq, $partition::usmallint as "partition", hash(id)::ubigint as fingerprint,
        coalesce('u:' || user_id, 'o:' || name) as key, id, kind, name, source, event_time, received_at, user_id,
        null::varchar as anonymous_id, null::varchar as request_id, null::varchar as matched_by,
        null::varchar as links, encode(body::varchar) as body
    from record order by key, event_time, id
) to '{file}' (format parquet, compression zstd, row_group_size 32768)
"""

_DRIVERS_FILE: Final = """
copy (
    select 'driver' as kind, pseudonym('d-', i) as name, pseudonym('d-', i) || '@1' as id, null::varchar as user_id,
        encode(to_json({{driver_id: pseudonym('d-', i), name: 'Driver ' || i, vehicle_plate: 'AB-' || (1000 + i),
            vehicle_model: 'Dacia Logan', rating: 4.8, created_at: written({start}),
            updated_at: written({start})}})::varchar) as body,
        {start}::bigint as event_time, {start}::bigint as received_at
    from range({drivers}) d(i)
) to '{file}' (format parquet)
"""


def make_lake(folder: Path, given: argparse.Namespace) -> list[Path]:
    """A file a partition, and one with all drivers beside them. Returns the partitions' files."""
    partitions = given.partitions
    users = max(given.rides // _RIDES_A_USER // partitions, 1) * partitions
    files = []
    with duckdb.connect() as connection:
        connection.execute(_MACROS.replace("$seed", str(given.seed)))
        for partition in range(partitions):
            values = {"start": _START_MS, "users": users, "drivers": _DRIVERS, "partitions": partitions}
            values |= {"rides": given.rides, "events": given.events, "messages": given.messages, "partition": partition}
            file = folder / f"partition={partition:04d}" / "1.parquet"
            file.parent.mkdir(parents=True)
            for statement in (_WORLD, _PARTITION.format(file=file)):
                for name in sorted(values, key=len, reverse=True):
                    statement = statement.replace(f"${name}", str(values[name]))
                connection.execute(statement)
            files.append(file)
        file = folder / "drivers.parquet"
        connection.execute(_DRIVERS_FILE.format(start=_START_MS, drivers=_DRIVERS, file=file))
    return files


def backfill(source: Path, drivers: Path, target: Path) -> tuple[int, int]:
    """Computes one partition. Returns the rides, and the most memory that this process ever had (bytes)."""
    pa.set_cpu_count(1)  # the processes share the cores
    wanted = pc.field("kind").isin([*_KINDS, *_ERRORS])
    rows = ds.dataset([str(source), str(drivers)]).to_table(
        columns=_COLUMNS, filter=wanted, batch_readahead=1, fragment_readahead=1
    )
    made = documents(statistics(from_rows(rows)))
    pq.write_table(made, target, compression="zstd")
    return made.num_rows, peak_bytes()


class Rebu:
    """A process for each core, each computing one partition after the other."""

    name = "Rebu (a partition at a time)"

    def __init__(self, files: Sequence[Path], drivers: Path, target: Path) -> None:
        self._files, self._drivers, self.target = files, drivers, target
        target.mkdir()
        self._pool = ProcessPoolExecutor(cpu_count(), mp_context=get_context("spawn"))
        self.idle_bytes = max(self._pool.map(_warm, range(8)))
        self.peak_bytes = 0

    def run(self) -> float:
        """Seconds for all partitions."""
        started = time.perf_counter()
        found = self._pool.map(
            backfill,
            self._files,
            [self._drivers] * len(self._files),
            [self.target / f"{f.parent.name}.parquet" for f in self._files],
        )
        self.peak_bytes = max(peak for _, peak in found)
        return time.perf_counter() - started

    def stop(self) -> None:
        self._pool.shutdown()


def _warm(_: int) -> int:
    time.sleep(0.2)  # so that each process gets one
    return peak_bytes()


_PEER: Final = """
copy (
with entry as (
    select * from read_parquet({files}) where kind in ('ride', 'ride_destination', 'user')
),
version as (
    select name as ride_id, user_id, received_at, id, unnest(json_transform(decode(body), '{{"driver_id":"VARCHAR",
        "city":"VARCHAR","status":"VARCHAR","requested_at":"VARCHAR","accepted_at":"VARCHAR","picked_up_at":"VARCHAR",
        "ended_at":"VARCHAR","pickup_lat":"DOUBLE","pickup_lon":"DOUBLE","destination_lat":"DOUBLE",
        "destination_lon":"DOUBLE","dropoff_lat":"DOUBLE","dropoff_lon":"DOUBLE","distance_m":"BIGINT",
        "fare_cents":"BIGINT","currency":"VARCHAR","rating":"DOUBLE","updated_at":"VARCHAR"}}'))
    from entry where kind = 'ride'
),
ride as (
    select * replace (
        epoch_ms(requested_at::timestamp) as requested_at, epoch_ms(accepted_at::timestamp) as accepted_at,
        epoch_ms(picked_up_at::timestamp) as picked_up_at, epoch_ms(ended_at::timestamp) as ended_at)
    from version
    qualify row_number() over (partition by ride_id order by updated_at desc, received_at desc, id desc) = 1
),
change as (
    select name as ride_id, unnest(json_transform(decode(body),
        '{{"changed_at":"TIMESTAMP","destination_lat":"DOUBLE","destination_lon":"DOUBLE"}}'))
    from entry where kind = 'ride_destination'
),
person as (
    select name as user_id, decode(body) ->> 'name' as user_name from entry where kind = 'user'
),
driver as (
    select name as driver_id, decode(body) ->> 'name' as driver_name from read_parquet('{drivers}')
),
error as (
    select user_id, id, kind, name, event_time from read_parquet({files})
    where kind in ('app_error', 'server_error')
        or (kind = 'server_access' and (decode(body) ->> 'status')::bigint >= 500)
),
met as (
    select ride_id, count(*) filter (kind = 'app_error') as app, count(*) filter (kind <> 'app_error') as server,
        count(*) filter (event_time between picked_up_at and ended_at) > 0 as driving,
        list({{id: id, kind: kind, name: name, "timestamp": event_time}} order by event_time, id) as items
    from (
        select r.ride_id, r.picked_up_at, r.ended_at, e.*
        from ride r join error e on e.user_id = r.user_id and e.event_time between r.requested_at and r.ended_at
    ) group by ride_id
),
aimed as (
    select r.* replace (if(c.ride_id is null, r.destination_lat, c.destination_lat) as destination_lat,
        if(c.ride_id is null, r.destination_lon, c.destination_lon) as destination_lon)
    from ride r asof left join (select * replace (epoch_ms(changed_at) as changed_at) from change) c
        on c.ride_id = r.ride_id and c.changed_at <= r.ended_at
),
measured as (
    select a.*, user_name, driver_name, (picked_up_at - requested_at) / 1000 as wait_s,
        (ended_at - picked_up_at) / 1000 as duration_s,
        coalesce(app, 0) as errors_app, coalesce(server, 0) as errors_server, coalesce(items, []) as errors,
        coalesce(driving, false) as driving,
        2 * 6371008.8 * asin(sqrt(sin(radians(destination_lat - pickup_lat) / 2) ** 2 + cos(radians(pickup_lat))
            * cos(radians(destination_lat)) * sin(radians(destination_lon - pickup_lon) / 2) ** 2)) as asked,
        2 * 6371008.8 * asin(sqrt(sin(radians(destination_lat - dropoff_lat) / 2) ** 2 + cos(radians(dropoff_lat))
            * cos(radians(destination_lat)) * sin(radians(destination_lon - dropoff_lon) / 2) ** 2)) as gap,
        gap <= 250 as destination_matched, if(asked < 1, null, greatest(0, least(1, 1 - gap / asked))) as progress,
        coalesce(picked_up_at is not null and ended_at is not null and not destination_matched and progress < 0.9,
            false) as premature,
        if(premature, case status when 'cancelled_by_driver' then 'driver' when 'cancelled_by_rider' then 'rider'
            else if(coalesce(driving, false), 'app', 'unknown') end, null) as cause
    from aimed a left join met using (ride_id) left join person using (user_id) left join driver using (driver_id)
)
select *, to_json({{ride_id: ride_id, status: status, city: city, user: {{user_id: user_id, name: user_name}},
    driver: {{driver_id: driver_id, name: driver_name}},
    requested_at: strftime(make_timestamp(requested_at * 1000), '%Y-%m-%dT%H:%M:%S.%gZ'),
    accepted_at: strftime(make_timestamp(accepted_at * 1000), '%Y-%m-%dT%H:%M:%S.%gZ'),
    picked_up_at: strftime(make_timestamp(picked_up_at * 1000), '%Y-%m-%dT%H:%M:%S.%gZ'),
    ended_at: strftime(make_timestamp(ended_at * 1000), '%Y-%m-%dT%H:%M:%S.%gZ'),
    fare_cents: fare_cents, currency: currency, distance_m: distance_m, rating: rating,
    pickup: {{lat: pickup_lat, lon: pickup_lon}}, destination: {{lat: destination_lat, lon: destination_lon}},
    dropoff: {{lat: dropoff_lat, lon: dropoff_lon}}, wait_s: wait_s, duration_s: duration_s,
    requested_distance_m: round(asked, 1), destination_gap_m: round(gap, 1), destination_matched: destination_matched,
    progress: round(progress, 6), errors: {{app: errors_app, server: errors_server, items: errors}},
    premature: premature, cause: cause}}) as document
from measured order by user_id, requested_at, ride_id
) to '{target}' (format parquet, compression zstd)
"""


class Peer:
    """The same joins as one statement."""

    name = "peer (one DuckDB process)"

    def __init__(self, files: Sequence[Path], drivers: Path, target: Path) -> None:
        self.target = target
        self._statement = _PEER.format(files=[str(file) for file in files], drivers=drivers, target=target)

    def run(self) -> float:
        """Seconds for all partitions."""
        started = time.perf_counter()
        with duckdb.connect() as connection:
            connection.execute(self._statement)
        return time.perf_counter() - started


_FOUND: Final = """
select count(*), sum(errors_app), sum(errors_server), count(*) filter (premature), count(*) filter (cause = 'app'),
    count(*) filter (destination_matched), round(sum(wait_s + duration_s)), count(distinct user_name)
from read_parquet('{files}')
"""


def found(files: Path | str) -> tuple[object, ...]:
    """What must be the same on both sides."""
    with duckdb.connect() as connection:
        return tuple(connection.execute(_FOUND.format(files=files)).fetchall()[0])


def measure(folder: Path, given: argparse.Namespace) -> int:
    started = time.perf_counter()
    files = make_lake(folder, given)
    size = sum(file.stat().st_size for file in files)
    progress(f"lake of {size / _MIB:,.0f} MiB made in {time.perf_counter() - started:.0f} s")
    report = Report("Seconds to compute every ride's document from the lake", Rebu.name, Peer.name)
    with tempfile.TemporaryDirectory(prefix="rebu-backfill-") as temporary:
        targets = Path(temporary)
        peer = Peer(files, folder / "drivers.parquet", targets / "peer.parquet")
        rebu = Rebu(files, folder / "drivers.parquet", targets / "documents")
        try:
            times: dict[str, list[float]] = {rebu.name: [], peer.name: []}
            for turn in range(given.rounds):
                for side in (rebu, peer) if turn % 2 == 0 else (peer, rebu):
                    times[side.name].append(side.run())
                    progress(f"{side.name}: {times[side.name][-1]:.2f} s")
        finally:
            rebu.stop()
        ours, theirs = found(f"{rebu.target}/*.parquet"), found(peer.target)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            before = fresh.submit(peak_bytes).result()
            largest = max(files, key=lambda file: file.stat().st_size)
            rides, peak = fresh.submit(backfill, largest, folder / "drivers.parquet", targets / "one.parquet").result()
    what = f"{given.rides:,} rides, {given.events:,} events, {given.messages:,} messages"
    memory = {"peak_bytes_one_partition": peak, "bytes_before": before, "peak_bytes_all": rebu.peak_bytes}
    report.add(what, "s", times[rebu.name], times[peer.name], partitions=given.partitions, **memory)
    report.finish(given.json)
    print(
        f"memory of a process: {before / _MIB:,.0f} MiB before, at most {peak / _MIB:,.0f} MiB for one of {len(files)} "
        f"partitions ({rides:,} rides), {rebu.peak_bytes / _MIB:,.0f} MiB after {given.rounds} rounds of several"
    )
    print(f"both found the same: {ours == theirs} {ours}" + ("" if ours == theirs else f" {theirs}"))
    return 0 if ours == theirs else 1


def main() -> int:
    given = arguments(__doc__, options, rounds=3)
    if given.folder is not None:
        given.folder.mkdir(parents=True)
        return measure(given.folder, given)
    with tempfile.TemporaryDirectory(prefix="rebu-lake-") as folder:
        return measure(Path(folder), given)


if __name__ == "__main__":
    sys.exit(main())
