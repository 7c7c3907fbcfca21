"""The application, which writes rides to a database of its own while the platform pulls from it."""

from __future__ import annotations

import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rebu_ray.simulate.tables import TABLES
from tests.system.running import Running, await_true, path_of

USERS: Final = 5
PAUSE_S: Final = 0.25


class Application:
    """Commits a ride now and then, and its end with the next one."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self._path = path
        self.rides: dict[str, str] = {}
        """Ride -> its user, of what is committed."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        with sqlite3.connect(path) as connection:
            for name, columns in TABLES.items():
                connection.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
        connection.close()

    def __enter__(self) -> Application:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(60)

    def check(self, platform: Running) -> None:
        """Every committed ride is served, once, as it was committed last."""
        for user in sorted(set(self.rides.values())):
            theirs = {ride for ride, owner in self.rides.items() if owner == user}

            def served(user: str = user, theirs: set[str] = theirs) -> bool:
                found = [
                    (ride["ride_id"], ride["status"])
                    for ride in platform._list(f"{path_of(user)}/rides", {"limit": 1000})
                ]
                return sorted(found) == sorted((ride, "completed") for ride in theirs)

            await_true(served, f"the {len(theirs)} rides of {user} in the database to be served, once each")

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30)
        number = 0
        while not self._done.wait(PAUSE_S):
            ride, user = f"db-r{number}", f"db-u{number % USERS}"
            for status in ("requested", "completed"):
                now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
                connection.execute(
                    "INSERT OR REPLACE INTO rides (ride_id, user_id, status, requested_at, updated_at) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (ride, user, status, now, now),
                )
                time.sleep(0.01)
            self.rides[ride] = user
            number += 1
        connection.close()
