"""The keys: who may do what, how a key is presented, and that those of a data dir stay what they are."""

from __future__ import annotations

import base64
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.keys import LOOK_SECONDS, Keys, KeysError, LiveKeys, Scope, Watch, load_keys, presented_key, save_keys
from rebu_ray.records import BadRequest
from tests.records import seeded

KEYS = Keys("write", "read", "admin")


def outcome(keys: Keys, presented: str | None, scope: Scope) -> int:
    """200, or the status of the refusal, which has the code and a message that go with it."""
    try:
        keys.check(presented, scope)
    except BadRequest as refused:
        named = refused.code == {401: "unauthorized", 403: "forbidden"}[refused.status]
        return refused.status if named and refused.message else 0
    return 200


@pytest.mark.parametrize(
    ("presented", "outcomes"),
    [
        ("write", (200, 403, 403)),
        ("read", (403, 200, 403)),
        ("admin", (200, 200, 200)),
        ("nobody", (401, 401, 401)),
        ("writ", (401, 401, 401)),
        ("", (401, 401, 401)),
        (None, (401, 401, 401)),
        ("é\udcff", (401, 401, 401)),
    ],
)
def test_each_key_does_what_it_is_named_for(presented: str | None, outcomes: tuple[int, int, int]) -> None:
    assert tuple(outcome(KEYS, presented, scope) for scope in Scope) == outcomes


def test_one_key_may_be_two() -> None:
    same = Keys("k", "k", "admin")
    assert [outcome(same, "k", scope) for scope in Scope] == [200, 200, 403]


def test_a_refusal_tells_no_key() -> None:
    keys = Keys("write-secret", "read-secret", "admin-secret")
    for presented, scope in (("read-secret", Scope.WRITE), ("write-secret", Scope.ADMIN), ("other-secret", Scope.READ)):
        with pytest.raises(BadRequest) as refused:
            keys.check(presented, scope)
        assert "secret" not in refused.value.message


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (None, None),
        ("", None),
        ("Bearer key", "key"),
        ("bearer key", "key"),
        ("  Bearer   key  ", "key"),
        ("Bearer", ""),
        (basic("key:"), "key"),
        (basic("key"), "key"),
        (basic("key:password"), "key"),
        (basic(":key"), "key"),
        (basic("k:e:y"), "k"),
        (basic(":"), ""),
        (basic("key:").replace("Basic", "BASIC"), "key"),
        ("Basic !!!", None),
        ("Basic a", None),
        ("Basic " + base64.b64encode(b"\xff:").decode(), None),
        ("Digest key", None),
        ("key", None),
    ],
)
def test_how_a_key_is_presented(header: str | None, key: str | None) -> None:
    assert presented_key(header) == key


@settings(seeded)
@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_any_header_is_a_key_or_none(header: str) -> None:
    for text in (header, f"Basic {header}", f"Bearer {header}"):
        assert outcome(KEYS, presented_key(text), Scope.ADMIN) in (200, 401, 403)


@pytest.mark.parametrize("header", ["Basic é", "Basic \x80"])
def test_a_header_beyond_ascii_is_no_key(header: str) -> None:
    assert presented_key(header) is None


def test_the_keys_of_a_data_dir_are_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    keys = load_keys(str(folder))
    assert len({keys.write, keys.read, keys.admin}) == 3
    assert all(len(key) > 30 for key in (keys.write, keys.read, keys.admin))
    assert stat.S_IMODE((folder / "keys.json").stat().st_mode) == 0o600
    assert load_keys(str(folder)) == keys
    assert load_keys(str(tmp_path)) != keys


def test_given_keys_win_and_are_not_kept(tmp_path: Path) -> None:
    kept = load_keys(str(tmp_path))
    assert load_keys(str(tmp_path), read="mine") == Keys(kept.write, "mine", kept.admin)
    assert load_keys(str(tmp_path)) == kept
    assert "mine" not in (tmp_path / "keys.json").read_text()


NOW = 1_700_000_000_000


def allowed(keys: Keys, presented: str, now: int = NOW) -> set[Scope]:
    """What a key may do."""
    found = set()
    for scope in Scope:
        try:
            keys.holder(presented, scope, now)
        except BadRequest:
            continue
        found.add(scope)
    return found


@pytest.mark.parametrize("scope", Scope)
def test_a_key_that_is_rotated_is_good_for_as_long_as_was_asked_for(scope: Scope) -> None:
    before = getattr(KEYS, scope)
    at_once = KEYS.rotated(scope, 0, NOW)
    assert getattr(at_once, scope) != before
    assert allowed(at_once, getattr(at_once, scope)) == allowed(KEYS, before)
    assert allowed(at_once, before) == set()
    later = KEYS.rotated(scope, 60, NOW)
    assert allowed(later, before, NOW + 59_999) == allowed(KEYS, before)
    assert allowed(later, before, NOW + 60_000) == set()
    assert len(later.rotated(scope, 60, NOW + 1).further) == 2
    assert later.rotated(scope, 0, NOW + 60_000).further == (), "what is over is not kept"


def test_further_keys_come_and_go(tmp_path: Path) -> None:
    first = KEYS.added("shipper", (Scope.WRITE,), NOW).added("notebook", (Scope.READ, Scope.WRITE), NOW)
    save_keys(str(tmp_path), first)
    keys = load_keys(str(tmp_path))
    assert keys == first
    shipper, notebook = (one.key for one in keys.further)
    assert allowed(keys, shipper) == {Scope.WRITE}
    assert allowed(keys, notebook) == {Scope.READ, Scope.WRITE}
    assert keys.holder(shipper, Scope.WRITE, NOW) == "shipper"
    assert keys.holder("admin", Scope.WRITE, NOW) == "admin"
    rotated = keys.rotated("shipper", 5, NOW)
    assert allowed(rotated, shipper, NOW + 4_999) == {Scope.WRITE}
    assert allowed(rotated, shipper, NOW + 5_000) == set()
    assert [one.scopes for one in rotated.further if one.name == "shipper"] == [(Scope.WRITE,)]
    assert allowed(keys.revoked("shipper", NOW), shipper) == set()
    assert allowed(keys.revoked("shipper", NOW), notebook) == {Scope.READ, Scope.WRITE}
    attempts: tuple[Callable[[], Keys], ...] = (
        lambda: keys.added("shipper", (Scope.READ,), NOW),
        lambda: keys.added("write", (Scope.READ,), NOW),
        lambda: keys.added(" ", (Scope.READ,), NOW),
        lambda: keys.rotated("nobody", 0, NOW),
        lambda: keys.revoked("admin", NOW),
        lambda: keys.revoked("nobody", NOW),
    )
    for wrong in attempts:
        with pytest.raises(KeysError):
            wrong()


class Live:
    """Keys that are looked after, and a clock that stands still until it is moved."""

    def __init__(self, folder: Path, rate: float = 0.0, **given: str) -> None:
        self.now = 0.0
        three = (given.get("write", ""), given.get("read", ""), given.get("admin", ""))
        self.keys = LiveKeys.watched(Watch(str(folder), Keys("w", "r", "a"), three, rate, lambda: self.now))

    def status(self, presented: str, scope: Scope = Scope.READ) -> int:
        try:
            self.keys.check(presented, scope)
        except BadRequest as refused:
            return refused.status
        return 200


def test_who_serves_goes_by_the_file_as_it_is(tmp_path: Path) -> None:
    live = Live(tmp_path)
    assert live.status("r") == 200, "no file, so those that it was started with"
    save_keys(str(tmp_path), KEYS)
    live.now += LOOK_SECONDS
    assert [live.status("r"), live.status("read")] == [401, 200]
    rotated = KEYS.rotated("read", 0, NOW)
    save_keys(str(tmp_path), rotated)
    assert live.status("read") == 200, "it is not looked at for each request"
    live.now += LOOK_SECONDS
    assert [live.status("read"), live.status(rotated.read)] == [401, 200]
    (tmp_path / "keys.json").write_text("{")
    live.now += LOOK_SECONDS
    assert live.status(rotated.read) == 200, "what cannot be read changes nothing"
    (tmp_path / "keys.json").unlink()
    live.now += LOOK_SECONDS
    assert live.status(rotated.read) == 200
    (tmp_path / "keys.json").write_text("[]")
    with pytest.raises(KeysError, match=r"keys\.json"):
        load_keys(str(tmp_path))


def test_a_given_key_stays_what_it_was_given_as(tmp_path: Path) -> None:
    save_keys(str(tmp_path), KEYS)
    live = Live(tmp_path, read="given")
    assert [live.status("given"), live.status("read"), live.status("admin")] == [200, 401, 200]


def test_a_key_that_asks_too_often_waits_and_the_others_do_not(tmp_path: Path) -> None:
    save_keys(str(tmp_path), KEYS)
    live = Live(tmp_path, rate=5)
    assert [live.status("read") for _ in range(6)] == [200] * 5 + [429]
    assert live.status("write") == 403
    assert live.status("nobody") == 401
    assert live.status("admin") == 200
    with pytest.raises(BadRequest) as refused:
        live.keys.check("read", Scope.READ)
    assert (refused.value.code, refused.value.retry_after) == ("rate_limited", 1)
    live.now += 0.45
    assert [live.status("read") for _ in range(3)] == [200, 200, 429]
    live.now += 1000
    assert [live.status("read") for _ in range(6)] == [200] * 5 + [429], "no more than a second's worth adds up"


def test_a_rate_below_one_says_how_long_to_wait(tmp_path: Path) -> None:
    live = Live(tmp_path, rate=0.25)
    assert live.status("r") == 200
    with pytest.raises(BadRequest) as refused:
        live.keys.check("r", Scope.READ)
    assert refused.value.retry_after == 4
    live.now += 4
    assert live.status("r") == 200


@settings(seeded, max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 8)), max_size=20), st.floats(0.5, 20))
def test_no_more_than_the_rate_goes_through(pauses: list[tuple[float, int]], rate: float) -> None:
    live = Live(Path("nowhere-at-all"), rate=rate)
    through: list[float] = []
    for pause, requests in pauses:
        live.now += pause
        through += [live.now] * [live.status("r") for _ in range(requests)].count(200)
    for start in through:
        within = sum(start <= at < start + 1 for at in through)
        assert within <= max(1, rate) + rate + 1e-6
