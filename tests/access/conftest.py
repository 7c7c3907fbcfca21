"""Ray Serve, imported once: what it has to say about its own models is no matter of these tests."""

from __future__ import annotations

import importlib
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("ray.serve")
