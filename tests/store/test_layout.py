"""What is fixed for the life of a data directory."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rebu_ray.store.layout import Layout, LayoutError, open_layout


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_lake_keeps_what_it_began_with(tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}{tmp_path}/new/lake"
    first = open_layout(uri, 16)
    assert first.partitions == 16
    assert open_layout(uri, 256) == first
    assert open_layout(f"{scheme}{tmp_path}/other", 16).platform_id != first.platform_id


def test_a_start_that_was_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "rebu.json.new").write_text("{")
    assert open_layout(str(tmp_path), 4).partitions == 4
    assert [path.name for path in tmp_path.iterdir()] == ["rebu.json"]


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rebu.json").write_bytes(msgspec.json.encode(Layout("id", 4, format=99)))
    with pytest.raises(LayoutError, match="format 99"):
        open_layout(str(tmp_path), 4)
