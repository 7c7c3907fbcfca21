"""What to do about a segment with damage in it: set it aside whole, and go on with what of it can be read."""

from __future__ import annotations

from typing import NamedTuple

from rebu_ray.store.journal import Journal, JournalError, SegmentName, stretches


class Quarantined(NamedTuple):
    """What became of a damaged segment."""

    aside: str
    """Where the whole of it is now."""
    kept: int
    """Records in the frames that are sound: they stay in the journal."""
    damaged_bytes: int
    lost: int
    """Records that are missing between those that stay, by their sequence numbers; there may have been more."""


def quarantine(journal: Journal, segment: SegmentName) -> Quarantined:
    """Set a damaged segment aside. Safe while the platform runs: its shard waits for this, or does not read it.

    Raises JournalError for a segment that is not there, or has no damage in it.
    """
    if segment not in journal.segments():
        raise JournalError(f"there is no segment {segment} in the journal: `rebu status` names what is damaged")
    data = journal.read(segment)
    sound: list[bytes] = []
    kept = lost = damaged = 0
    expected: dict[int, int] = {}
    torn = 0
    for start, end, frame in stretches(data):
        if frame is None:
            damaged += end - start
            torn = end - start if end == len(data) else 0
            continue
        sound.append(data[start:end])
        for span in frame.header.spans:
            kept += span.count
            lost += max(0, span.first_seq - expected.get(span.partition, span.first_seq))
            expected[span.partition] = span.first_seq + span.count
    if damaged == torn:
        raise JournalError(f"{segment} has no damage that anything is behind of: nothing was changed")
    return Quarantined(journal.replace(segment, b"".join(sound)), kept, damaged - torn, lost)
