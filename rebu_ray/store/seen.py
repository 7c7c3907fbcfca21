"""Which records a partition has seen: eight bytes an event, forgotten day by day.

Fingerprints of 64 bits: among n remembered events a new one is taken for a duplicate by chance with
probability n / 2**64 (one in 10**10 at a thousand million events).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DAY_MS = 86_400_000
_RECENT = 65_536
"""Fingerprints kept in a hash set before they become a sorted run."""

Fingerprints = npt.NDArray[np.uint64]


class Seen:
    """Fingerprints of the last `days` days of receipt: a hash set for the newest, sorted runs for the rest.

    Runs of one day are merged so that each is at least twice as long as the next: a look-up costs a
    binary search in O(days + log events) arrays, done for a whole batch at once.
    """

    def __init__(self, days: int = 8) -> None:
        self._days = days
        self._recent: dict[int, set[int]] = {}
        self._runs: dict[int, list[Fingerprints]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._recent.values())) + sum(len(r) for runs in self._runs.values() for r in runs)

    @property
    def nbytes(self) -> int:
        """Bytes of the sorted runs (the hash sets are bounded by `_RECENT` entries a day)."""
        return sum(r.nbytes for runs in self._runs.values() for r in runs)

    def add(self, fingerprints: Fingerprints, received_at: int) -> npt.NDArray[np.bool_]:
        """Remember a batch received at `received_at` (ms); answer which of it is new.

        The first of equal fingerprints in the batch is the new one.
        """
        self.forget_before(received_at)
        new = ~self._in_runs(fingerprints)
        day = received_at // DAY_MS
        recent = self._recent.setdefault(day, set())
        values = fingerprints.tolist()
        # Nearly always all of a batch is new: then this is all that has to be asked of the hash sets.
        distinct = set(values)
        if len(distinct) < len(values) or not all(map(distinct.isdisjoint, self._recent.values())):
            known = set().union(*(distinct & other for other in self._recent.values()))
            for i, value in enumerate(values):
                if value in known:
                    new[i] = False
                known.add(value)
        recent.update(distinct if new.all() else fingerprints[new].tolist())
        if len(recent) >= _RECENT:
            self._settle(day)
        return new

    def load(self, fingerprints: Fingerprints, received_at: int) -> None:
        """Remember many fingerprints of one day at once, as a restart does."""
        if len(fingerprints):
            self._push(received_at // DAY_MS, _merged(fingerprints))

    def take(self, other: Seen) -> None:
        """Remember what another one has loaded."""
        for day, runs in other._runs.items():
            for run in runs:
                self._push(day, run)

    def discard(self, fingerprints: Fingerprints) -> None:
        """Take back a batch whose append failed, so that its retry is not called a duplicate."""
        for value in fingerprints.tolist():
            for recent in self._recent.values():
                recent.discard(value)
        for day, runs in self._runs.items():
            left = [run[~np.isin(run, fingerprints)] for run in runs]
            self._runs[day] = [run for run in left if len(run)]

    def forget_before(self, received_at: int) -> None:
        """Drop the days that ended more than `days` days before `received_at` (ms)."""
        oldest = received_at // DAY_MS - self._days
        for days in (self._recent, self._runs):
            for day in [d for d in days if d < oldest]:
                del days[day]

    def _in_runs(self, fingerprints: Fingerprints) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(fingerprints), dtype=np.bool_)
        if not self._runs or not len(fingerprints):
            return found
        # In order, each search begins where the one before ended, and the run is read from front to back.
        order = np.argsort(fingerprints)
        sought = fingerprints[order]
        for runs in self._runs.values():
            for run in runs:
                at = np.searchsorted(run, sought)
                at[at == len(run)] = 0
                found |= run[at] == sought
        back = np.empty_like(found)
        back[order] = found
        return back

    def _settle(self, day: int) -> None:
        recent = self._recent[day]
        self._push(day, np.sort(np.fromiter(recent, dtype=np.uint64, count=len(recent))))
        recent.clear()

    def _push(self, day: int, run: Fingerprints) -> None:
        runs = self._runs.setdefault(day, [])
        runs.append(run)
        while len(runs) > 1 and len(runs[-2]) < 2 * len(runs[-1]):
            last = runs.pop()
            runs[-1] = _merged(runs[-1], last)


def _merged(*parts: Fingerprints) -> Fingerprints:
    """All fingerprints in order, each once. `np.unique` hashes, which takes ten times as long here."""
    values = np.concatenate(parts)
    values.sort(kind="stable")
    if len(values):
        values = values[np.append(True, values[1:] != values[:-1])]
    return values
