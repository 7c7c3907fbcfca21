"""Room that is left: what folders say of it, and folders that say nothing."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from rebu_ray.ingest import room as room_module
from rebu_ray.ingest.room import Room
from rebu_ray.settings import Settings


def test_folders_say_how_much_is_free_and_others_nothing(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    settings = Settings(data_dir=str(tmp_path), lake_uri="s3://lake")
    found = asyncio.run(Room(settings).free_bytes())
    assert list(found) == ["journal"]
    assert found["journal"] > 0
    missing = Settings(data_dir=str(tmp_path / "nowhere"))
    assert asyncio.run(Room(missing).free_bytes()) == {}


def test_a_folder_that_hangs_is_asked_by_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("journal", "lake"):
        (tmp_path / name).mkdir()
    settings = Settings(data_dir=str(tmp_path))
    away = threading.Event()
    asked: list[str] = []
    usage = shutil.disk_usage

    def hanging(folder: str) -> Any:
        asked.append(folder)
        if folder == settings.lake:
            away.wait()
        return usage(folder)

    async def scene() -> None:
        room = Room(settings)
        try:
            for _ in range(3):
                assert list(await room.free_bytes()) == ["journal"]
            assert asked.count(settings.lake) == 1
        finally:
            away.set()
        while list(await room.free_bytes()) != ["journal", "lake"]:
            await asyncio.sleep(0.01)
        before = asked.count(settings.lake)
        await room.free_bytes()
        assert asked.count(settings.lake) == before + 1

    monkeypatch.setattr(shutil, "disk_usage", hanging)
    monkeypatch.setattr(room_module, "PATIENCE_SECONDS", 0.5)
    asyncio.run(scene())
