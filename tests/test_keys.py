"""The keys: who may do what, how a key is presented, and that those of a data dir stay what they are."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.keys import Keys, Scope, load_keys, presented_key
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
