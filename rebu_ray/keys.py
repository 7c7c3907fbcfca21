"""The API keys: what each may do, how one is presented, how they are compared, and how they change."""

from __future__ import annotations

import base64
import hmac
import logging
import math
import os
import secrets
import time
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from rebu_ray.records import BadRequest

log = logging.getLogger("rebu.keys")

LOOK_SECONDS: Final = 1.0
"""How often the file of the keys is looked at by those who serve."""


class KeysError(Exception):
    """Keys cannot be read or changed so; the message says what to do."""


class Scope(StrEnum):
    """What a request wants to do."""

    WRITE = "write"
    READ = "read"
    ADMIN = "admin"


class Further(msgspec.Struct, frozen=True):
    """A key besides the three: of one client alone, or one that was in force before."""

    name: str
    key: str
    scopes: tuple[Scope, ...]
    until: int | None = None
    """Known no more from then on (ms); None: for good."""


class Keys(msgspec.Struct, frozen=True):
    """The keys of one platform. The admin key does everything; the others only what they are named for."""

    write: str
    read: str
    admin: str
    further: tuple[Further, ...] = ()

    def check(self, presented: str | None, scope: Scope) -> None:
        """Raises BadRequest 401 for a missing or unknown key, 403 for one that may not do this."""
        self.holder(presented, scope, time.time_ns() // 1_000_000)

    def holder(self, presented: str | None, scope: Scope, now: int) -> str:
        """The name of the key that was presented. Raises as `check` does; `now` is in ms."""
        if not presented:
            raise BadRequest(
                401, "unauthorized", "send a key: Authorization: Bearer KEY, or Basic with the key as user name"
            )
        given = presented.encode("utf-8", "surrogateescape")
        may: set[Scope] = set()
        name = ""
        for found in self.standing(now):
            # Every key is compared, so that the time tells nothing of which it was.
            if hmac.compare_digest(given, found.key.encode()):
                name = name or found.name
                may.update(found.scopes)
        if scope in may or Scope.ADMIN in may:
            return name
        if may:
            raise BadRequest(
                403,
                "forbidden",
                f"this key is not for this: use the {scope} key"
                + ("" if scope is Scope.ADMIN else " or the admin key"),
            )
        raise BadRequest(401, "unauthorized", "this key is not known here: `rebu keys` prints the keys of a data dir")

    def standing(self, now: int) -> tuple[Further, ...]:
        """Every key that is good, the three among them. `now` is in ms."""
        return (*_three(self.write, self.read, self.admin), *self._left(now))

    def scopes(self, key: str, now: int) -> tuple[Scope, ...]:
        """What a key may do. `now` is in ms."""
        may = {scope for one in self.standing(now) if one.key == key for scope in one.scopes}
        return tuple(Scope) if Scope.ADMIN in may else tuple(scope for scope in Scope if scope in may)

    def rotated(self, name: str, grace_s: float, now: int) -> Keys:
        """With a new key of that name; the one before is good for so much longer. Raises KeysError. `now` is in ms."""
        left = self._left(now)
        if name in list(Scope):
            scopes: tuple[Scope, ...] = (Scope(name),)
            before = getattr(self, name)
            changed = msgspec.structs.replace(self, **{name: new_key(name)})
        else:
            old = self._named(name)
            scopes, before = old.scopes, old.key
            new = Further(name, new_key("_".join(scopes)), scopes)
            left = tuple(new if one.name == name else one for one in left)
            changed = self
        if grace_s > 0:
            former = Further(f"{name} before {now}", before, scopes, now + round(1000 * grace_s))
            left = (*left, former)
        return msgspec.structs.replace(changed, further=left)

    def added(self, name: str, scopes: tuple[Scope, ...], now: int) -> Keys:
        """With a key more. Raises KeysError for a name that is taken, or empty."""
        if not name.strip() or name in list(Scope) or any(one.name == name for one in self.further):
            raise KeysError(f"there is a key {name!r} already, or its name is empty: choose another name")
        return msgspec.structs.replace(
            self, further=(*self._left(now), Further(name, new_key("_".join(scopes)), scopes))
        )

    def revoked(self, name: str, now: int) -> Keys:
        """Without the key of that name. Raises KeysError where there is none, or it is one of the three."""
        if name in list(Scope):
            raise KeysError(f"the {name} key cannot be missing: rotate it, which makes the one before worthless")
        gone = self._named(name)
        return msgspec.structs.replace(self, further=tuple(one for one in self._left(now) if one.name != gone.name))

    def _left(self, now: int) -> tuple[Further, ...]:
        return tuple(one for one in self.further if one.until is None or now < one.until)

    def _named(self, name: str) -> Further:
        found = next((one for one in self.further if one.name == name), None)
        if found is None:
            known = ", ".join([*Scope, *(one.name for one in self.further)])
            raise KeysError(f"there is no key {name!r}: there are {known}")
        return found


@lru_cache(maxsize=8)
def _three(write: str, read: str, admin: str) -> tuple[Further, ...]:
    """The keys that every platform has, as the others are kept."""
    return tuple(Further(str(own), key, (own,)) for own, key in zip(Scope, (write, read, admin), strict=True))


class LiveKeys(Keys, frozen=True):
    """The keys that those who serve go by: the file's as it is now, and no more requests of each than its rate."""

    watch: Watch | None = None

    @classmethod
    def watched(cls, watch: Watch) -> LiveKeys:
        """Those that somebody looks after."""
        keys = watch.current()
        return cls(keys.write, keys.read, keys.admin, keys.further, watch)

    def holder(self, presented: str | None, scope: Scope, now: int) -> str:
        """As of `Keys`. Raises BadRequest 429 too."""
        if self.watch is None:
            return super().holder(presented, scope, now)
        name = self.watch.current().holder(presented, scope, now)
        self.watch.take(name)
        return name

    def standing(self, now: int) -> tuple[Further, ...]:
        """As of `Keys`."""
        return super().standing(now) if self.watch is None else self.watch.current().standing(now)


class Watch:
    """Looks after the keys of a data dir, and counts what each of them asks for.

    `started` are the keys that the platform was started with: they count where there is no such folder, as on another
    node. `given` are those that win over the file.
    """

    def __init__(
        self,
        data_dir: str,
        started: Keys,
        given: tuple[str, str, str] = ("", "", ""),
        rate: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = _path(data_dir)
        self._given = given
        self._rate = rate
        self._clock = clock
        self._looked_at = -math.inf
        self._seen: tuple[int, int, int] | None = None
        self._keys = started
        self._tokens: dict[str, tuple[float, float]] = {}
        """By name: how many requests the key has left, as of when."""

    def current(self) -> Keys:
        """The keys in the file, at most a second old, or the last that could be read."""
        if self._clock() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._clock()
            self._look()
        return self._keys

    def take(self, name: str) -> None:
        """Count a request. Raises BadRequest 429 where the key of that name has none left."""
        if not self._rate:
            return
        now, most = self._clock(), max(1.0, self._rate)
        left, since = self._tokens.get(name, (most, now))
        left = min(most, left + self._rate * (now - since))
        if left < 1:
            wait = max(1, math.ceil((1 - left) / self._rate))
            self._tokens[name] = (left, now)
            raise BadRequest(
                429, "rate_limited", f"this key may ask {self._rate:g} times a second: send again in {wait} s", wait
            )
        self._tokens[name] = (left - 1, now)

    def _look(self) -> None:
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return
            self._seen = seen
            found = read_keys(self._path, *self._given)
        except FileNotFoundError:
            return
        except (OSError, KeysError) as error:
            log.warning("the keys stay what they were: %s", error)
            return
        if found != self._keys:
            log.info("the keys have changed")
        self._keys = found
        names = {*Scope, *(one.name for one in found.further)}
        self._tokens = {name: left for name, left in self._tokens.items() if name in names}


def presented_key(authorization: str | None) -> str | None:
    """The key in an Authorization header, Bearer or Basic (as user name, or as password where that is empty)."""
    if not authorization:
        return None
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        except ValueError:  # no base64, or no text
            return None
        return user or password
    return None


def new_key(name: str) -> str:
    """A key that nobody guesses."""
    return f"rebu_{name}_{secrets.token_urlsafe(24)}"


def load_keys(data_dir: str, write: str = "", read: str = "", admin: str = "") -> Keys:
    """The keys of a data dir, made at first use (keys.json, mode 600); those given win. Raises KeysError."""
    path = _path(data_dir)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_keys(data_dir, Keys(new_key("write"), new_key("read"), new_key("admin")))
    return read_keys(path, write, read, admin)


def read_keys(path: Path, write: str = "", read: str = "", admin: str = "") -> Keys:
    """The keys in a file; those given win. Raises FileNotFoundError, or KeysError for a file of something else."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Keys)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeysError(
            f"{path} holds no keys ({error}): put it back as it was, or remove it to have new ones"
        ) from error
    return msgspec.structs.replace(kept, write=write or kept.write, read=read or kept.read, admin=admin or kept.admin)


def save_keys(data_dir: str, keys: Keys) -> None:
    """Put keys in the place of those of a data dir, all at once."""
    path = _path(data_dir)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(keys))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _path(data_dir: str) -> Path:
    return Path(data_dir) / "keys.json"
