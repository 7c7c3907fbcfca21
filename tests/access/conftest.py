"""Ray Serve, imported once: what it has to say about its own models is no matter of these tests; and small worlds."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.access.worlds import World
from tests.conftest import Valkey

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("ray.serve")


@pytest.fixture
def world(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closing(World(tmp_path_factory.mktemp("world"), valkey)) as made:
        yield made
