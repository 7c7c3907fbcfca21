"""The ledger against a dictionary: whatever is put, saved, merged and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.appdb import ledger as ledger_module
from rebu_ray.ingest.appdb.ledger import Brief, Known, Ledger, State, hash_of
from rebu_ray.store.cursor import Cursors
from tests.records import seeded
from tests.store.disk import unsynced

ENTRIES = st.builds(
    Known,
    st.integers(0, 12).map(str),
    st.sampled_from([None, "u1", "u2"]),
    st.integers(0, 5),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)
STEPS = st.lists(st.lists(ENTRIES, max_size=6) | st.sampled_from(["save", "reopen", "fold"]), max_size=25)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@settings(seeded, max_examples=100)
@given(STEPS)
def test_it_knows_what_a_dictionary_knows(tmp_path_factory: pytest.TempPathFactory, steps: Any) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    cursors, state = Cursors(str(folder)), State()
    ledger = Ledger(cursors, "rides", state)
    known: dict[str, Known] = {}
    durable: dict[str, Known] = {}
    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.setattr(ledger_module, "PENDING", 2)
        for step in [*steps, "save", "reopen"]:
            if step == "save":
                state = msgspec.msgpack.decode(msgspec.msgpack.encode(ledger.state()), type=State)
                ledger.saved()
                durable = dict(known)
                assert files(folder) == [f"rides.{run.number:06d}" for run in state.runs]
            elif step == "reopen":
                ledger, known = Ledger(cursors, "rides", state), dict(durable)
            elif step == "fold":
                ledger.missing([])
            else:
                ledger.put(step)
                known |= {entry.key: entry for entry in step}
            assert ledger.live == sum(not entry.gone for entry in known.values())
            for key in map(str, range(13)):
                was = known.get(key)
                brief = None if was is None else Brief(was.version, was.digest, hash_of(was.user), was.gone)
                assert ledger.get(hash_of(key)) == brief
        assert ledger.find(map(hash_of, known)) == {hash_of(key): entry for key, entry in known.items()}
        seen = [hash_of(str(number)) for number in range(0, 13, 2)]
        lost = {entry.key for entry in ledger.missing(seen)}
        assert lost == {key for key, entry in known.items() if not entry.gone and int(key) % 2}


def test_runs_stay_few_and_a_lost_one_is_no_empty_ledger(tmp_path: Path) -> None:
    cursors = Cursors(str(tmp_path))
    ledger = Ledger(cursors, "rides", State())
    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.setattr(ledger_module, "PENDING", 10)
        for number in range(600):
            ledger.put([Known(f"r{number}", None, number, number)])
            state = ledger.state()
            ledger.saved()
            assert len(state.pending) <= 10
            assert len(state.runs) <= 5
    assert files(tmp_path) == [f"rides.{run.number:06d}" for run in state.runs]
    cursors.remove(files(tmp_path)[0])
    with pytest.raises(FileNotFoundError, match="rides"):
        Ledger(cursors, "rides", state)
