"""The secret by which a platform knows whom it erased."""

from __future__ import annotations

import msgspec

from rebu_ray.settings import Settings
from rebu_ray.store.tombstones import secret_of


def with_secret(settings: Settings) -> Settings:
    """The settings with the secret in them, which is made in the data dir where there is none yet.

    Actors may be on a node without the data dir, and are made anew on another one: they are given these.
    """
    secret = settings.erasure_secret or secret_of(settings.data_dir).decode()
    return msgspec.structs.replace(settings, erasure_secret=secret)
