"""Settings: the environment, the command line over it, and a refusal that names what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rebu_ray.settings import Settings, SettingsError, client_url, load, ray_address


def test_without_anything_said() -> None:
    found = load({})
    assert (found.host, found.port, found.partitions) == ("127.0.0.1", 8000, 16)
    assert found.data_dir == str(Path(".rebu").absolute())
    assert (found.journal, found.lake) == (f"{found.data_dir}/journal", f"{found.data_dir}/lake")


def test_options_win_over_the_environment_and_none_is_no_option() -> None:
    environ = {"REBU_PORT": "9000", "REBU_SHARDS": "3", "REBU_HOST": "", "PORT": "1"}
    found = load(environ, shards=5, host=None)
    assert (found.port, found.shards, found.host) == (9000, 5, "127.0.0.1")


CHOSEN = {
    "holidays": "DE-BE",
    "log_format": "json",
    "autoscaling": "reactive",
    "timezone": "Europe/Berlin",
    "traffic_clock": "2026-03-02T05:00:00Z*60@2026-11-20T09:00:00Z",
    "proxies": "HeadOnly",
    "node_roles": "shard,gateway",
}
"""What may be said of settings that take no other text."""
_OTHERS = {"breaker_share": "1", "log_requests": "true", "otel_share": "0.5"}
"""What may be said of settings that take no seven."""


def test_every_setting_can_be_said_in_the_environment() -> None:
    for name in Settings.__struct_fields__:
        value = getattr(Settings(), name)
        text = (CHOSEN | _OTHERS).get(name, "/some/where" if isinstance(value, str) else "7")
        wanted = text == "true" if isinstance(value, bool) else type(value)(text)
        assert getattr(load({f"REBU_{name.upper()}": text}), name) == wanted


@pytest.mark.parametrize("name", sorted(CHOSEN))
def test_settings_that_name_something_name_what_there_is(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load({f"REBU_{name.upper()}": "/some/where"})


def test_shards_are_autoscaled_between_bounds_that_begin_with_what_was_asked_for() -> None:
    assert not load({"REBU_SHARDS": "3"}).scales_shards
    found = load({"REBU_SHARDS": "3", "REBU_MAX_SHARDS": "8"})
    assert (found.shards, found.min_shards, found.max_shards, found.autoscales) == (3, 3, 8, True)
    found = load({"REBU_SHARDS": "9", "REBU_MIN_SHARDS": "2", "REBU_MAX_SHARDS": "4"})
    assert (found.shards, found.min_shards) == (4, 2)
    with pytest.raises(SettingsError, match="max_shards"):
        load({"REBU_MIN_SHARDS": "3", "REBU_MAX_SHARDS": "2"})


@pytest.mark.parametrize("text", ["germany", "de", "DE-", "/some/where"])
def test_holidays_are_those_of_a_country(text: str) -> None:
    with pytest.raises(SettingsError, match="DE-BE"):
        load({"REBU_HOLIDAYS": text})


def test_uris_win_over_folders() -> None:
    found = load({"REBU_JOURNAL_URI": "s3://bucket/journal", "REBU_LAKE_URI": "s3://bucket/lake"})
    assert (found.journal, found.lake) == ("s3://bucket/journal", "s3://bucket/lake")


def test_cursors_are_beside_the_journal() -> None:
    assert load({}, data_dir="/data").cursors == "/data/journal-cursors"
    found = load({"REBU_JOURNAL_URI": "s3://bucket/journal/?region=eu-central-1"})
    assert found.cursors == "s3://bucket/journal-cursors?region=eu-central-1"


def test_folders_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home-of")
    assert load({}, data_dir="here").data_dir == str(tmp_path / "here")
    assert load({}, data_dir="~/rebu").data_dir == "/home-of/rebu"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "0"),
        ("port", "65536"),
        ("port", "http"),
        ("shards", "0"),
        ("shards", "2.5"),
        ("shards", ""),
        ("partitions", "4097"),
        ("max_replicas", "-1"),
        ("hot_events", "0"),
        ("flush_seconds", "0"),
        ("flush_seconds", "soon"),
        ("hot_days", "-1"),
        ("read_wait_seconds", "-0.1"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, value: str) -> None:
    option: dict[str, Any] = {name: value}
    with pytest.raises(SettingsError, match=name):
        load({}, **option)
    if value:
        with pytest.raises(SettingsError, match=name):
            load({f"REBU_{name.upper()}": value})


def test_what_others_call_their_settings() -> None:
    assert (ray_address({"RAY_ADDRESS": "auto"}), ray_address({})) == ("auto", "")
    assert (client_url({"REBU_URL": "http://rebu"}), client_url({})) == ("http://rebu", "")
