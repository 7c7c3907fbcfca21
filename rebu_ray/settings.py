"""Every setting of the platform, in one place: the only reader of environment variables.

Each field is set by the environment variable ``REBU_`` + its name in capitals; options of the command
line win over the environment. Settings travel to actors as they are, so a cluster needs them only where
the platform is started.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from zoneinfo import available_timezones

import msgspec

from rebu_ray import logs
from rebu_ray.clock import ClockError, week_clock

MAX_PARTITIONS: Final = 4096
REACTIVE: Final = "reactive"
PREDICTIVE: Final = "predictive"
PROXIES: Final = ("EveryNode", "HeadOnly")


class Role(StrEnum):
    """What a node may be for."""

    SHARD = "shard"
    """Shards, one a place; the coordinator and the puller of the application database take next to none."""
    GATEWAY = "gateway"
    """Replicas of Serve, one a place."""
    WAREHOUSE = "warehouse"
    """The analytics database, a file of one node's, and who reads it."""


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message names it and says what would do."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one platform."""

    data_dir: str = ".rebu"
    """Folder of keys, journal, lake and the embedded Redis, where these are not elsewhere."""
    host: str = "127.0.0.1"
    port: int = 8000
    shards: int = max(1, (os.cpu_count() or 2) // 2)
    """Shard actors, each the owner of a range of partitions; one for every two cores unless told."""
    partitions: int = 16
    """Partitions of a new data directory; an old one keeps what it began with. 256 suit a cluster."""
    redis_url: str = ""
    """redis://, rediss:// or unix:// of a Redis or Valkey, redis+cluster:// or rediss+cluster:// of a Redis Cluster;
    empty: the embedded one."""
    journal_uri: str = ""
    """Folder or pyarrow.fs URI of the journal; empty: DATA_DIR/journal."""
    lake_uri: str = ""
    """Folder or pyarrow.fs URI of the lake; empty: DATA_DIR/lake."""
    appdb_url: str = ""
    """postgresql:// or sqlite:/// of the application database."""
    appdb_poll_seconds: float = 0.25
    """How long the application database is left alone between two looks, where nothing wakes us."""
    appdb_overlap_seconds: float = 5.0
    """How far behind the newest `updated_at` each look begins: what clocks and short transactions may differ by."""
    write_key: str = ""
    read_key: str = ""
    admin_key: str = ""
    rate_limit: float = 0.0
    """Requests a second that a gateway replica answers to one key; 0: as many as come."""
    erasure_secret: str = ""
    """What user ids of erased people are hashed with; empty: DATA_DIR/erasure.key, made at the first start."""
    flush_seconds: float = 60.0
    """How long rows stay in the journal before they move to the lake."""
    flush_bytes: int = 256 * 1024 * 1024
    """How many bytes of rows a shard lets gather in the journal before they move to the lake."""
    hot_events: int = 5_000
    """How many of a user's newest events Redis keeps; older ones are read from the lake."""
    hot_days: float = 30.0
    """After how many days without a new event a user's history is read from the lake alone."""
    lease_seconds: float = 20.0
    """How long a shard may leave heart-beats unanswered before its partitions go to others."""
    autoscaling: str = PREDICTIVE
    """reactive: by what is asked for now; predictive: also by what last week asked for at this time."""
    min_replicas: int = 2
    """The fewest gateways, where `max_replicas` allows them: one alone is on one core, whatever the load."""
    max_replicas: int = 2
    """Upper bound of each autoscaled deployment."""
    target_requests: int = 32
    """Requests at once that a gateway is meant to have: there are as many gateways as that takes."""
    replica_requests: int = 256
    """The most requests that a gateway replica works on at once: those beyond are refused with 429."""
    upscale_seconds: float = 2.0
    """How long gateways have to be too few before there are more."""
    downscale_seconds: float = 60.0
    """How long gateways or shards have to be too many before there are fewer."""
    min_shards: int = 0
    """The fewest shards where they are autoscaled; 0: as many as `shards`."""
    max_shards: int = 0
    """The most shards where they are autoscaled; 0: they are not."""
    shard_bytes_s: float = 16 * 1024 * 1024
    """Bytes of rows that a shard is meant to take a second: there are as many shards as that takes."""
    node_start_seconds: float = 180.0
    """How long a new node takes until it can be used: as long before they are needed nodes are asked for."""
    timezone: str = "UTC"
    """The zone whose clocks the week goes by, as Europe/Berlin."""
    traffic_clock: str = ""
    """For rehearsals, what that week's clock shows, how fast it is, and when it shows that, as
    2026-03-02T05:00:00Z*60@2026-11-20T09:00:00Z; empty: the real one.
    """
    proxies: str = "EveryNode"
    """On a cluster, where requests come in: EveryNode that has gateways, or HeadOnly."""
    queue_bytes: int = 64 * 1024 * 1024
    """Bytes of rows that may wait for one shard before writes are refused with 429."""
    inflight_bytes: int = 64 * 1024 * 1024
    """Bytes of request bodies that a gateway replica holds at once before writes are refused with 429."""
    breaker_share: float = 0.9
    """A sender is suspended where more than this part of what it sent in a minute was refused; 1: never."""
    breaker_records: int = 1_000
    """The fewest records of a minute by which a sender is judged so."""
    breaker_seconds: float = 5.0
    """How long a sender is suspended at first; as long as it stays bad each time twice as long, up to a minute."""
    read_wait_seconds: float = 5.0
    """How long a read waits for its `min_position`."""
    warehouse: str = ""
    """The file of the analytics database; empty: DATA_DIR/warehouse.duckdb."""
    warehouse_seconds: float = 300.0
    """How often the platform loads the warehouse by itself, where there is anything new; 0: only when it is told."""
    sql_seconds: float = 30.0
    """How long a statement of `/v1/sql` may take."""
    sql_rows: int = 100_000
    """How many rows a statement answers with at most; there are more where `truncated` is true."""
    sql_bytes: int = 512 * 1024 * 1024
    """How much memory a statement may take."""
    log_format: logs.Form = "text"
    """How lines of log are written: text, or json for programs that read them."""
    log_requests: bool = False
    """Whether every request has its lines in the log, in the gateway, the shards and the tasks."""
    otel_endpoint: str = ""
    """http:// or https:// of an OpenTelemetry collector (OTLP over HTTP) that traces are sent to; empty: none."""
    otel_share: float = 1.0
    """Which part of the requests is traced of those that bring no `traceparent`, which says so itself."""

    node_roles: str = ""
    """shard, gateway, warehouse, with commas: of which roles a cluster has, or will have, nodes with places for them
    (custom resources rebu_shard, ...); what it has now is seen without being told."""
    holidays: str = ""
    """Country (US), or part of one (DE-BE), whose public holidays forecasts know of; empty: none."""

    @property
    def gateway_bounds(self) -> tuple[int, int]:
        """The fewest and the most gateways."""
        return min(self.min_replicas, self.max_replicas), self.max_replicas

    @property
    def scales_shards(self) -> bool:
        """Whether the number of shards follows the load."""
        return self.max_shards > 0

    @property
    def autoscales(self) -> bool:
        """Whether there is anything that follows the load but what Serve does by itself."""
        low, high = self.gateway_bounds
        return low < high or self.scales_shards

    @property
    def journal(self) -> str:
        """Where the journal is."""
        return self.journal_uri or str(Path(self.data_dir) / "journal")

    @property
    def cursors(self) -> str:
        """Where cursors are: beside the journal, which they point into."""
        place, mark, options = self.journal.partition("?")
        return f"{place.rstrip('/')}-cursors{mark}{options}"

    @property
    def lake(self) -> str:
        """Where the lake is."""
        return self.lake_uri or str(Path(self.data_dir) / "lake")

    @property
    def warehouse_file(self) -> Path:
        """Where the analytics database is."""
        return Path(self.warehouse or Path(self.data_dir) / "warehouse.duckdb").expanduser().absolute()


def load(environ: Mapping[str, str] | None = None, **options: Any) -> Settings:
    """Settings from the environment, overridden by every option that is not None.

    Raises SettingsError for a value of the wrong form or out of range.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for field in Settings.__struct_fields__:
        text = env.get(f"REBU_{field.upper()}")
        if text not in (None, ""):
            values[field] = text
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"setting {error}: correct the REBU_* variable or the option of that name") from error
    for name, low, high in (
        ("shards", 1, 1000),
        ("partitions", 1, MAX_PARTITIONS),
        ("port", 1, 65535),
        ("min_replicas", 1, 10_000),
        ("max_replicas", 1, 10_000),
        ("target_requests", 1, 1_000_000),
        ("replica_requests", 1, 1_000_000),
        ("min_shards", 0, 1000),
        ("max_shards", 0, 1000),
        ("hot_events", 1, 10_000_000),
        ("breaker_share", 0, 1),
        ("breaker_records", 1, 1_000_000_000),
        ("otel_share", 0, 1),
        ("rate_limit", 0, 1_000_000_000),
        ("warehouse_seconds", 0, 1_000_000_000),
        ("sql_rows", 1, 10_000_000),
    ):
        if not low <= getattr(settings, name) <= high:
            raise SettingsError(f"{name} is {getattr(settings, name)}: it must be between {low} and {high}")
    positive = ("flush_seconds", "hot_days", "read_wait_seconds", "flush_bytes", "queue_bytes", "inflight_bytes")
    for name in (
        *positive,
        "sql_seconds",
        "sql_bytes",
        "lease_seconds",
        "breaker_seconds",
        "appdb_poll_seconds",
        "appdb_overlap_seconds",
        "upscale_seconds",
        "downscale_seconds",
        "shard_bytes_s",
        "node_start_seconds",
    ):
        value = getattr(settings, name)
        if not 0 < value < math.inf:
            raise SettingsError(f"{name} is {value}: it must be a number above 0")
    if not {name.strip() for name in settings.node_roles.split(",")} <= {"", *Role}:
        raise SettingsError(f"node_roles is {settings.node_roles!r}: it may name {', '.join(Role)}")
    if not re.fullmatch(r"([A-Z]{2,3}(-[A-Z0-9]{1,5})?)?", settings.holidays):
        raise SettingsError(f"holidays is {settings.holidays!r}: it must be a country as US, or a part of one as DE-BE")
    for name, known in (("autoscaling", (REACTIVE, PREDICTIVE)), ("proxies", PROXIES)):
        if getattr(settings, name) not in known:
            raise SettingsError(f"{name} is {getattr(settings, name)!r}: it must be {' or '.join(known)}")
    if settings.timezone not in available_timezones():
        raise SettingsError(f"timezone is {settings.timezone!r}: it must be one as Europe/Berlin")
    try:
        week_clock(settings.traffic_clock)
    except ClockError as error:
        raise SettingsError(f"traffic_clock: {error}") from error
    if settings.scales_shards and settings.max_shards < settings.min_shards:
        raise SettingsError(f"max_shards is {settings.max_shards}: it must be at least min_shards")
    if settings.scales_shards:
        low = settings.min_shards or min(settings.shards, settings.max_shards)
        shards = min(max(settings.shards, low), settings.max_shards)
        settings = msgspec.structs.replace(settings, min_shards=low, shards=shards)
    return msgspec.structs.replace(settings, data_dir=str(Path(settings.data_dir).expanduser().absolute()))


def ray_address(environ: Mapping[str, str] | None = None) -> str:
    """The Ray cluster to join (RAY_ADDRESS); empty where a local one is to be started."""
    return (os.environ if environ is None else environ).get("RAY_ADDRESS", "")


def client_url(environ: Mapping[str, str] | None = None) -> str:
    """The running platform that commands talk to (REBU_URL); empty where the data dir tells."""
    return (os.environ if environ is None else environ).get("REBU_URL", "")
